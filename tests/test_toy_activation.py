"""What a new activation costs: a primitive on two engines, its declaration, and a row in the store; under 30 lines.

The lines are added to a copy of the sources, in which the compiled module is built anew.
"""

from __future__ import annotations

import inspect
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap

import pytest
from scripts import python

from fastconv.kernels import arguments, store
from fastconv.kernels.arguments import Out
from fastconv.kernels.drivers import PASSES, structure_of

ROOT = pathlib.Path(__file__).parents[1]

#: What is added: for each file the line before which it goes, and the text.
ACTIVATION = [
    (
        "fastconv/kernels/primitives.py",
        "def load(",
        '''
def leak(value: Element) -> Element:
    """The value, or half of it where it is negative."""
    raise NotImplementedError


''',
    ),
    ("fastconv/kernels/store.py", "    load,", "    leak,\n"),
    ("fastconv/kernels/store.py", "    return value\n", "    if activation == 1:\n        return leak(value)\n"),
    (
        "_cython/primitives.h",
        "WORD void NAME(splat)",
        "WORD ELEMENT NAME(leak)(ELEMENT value) { return value < 0 ? value / 2 : value; }\n",
    ),
    ("fastconv/backends/numba/primitives.py", '        "load": word.load', '        "leak": _leak(size),\n'),
    (
        "fastconv/backends/numba/primitives.py",
        "def _along(",
        """
def _leak(size: int) -> Any:
    half, nothing = ELEMENT[size](0.5), operations(size).zero

    @inline(size, ELEMENT[size])
    def leak(value):
        return value * half if value < nothing else value

    return leak


""",
    ),
]

#: Computes every problem by every kernel that applies to it. The sums are those of a window engine, which knows no
#: activation.
COMPUTE = """
    import sys
    import numpy as np
    import fastconv as fc
    from fastconv.dispatch import backends
    from fastconv.planner import registry
    from fastconv.problem.subpixel import writing_large
    from test_registry import ALL, able, arrays_of, request_of

    engine, root = sys.argv[1:]
    assert fc.__file__.startswith(root) and engine in fc.available_backends()

    def made(engine, kernel, request, factors, bias, shape):
        out = np.full(shape, np.nan, np.float32)
        with registry.only(kernel):
            choice = registry.choose(request)
        choice.prepared(backends.loaded(engine))(*factors, bias, out)
        return choice, out

    #: These write no pixels of no phase, unless their plans say so: such pixels have the bias before.
    BY_PHASES = ("pixel_lanes", "interleaved_phases")
    seen = set()
    for name, problem in ALL.items():
        for target in ("small", "large"):
            request = request_of(engine, problem, target)
            factors, shape = arrays_of(request, "integers")
            bias = (np.arange(shape[1]) % 7 - 3).astype(np.float32)
            _, sums = made("numpy", "im2col", request_of("numpy", problem, target), factors, bias, shape)
            for kernel in able(request):
                if kernel == "matmul":
                    continue
                choice, found = made(engine, kernel, request, factors, bias, shape)
                expected = np.where(sums < 0, sums / 2, sums)
                plans = choice.proposal.plans()
                fills_gaps = plans and (kernel not in BY_PHASES or all(plan.fills_gaps for plan in plans))
                if target == "large" and not fills_gaps:
                    is_gap = np.ones(shape[2:], bool)
                    for phase in writing_large(request.geometry):
                        is_gap[phase.out_slices] = False
                    expected = np.where(is_gap, bias[:, None, None], expected)
                np.testing.assert_array_equal(found, expected, err_msg=f"{name}, {target}, {kernel}")
                seen.add(kernel)
    print(*sorted(seen))
"""


def test_it_has_less_than_30_lines():
    assert sum(len(text.strip().splitlines()) for _, _, text in ACTIVATION) < 30


def reached(function):
    """The functions that a driver calls, itself or by others."""
    called = [function.__globals__.get(name) for name in function.__code__.co_names]
    return {function}.union(*(reached(one) for one in called if inspect.isfunction(one)))


@pytest.mark.parametrize("driver", PASSES, ids=lambda driver: driver.__name__)
def test_every_pass_that_makes_a_map_calls_the_epilogue(driver):
    makes_map = Out in arguments.fields(structure_of(driver)).values()
    assert (store.epilogue in reached(driver)) is makes_map
    assert makes_map is ("grad" not in driver.__name__)


def inserted(root, file, before, text):
    """Add text to a file, before the one line that begins so."""
    path = root / file
    whole = path.read_text()
    assert whole.count(f"\n{before}") == 1, f"{file} has no line, or several, that begin with {before}"
    path.write_text(whole.replace(f"\n{before}", f"\n{text}{before}"))


@pytest.fixture(scope="module")
def with_activation(tmp_path_factory):
    """Where a copy of the sources is that has the activation, which every plan asks for."""
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    root = tmp_path_factory.mktemp("activation")
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
    for folder in ("fastconv", "_cython", "bench/shapes"):
        shutil.copytree(ROOT / folder, root / folder, ignore=ignored)
    for file in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, root)
    for addition in ACTIVATION:
        inserted(root, *addition)
    structures = root / "fastconv" / "kernels" / "arguments.py"
    text = structures.read_text()
    assert "    activation: int = 0\n" in text
    structures.write_text(text.replace("    activation: int = 0\n", "    activation: int = 1\n"))
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=root, timeout=600, capture_output=True,
        text=True, check=False, env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    return root


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="the sources are not here")
@pytest.mark.parametrize("engine", ["cython", "numba"])
def test_every_kernel_applies_it_once_to_every_sum(with_activation, engine):
    """A half of a half would show. Pixels of no phase get it where a pass writes them."""
    pytest.importorskip("numba" if engine == "numba" else "Cython")
    done = python(
        textwrap.dedent(COMPUTE), engine, str(with_activation), timeout=600, PYTHONPATH=str(with_activation),
        FASTCONV_CACHE_DIR=str(with_activation / "cache"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kernels = ["channel_lanes", "depthwise_channelwise", "depthwise_rowwise", "interleaved_phases", "pixel_lanes"]
    assert done.stdout.split() == kernels
