"""The algorithm `fft`: right within rounding, the same bits however it is computed, and where infinities may spread."""

from __future__ import annotations

import contextlib
import functools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from problems import Problem, problems
from registry import empty_caches, only
from test_contractions import CASES, LARGE, contractions

import fastconv as fc
from fastconv.backends.python_threads import Workers
from fastconv.dispatch import backends
from fastconv.planner import fft, fft_costs
from fastconv.planner.fft_passes import Tiling
from fastconv.planner.request import Request

relaxed = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}

#: What tiles and blocks find hard, besides the cases of the contractions.
MORE = {
    "several tiles": Problem(False, 2, (2, 3, 70, 90), (4, 3, 11, 9), {"padding": (5, 4)}),
    "a tile of one row": Problem(False, 1, (2, 3, 3000), (4, 3, 500), {"padding": 250}),
    "a kernel nearly of the map's size": Problem(False, 2, (2, 5, 31, 30), (3, 5, 30, 29)),
    "padding beyond the kernel": Problem(False, 2, (1, 2, 9, 8), (3, 2, 4, 5), {"padding": ((7, 9), (11, 0))}),
    "groups": Problem(False, 2, (2, 6, 40, 33), (9, 2, 7, 13), {"padding": (3, 6), "groups": 3}),
    "depthwise": Problem(False, 2, (2, 7, 40, 33), (7, 1, 13, 13), {"padding": 6, "groups": 7}),
    "depthwise, long": Problem(False, 1, (2, 5, 2000), (5, 1, 301), {"groups": 5}),
    "dilated": Problem(False, 2, (1, 3, 50, 41), (2, 3, 5, 4), {"padding": (9, 3), "dilation": (4, 3)}),
    "transposed": Problem(True, 2, (2, 4, 30, 20), (4, 3, 9, 12), {"padding": (4, 2)}),
    "transposed, one axis": Problem(True, 1, (2, 4, 900), (4, 2, 200), {"padding": 3, "groups": 2}),
    "many channels": Problem(False, 2, (1, 33, 19, 19), (37, 33, 7, 7), {"padding": 3}),
}  # fmt: skip


def applies(problem: Problem, target="small") -> bool:
    request = Request.of(backends.loaded("numpy"), problem.geometry.lifted(), target, 4, 1)
    return fft.applies(request) is None


def all_apply(problem: Problem) -> bool:
    return all(applies(problem, target) for target in ("small", "large", "weight"))


@contextlib.contextmanager
def by_numpy():
    """A context in which the kernels run whose transforms are NumPy's; `test_fft_tiles` is about the others."""
    with only("fft", "fft_windows"), fc.use_algorithm("fft"):
        yield


#: All cases to which it applies.
ALL = {
    name: problem
    for name, problem in (MORE | CASES | LARGE).items()
    if problem.geometry.padding_mode == "zeros" and all_apply(problem)
}
#: The rms error of float32, at most, over that of `direct`.
OF_DIRECT = 3


def norm(array):
    return math.sqrt(np.sum(np.square(array, dtype=np.float64)))


@functools.cache
def known(problem: Problem):
    """The contractions in float64, by `direct`, which is checked against the definition; once for all engines."""
    x, w, _, dy = (array.astype(np.float64) for array in problem.arrays("normal", np.float32))
    with fc.use_algorithm("direct"):
        return contractions(problem, x, w, dy)


def assert_right(problem: Problem, dtype) -> None:
    """By the bound of a transform: |error| <= c u log2(n) |x| |w|, with the norms of both factors. Source: N. Higham,
    Accuracy and Stability of Numerical Algorithms, 2nd edition, chapter 24."""
    x, w, _, dy = (array.astype(dtype) for array in problem.arrays("normal", np.float32))
    exact = known(problem)
    small, large = (x, dy) if problem.transposed else (dy, x)
    factors = {"small": (large, w), "large": (small, w), "weight": (large, small)}
    unit = 8 * np.finfo(dtype).eps * math.log2(2 * x.size)
    with by_numpy():
        for target, ours in contractions(problem, x, w, dy).items():
            first, second = factors[target]
            assert ours.dtype == dtype
            assert ours.shape == exact[target].shape
            assert np.abs(ours - exact[target]).max() <= unit * norm(first) * norm(second), target


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", ALL)
def test_every_contraction_is_right_within_rounding(name, dtype):
    for backend in fc.available_backends():
        with fc.use_backend(backend):
            assert_right(ALL[name], dtype)


@settings(max_examples=40, **relaxed)
@given(problems(modes=("zeros",)))
def test_drawn(problem):
    if all(axis.stride == 1 for axis in problem.geometry.axes) and all_apply(problem):
        for backend in fc.available_backends():
            with fc.use_backend(backend):
                assert_right(problem, np.float32)


@pytest.mark.parametrize("bytes_of_spectra", [5_000, 50_000, 500_000])
@pytest.mark.parametrize("name", MORE)
def test_any_blocks_are_right(name, bytes_of_spectra, monkeypatch):
    """As small as can be, and with several groups, results or tiles each."""
    fc.set_num_threads(1)
    monkeypatch.setattr(fft, "COSTS", fft_costs.COSTS._replace(spectra_bytes=bytes_of_spectra))
    fft._plan_of.cache_clear()
    empty_caches(monkeypatch)
    try:
        assert_right(MORE[name], np.float64)
    finally:
        fft._plan_of.cache_clear()


def test_blocks_of_every_kind_are_tested():
    """Groups, results, tile rows and columns, and images are cut into blocks by the test above."""
    cut = set()
    costs = fft_costs.COSTS
    for problem in MORE.values():
        for target in ("small", "large", "weight"):
            extents = fft._extents(Request.of(backends.loaded("numpy"), problem.geometry.lifted(), target, 8, 1))
            for size in (5_000, 50_000, 500_000):
                fft.COSTS = costs._replace(spectra_bytes=size)
                blocks = fft._plan_of.__wrapped__(extents)[0]
                cut |= {"groups"} if 1 < blocks.groups < extents.groups else set()
                cut |= {"results"} if 1 < blocks.results < extents.results else set()
                cut |= {"rows"} if 1 < blocks.tile_rows < blocks.rows.tiles else set()
                cut |= {"cols"} if 1 < blocks.tile_cols < blocks.cols.tiles else set()
                cut |= {"images"} if target == "weight" and blocks.images < extents.images else set()
    fft.COSTS = costs
    assert cut == {"groups", "results", "rows", "cols", "images"}


@pytest.mark.parametrize("taps", [(11, 11), (31, 31), (1, 1001)], ids=str)
def test_the_error_is_that_of_direct(taps):
    """On inputs as behind a ReLU, in float32."""
    fc.set_num_threads(1)
    rng = np.random.default_rng(0)
    extents = (48, 48) if taps[0] > 1 else (1, 2048)
    x, w = np.maximum(rng.standard_normal((1, 4, *extents), "f"), 0), rng.standard_normal((4, 4, *taps), "f")
    how = {"padding": tuple(size // 2 for size in taps)}
    dy = rng.standard_normal(fc.conv2d(x, w, **how).shape, "f")

    def computed(algorithm, *arrays):
        x, w, dy = arrays
        with fc.use_algorithm(algorithm):
            return (
                fc.conv2d(x, w, **how),
                fc.grad.conv2d_input(x.shape, w, dy, **how),
                fc.grad.conv2d_weight(x, w.shape, dy, **how),
            )

    exact = computed("direct", *(array.astype("d") for array in (x, w, dy)))
    for backend in fc.available_backends():
        with fc.use_backend(backend):
            with by_numpy():
                found = computed("fft", x, w, dy)
            direct = computed("direct", x, w, dy)
        for ours, theirs, right in zip(found, direct, exact, strict=True):
            # NumPy's engine adds in blocks, with smaller errors than those of one chain
            assert norm(ours - right) <= OF_DIRECT * max(norm(theirs - right), 1e-7 * norm(right)), backend


def results(problem, x, w, dy, threads=1):
    fc.set_num_threads(threads)
    with by_numpy():
        return [found.tobytes() for found in contractions(problem, x, w, dy).values()]


@pytest.mark.parametrize("name", MORE)
def test_the_bits_do_not_depend_on_threads(name):
    x, w, _, dy = MORE[name].arrays("normal", np.float32)
    by_threads = {}
    for backend in fc.available_backends():
        with fc.use_backend(backend):
            by_threads |= {(backend, threads): results(MORE[name], x, w, dy, threads) for threads in (1, 2, 3)}
    assert all(found == by_threads["numpy", 1] for found in by_threads.values())


@pytest.mark.parametrize("name", MORE)
def test_an_image_has_the_same_bits_alone(name):
    """And maps of any strides have those of maps in C order."""
    problem = MORE[name]
    x, w, bias, _ = problem.arrays("normal", np.float32)
    x = np.concatenate([x, x[:1]])
    with by_numpy():
        together = problem.forward(x, w, bias)
        for image in range(len(x)):
            np.testing.assert_array_equal(problem.forward(x[image : image + 1], w, bias), together[image : image + 1])
        strided = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
        out = np.moveaxis(np.empty_like(np.moveaxis(together, 1, -1), order="C"), -1, 1)
        assert problem.forward(strided, w, bias, out=out) is out
        np.testing.assert_array_equal(out, together)


def test_a_nan_stays_in_the_tiles_that_read_it(engine):
    """And in its image; one of the weight in its result."""
    problem = MORE["several tiles"]
    x, w, _, dy = problem.arrays("normal", np.float32)
    extents = fft._extents(Request.of(backends.loaded(engine[0]), problem.geometry, "small", 4, 1))
    rows = fft._plan_of(extents)[0].rows
    assert isinstance(rows, Tiling)
    assert rows.tiles > 1
    with by_numpy():
        right = problem.forward(x, w)
        odd = x.copy()
        odd[0, 1, 0, 0] = np.inf
        found = problem.forward(odd, w)
        assert not np.isfinite(found[0, :, :6, :5]).any()  # by definition
        first_unread = rows.outputs
        np.testing.assert_array_equal(found[0, :, first_unread:], right[0, :, first_unread:])
        np.testing.assert_array_equal(found[1], right[1])
        odd = w.copy()
        odd[2, 1, 3, 3] = np.nan
        found = problem.forward(x, odd)
        assert np.isnan(found[:, 2]).all()
        np.testing.assert_array_equal(np.delete(found, 2, 1), np.delete(right, 2, 1))
        odd = dy.copy()
        odd[1, 0, 9, 9] = np.nan
        found, right = (problem.gradient("weight", x, w.shape, each) for each in (odd, dy))
        assert np.isnan(found[0]).all()
        np.testing.assert_array_equal(found[1:], right[1:])


def test_what_it_declines_it_names():
    x, w = np.ones((1, 2, 20, 20), "f"), np.ones((2, 2, 3, 3), "f")
    for backend in fc.available_backends():
        with fc.use_backend(backend), fc.use_algorithm("fft"):
            with pytest.raises(fc.ArgumentError, match="the stride is not 1"):
                fc.conv2d(x, w, stride=2)
            with pytest.raises(fc.ArgumentError, match="computed by direct alone"):
                fc.conv2d(x.astype(int), w.astype(int), backend="numpy")
            with pytest.raises(fc.ArgumentError, match="spans more than"):
                fc.conv2d(x, w, dilation=2**15, padding=2**16)
            assert fc.conv2d(x, w).dtype == np.float32


def test_auto_takes_it_where_kernels_are_long_and_for_no_integers():
    for backend in fc.available_backends():
        with fc.use_backend(backend):
            assert fc.explain("conv1d", (1, 16, 16000), (16, 16, 1000), dtype="float32").algorithm == "fft"
            assert fc.explain("conv2d", (1, 64, 56, 56), (64, 64, 3, 3), padding=1, dtype="float32").algorithm != "fft"
    x, w = np.arange(4096).reshape(1, 4096), np.ones((1, 1, 1024), int)
    np.testing.assert_array_equal(fc.conv1d(x, w, backend="numpy")[0, 0], x[0, :1024].sum())


def test_a_plan_gives_the_bits_of_a_call():
    problem = MORE["a tile of one row"]
    x, w, bias, _ = problem.arrays("normal", np.float32)
    plan = fc.plan_conv1d(w, bias, algorithm="fft", **problem.parameters)
    expected = problem.forward(x, w, bias, algorithm="fft")
    np.testing.assert_array_equal(plan(x), expected)
    plan = fc.plan_conv1d(w, bias, algorithm="fft", activation="relu", **problem.parameters)
    np.testing.assert_array_equal(plan(x), np.maximum(expected, 0))


def test_workspace_is_bounded():
    """However large the problem is."""
    shapes = [
        ("conv2d", (64, 512, 256, 256), (512, 512, 31, 31)),
        ("conv1d", (1, 64, 10_000_000), (64, 64, 4000)),
        ("conv2d", (1, 1024, 64, 64), (1024, 1, 31, 31)),
    ]
    for operation, x, w in shapes:
        for which in ("", "_input", "_weight"):
            groups = x[1] // w[1]
            why = fc.explain(operation + which, x, w, groups=groups, algorithm="fft", dtype="float32")
            assert why.workspace < 2**27


@pytest.mark.parametrize("name", ["several tiles", "a tile of one row"])
def test_all_threads_flush_denormal_numbers(name):
    """In the mode of the thread that calls: the bits are those of one thread."""
    x, w, _, dy = (array * np.float32(1e-21) for array in MORE[name].arrays("normal", np.float32))
    exact = results(MORE[name], x, w, dy, 2)
    fc.set_flush_denormal(True)
    for backend in fc.available_backends():
        with fc.use_backend(backend):
            flushed = [results(MORE[name], x, w, dy, threads) for threads in (1, 2)]
        assert flushed[0] == flushed[1] != exact


def test_an_error_on_another_thread_is_raised():
    """After all threads have ended, as they use the caller's arrays."""
    done = []

    def work(part):
        if part.start == 0:
            raise MemoryError("none left")
        done.append(part)

    with pytest.raises(MemoryError, match="none left"):
        Workers(2).share(work, 10)
    assert done == [slice(5, 10)]
    Workers(2).share(done.append, 10)
    assert sorted((part.start, part.stop) for part in done) == [(0, 5), (5, 10), (5, 10)]
