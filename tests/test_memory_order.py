"""Maps with their channels last, by `data_format` or by their strides, against the same maps in C order."""

from __future__ import annotations

import os

import numpy as np
import pytest
from problems import Problem
from registry import able, is_exact

import fastconv as fc
from fastconv import nn
from fastconv.backends.contract import Layout, is_tiled
from fastconv.dispatch import backends
from fastconv.kernels.arguments import names
from fastconv.kernels.drivers.channel_lanes import ChannelLanes
from fastconv.planner import registry
from fastconv.planner.request import Request
from fastconv.problem import memory_order
from fastconv.problem.geometry import Geometry
from fastconv.problem.memory_order import MapStrides, MemoryOrders

#: Problems for every kernel: many and few channels, long and short rows, groups, depthwise, strides, one pixel.
PROBLEMS = {
    "3x3": Problem(False, 2, (2, 20, 9, 37), (35, 20, 3, 3), {"padding": 1}),
    "1x1": Problem(False, 2, (2, 37, 7, 9), (40, 37, 1, 1)),
    "1x1 of one channel": Problem(False, 2, (2, 1, 7, 9), (40, 1, 1, 1)),
    "stem": Problem(False, 2, (1, 3, 31, 45), (18, 3, 7, 7), {"stride": 2, "padding": 3}),
    "patches": Problem(False, 2, (2, 3, 32, 32), (24, 3, 4, 4), {"stride": 4}),
    "few results": Problem(False, 2, (1, 17, 10, 40), (3, 17, 3, 3), {"padding": 1}),
    "groups": Problem(False, 2, (2, 24, 9, 10), (36, 4, 3, 3), {"groups": 6, "padding": 1}),
    "dilated": Problem(False, 2, (1, 19, 15, 17), (20, 19, 3, 3), {"dilation": 2, "padding": 2}),
    "depthwise": Problem(False, 2, (2, 37, 11, 20), (37, 1, 3, 3), {"groups": 37, "padding": 1}),
    "depthwise 7x7": Problem(False, 2, (1, 40, 14, 14), (40, 1, 7, 7), {"groups": 40, "padding": 3}),
    "depthwise, stride 2": Problem(False, 2, (1, 33, 14, 15), (33, 1, 3, 3), {"groups": 33, "padding": 1, "stride": 2}),
    "depthwise, two results": Problem(False, 2, (1, 20, 9, 9), (40, 1, 5, 5), {"groups": 20, "padding": 2}),
    "many groups": Problem(False, 2, (2, 64, 9, 10), (128, 4, 3, 3), {"groups": 16, "padding": 1}),
    "depthwise, large": Problem(False, 2, (2, 72, 44, 44), (72, 1, 3, 3), {"groups": 72, "padding": 1}),
    "whole map": Problem(False, 2, (3, 12, 5, 5), (20, 12, 5, 5)),
    "one pixel": Problem(False, 2, (3, 40, 1, 1), (20, 40, 1, 1)),
    "one row": Problem(False, 1, (2, 17, 50), (20, 17, 5), {"padding": 2}),
    "unbatched": Problem(False, 2, (17, 9, 11), (20, 17, 3, 3), {"padding": 1}),
    "unbatched row": Problem(False, 1, (5, 30), (20, 5, 3), {"stride": 2}),
    "replicate": Problem(False, 2, (2, 17, 9, 11), (20, 17, 3, 3), {"padding": 1, "padding_mode": "replicate"}),
    "transposed": Problem(True, 2, (2, 20, 7, 9), (20, 17, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    "transposed 4x4": Problem(True, 2, (2, 33, 8, 8), (33, 21, 4, 4), {"stride": 2, "padding": 1}),
    "transposed with gaps": Problem(True, 2, (1, 18, 6, 7), (18, 20, 1, 1), {"stride": 2}),
    "transposed 8x8": Problem(True, 2, (1, 5, 6, 7), (5, 1, 8, 8), {"stride": 4}),
    "transposed depthwise": Problem(True, 2, (1, 37, 8, 9), (37, 1, 4, 4), {"groups": 37, "stride": 2, "padding": 1}),
    "transposed row": Problem(True, 1, (2, 17, 20), (17, 20, 5), {"stride": 2, "output_size": (43,)}),
    "transposed unbatched": Problem(True, 2, (9, 5, 6), (9, 4, 3, 3), {"stride": 3}),
}


def last(array, spatial):
    """A copy of a map with its channels last."""
    return np.ascontiguousarray(np.moveaxis(array, -spatial - 1, -1))


def first(array, spatial):
    """A view of a map with its channels first."""
    return np.moveaxis(array, -1, -spatial - 1)


def channels_last(problem, which, x, w, b, dy, **options):
    """A pass of a problem with `data_format="channels_last"`, with its map channels first again."""
    spatial, options = problem.spatial, {"data_format": "channels_last", **options}
    if which == "forward":
        return first(problem.forward(last(x, spatial), w, b, **options), spatial)
    if which == "input":
        size = last(x, spatial).shape
        return first(problem.gradient("input", size, w, last(dy, spatial), **options), spatial)
    if which == "weight":
        return problem.gradient("weight", last(x, spatial), w.shape, last(dy, spatial), **options)
    return problem.gradient("bias", last(dy, spatial), **options)


def channels_first(problem, which, x, w, b, dy, **options):
    if which == "forward":
        return problem.forward(x, w, b, **options)
    if which == "input":
        return problem.gradient("input", x.shape, w, dy, **options)
    if which == "weight":
        return problem.gradient("weight", x, w.shape, dy, **options)
    return problem.gradient("bias", dy, **options)


PASSES = ("forward", "input", "weight", "bias")


def assert_same(which, backend, found, expected):
    """The same bits of maps; gradients of weights and biases, which another kernel may sum, to rounding; so are
    products of BLAS."""
    if which in ("forward", "input") and backend != "numpy":
        np.testing.assert_array_equal(found, expected, strict=True)
    else:
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, atol=64 * np.finfo(expected.dtype).eps * scale, rtol=1e-4)


@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("name", PROBLEMS)
def test_channels_last_gives_the_numbers_of_channels_first(engine, name, which):
    problem = PROBLEMS[name]
    arrays = problem.arrays(dtype=np.float32)
    expected = channels_first(problem, which, *arrays)
    for _ in range(2):  # the second call is found in the cache
        assert_same(which, engine[0], channels_last(problem, which, *arrays), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
@pytest.mark.parametrize("name", PROBLEMS)
def test_nothing_outside_of_the_maps_is_accessed(engine, name):
    """Pages before and after them are protected, so an access would end the process."""
    from guarded import copied, guarded

    problem = PROBLEMS[name]
    x, w, b, dy = problem.arrays(dtype=np.float32)
    for at_end in (True, False):
        x_last, dy_last = (copied(last(array, problem.spatial), at_end) for array in (x, dy))
        options = {"data_format": "channels_last"}
        problem.forward(x_last, w, b, out=guarded(dy_last.shape, x.dtype, at_end), **options)
        out = guarded(x_last.shape, x.dtype, at_end)
        problem.gradient("input", x_last.shape, w, dy_last, out=out, **options)
        problem.gradient("weight", x_last, w.shape, dy_last, **options)


@pytest.mark.parametrize("name", ["3x3", "depthwise 7x7", "transposed", "one row"])
def test_results_with_channels_last_are_contiguous(engine, name):
    problem = PROBLEMS[name]
    x, w, b, dy = problem.arrays(dtype=np.float32)
    for dtype in (np.float16, np.float32, np.float64):
        given = [array.astype(dtype) for array in (x, w, b)]
        y = problem.forward(last(given[0], problem.spatial), *given[1:], data_format="channels_last")
        assert y.flags.c_contiguous
        assert y.dtype == dtype
        assert y.shape == last(dy, problem.spatial).shape


#: Ways in which a map (N, C, H, W) or (N, C, W) may lie in memory: copies with these strides.
def _in_order(*axes):
    def copy(array):
        axes_of_array = [axis for axis in axes if axis < array.ndim]
        return array.transpose(axes_of_array).copy().transpose(np.argsort(axes_of_array))

    return copy


def _every_second(array):
    larger = np.zeros([2 * extent + 1 for extent in array.shape], array.dtype)
    view = larger[tuple(slice(1, None, 2) for _ in array.shape)]
    view[...] = array
    return view


def _reversed(array):
    return np.flip(np.flip(array).copy())


def _some_channels(array):
    larger = np.zeros((array.shape[0], 2 * array.shape[1], *array.shape[2:]), array.dtype)
    view = larger[:, 1 : 1 + array.shape[1]]
    view[...] = array
    return view


def _some_channels_last(array):
    return np.moveaxis(_some_channels(np.moveaxis(array, 1, -1).copy().swapaxes(1, -1)).swapaxes(1, -1), -1, 1)


def _inside(array):
    larger = np.zeros([extent + 3 for extent in array.shape], array.dtype)
    view = larger[tuple(slice(2, -1) for _ in array.shape)]
    view[...] = array
    return view


ORDERS = {
    "channels last": _in_order(0, 2, 3, 1),
    "columns outermost": _in_order(3, 1, 2, 0),
    "transposed": _in_order(0, 1, 3, 2),
    "every second": _every_second,
    "reversed": _reversed,
    "some channels": _some_channels,
    "some channels, last": _some_channels_last,
    "inside of another": _inside,
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["3x3", "1x1", "depthwise", "depthwise 7x7", "transposed", "transposed with gaps"])
def test_maps_of_any_strides(engine, name, order):
    problem, lay = PROBLEMS[name], ORDERS[order]
    x, w, b, dy = problem.arrays(dtype=np.float32)
    for which in PASSES:
        expected = channels_first(problem, which, x, w, b, dy)
        assert_same(which, engine[0], channels_first(problem, which, lay(x), w, b, lay(dy)), expected)
        if which in ("forward", "input"):
            out = lay(np.full(expected.shape, np.nan, expected.dtype))
            assert channels_first(problem, which, x, w, b, dy, out=out) is out
            assert_same(which, engine[0], out, expected)
            out = lay(np.full(expected.shape, np.nan, expected.dtype))
            channels_first(problem, which, lay(x), w, b, lay(dy), out=out)
            assert_same(which, engine[0], out, expected)


def test_what_lies_between_the_pixels_of_out_is_not_written(engine):
    problem = PROBLEMS["3x3"]
    x, w, _, dy = problem.arrays(dtype=np.float32)
    larger = np.full([2 * extent + 1 for extent in dy.shape], 7, np.float32)
    inside = tuple(slice(1, None, 2) for _ in dy.shape)
    problem.forward(x, w, out=larger[inside])
    larger[inside] = 7
    assert (larger == 7).all()


def test_infinite_weights(engine):
    """What is mended afterwards is mended in any order of axes."""
    for name in ("depthwise 7x7", "transposed", "3x3"):
        problem = PROBLEMS[name]
        x, w, b, dy = problem.arrays(dtype=np.float32)
        w = w.copy()
        w.flat[::7] = np.inf
        for which in ("forward", "input"):
            expected = channels_first(problem, which, x, w, b, dy)
            np.testing.assert_array_equal(channels_last(problem, which, x, w, b, dy), expected)
            for lay in (_every_second, _reversed):
                out = lay(np.zeros_like(expected))
                channels_first(problem, which, lay(x), w, b, lay(dy), out=out)
                np.testing.assert_array_equal(out, expected)


def test_planes_outside_of_the_source(engine):
    """With so long a dilation, each tap has a plane of its own, and some are all padding."""
    problem = Problem(False, 2, (1, 17, 3, 5), (20, 17, 3, 3), {"dilation": 9, "padding": 9})
    arrays = problem.arrays(dtype=np.float32)
    for which in ("forward", "input"):
        expected = channels_first(problem, which, *arrays)
        assert_same(which, engine[0], channels_last(problem, which, *arrays), expected)


def test_all_gradients_at_once(engine):
    for name in ("3x3", "transposed", "unbatched row"):
        problem = PROBLEMS[name]
        x, w, b, dy = problem.arrays(dtype=np.float32)
        backward = getattr(fc.grad, f"{problem.name}_backward")
        maps = [last(dy, problem.spatial), last(x, problem.spatial)]
        found = backward(*maps, w, **problem.parameters, data_format="channels_last")
        for which, one in zip(("input", "weight", "bias"), found, strict=True):
            single = channels_last(problem, which, x, w, b, dy)
            np.testing.assert_array_equal(first(one, problem.spatial) if which == "input" else one, single)


@pytest.mark.parametrize("kind", ["Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d"])
def test_layers(engine, kind):
    spatial = int(kind[-2])
    make = getattr(nn, kind)
    layers = [make(6, 4, 3, stride=2, rng=0, data_format=order) for order in ("channels_first", "channels_last")]
    x = np.random.default_rng(0).standard_normal((2, 6, *(9, 7)[:spatial])).astype(np.float32)
    y = layers[0](x)
    np.testing.assert_allclose(first(layers[1](last(x, spatial)), spatial), y, rtol=1e-5, atol=1e-5)
    dx = layers[0].backward(y)
    np.testing.assert_allclose(first(layers[1].backward(last(y, spatial)), spatial), dx, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(layers[1].weight_grad, layers[0].weight_grad, rtol=1e-4, atol=1e-4)
    if "Transpose" in kind:
        wanted = (*y.shape[:2], *(extent + 1 for extent in y.shape[2:]))
        of_first = layers[0](x, output_size=wanted)
        moved = (wanted[0], *wanted[2:], wanted[1])
        of_last = layers[1](last(x, spatial), output_size=moved)
        np.testing.assert_allclose(first(of_last, spatial), of_first, rtol=1e-5, atol=1e-5)


def test_strides_of_axes_of_one_element_do_not_matter():
    x = np.ones((2, 5, 1, 1), np.float32)
    assert memory_order.strides_of(np.moveaxis(np.ones((2, 1, 1, 5), np.float32), -1, 1)) is None
    assert memory_order.strides_of(x[:, :, ::-1]) is None
    rows = np.moveaxis(np.ones((2, 1, 7, 5), np.float32), -1, 1)
    assert memory_order.strides_of(rows) == MapStrides(35, 1, 7, 5)
    assert memory_order.channels_last((2, 5, 1, 7)) == MapStrides(35, 1, 7, 5)
    assert memory_order.channels_last((2, 1, 3, 7)) is None


@pytest.mark.parametrize("name", ["3x3", "transposed", "one row", "unbatched"])
def test_plans(engine, name):
    problem = PROBLEMS[name]
    x, w, b, dy = problem.arrays(dtype=np.float32)
    make = getattr(fc, f"plan_{problem.name}")
    plain = make(w, b, activation="relu", **problem.parameters)
    plan = make(w, b, activation="relu", data_format="channels_last", **problem.parameters)
    expected = plain(x, residual=dy)
    out = last(np.zeros_like(dy), problem.spatial)
    for _ in range(2):
        found = plan(last(x, problem.spatial), residual=last(dy, problem.spatial), out=out)
        assert found is out
        np.testing.assert_array_equal(first(found, problem.spatial), expected)
    view = first(last(x, problem.spatial), problem.spatial)
    np.testing.assert_array_equal(plain(view, residual=first(last(dy, problem.spatial), problem.spatial)), expected)


#: Convolutions whose sources kernels read in place and through padded tiles, of whole register tiles and of tails.
LAYERS = {
    "1x1": ((2, 48, 14, 15), (40, 48, 1, 1), {}),
    "1x1, stride 2": ((3, 37, 15, 15), (33, 37, 1, 1), {"stride": 2}),
    "1x1, groups": ((2, 64, 8, 8), (96, 16, 1, 1), {"groups": 4}),
    "2x2, stride 2": ((1, 70, 16, 16), (32, 70, 2, 2), {"stride": 2}),
    "3x3": ((2, 40, 9, 31), (24, 40, 3, 3), {"padding": 1}),
    "3x3, stride 2": ((1, 20, 17, 19), (50, 20, 3, 3), {"stride": 2, "padding": 1}),
    "7x7, stride 2": ((1, 3, 25, 29), (17, 3, 7, 7), {"stride": 2, "padding": 3}),
}


@pytest.mark.parametrize("target", ["small", "large", "weight"])
@pytest.mark.parametrize("layer", LAYERS)
def test_each_kernel_with_channels_last(engine, layer, target):
    """The bits of a map are those of channels first, and no bits depend on the threads."""
    shape, weight_shape, options = LAYERS[layer]
    backend, rng = backends.pick(engine[0], np.dtype("f")), np.random.default_rng(0)
    geometry = Geometry.conv(shape, weight_shape, spatial=2, **options)
    arrays = {
        role: rng.standard_normal(getattr(geometry, f"{role}_shape"), np.float32)
        for role in ("large", "small", "weight")
    }
    lying_last = {role: array if role == "weight" else first(last(array, 2), 2) for role, array in arrays.items()}

    def computed(given, threads, algorithm=None):
        orders = MemoryOrders(*(memory_order.strides_of(given[role]) for role in ("large", "small")))
        out = np.full_like(given[target], np.nan)
        run = registry.choose(Request.of(backend, geometry, target, 4, threads, orders), algorithm).prepared(backend)
        run(*(given[role] for role in ("large", "small", "weight") if role != target), None, out)
        return out

    exact, scale = computed(arrays, 1, "direct"), 1e-5 * max(1, np.sqrt(geometry.large_shape[1]))
    for name in able(Request.of(backend, geometry, target, 4, 1)):
        with registry.only(name):
            found = [computed(lying_last, threads) for threads in (1, 2)]
            expected = exact if is_exact(name) else computed(arrays, 1)
        assert np.array_equal(*found), name
        if target != "weight" and is_tiled(backend):
            assert np.array_equal(found[0], expected), name
        assert np.abs(found[0] - exact).max() <= scale * np.abs(exact).max(), name


@pytest.mark.parametrize("layer", ["1x1", "1x1, stride 2", "2x2, stride 2"])
def test_pixels_are_read_in_place(layer):
    """Channel lanes need no padded tile where channels are neighbours and no tap reads padding, whatever the stride."""
    shape, weight_shape, options = LAYERS[layer]
    geometry = Geometry.conv(shape, weight_shape, spatial=2, **options)
    orders = MemoryOrders(*map(memory_order.channels_last, (geometry.large_shape, geometry.small_shape)))
    layout = Layout(16, (8, 3), (4, 6), (1, 12), (4, 6), (14, 7), 14, 10, 2, 0, 24, 3)
    with registry.only("channel_lanes"):
        (plan,) = registry.choose(Request(geometry, "small", layout, 4, 1, orders)).proposal.plans()
    padded = list(names(ChannelLanes)).index("padded")
    assert not plan.vector[0, padded]
