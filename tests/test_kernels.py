"""What `fastconv.kernels` promises to both engines: the language of drivers, structures, primitives."""

from __future__ import annotations

import inspect
import linecache
import pathlib
import runpy

import numpy as np
import pytest

from fastconv.backends.contract import dtype_of
from fastconv.dispatch import backends
from fastconv.kernels import arguments, primitives, spectra
from fastconv.kernels.drivers import PASSES, structure_of

PRINTER = pathlib.Path(__file__).parent.parent / "_cython" / "printer.py"
needs_sources = pytest.mark.skipif(not PRINTER.exists(), reason="needs the sources")


@pytest.mark.parametrize("driver", PASSES, ids=lambda driver: driver.__name__)
def test_arguments_begin_with_the_header_and_are_integers(driver):
    structure = structure_of(driver)
    names = list(arguments.names(structure))
    assert names[:3] == list(arguments.Header._fields)
    dtype = dtype_of(structure)
    assert dtype.itemsize == 8 * len(names)
    values = np.arange(len(names), dtype=np.int64)
    assert values.view(dtype)["workspace"] == 2


@pytest.mark.parametrize("driver", PASSES, ids=lambda driver: driver.__name__)
def test_every_field_is_documented(driver):
    """Those of `Header` and of the nested structures are described there."""
    structure = structure_of(driver)
    nested = {name for name, kind in arguments.fields(structure).items() if kind is not int}
    for name in set(structure._fields) - set(arguments.Header._fields) - nested:
        assert name in structure.__doc__, f"{structure.__name__}.{name}"


def test_the_numba_engine_brings_every_primitive():
    if backends.backend_reasons()["numba"] is not None:
        pytest.skip("Numba cannot run here")
    from fastconv.backends.numba.primitives import primitives as of_numba

    declared = {
        name
        for module in (primitives, spectra)
        for name, value in vars(module).items()
        if isinstance(value, int) or (inspect.isfunction(value) and value.__module__ == module.__name__)
    }
    assert declared == set(of_numba(4))


WRONG = {
    "a list": ("    values = [1, 2]\n", 4),
    "a power": ("    a = item ** 2\n", 4),
    "a comparison of three": ("    if 0 < item < 3:\n        return\n", 4),
    "a name that is not there": ("    a = nothing\n", 4),
    "both at once": ("    a = item\n    a, b = b, a\n", 5),
    "a loop over something else": ("    for a in tables:\n        return\n", 4),
}


@needs_sources
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_driver_is_refused_with_its_line(wrong):
    printer = runpy.run_path(str(PRINTER))
    body, line = WRONG[wrong]
    source = f'def wrong(tables: Entries, item: int) -> None:\n    """A driver."""\n    b = 0\n{body}'
    scope: dict = {}
    linecache.cache["wrong.py"] = (len(source), None, source.splitlines(keepends=True), "wrong.py")
    exec(compile(source, "wrong.py", "exec"), scope)
    with pytest.raises(SyntaxError, match=rf"wrong\.py:{line}: .* cannot be printed as C"):
        printer["Printer"](primitives, arguments).function(scope["wrong"])
