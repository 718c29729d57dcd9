"""Sums of weight gradients over many pixels: their rounding error, and the same bits however they are computed."""

from __future__ import annotations

import numpy as np
import pytest
from registry import assert_computed, empty_caches

import fastconv as fc
from fastconv.backends.contract import is_tiled
from fastconv.dispatch import backends
from fastconv.planner import cost_model, registry
from fastconv.planner.registry import Algorithm
from fastconv.planner.request import Request
from fastconv.problem.geometry import Geometry

#: Maps of many pixels (N, C, H, W), groups and taps of a side: many images, and one image with long rows.
LAYERS = [((12, 8, 160, 160), 8, 3), ((1, 8, 128, 2400), 8, 3), ((16, 2, 192, 192), 1, 3), ((1, 2, 256, 3000), 1, 5)]
KERNELS = [kernel for kernel in registry.KERNELS.values() if "weight" in kernel.makes]
#: A product of matrices sums over images only, and applies to few of them.
SHORT = {"matmul"}


@pytest.fixture(autouse=True)
def planned_anew(monkeypatch):
    """Each test makes its own plans."""
    empty_caches(monkeypatch)


def geometry_of(layer):
    shape, groups, taps = layer
    return Geometry.conv(shape, (shape[1], shape[1] // groups, taps, taps), spatial=2, padding=taps // 2, groups=groups)


def applies(kernel, name, layer) -> bool:
    """Whether a kernel computes a layer on an engine."""
    request = Request.of(backends.pick(name, np.dtype("f")), geometry_of(layer), "weight", 4, 1)
    return kernel.tiled is (request.layout is not None) and kernel.applies(request) is None


def gradient(kernel, name, layer, large, small, threads=1):
    """A layer's weight gradient by one kernel of an engine."""
    geometry = geometry_of(layer)
    out = np.empty(geometry.weight_shape, large.dtype)
    with registry.only(kernel.name):
        engine = backends.pick(name, large.dtype)
        run = Algorithm(kernel.algorithm).prepared(engine, geometry, "weight", out.itemsize, threads)
    run(large, small, None, out)
    return out


def exact(layer, large, small):
    """The gradient in float64, tap by tap."""
    (_, _, height, width), groups, taps = layer
    edge = taps // 2
    large = np.pad(large.astype("d"), ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    sums = "nkpq,nkpq->k" if groups > 1 else "nkpq,ncpq->kc"
    shape = geometry_of(layer).weight_shape
    found = np.empty(shape)
    for r, s in np.ndindex(taps, taps):
        shifted = large[:, :, r : r + height, s : s + width]
        found[..., r, s] = np.einsum(sums, small, shifted, dtype="d", optimize=True).reshape(shape[:2])
    return found


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_the_error_of_a_long_sum_is_small(layer):
    """Numbers of one sign have the largest rounding errors; one chain of so many is off by several 1e-6."""
    rng = np.random.default_rng(0)
    large, small = rng.random(layer[0], "f"), rng.random(layer[0], "f")
    expected = exact(layer, large, small)
    seen = set()
    for kernel in KERNELS:
        names = [name for name in fc.available_backends() if applies(kernel, name, layer)]
        tiled = [name for name in names if is_tiled(backends.pick(name, np.dtype("f")))]
        found = {(name, 1): gradient(kernel, name, layer, large, small) for name in names}
        found |= {(name, n): gradient(kernel, name, layer, large, small, n) for name in tiled[:1] for n in (2, 3)}
        for by, result in found.items():
            assert np.abs(result / expected - 1).max() <= 1e-6, (kernel.name, by)
        assert len({result.tobytes() for (name, _), result in found.items() if name in tiled}) <= 1, kernel.name
        seen |= {kernel.name} if names else set()
    assert seen


def test_every_kernel_has_a_long_sum():
    """No kernel is left out above."""
    seen = {
        kernel.name
        for kernel in KERNELS
        for name in fc.available_backends()
        for layer in LAYERS
        if applies(kernel, name, layer)
    }
    tiled = any(is_tiled(backends.pick(name, np.dtype("f"))) for name in fc.available_backends())
    assert {kernel.name for kernel in KERNELS if kernel.tiled <= tiled} - seen == (SHORT if tiled else set())


#: Blocks behind which a chain can end, of few pixels.
SHORT_BLOCKS = dict.fromkeys(("chain_block", "tap_lanes_pixels", "channel_lanes_pixels", "pixel_lanes_pixels"), 8)


def with_costs(monkeypatch, **changes):
    """Let weight gradients follow other constants than fastconv comes with."""
    kinds = {pipes: model.replaced(**changes) for pipes, model in cost_model.BY_PIPES.items()}
    monkeypatch.setattr(cost_model, "BY_PIPES", kinds)


@pytest.mark.parametrize("pixels", [1, 300])
@pytest.mark.parametrize("layer", [((9, 8, 24, 41), 8, 3), ((9, 8, 24, 41), 8, 7), ((9, 3, 24, 41), 1, 3)], ids=str)
def test_sums_of_any_number_of_chains_are_complete(monkeypatch, layer, pixels):
    """Chains as short as can be: there are several levels of them, and integers show whether one is missing."""
    rng = np.random.default_rng(0)
    large, small = (rng.integers(-3, 4, layer[0]).astype("f") for _ in range(2))
    expected = exact(layer, large, small)
    with_costs(monkeypatch, chain_pixels=pixels, work_items=1, **SHORT_BLOCKS)
    for kernel in KERNELS:
        for name in fc.available_backends():
            if applies(kernel, name, layer):
                assert_computed(gradient(kernel, name, layer, large, small), expected, kernel.name)


def test_a_map_has_the_same_bits_however_long_a_chain_may_be(engine, monkeypatch):
    """A fully connected layer is computed by the kernels of weight gradients, and no number of it is divided."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 64, 16, 16), "f"), rng.standard_normal((5, 64, 16, 16), "f")
    expected = fc.conv2d(x, w)
    empty_caches(monkeypatch)
    with_costs(monkeypatch, chain_pixels=64)
    assert fc.conv2d(x, w).tobytes() == expected.tobytes()
