"""What a new activation costs: a number, and a row on each engine; under 30 lines.

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
    ("fastconv/kernels/abi.py", "#: (rows, vectors) of the micro-kernels `multiply`", "HALF = 5\n"),
    ("setup.py", '    lines += [f"enum {{', '    numbers += ("HALF",)\n'),
    ("_cython/finish.h", "    case RELU: return y <= 0 ? 0 : y;", "    case HALF: return y < 0 ? y / 2 : y;\n"),
    (
        "_cython/finish.h",
        "    case RELU: return NAME(select)(y <= zero",
        "    case HALF: return NAME(select)(y < zero, y * NAME(broadcast)(0.5), y);\n",
    ),
    ("_cython/finish.h", "        FINISH_BY(RELU)", "        FINISH_BY(HALF)\n"),
    ("fastconv/backends/numba/finish.py", "    abi.RELU: _relu", "    abi.HALF: _half,\n"),
    (
        "fastconv/backends/numba/finish.py",
        "_ACTIVATIONS:",
        """
def _half(code: Code, slopes: Any, slope_step: Any, y: Any) -> Any:
    is_negative = code.builder.fcmp_ordered("<", y, code.zeros)
    half = ir.Constant(code.vector, [0.5] * code.lanes)
    return code.builder.select(is_negative, code.builder.fmul(y, half), y)


""",
    ),
    ("fastconv/dispatch/finish.py", "SLOPED =", 'PLAIN["half"] = abi.HALF\n'),
    ("fastconv/dispatch/finish.py", "    abi.RELU: _relu", "    abi.HALF: _half,\n"),
    (
        "fastconv/dispatch/finish.py",
        "_APPLY =",
        """
def _half(y: Array, _: Array | None) -> None:
    np.multiply(y, 0.5, out=y, where=y < 0)


""",
    ),
]

#: Computes every problem by every kernel that applies to it, as a plan and as a function.
COMPUTE = """
    import sys
    import numpy as np
    import fastconv as fc
    from fastconv.planner import registry
    from registry import able
    from test_registry import ALL, request_of

    engine, root = sys.argv[1:]
    assert fc.__file__.startswith(root) and engine in fc.available_backends()
    seen = set()
    for name, problem in ALL.items():
        x, w, b, _ = problem.arrays("normal", np.float32)
        for kernel in able(request_of(engine, problem, "large" if problem.transposed else "small")):
            with registry.only(kernel):
                plan = getattr(fc, f"plan_{problem.name}")
                y = problem.forward(x, w, b, backend=engine)
                found = plan(w, b, activation="half", backend=engine, **problem.parameters)(x)
            np.testing.assert_array_equal(found, np.where(y < 0, y * np.float32(0.5), y), err_msg=f"{name}, {kernel}")
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
def test_every_pass_that_makes_a_map_finishes_its_sums(driver):
    makes_map = Out in arguments.fields(structure_of(driver)).values()
    assert (store.finish_rows in reached(driver)) is makes_map
    assert makes_map is ("weight" not in driver.__name__ and driver.__name__ != "bias_grad")


def inserted(root, file, before, text):
    """Add text to a file, before the one line that begins so."""
    path = root / file
    whole = path.read_text()
    assert whole.count(f"\n{before}") == 1, f"{file} has no line, or several, that begin with {before}"
    path.write_text(whole.replace(f"\n{before}", f"\n{text}{before}"))


@pytest.fixture(scope="module")
def with_activation(tmp_path_factory):
    """Where a copy of the sources is that has the activation."""
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
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=root, timeout=600, capture_output=True,
        text=True, check=False, env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    return root


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="the sources are not here")
@pytest.mark.parametrize("engine", ["cython", "numba", "numpy"])
def test_every_kernel_applies_it_once_to_every_sum(with_activation, engine):
    """A half of a half would show."""
    if engine != "numpy":
        pytest.importorskip("numba" if engine == "numba" else "Cython")
    done = python(
        textwrap.dedent(COMPUTE), engine, str(with_activation), timeout=600, PYTHONPATH=str(with_activation),
        FASTCONV_CACHE_DIR=str(with_activation / "cache"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    maps = [
        "channel_lanes",
        "depthwise_channelwise",
        "depthwise_rowwise",
        "interleaved_phases",
        "matmul",
        "pixel_lanes",
    ]
    assert done.stdout.split() == (["im2col", "overlap_add"] if engine == "numpy" else maps)
