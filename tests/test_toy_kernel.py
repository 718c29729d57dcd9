"""What a new kernel costs: one in under 60 lines, which runs on every engine through the public face.

docs/adding-a-kernel.md is worked through on it.
"""

from __future__ import annotations

import inspect
import math
import sys

import numpy as np
import pytest
from registry import empty_caches

import fastconv as fc
from fastconv.backends.contract import is_tiled
from fastconv.dispatch import backends
from fastconv.planner.registry import KERNELS, Kernel, only
from fastconv.planner.request import Proposal
from fastconv.problem import reference
from fastconv.problem.geometry import Geometry

ENGINES = fc.available_backends()

# --- the kernel: from here to the next such line


def applies(request):
    """Why a contraction is no sum of shifted products."""
    axes = request.geometry.axes
    if request.stands_for:
        return "it makes no plans, of which a product of matrices is made"
    if request.geometry.groups > 1:
        return "there are several groups"
    if any(axis.stride > 1 for axis in axes):
        return "the stride is not 1"
    if any(axis.pad_before or axis.large != axis.small + axis.dilation * (axis.taps - 1) for axis in axes):
        return "there is padding"
    return None


def propose(request):
    """What it costs: products of whole rows of the source, added up in memory, and a call for each tap and image."""
    geometry, (rows, cols), layout = request.geometry, request.geometry.axes, request.layout
    calls = geometry.batch * rows.taps * cols.taps
    sums = calls * geometry.small_channels * rows.small * cols.large
    if layout is None:  # in nanoseconds beyond the products, of which the columns between two rows are wasted
        wasted = sums * geometry.large_channels * (1 - cols.small / cols.large)
        return Proposal(0, 4_000 + 2_000 * calls + 0.7 * sums + wasted / 30)
    # in multiply-adds of a vector, which NumPy runs at a quarter of the rate of a tile engine for matrices like these
    return Proposal(
        0, 20_000 + 6_000 * calls + 4 * sums * (geometry.large_channels + 4) / layout.lanes / request.threads
    )


def prepare(engine, request, proposal, make_count):
    """The contraction: out = bias + sum over taps of weight[tap] @ pixels, which begin at another one for each tap."""
    rows, cols = request.geometry.axes
    run = (rows.small - 1) * cols.large + cols.small  # pixels from the first that is made to the last

    def shifts(large, weight, bias, out):
        pixels, taps = large.reshape(*large.shape[:2], -1), np.ascontiguousarray(weight.transpose(2, 3, 0, 1))
        sums = np.empty((*out.shape[:3], cols.large), out.dtype)
        sums[...] = 0 if bias is None else bias[:, None, None]
        made = sums.reshape(*out.shape[:2], -1)[..., :run]
        with np.errstate(all="ignore"):
            for r, s in np.ndindex(rows.taps, cols.taps):
                first = r * rows.dilation * cols.large + s * cols.dilation
                made += taps[r, s] @ pixels[..., first : first + run]
        out[...] = sums[..., : cols.small]

    return shifts


def workspace(request, proposal):
    """Bytes of the sums, of the product of a tap, of the weight, and of the source if it is not in C order."""
    geometry, (rows, cols) = request.geometry, request.geometry.axes
    sums = geometry.batch * geometry.small_channels * rows.small * cols.large
    return request.itemsize * (2 * sums + math.prod(geometry.weight_shape) + math.prod(geometry.large_shape))


SHIFTS = Kernel("shifts", ("small",), applies, propose, prepare=prepare, workspace=workspace)

# --- the tests


@pytest.fixture(params=ENGINES)
def engine(request, monkeypatch):
    """Each engine, with the kernel registered for its kind."""
    empty_caches(monkeypatch)
    tiled = is_tiled(backends.loaded(request.param))
    monkeypatch.setitem(KERNELS, "shifts", SHIFTS._replace(tiled=tiled))
    with fc.use_backend(request.param):
        yield request.param


def test_it_has_less_than_60_lines():
    text = inspect.getsource(sys.modules[__name__])
    _, kernel, _ = text.split("\n# --- ")
    assert len(kernel.strip().splitlines()[1:]) < 60


#: Shapes and parameters of what it computes.
PROBLEMS = {
    "1x1": ((2, 5, 6, 7), (4, 5, 1, 1), {}),
    "3x3": ((2, 3, 8, 9), (4, 3, 3, 3), {}),
    "dilated": ((1, 3, 11, 12), (2, 3, 3, 2), {"dilation": (2, 3)}),
    "one pixel": ((3, 4, 2, 5), (6, 4, 2, 5), {}),
    "padding that is cut off": ((1, 2, 5, 6), (3, 2, 2, 2), {"padding": "valid"}),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_it_computes_what_the_reference_does(engine, name):
    x_shape, w_shape, parameters = PROBLEMS[name]
    rng = np.random.default_rng(0)
    x, w, b = (rng.integers(-3, 4, shape).astype(np.float32) for shape in (x_shape, w_shape, w_shape[:1]))
    geometry = Geometry.conv(x_shape, w_shape, spatial=2, **parameters)
    with only("shifts"):
        assert fc.explain("conv2d", x_shape, w_shape, **parameters).kernel == "shifts"
        for bias, added in ((None, 0), (b, b[:, None, None])):
            found = fc.conv2d(x, w, bias, **parameters)
            np.testing.assert_array_equal(found, reference.to_small(geometry, x, w) + added)


def test_an_image_has_the_same_bits_in_any_batch(engine):
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 16, 9, 9), (8, 16, 3, 3)))
    with only("shifts"):
        np.testing.assert_array_equal(fc.conv2d(x, w)[1:2], fc.conv2d(x[1:2], w))


def test_explain_says_what_it_would_take_and_why_it_is_not_the_one(engine):
    why = fc.explain("conv2d", (1, 8, 30, 30), (64, 8, 3, 3), algorithm="direct")
    assert why.kernel != "shifts"
    assert why.predicted["shifts"] > why.predicted[why.kernel]
    assert why.kernels_passed_over["shifts"] == f"{why.kernel} is predicted to be quicker"
    for parameters, reason in (({"padding": 1}, "there is padding"), ({"stride": 2}, "the stride is not 1")):
        why = fc.explain("conv2d", (1, 8, 30, 30), (64, 8, 3, 3), **parameters)
        assert why.kernels_passed_over["shifts"] == reason
        assert "shifts" not in why.predicted
    assert "shifts" not in fc.explain("conv2d_weight", (1, 8, 30, 30), (64, 8, 3, 3)).kernels_passed_over


@pytest.mark.parametrize("quicker", [1, 1000])
def test_it_is_chosen_where_it_is_predicted_to_be_the_quickest(engine, monkeypatch, quicker):
    """Window engines choose it for few results. Tile engines do not as it is, but would if NumPy were that quick."""
    here = KERNELS["shifts"]
    monkeypatch.setitem(
        KERNELS, "shifts", here._replace(propose=lambda request: Proposal(0, propose(request).cost / quicker))
    )
    chosen = []
    for shapes in (((1, 256, 60, 60), (4, 256, 3, 3)), ((1, 64, 28, 28), (64, 64, 3, 3))):
        why = fc.explain("conv2d", *shapes, algorithm="direct")
        predicted = {name: time for name, time in why.predicted.items() if KERNELS[name].algorithm == "direct"}
        assert why.kernel == min(predicted, key=predicted.get)
        chosen.append(why.kernel == "shifts")
    assert chosen == [quicker > 1 or not here.tiled, quicker > 1]


def test_a_call_runs_what_explain_names(engine, monkeypatch):
    ran = []

    def noted(*given):
        ran.append("shifts")
        return prepare(*given)

    quick = KERNELS["shifts"]._replace(propose=lambda request: Proposal(0, 1.0), prepare=noted)
    monkeypatch.setitem(KERNELS, "shifts", quick)
    x, w = np.ones((1, 2, 5, 5), np.float32), np.ones((1, 2, 3, 3), np.float32)
    np.testing.assert_array_equal(fc.conv2d(x, w), np.full((1, 1, 3, 3), 18, np.float32))
    assert ran == ["shifts"]
    fc.conv2d(x, w, padding=1)
    assert ran == ["shifts"]
