"""Denormal numbers: kept by default, flushed where a person asks for it; the floating-point modes of threads."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import pathlib
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from problems import Problem
from registry import TILED, copied_registry, empty_caches
from test_contractions import CASES, LARGE

import fastconv as fc
from fastconv.backends.contract import float_mode, is_tiled
from fastconv.backends.numpy import NumpyEngine
from fastconv.cli import main
from fastconv.dispatch import backends, denormals

HERE = pathlib.Path(__file__).parent
MODES = [name for name in TILED if float_mode(backends.loaded(name))]
needs_modes = pytest.mark.skipif(not MODES, reason="no engine that sets the processor's mode runs here")
#: A denormal number of each dtype, and two numbers whose product is one.
DENORMAL = {np.float32: 1e-40, np.float64: 1e-310}
FACTORS = {np.float32: (1e-22, 1e-20), np.float64: (1e-160, 1e-153)}
BOTH = [np.float32, np.float64]
#: Of each pass one, and what is beside the passes: the sums of partial sums, a bias, padding that is folded back.
FEW = {
    "many channels": LARGE["many channels"],
    "results": LARGE["groups of eight"],
    "up": LARGE["up, odd"],
    "one pixel": LARGE["to one pixel, long rows"],
    "depthwise": LARGE["depthwise, larger than the map"],
    "small depthwise": LARGE["depthwise with stride"],
    "partial sums": Problem(False, 2, (2, 3, 64, 64), (4, 3, 3, 3), {"padding": 1}),
    "reflect": CASES["reflect"],
    "circular": CASES["circular"],
}

#: Some results are the bias as it is.
GAPS = {"gaps": CASES["gaps alone"]}


@pytest.fixture(autouse=True)
def every_problem_is_large_enough_for_threads(monkeypatch):
    empty_caches(monkeypatch)
    monkeypatch.setattr("fastconv.dispatch.preparation._SERIAL", 0)


def calls(problem, x, w, bias, dy):
    """All that can be computed from a problem's arrays."""
    return {
        "forward": problem.forward(x, w),
        "with bias": problem.forward(x, w, bias),
        "input": problem.gradient("input", x.shape, w, dy),
        "weight": problem.gradient("weight", x, w.shape, dy),
        "bias": problem.gradient("bias", dy),
    }


def mixed(problem, dtype):
    """A problem's arrays of normal numbers, of which the first image and some others are denormal, and those with
    zeros in their place."""
    rng = np.random.default_rng(0)
    given, cleaned = [], []
    for array in problem.arrays("normal", dtype):
        are_denormal = rng.random(array.shape) < 0.3
        if array.ndim > 1:
            are_denormal[0] = True
        given.append(np.where(are_denormal, array * dtype(DENORMAL[dtype]), array))
        cleaned.append(np.where(are_denormal, dtype(0), array))
    return given, cleaned


def assert_same(some, others):
    for name, array in some.items():
        np.testing.assert_array_equal(array, others[name], err_msg=name, strict=True)


def keeps_denormals():
    """Whether this thread does, whatever library computes."""
    return bool(np.full(64, 1e-40, np.float32).sum() > 0)


@contextlib.contextmanager
def in_mode(kept, added):
    """This thread in another floating-point mode."""
    switch = float_mode(backends.loaded(MODES[0])).switch
    before = switch(kept, added)
    try:
        yield
    finally:
        switch(0, before)


def flushing():
    return in_mode(-1, float_mode(backends.loaded(MODES[0])).flush)


@contextlib.contextmanager
def rounding_up():
    """This thread with another rounding, as C's library sets it."""
    libm = ctypes.CDLL(None)
    upward = {"x86_64": 0x800, "aarch64": 0x400000}[os.uname().machine]
    assert libm.fesetround(upward) == 0
    try:
        yield
        assert libm.fegetround() == upward
    finally:
        libm.fesetround(0)


@pytest.mark.parametrize("dtype", BOTH)
def test_they_are_exact_by_default(engine, dtype):
    """Small integers times the least number of all: every sum is a denormal number, and exact."""
    unit = np.finfo(dtype).smallest_subnormal
    for problem in FEW.values():
        x, w, bias, dy = problem.arrays("integers", dtype)
        expected = calls(problem, x, w, bias, dy)
        found = calls(problem, x * unit, w, bias * unit, dy * unit)
        found["weight"] = problem.gradient("weight", x * unit, w.shape, dy)
        assert_same(found, {which: array * unit for which, array in expected.items()})
    assert not fc.get_flush_denormal()


@pytest.mark.parametrize(
    "problems", [FEW | GAPS, pytest.param(CASES | LARGE, marks=pytest.mark.slow)], ids=["few", "all"]
)
@pytest.mark.parametrize("dtype", BOTH)
def test_flushed_operands_are_zeros(engine, problems, dtype):
    for problem in problems.values():
        given, cleaned = mixed(problem, dtype)
        expected = calls(problem, *cleaned)
        fc.set_flush_denormal(True)
        found = calls(problem, *given)
        fc.set_flush_denormal(False)
        assert_same(found, expected)
        assert keeps_denormals()


@pytest.mark.parametrize("dtype", BOTH)
def test_flushed_results_are_zeros(engine, dtype):
    """Of numbers that are none themselves; on any number of threads."""
    one, other = FACTORS[dtype]
    for problem in FEW.values():
        x, w, bias, dy = problem.arrays("normal", dtype)
        arrays = x * one, w * other, bias * dtype(DENORMAL[dtype]), dy * other
        fc.set_flush_denormal(True)
        for number in (1, 2):
            fc.set_num_threads(number)
            found = calls(problem, *arrays)
            found["input"] = problem.gradient("input", x.shape, arrays[1], dy * one)
            del found["bias"]
            assert not any(array.any() for array in found.values())
        fc.set_flush_denormal(False)
        assert all(array.any() for name, array in calls(problem, *arrays).items() if name != "input")


def test_flushed_complex_and_half(engine):
    """Complex numbers have two parts; what is denormal in float16 is a number like others in float32, where it is
    computed; integers are none."""
    x, w = (
        np.array([[[3 + 1e-40j, 1e-40 + 2j, 1e-40 - 1e-40j]]], np.complex64),
        np.full((1, 1, 1), 1 + 1e-40j, np.complex64),
    )
    fc.set_flush_denormal(True)
    if is_tiled(backends.loaded(engine[0])):
        with pytest.raises(fc.DTypeError):
            fc.conv1d(x, w)
    else:
        np.testing.assert_array_equal(fc.conv1d(x, w), [[[3, 2j, 0]]])
        np.testing.assert_array_equal(fc.conv1d(np.array([[[1, 2]]]), np.array([[[3]]])), [[[3, 6]]])
    half = np.full((1, 1, 3), np.finfo(np.float16).smallest_subnormal)
    np.testing.assert_array_equal(fc.conv1d(half, np.ones((1, 1, 1), np.float16)), half, strict=True)


def test_flushed_the_rest_is_as_it_was(engine):
    """Infinities, NaNs, negative zeros, arrays of any strides, and `out`; the arrays given are not written."""
    x = np.array([[[np.inf, -np.inf, np.nan, -0.0, 1e-310, -1e-310, 5.0, 2.0**-1022]]])[..., ::-1]
    before = x.copy()
    fc.set_flush_denormal(True)
    out = np.full(x.shape[::-1], 7.0).T
    assert fc.conv1d(x, np.ones((1, 1, 1)), out=out) is out
    np.testing.assert_array_equal(out, np.where(np.abs(x) < 2.0**-1022, 0, x))
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("mode", [flushing, rounding_up], ids=["flushing", "rounding up"])
@needs_modes
def test_a_callers_own_mode_holds_on_all_threads_or_on_none(engine, mode):
    for problem, dtype in zip(FEW.values(), itertools.cycle(BOTH), strict=False):
        given, cleaned = mixed(problem, dtype)
        one = None
        for number in (1, 2):
            fc.set_num_threads(number)
            usual, flushed = calls(problem, *given), calls(problem, *cleaned)
            with mode():
                found = calls(problem, *given)
                assert keeps_denormals() == (mode is not flushing)
            if float_mode(backends.loaded(engine[0])) is None:
                assert_same(found, usual)
                continue
            assert_same(found, one or found)
            one = found
            if mode is flushing:
                assert_same(found, flushed)
            else:
                pairs = list(zip(found.values(), usual.values(), strict=True))
                assert all((array >= other).all() for array, other in pairs)
                assert any((array > other).any() for array, other in pairs)


@needs_modes
def test_flushing_adds_to_a_callers_own_mode(engine):
    x, w = np.array([[[1.0, 1e-310]]]), np.array([[[1.0]], [[1e-20]]])
    fc.set_flush_denormal(True)
    with rounding_up():
        found = fc.conv1d(x, w, np.array([1e-20, 1.0]))
    is_obeyed = float_mode(backends.loaded(engine[0])) is not None
    np.testing.assert_array_equal(found, [[[1 + is_obeyed * 2.0**-52, 1e-20], [1 + is_obeyed * 2.0**-52, 1.0]]])


def test_a_repeated_call_follows_every_change(engine, monkeypatch):
    """Calls are kept with what they depend on."""
    x, w = np.full((1, 1, 4, 4), 1e-40, np.float32), np.ones((1, 1, 1, 1), np.float32)
    for asked, variable, flushes in (
        (None, None, False), (True, None, True), (None, None, False), (None, "1", True), (False, "1", False),
        (None, "0", False), (True, "0", True), (None, "", False), (None, "TRUE", True), (None, "off", False),
    ) * 2:  # fmt: skip
        assert fc.set_flush_denormal(asked) is True
        monkeypatch.delenv("FASTCONV_FLUSH_DENORMAL", raising=False)
        if variable is not None:
            monkeypatch.setenv("FASTCONV_FLUSH_DENORMAL", variable)
        assert fc.get_flush_denormal() is flushes
        assert (fc.conv2d(x, w) == (0 if flushes else x)).all()
        assert (fc.grad.conv2d_weight(x, w.shape, w + x * 0) == (0 if flushes else x.sum())).all()
        assert (fc.grad.conv2d_bias(x) == (0 if flushes else x.sum())).all()


def test_a_wrong_variable_is_an_error_that_names_it(engine, monkeypatch):
    x, w, out = np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1)), np.zeros((1, 1, 2, 2))
    fc.conv2d(x, w)
    monkeypatch.setenv("FASTCONV_FLUSH_DENORMAL", "maybe")
    for call in (
        fc.get_flush_denormal,
        lambda: fc.conv2d(x, w),
        lambda: fc.conv2d(x, w, out=out),
        lambda: fc.conv2d(x[:0], w),
        lambda: fc.grad.conv2d_bias(x),
        lambda: fc.explain("conv2d", x.shape, w.shape),
    ):
        with pytest.raises(fc.ArgumentError, match="FASTCONV_FLUSH_DENORMAL=maybe"):
            call()
    assert not out.any()
    fc.set_flush_denormal(False)
    fc.conv2d(x, w)


@pytest.mark.parametrize("mode", [1, 0, "1", 1.0, np.ones(2)], ids=str)
def test_a_wrong_mode_is_an_error(mode):
    with pytest.raises(fc.ArgumentError, match="mode must be True, False or None"):
        fc.set_flush_denormal(mode)
    assert not fc.get_flush_denormal()


class Watching(NumpyEngine):
    """An engine of another package. It notes whether its thread keeps denormal numbers, and which it is given."""

    fails = False

    def __init__(self):
        self.kept, self.given = [], []

    def correlate(self, windows, weight, out):
        self.kept.append(keeps_denormals())
        self.given += [float(np.abs(windows).max()), float(weight.max())]
        if self.fails:
            raise MemoryError
        super().correlate(windows, weight, out)


class WatchingTiles:
    """The same, made of one of our tile engines, with passes that know no modes."""

    def __init__(self, name):
        self.engine = backends.loaded(name)
        self.kept, self.given, self.fails = [], [], False
        self.unsupported, self.layout = self.engine.unsupported, self.engine.layout

    def prepared(self, plan, threads):
        run = self.engine.prepared(plan, threads)

        def watched(source, factor, bias, out):
            self.kept.append(keeps_denormals())
            self.given += [float(source.max()), float(factor.max())]
            if self.fails:
                raise MemoryError
            run(source, factor, bias, out)

        return watched


@pytest.mark.parametrize("make", [Watching, *(lambda name=name: WatchingTiles(name) for name in TILED)])
def test_engines_of_others(monkeypatch, make):
    """They know no modes: they are called in the default one, with arrays without denormal numbers if that is asked
    for; the caller's mode is put back, after an error too."""
    monkeypatch.setattr(backends, "_registry", copied_registry())
    engine = make()
    fc.register_backend("theirs", lambda: engine)
    x, w = np.full((1, 1, 9, 9), 1e-40, np.float32), np.ones((1, 1, 3, 3), np.float32)
    for _ in range(2):
        for asked in (False, True):
            fc.set_flush_denormal(asked)
            with flushing() if MODES else contextlib.nullcontext():
                assert keeps_denormals() != bool(MODES)
                found = fc.conv2d(x, w, backend="theirs")
                assert keeps_denormals() != bool(MODES)
            assert engine.given == [0 if asked else x[0, 0, 0, 0], 1]
            assert engine.kept == [True] * len(engine.kept) or "cython" not in TILED
            assert bool(found.any()) != asked
            engine.given.clear()
    engine.fails = True
    with flushing() if MODES else contextlib.nullcontext():
        with pytest.raises(MemoryError):
            fc.conv2d(x, w, backend="theirs")
        assert keeps_denormals() != bool(MODES)
    assert keeps_denormals()


@pytest.mark.parametrize("name", MODES)
def test_the_mode_is_put_back_after_an_error(monkeypatch, name):
    class Failing(WatchingTiles):
        float_mode = float_mode(backends.loaded(name))

    monkeypatch.setattr(backends, "_registry", copied_registry())
    engine = Failing(name)
    fc.register_backend("failing", lambda: engine)
    x, w = np.full((1, 1, 9, 9), 1e-40, np.float32), np.ones((1, 1, 3, 3), np.float32)
    fc.set_flush_denormal(True)
    for engine.fails in (False, True, True):
        with pytest.raises(MemoryError) if engine.fails else contextlib.nullcontext():
            fc.conv2d(x, w, backend="failing")
        assert keeps_denormals()
    assert engine.kept == [False] * 3


@pytest.mark.parametrize("name", MODES)
def test_a_mode_is_of_one_thread(name):
    """What `contract.FloatMode` says of itself."""
    mode = float_mode(backends.loaded(name))
    seen = []
    assert mode.switch(-1, mode.flush) == 0
    other = threading.Thread(target=lambda: seen.extend([mode.switch(0, 0), keeps_denormals()]))
    assert not keeps_denormals()
    assert mode.switch(0, 0) == mode.flush
    other.start()
    other.join()
    assert seen == [0, True]
    assert mode.switch(-1, 0) == 0
    with rounding_up():
        before = mode.switch(0, 0)
        assert mode.switch(0, before) == 0
        assert before & mode.flush == 0 < before
    assert all(float_mode(backends.loaded(other)).flush == mode.flush for other in MODES)


@pytest.mark.parametrize("name", MODES)
def test_threads_that_a_call_starts_are_as_others(name):
    """GCC's threads belong to all libraries of a process: they keep denormal numbers after a call that flushed them,
    even if it was the one that started them."""
    code = (
        "import ctypes, sys, numpy as np, fastconv as fc\n"
        "from test_denormals import keeps_denormals, flushing\n"
        "try: gomp = ctypes.CDLL('libgomp.so.1')\n"
        "except OSError: sys.exit('no libgomp')\n"
        "x, w = np.full((2, 16, 40, 40), 1e-40, 'f'), np.ones((16, 16, 3, 3), 'f')\n"
        f"fc.set_backend('{name}'); fc.set_num_threads(2)\n"
        "with flushing(): assert not fc.conv2d(x, w).any()\n"
        "fc.set_flush_denormal(True); assert not fc.conv2d(x, w).any()\n"
        "seen = []\n"
        "note = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: seen.append(keeps_denormals()))\n"
        "gomp.GOMP_parallel(note, None, 2, 0)\n"
        "assert seen == [True, True], seen\n"
        "fc.set_flush_denormal(False); assert fc.conv2d(x, w).all()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE, timeout=120, capture_output=True, text=True, check=False,
        env={**os.environ, "NUMBA_THREADING_LAYER": "omp"},
    )  # fmt: skip
    if "no libgomp" in done.stderr or ("omp" in done.stderr and "threading layer" in done.stderr):
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", MODES)
def test_calls_at_once_have_each_their_own_mode(name):
    problem = FEW["many channels"]
    x, w, *_ = problem.arrays("normal", np.float32)
    fc.set_backend(name)
    fc.set_num_threads(2)

    def bits(mode):
        with mode():
            return {problem.forward(x, w).tobytes() for _ in range(20)}

    modes = [contextlib.nullcontext, rounding_up] * 2
    alone = [bits(mode) for mode in modes]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(bits, modes)) == alone
    assert alone[0] != alone[1]
    assert all(len(found) == 1 for found in alone)


def test_without_compiled_parts():
    """The NumPy engine alone needs nothing else."""
    code = (
        "import sys; sys.modules['numba'] = sys.modules['fastconv._tiles'] = None\n"
        "import numpy as np, fastconv as fc\n"
        "assert fc.available_backends() == ('numpy',)\n"
        "x, w = np.full((1, 1, 3, 3), 1e-310), np.ones((1, 1, 2, 2))\n"
        "assert fc.conv2d(x, w).all()\n"
        "assert fc.set_flush_denormal(True)\n"
        "assert not fc.conv2d(x, w).any()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE, timeout=60, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


SETS = [(name, found) for name in MODES for found in backends.loaded(name).instruction_sets()[1:]]


@pytest.mark.parametrize(
    ("name", "instructions"),
    # what Numba compiles for another set takes a minute
    [pytest.param(*each, marks=[pytest.mark.slow] * (each[0] == "numba"), id="-".join(each)) for each in SETS],
)
def test_every_instruction_set_flushes(tmp_path, name, instructions):
    code = (
        "import numpy as np, fastconv as fc, test_denormals as tests\n"
        f"fc.set_backend('{name}')\n"
        "fc.set_algorithm('direct')\n"
        "for dtype in tests.BOTH:\n"
        "    tests.test_they_are_exact_by_default(None, dtype)\n"
        "    fc.set_num_threads(2)\n"
        "    for problem in tests.FEW.values():\n"
        "        given, cleaned = tests.mixed(problem, dtype)\n"
        "        expected = tests.calls(problem, *cleaned)\n"
        "        fc.set_flush_denormal(True)\n"
        "        tests.assert_same(tests.calls(problem, *given), expected)\n"
        "        fc.set_flush_denormal(None)\n"
        "    tests.test_flushed_results_are_zeros(None, dtype)\n"
        "    fc.set_flush_denormal(None)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE, timeout=900, capture_output=True, text=True, check=False,
        env={**os.environ, "FASTCONV_ISA": instructions, "FASTCONV_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_torchs_own_setting():
    """Torch sets the calling thread's mode, on which its own results depend before and after ours."""
    torch = pytest.importorskip("torch")
    x, w = np.full((2, 16, 40, 40), 1e-42, "f"), np.ones((16, 16, 3, 3), "f")
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot")
    found, theirs = {}, []
    try:
        for name, number in itertools.product(fc.available_backends(), (1, 2)):
            fc.set_num_threads(number)
            found[name, number] = fc.conv2d(x, w, backend=name)
            theirs.append(torch.full((9,), 1e-42).sum())
    finally:
        torch.set_flush_denormal(False)
    assert {which: bool(array.any()) for which, array in found.items()} == {
        (name, number): name not in MODES for name, number in found
    }
    assert not any(theirs)
    fc.set_flush_denormal(True)
    for name in fc.available_backends():
        assert not fc.conv2d(x, w, backend=name).any()
        assert torch.from_numpy(x).mul(1).all()


def test_it_is_told(capsys, monkeypatch):
    """`info` says what becomes of denormal numbers, and `explain` counts the copies that are made to be without."""

    def told():
        assert main(["info"]) == 0
        return next(line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["denormals"])

    def workspace(name):
        return fc.explain("conv2d", (1, 8, 50, 50), (8, 8, 3, 3), backend=name).workspace

    assert told().split()[1:] == ["kept"]
    before = {name: workspace(name) for name in fc.available_backends()}
    monkeypatch.setenv("FASTCONV_FLUSH_DENORMAL", "1")
    line = told()
    assert line.split()[1] == "flushed"
    assert all(name in line for name in fc.available_backends())
    for name, bytes_before in before.items():
        assert (workspace(name) > bytes_before + 4 * 8 * 50 * 50) == (name not in MODES)
    monkeypatch.setenv("FASTCONV_FLUSH_DENORMAL", "maybe")
    assert "ERROR: FASTCONV_FLUSH_DENORMAL=maybe" in told()
    fc.set_flush_denormal(False)
    assert denormals.token() is False
