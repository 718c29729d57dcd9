"""Strides that are long: results, and that neither calls nor plans grow with the number of a stride's positions."""

from __future__ import annotations

import itertools
import os
import pathlib
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import Problem
from registry import TILED, empty_caches

import fastconv as fc
from fastconv.backends.numpy import NumpyEngine
from fastconv.dispatch import backends
from fastconv.planner import blocking, interleaved_phases, pixel_lanes, registry, window_costs
from fastconv.planner.request import Request
from fastconv.problem import reference
from fastconv.problem.subpixel import equivalent_phases, writing_large

#: Problems whose phases are many, or leave gaps, as transposed convolutions, whose input is the small map.
CASES = {
    "patches": Problem(True, 2, (2, 3, 2, 3), (3, 2, 17, 18), {"stride": (17, 18)}),
    "patches, padded": Problem(True, 2, (1, 2, 3, 2), (2, 3, 20, 20), {"stride": 20, "padding": ((3, 0), (1, 5))}),
    "patches that overlap": Problem(True, 2, (1, 2, 3, 3), (2, 2, 30, 27), {"stride": (18, 17), "padding": 4}),
    "patches with gaps": Problem(True, 2, (2, 2, 3, 2), (2, 2, 18, 17), {"stride": (25, 30), "output_padding": 6}),
    "patches of a channel each": Problem(True, 2, (2, 18, 2, 2), (18, 1, 34, 33), {"stride": (34, 33), "groups": 18}),
    "the same, padded": Problem(True, 2, (1, 5, 2, 3), (5, 1, 36, 35), {"stride": 34, "groups": 5, "padding": (3, 1)}),
    "patches in groups": Problem(True, 2, (1, 4, 2, 2), (4, 3, 19, 20), {"stride": (19, 17), "groups": 2}),
    "frames": Problem(True, 1, (2, 9, 7), (9, 1, 1200), {"stride": 300}),
    "frames, padded": Problem(True, 1, (1, 4, 9), (4, 2, 640), {"stride": 270, "padding": ((100, 31),)}),
    "frames, at the end": Problem(True, 1, (1, 3, 5), (3, 2, 400), {"stride": 320, "output_padding": 319}),
    "frames, dilated": Problem(True, 1, (1, 3, 5), (3, 2, 300), {"stride": 280, "dilation": 3, "padding": 77}),
    "a few taps": Problem(True, 1, (2, 5, 20), (5, 3, 3), {"stride": 500}),
    "a tap": Problem(True, 2, (1, 5, 3, 4), (5, 3, 1, 1), {"stride": (40, 50), "output_padding": 7}),
    "one axis": Problem(True, 2, (1, 3, 4, 5), (3, 2, 300, 2), {"stride": (290, 1), "padding": (2, 1)}),
    "the other axis": Problem(True, 2, (1, 3, 5, 3), (3, 2, 2, 300), {"stride": (1, 300), "padding": (0, 4)}),
    "from one pixel": Problem(True, 2, (2, 3, 1, 1), (3, 2, 20, 22), {"padding": (3, 2)}),
}  # fmt: skip

#: Larger ones, which take long where calls or plans grow: (small map, weight, parameters).
LONG = {
    "frames": ((1, 130, 100), (130, 1, 4096), {"stride": 1024}),
    "frames, padded": ((1, 130, 200), (130, 1, 1024), {"stride": 256, "padding": 300}),
    "patches of 256": ((1, 4, 3, 3), (4, 3, 256, 256), {"stride": 256}),
    "patches of 128, padded": ((1, 4, 3, 3), (4, 3, 128, 128), {"stride": 128, "padding": 5}),
    "patches of 100 in 64": ((1, 8, 6, 6), (8, 3, 100, 100), {"stride": 64, "padding": 3}),
    "patches of 100 in 128": ((1, 8, 4, 4), (8, 3, 100, 100), {"stride": 128}),
    "patches of a channel each": ((1, 16, 3, 3), (16, 1, 200, 200), {"stride": 190, "groups": 16}),
    "rows": ((1, 8, 6, 9), (8, 4, 512, 3), {"stride": (512, 1), "padding": (0, 1)}),
    "from one pixel": ((1, 8, 1, 1), (8, 3, 200, 200), {"padding": 3}),
}


def patch_by_patch(problem, small, weight):
    """The large map by its definition: each pixel of the small one, with each tap, adds to one pixel."""
    lifted = problem.geometry.lifted()
    g, (rows, cols) = lifted.groups, lifted.axes
    small = small.reshape(lifted.batch, g, -1, rows.small, cols.small)
    weight = weight.reshape(g, small.shape[2], -1, rows.taps, cols.taps)
    large = np.zeros((lifted.batch, g, weight.shape[2], rows.large, cols.large), small.dtype)
    for p, q in np.ndindex(rows.small, cols.small):
        products = np.einsum("ngk,gkcrs->ngcrs", small[..., p, q], weight)
        h = p * rows.stride - rows.pad_before + rows.dilation * np.arange(rows.taps)
        w = q * cols.stride - cols.pad_before + cols.dilation * np.arange(cols.taps)
        r, s = np.flatnonzero((h >= 0) & (h < rows.large)), np.flatnonzero((w >= 0) & (w < cols.large))
        large[..., h[r][:, None], w[s]] += products[..., r[:, None], s]
    return large.reshape(problem.geometry.large_shape)


def check(problem, bias=False):
    """Small integers bit for bit."""
    x, w, b, dy = problem.arrays("integers", np.float32)
    lifted = problem.geometry.lifted()
    large, small, weight = (
        array.reshape(shape)
        for array, shape in ((dy, lifted.large_shape), (x, lifted.small_shape), (w, lifted.weight_shape))
    )
    expected = patch_by_patch(problem, x, w)
    if bias:
        expected = expected + b.reshape(-1, *(1,) * problem.spatial)
    np.testing.assert_array_equal(problem.forward(x, w, b if bias else None), expected, strict=True)
    to_small = reference.to_small(lifted, large, weight).reshape(x.shape)
    np.testing.assert_array_equal(problem.gradient("input", x.shape, w, dy), to_small)
    to_weight = reference.to_weight(lifted, large, small).reshape(w.shape)
    np.testing.assert_array_equal(problem.gradient("weight", x, w.shape, dy), to_weight)


@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("name", CASES)
def test_cases(engine, name, bias):
    check(CASES[name], bias)


@st.composite
def long_strides(draw):
    spatial = draw(st.sampled_from((1, 2)))
    groups = draw(st.integers(1, 3))
    most = (60, 400)[spatial == 1]
    axes = []
    for _ in range(spatial):
        stride = draw(st.sampled_from((1, most // 3, most // 2 + 1)) if spatial == 2 else st.integers(most // 2, most))
        taps = draw(st.sampled_from((1, 3, stride, stride + stride // 2, max(1, stride - 2), 2 * stride)))
        dilation = draw(st.sampled_from((1, 1, 1, 2, stride)))
        pads = draw(
            st.tuples(st.integers(0, min(taps * dilation // 3, 9)), st.integers(0, min(taps * dilation // 3, 9)))
        )
        axes.append((draw(st.integers(1, 3)), stride, taps, dilation, pads, draw(st.integers(0, stride - 1))))
    small, stride, taps, dilation, padding, more = zip(*axes, strict=True)
    k, c = groups * draw(st.integers(1, 3)), draw(st.integers(1, 3))
    parameters = {"stride": stride, "dilation": dilation, "padding": padding, "groups": groups, "output_padding": more}
    return Problem(True, spatial, (draw(st.integers(1, 2)), k, *small), (k, c, *taps), parameters)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(long_strides())
def test_drawn(engine, problem):
    x, w, _, _ = problem.arrays("integers", np.float32)
    np.testing.assert_array_equal(problem.forward(x, w), patch_by_patch(problem, x, w), strict=True)


@pytest.mark.parametrize("name", CASES)
def test_numpy_in_many_blocks(name, monkeypatch):
    monkeypatch.setattr(window_costs, "WINDOW_COSTS", window_costs.WindowCosts(matrix=1000, height=2))
    with fc.use_backend("numpy"):
        check(CASES[name])


@pytest.mark.parametrize("dtype", [np.int64, np.complex128, np.float16])
def test_other_numbers(dtype):
    problem = CASES["frames, padded"]
    x, w, _, _ = problem.arrays("integers", dtype)
    with fc.use_backend("numpy"):
        result = problem.forward(x, w)
    np.testing.assert_array_equal(result, patch_by_patch(problem, x, w), strict=True)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["patches, padded", "frames, padded", "a few taps", "patches of a channel each"])
def test_nan_and_infinity_reach_what_they_are_linked_to(engine, name, value):
    problem = CASES[name]
    for which in (0, 1):
        arrays = problem.arrays("integers")[:2]
        arrays[which].flat[[0, -1]] = value, -value
        with np.errstate(invalid="ignore"):
            expected = patch_by_patch(problem, *arrays)
        np.testing.assert_array_equal(problem.forward(*arrays), expected)


@pytest.mark.parametrize("name", CASES)
def test_what_out_held_does_not_matter(engine, name):
    problem = CASES[name]
    x, w, _, _ = problem.arrays("normal", np.float32)
    out = np.full(problem.geometry.output_shape, np.nan, np.float32)
    first, again = problem.forward(x, w), problem.forward(x, w)
    problem.forward(x, w, out=out)
    np.testing.assert_array_equal(out, first)
    np.testing.assert_array_equal(again, first)


@pytest.fixture
def anew(monkeypatch):
    """A function that forgets what was worked out, where every problem is large enough for threads."""
    monkeypatch.setattr("fastconv.dispatch.preparation._SERIAL", 0)

    def forget():
        empty_caches(monkeypatch)
        blocking.cheapest_blocking.cache_clear()

    forget()
    yield forget
    blocking.cheapest_blocking.cache_clear()


@pytest.mark.parametrize("backend", TILED)
@pytest.mark.parametrize("name", CASES)
def test_bits_do_not_depend_on_threads_images_or_ways(backend, name, anew, monkeypatch):
    problem = CASES[name]
    x, w, b, _ = problem.arrays("normal", np.float32)
    with fc.use_backend(backend):
        first = problem.forward(x, w, b)
        for threads in (1, 3):
            anew()
            fc.set_num_threads(threads)
            np.testing.assert_array_equal(problem.forward(x, w, b), first)
        np.testing.assert_array_equal(problem.forward(x[:1], w, b), first[:1])
        for limit in ("MANY_PHASES", "MOST_PHASES"):
            monkeypatch.setattr(pixel_lanes, limit, 10**9)
        for kernel in ("pixel_lanes", "interleaved_phases"):
            anew()
            with registry.only(kernel):
                np.testing.assert_array_equal(problem.forward(x, w, b), first)


BETWEEN_PAGES = """
import sys
import numpy as np
import fastconv as fc
from guarded import copied, guarded
from test_long_strides import CASES

for problem in CASES.values():
    x, w, _, _ = problem.arrays("integers", np.float32)
    for at_end in (False, True):
        out = guarded(problem.geometry.output_shape, np.float32, at_end)
        problem.forward(copied(x, at_end), copied(w, at_end), out=out, backend=sys.argv[1])
        assert np.array_equal(out, problem.forward(x, w, backend="numpy"))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
@pytest.mark.parametrize("backend", TILED)
def test_nothing_outside_an_array_is_touched(backend):
    command = [sys.executable, "-c", BETWEEN_PAGES, backend]
    there = [str(pathlib.Path(__file__).parent), str(pathlib.Path(fc.__file__).parent.parent)]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(there)}, timeout=300, check=True)


@pytest.mark.parametrize("backend", TILED)
@pytest.mark.parametrize("name", CASES)
def test_plans_of_many_phases_give_the_same_bits(backend, name):
    """With a lane for each result of those that are alike, and with one for each pixel."""
    problem, engine = CASES[name], backends.in_use(backend)
    x, w, b, _ = problem.arrays("normal", np.float32)
    expected = problem.forward(x, w, b, backend=backend)
    lifted = problem.geometry.lifted()
    request = Request.of(engine, lifted, "large", 4, 2)
    for proposal in (interleaved_phases.propose(request), pixel_lanes.propose_many_phases(request)):
        out = np.empty(lifted.large_shape, np.float32)
        out[...] = b[:, None, None]
        for plan in proposal.plans():
            engine.prepared(plan, 2)(x.reshape(lifted.small_shape), w.reshape(lifted.weight_shape), b, out)
        np.testing.assert_array_equal(out.reshape(expected.shape), expected)


@pytest.mark.parametrize(
    ("small", "weight", "stride", "most"),
    [
        ((1, 40, 100), (40, 1, 1024), 256, 1),
        ((1, 8, 4, 4), (8, 3, 128, 128), 128, 3),
        ((1, 16, 300), (16, 2, 5), 500, 1),
        ((1, 4, 8, 8), (4, 4, 4, 4), 2, 4),
    ],
    ids=["frames", "patches", "gaps", "few phases"],
)
def test_numpy_multiplies_as_often_as_there_are_blocks(small, weight, stride, most, monkeypatch):
    """Not once for each phase, unless they are few."""
    calls = []
    correlate = NumpyEngine.correlate
    monkeypatch.setattr(NumpyEngine, "correlate", lambda *arrays: calls.append(correlate(*arrays)))
    transposed = getattr(fc, f"conv_transpose{len(small) - 2}d")
    transposed(np.ones(small), np.ones(weight), stride=stride, backend="numpy")
    assert len(calls) <= most


@pytest.mark.parametrize("backend", fc.available_backends())
@pytest.mark.parametrize("name", LONG)
def test_plans_do_not_grow_with_the_stride(backend, name, anew):
    """Where a plan for each phase takes seconds, and a hundredth of that is allowed: of each the best of a few."""
    small, weight, parameters = LONG[name]
    problem = Problem(True, len(small) - 2, small, weight, parameters)
    engine = backends.in_use(backend)
    for target in ("small", "large", "weight"):
        found = []
        for _ in range(3):
            anew()
            lifted = problem.geometry.lifted()
            start = time.thread_time()
            choice = registry.choose(Request.of(engine, lifted, target, 4, 2))
            choice.prepared(engine)
            choice.workspace()
            found.append(time.thread_time() - start)
        assert min(found) < 0.05, target


@pytest.mark.parametrize("backend", TILED)
def test_many_phases_are_a_few_plans(backend):
    for small, weight, parameters in LONG.values():
        problem = Problem(True, len(small) - 2, small, weight, parameters)
        request = Request.of(backends.in_use(backend), problem.geometry.lifted(), "large", 4, 2)
        assert sum(len(plan.vector) for plan in registry.choose(request).proposal.plans()) <= 256


@pytest.mark.parametrize("pass_over", ["", "_input"])
@pytest.mark.parametrize("name", LONG)
def test_numpy_takes_no_more_memory_than_is_explained(name, pass_over):
    """And that is bounded, whatever the problem's size."""
    fc.set_memory_limit(0)  # NumPy makes all results, which tracemalloc sees
    small, weight, parameters = LONG[name]
    problem = Problem(True, len(small) - 2, small, weight, parameters)
    x, w, _, dy = problem.arrays("normal", np.float32)
    family = "conv" if pass_over else "conv_transpose"
    shape = dy.shape if pass_over else x.shape
    with fc.use_backend("numpy"):
        explained = fc.explain(f"{family}{problem.spatial}d{pass_over}", shape, weight, **parameters).workspace
        compute = {
            "": lambda: problem.forward(x, w),
            "_input": lambda: getattr(fc.grad, f"conv{problem.spatial}d_input")(dy.shape, w, x, **parameters),
        }[pass_over]
        compute()
        tracemalloc.start()
        result = compute()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak - result.nbytes <= explained + 2**15
    assert explained <= 5 * window_costs.WINDOW_COSTS.matrix * 4


@pytest.mark.slow
def test_numpy_is_about_as_fast_as_a_product_and_overlap_add():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1026, 500), np.float32), rng.standard_normal((1026, 1024), np.float32)

    def by_hand():
        frames, out = (x.T @ w).reshape(500, 4, 256), np.zeros((503, 256), np.float32)
        for part in range(4):
            out[part : part + 500] += frames[:, part]
        return out

    def ours():
        return fc.conv_transpose1d(x, w[:, None], stride=256, backend="numpy")

    def best(function):
        return min(time_of(function) for _ in range(9))

    np.testing.assert_allclose(ours().ravel(), by_hand().ravel(), atol=1e-3)
    assert best(ours) < 3 * best(by_hand)


def time_of(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def test_phases_that_are_alike_are_all_phases():
    """Each line once, with the places and the taps of the kernel that it has by itself."""
    for stride, dilation, taps, before in itertools.product((1, 2, 6, 9), (1, 2, 3, 7), (1, 4, 13), (0, 2, 5)):
        problem = Problem(True, 1, (1, 1, 4), (1, 1, taps), {"stride": stride, "dilation": dilation})
        axes = problem.geometry.axes
        if axes[0].large <= before:
            continue
        problem.parameters["padding"] = ((before, 0),)
        lifted = problem.geometry.lifted()
        alike = [
            (line.kind, int(place), int(kernel))
            for phases in equivalent_phases(lifted)
            for line in (phases.cols.first,)
            for place, kernel in zip(phases.cols.out_starts, phases.cols.first_taps, strict=True)
        ]
        each = [(phase.cols.kind, phase.cols.out_start, phase.cols.first_tap) for phase in writing_large(lifted)]
        assert sorted(alike, key=str) == sorted(each, key=str)
