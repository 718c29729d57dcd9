"""Depthwise layers whose maps have their channels last: each micro-kernel that reads and writes them in place."""

from __future__ import annotations

import os

import numpy as np
import pytest
from problems import Problem
from registry import TILED, empty_caches
from test_memory_order import channels_first, channels_last, last

import fastconv as fc
from fastconv.dispatch import backends
from fastconv.kernels.abi import TAP_ROWS, WINDOWS
from fastconv.planner import registry
from fastconv.planner.request import Request
from fastconv.problem import memory_order

PASSES = {"forward": "small", "input": "large", "weight": "weight"}
IN_PLACE = {"forward": "depthwise_in_place", "input": "depthwise_in_place", "weight": "depthwise_in_place_weight_grad"}


def depthwise(transposed, shape, kernel, **parameters):
    """A depthwise layer, in one image or several."""
    channels = shape[1]
    return Problem(transposed, len(shape) - 2, shape, (channels, 1, *kernel), {"groups": channels, **parameters})


#: Tall tiles and tiles of one row for each row of taps, with tiles that are not whole, and vectors that overlap.
ROWS = {
    f"{taps} taps, stride {stride}, {kind}": depthwise(False, shape, kernel, stride=stride, padding=taps // 2)
    for taps, stride in TAP_ROWS
    for kind, shape, kernel in (
        ("rows", (2, 37, 9 + taps, 17), (taps, taps)),
        ("a row", (2, 19, 37 + taps), (taps,)),
    )
}
#: Each kernel of the weight gradient, on maps with pixels beyond whole tiles.
SQUARES = {
    f"{size} x {size}, stride {stride}": depthwise(
        False, (3, 33, 7 * stride + size, 9 * stride + size), (size, size), stride=stride, padding=size // 2
    )
    for size, stride in WINDOWS
}
OTHERS = {
    "few columns": depthwise(False, (1, 16, 5, 2), (3, 3), padding=1),
    "no padding": depthwise(False, (1, 48, 12, 23), (5, 5)),
    "padding beyond the kernel": depthwise(False, (1, 20, 4, 6), (3, 3), padding=4),
    "padding on one side": depthwise(False, (2, 32, 9, 8), (3, 5), padding=((0, 2), (4, 0))),
    "rows and columns of two kinds": depthwise(False, (2, 17, 16, 21), (5, 3), stride=(3, 1), padding=(2, 1)),
    "many channels": depthwise(False, (1, 200, 9, 9), (3, 3), padding=1),
    "several images": depthwise(False, (9, 40, 15, 14), (3, 3), padding=1),
    "transposed 3x3": depthwise(True, (2, 37, 8, 9), (3, 3), stride=2, padding=1, output_padding=1),
    "transposed 4x4": depthwise(True, (1, 32, 9, 8), (4, 4), stride=2, padding=1),
    "transposed with gaps": depthwise(True, (1, 18, 6, 7), (2, 2), stride=3),
    "transposed, taps of no phase": depthwise(True, (1, 18, 1, 7), (3, 3), stride=2, padding=1),
    "transposed, one row": depthwise(True, (2, 37, 1, 7), (3, 3)),
    "transposed, one row, stride 2": depthwise(True, (2, 37, 1, 7), (3, 3), stride=2),
    "transposed, one pixel": depthwise(True, (1, 32, 1, 1), (4, 4), stride=2),
    "transposed, a row": depthwise(True, (2, 17, 20), (5,), stride=2),
}
ALL = ROWS | SQUARES | OTHERS


@pytest.fixture(params=TILED)
def tiled(request, monkeypatch):
    """Each engine that multiplies tiles; nothing is remembered, and every problem is large enough for threads."""
    empty_caches(monkeypatch)
    monkeypatch.setattr("fastconv.dispatch.preparation._SERIAL", 0)
    with fc.use_backend(request.param):
        yield request.param


def plans(engine, problem, which, threads=2):
    """The plans of a pass of a problem with its channels last."""
    target = PASSES[which]
    if problem.transposed and which != "weight":
        target = {"small": "large", "large": "small"}[target]
    geometry = problem.geometry.lifted()
    orders = memory_order.MemoryOrders(
        memory_order.channels_last(geometry.large_shape), memory_order.channels_last(geometry.small_shape)
    )
    request = Request.of(backends.loaded(engine), geometry, target, 4, threads, orders)
    return registry.choose(request, "direct").proposal.plans()


@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("name", ALL)
def test_the_numbers_are_those_of_channels_first(tiled, name, which):
    problem = ALL[name]
    for dtype in (np.float32, np.float64):
        arrays = problem.arrays("integers", dtype)
        expected = channels_first(problem, which, *arrays, backend="numpy")
        np.testing.assert_array_equal(channels_last(problem, which, *arrays), expected)


@pytest.mark.parametrize("name", ALL)
def test_the_bits_do_not_depend_on_engine_threads_or_batch(name, monkeypatch):
    empty_caches(monkeypatch)
    monkeypatch.setattr("fastconv.dispatch.preparation._SERIAL", 0)
    problem, found = ALL[name], {}
    x, w, b, dy = problem.arrays("normal", np.float32)
    for engine in TILED:
        for threads in (1, 2, 3):
            with fc.use_backend(engine):
                fc.set_num_threads(threads)
                for which in PASSES:
                    result = channels_last(problem, which, x, w, b, dy)
                    np.testing.assert_array_equal(result, found.setdefault(which, result))
        with fc.use_backend(engine):
            for which in ("forward", "input"):
                alone = channels_last(problem, which, x[:1], w, b, dy[:1])
                np.testing.assert_array_equal(alone, found[which][:1])


@pytest.mark.parametrize("name", ALL)
def test_plans_finish_every_sum_once(tiled, name):
    """A half of a half would show."""
    problem = ALL[name]
    x, w, b, _ = problem.arrays("integers", np.float32)
    x, rng = last(x, problem.spatial), np.random.default_rng(0)
    y = problem.forward(x, w, b, data_format="channels_last")
    residual, slopes = rng.integers(-9, 9, y.shape).astype("f"), rng.integers(1, 9, len(b)).astype("f") / 8
    for added, threads in ((None, 1), (residual, 2)):
        fc.set_num_threads(threads)
        make = getattr(fc, f"plan_{problem.name}")
        plan = make(w, b, activation=("prelu", slopes), data_format="channels_last", **problem.parameters)
        total = y if added is None else y + added
        np.testing.assert_array_equal(plan(x, added), np.where(total > 0, total, total * slopes))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
@pytest.mark.parametrize("name", ALL)
def test_nothing_outside_of_the_maps_is_accessed(tiled, name):
    """Pages before and after them are protected, so an access would end the process."""
    from guarded import copied, guarded

    problem = ALL[name]
    x, w, _, dy = problem.arrays("integers", np.float32)
    for at_end in (True, False):
        x_last, dy_last = (copied(last(array, problem.spatial), at_end) for array in (x, dy))
        weight, options = copied(w, at_end), {"data_format": "channels_last"}
        problem.forward(x_last, weight, out=guarded(dy_last.shape, x.dtype, at_end), **options)
        out = guarded(x_last.shape, x.dtype, at_end)
        problem.gradient("input", x_last.shape, weight, dy_last, out=out, **options)
        out = guarded(w.shape, x.dtype, at_end)
        problem.gradient("weight", x_last, w.shape, dy_last, out=out, **options)


@pytest.mark.parametrize("name", ["3 taps, stride 1, rows", "3 taps, stride 2, rows", "transposed 3x3", "no padding"])
def test_numbers_that_are_not_finite(tiled, name):
    """Taps on the padding are left out, where zero times infinity would be NaN."""
    problem = ALL[name]
    arrays = problem.arrays("integers", np.float64)
    for number, at in ((1, (0, 0, 0, 1)), (3, (0, 5, 0, 0))):
        arrays[number][at] = np.inf
    with np.errstate(all="ignore"):
        for which in PASSES:
            expected = channels_first(problem, which, *arrays, backend="numpy")
            np.testing.assert_array_equal(channels_last(problem, which, *arrays), expected)


@pytest.mark.parametrize("name", ROWS | SQUARES)
def test_each_micro_kernel_has_a_problem(tiled, name):
    which = "weight" if name in SQUARES else "forward"
    assert {plan.name for plan in plans(tiled, ALL[name], which)} == {IN_PLACE[which]}


def test_the_error_of_a_long_sum_is_small(tiled):
    """Numbers of one sign have the largest rounding errors; one chain of so many is off by several 1e-6."""
    rng, shape = np.random.default_rng(0), (4, 256, 300, 16)
    x, dy = rng.random(shape, "f"), rng.random(shape, "f")
    found = fc.grad.conv2d_weight(x, (16, 1, 3, 3), dy, padding=1, groups=16, data_format="channels_last")
    padded = np.pad(x.astype("d"), ((0, 0), (1, 1), (1, 1), (0, 0)))
    for r, s in np.ndindex(3, 3):
        exact = np.einsum("nhwc,nhwc->c", padded[:, r : r + 256, s : s + 300], dy, dtype="d")
        assert np.abs(found[:, 0, r, s] / exact - 1).max() <= 1e-6
