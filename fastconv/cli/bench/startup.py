"""`bench --startup`: import, first call and installed size, the times each measured in fresh processes."""

from __future__ import annotations

import compileall
import importlib.metadata
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from fastconv.cli.bench.worker import said_by
from fastconv.dispatch import backends
from fastconv.problem.extras import require

_REPEATS = 5
_PACKAGE = Path(str(resources.files("fastconv")))

_CALL = (
    "import time; start = time.perf_counter(); {imports}; imported = time.perf_counter(); {prepare}; "
    "begin = time.perf_counter(); {call}; done = time.perf_counter(); "
    "print(imported - start, done - begin)"
)
_ARRAYS = "x = numpy.ones((1, 64, 56, 56), 'f'); w = numpy.ones((64, 64, 3, 3), 'f')"
#: Import, preparation and first call of each contender. NumPy is loaded first: it is everybody's.
_PROGRAMS = {
    "torch": ("import torch", f"{_ARRAYS}; x, w = torch.from_numpy(x), torch.from_numpy(w)", "torch.conv2d(x, w)"),
}
_OURS = ("import fastconv", _ARRAYS, "fastconv.conv2d(x, w, backend='{name}')")


def is_known(name: str) -> bool:
    """Whether this contender can be measured: our engines and PyTorch can."""
    return name in _PROGRAMS or name in backends.backend_reasons()


def measure(name: str) -> tuple[float, float, float]:
    """Median seconds of the import beyond NumPy's, of a first call with an empty cache, and with a filled one."""
    imports, prepare, call = _PROGRAMS.get(name, _OURS)
    # as pip does when it installs a wheel; an editable installation has no compiled Python before its first import, and
    # never one where PYTHONDONTWRITEBYTECODE is set
    compileall.compile_dir(_PACKAGE, quiet=2)
    program = "import numpy; " + _CALL.format(imports=imports, prepare=prepare, call=call.format(name=name))
    colds, runs = [], []
    for _ in range(_REPEATS):
        with tempfile.TemporaryDirectory() as cache:
            colds.append(_run(program, cache)[1])
    with tempfile.TemporaryDirectory() as cache:
        _run(program, cache)
        runs = [_run(program, cache) for _ in range(_REPEATS)]
    imported, warm = (statistics.median(values) for values in zip(*runs, strict=True))
    return imported, statistics.median(colds), warm


def _run(program: str, cache: str) -> tuple[float, float]:
    """The two figures that the program prints in a fresh process with this cache directory."""
    environment = os.environ | {"FASTCONV_CACHE_DIR": cache, "NUMBA_CACHE_DIR": cache, "XDG_CACHE_HOME": cache}
    imported, called = map(float, said_by("--startup", [sys.executable, "-c", program], environment).split())
    return imported, called


def installed_bytes(distribution: str) -> dict[str, int]:
    """Bytes on disk of an installed distribution and of all that it requires, directly or not, without extras."""
    packaging = require("packaging.requirements", "bench", "bench --startup")
    sizes: dict[str, int] = {}
    waiting = [distribution]
    while waiting:
        name = waiting.pop()
        if name in sizes:
            continue
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        sizes[name] = sum(path.stat().st_size for path in _files(name, found) if path.is_file())
        for line in found.requires or ():
            requirement = packaging.Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(re.sub(r"[-_.]+", "-", requirement.name).lower())
    return sizes


def _files(name: str, found: importlib.metadata.Distribution) -> Iterable[Path]:
    """A distribution's files without .pyc; for fastconv, which may be an editable install, the package's folder."""
    paths: Iterable[Path] = (Path(str(found.locate_file(file))) for file in found.files or ())
    if name == "fastconv":
        paths = _PACKAGE.rglob("*")
    return (path for path in paths if path.suffix != ".pyc")


def table(names: list[str]) -> str:
    """A line for each contender, and the installed sizes."""
    lines = [f"{'':<14}{'import':>10}{'first call, cold':>20}{'first call, warm':>20}   ms, import beyond NumPy's"]
    for name in names:
        cells = [1000 * seconds for seconds in measure(name)]
        lines.append(f"{name:<14}{cells[0]:>10.0f}{cells[1]:>20.1f}{cells[2]:>20.1f}")
    lines.append("\nInstalled, MB")
    for name in ("fastconv", *(name for name in names if name in _PROGRAMS)):
        sizes = installed_bytes(name)
        parts = ", ".join(f"{part} {size / 1e6:.1f}" for part, size in sorted(sizes.items(), key=lambda item: -item[1]))
        lines.append(f"{name:<14}{sum(sizes.values()) / 1e6:>10.1f}   {parts}")
    return "\n".join(lines)
