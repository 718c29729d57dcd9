"""The bias gradient of the engines that multiply tiles: bits, accuracy, borders."""

from __future__ import annotations

import functools
import itertools
import math
import os

import numpy as np
import pytest
from registry import TILED
from scripts import python

import fastconv as fc
from fastconv import grad
from fastconv.dispatch import backends, call_cache
from fastconv.kernels.abi import BLOCK_ROWS, SUM_VECTORS
from fastconv.planner import bias_grad

#: Extents of maps: pixels and lanes, of a register and of a row, fewer or more or as many, and blocks of rows.
SHAPES = [
    (1, 1, 1, 1), (3, 5, 1, 1), (32, 1000, 1, 1), (17, 3, 1, 2), (2, 37, 1, 7), (40, 70, 4, 4), (3, 9, 3, 5),
    (2, 19, 5, 13), (33, 7, 7, 7), (5, 2, 8, 16), (19, 3, 11, 13), (2, 5, 14, 14), (1, 3, 31, 33), (2, 1, 128, 129),
    (1, 40, 64, 64), (300, 1, 9, 9), (3, 2, 224, 224),
]  # fmt: skip
THREADS = (1, 2, 3, 5)


def forget():
    bias_grad._prepared.cache_clear()
    call_cache.forget()


@pytest.fixture
def anew(monkeypatch):
    """Nothing that was planned before is known, and every map is large enough for several work items."""
    monkeypatch.setattr(bias_grad, "_LEAST", 64)
    monkeypatch.setattr(bias_grad, "SERIAL", 0)
    forget()
    yield
    forget()


@functools.cache
def grid(shape, dtype):
    """Numbers of one sign, whose sum has the largest rounding errors."""
    return np.random.default_rng(0).random(shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["f", "d"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_and_accuracy(anew, shape, dtype):
    """The same bits for any number of threads and on all engines, within a few roundings of the exact sum."""
    numbers = grid(shape, dtype)
    found = []
    for name in TILED:
        for threads in THREADS:
            fc.set_num_threads(threads)
            found.append(grad.conv2d_bias(numbers, backend=name))
    assert len({result.tobytes() for result in found}) == 1
    exact = [math.fsum(channel.ravel()) for channel in np.moveaxis(numbers.astype("d"), 1, 0)]
    np.testing.assert_allclose(found[0], exact, rtol=6 * np.finfo(dtype).eps)


def test_many_numbers_are_summed_pairwise(tiled):
    """One after the other, so many equal numbers would stop to grow: 2**25 / 10 in float32 is no sum of them."""
    numbers = np.full((2**22, 1, 2, 4), np.float32(0.1))
    np.testing.assert_allclose(grad.conv2d_bias(numbers), 2**25 * float(np.float32(0.1)), rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_special_numbers_stay_in_their_channel(tiled, anew, value):
    for shape in ((2, 37, 1, 7), (3, 9, 3, 5), (1, 3, 31, 33)):
        numbers = np.ones(shape, np.float32)
        numbers[-1, 1, -1, -1] = value
        expected = np.full(shape[1], shape[0] * shape[2] * shape[3], np.float32)
        expected[1] = value
        np.testing.assert_array_equal(grad.conv2d_bias(numbers), expected)


def test_layouts(tiled):
    """Whatever the order in memory, and if an element is not aligned; no images give zeros."""
    numbers = np.arange(2 * 3 * 40 * 50, dtype=np.float32).reshape(2, 3, 40, 50) % 64
    expected = numbers.sum((0, 2, 3))
    raw = np.empty(numbers.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(numbers.shape)
    raw[...] = numbers
    for layout in (numbers, np.asfortranarray(numbers), numbers[::-1, :, ::-1], numbers.astype(">f4"), raw):
        np.testing.assert_array_equal(grad.conv2d_bias(layout), expected)
    np.testing.assert_array_equal(grad.conv2d_bias(numbers[:0]), np.zeros(3))


def test_a_call_that_was_made_before(engine):
    """It is known by its shape, and by how many axes of that are pixels."""
    numbers = np.arange(30.0).reshape(2, 3, 5)
    for _ in range(2):
        np.testing.assert_array_equal(grad.conv1d_bias(numbers), numbers.sum((0, 2)))
        np.testing.assert_array_equal(grad.conv2d_bias(numbers), numbers.sum((1, 2)))
        np.testing.assert_array_equal(grad.conv2d_bias(numbers[:, :2]), numbers[:, :2].sum((1, 2)))
    first, out = grad.conv1d_bias(numbers), np.full(3, np.nan)
    assert not np.may_share_memory(first, grad.conv1d_bias(numbers))
    for _ in range(2):
        out.fill(np.nan)
        assert grad.conv1d_bias(numbers, out=out) is out
        np.testing.assert_array_equal(out, first)


def test_out_is_written_and_nothing_beside_it(tiled):
    numbers, around = grid((2, 19, 5, 13), "f"), np.full(21, 7, np.float32)
    out = around[1:20]
    assert grad.conv2d_bias(numbers, out=out) is out
    np.testing.assert_array_equal(out, grad.conv2d_bias(numbers))
    assert around[0] == around[-1] == 7


def test_few_channels_are_shared_by_threads():
    """One channel of a large map has several work items, as many channels have."""
    layout = backends.pick(TILED[0], np.dtype("f")).layout(4) if TILED else None
    if layout is None:
        pytest.skip("no engine that multiplies tiles")
    for shape in ((1, 1, 2000, 2000), (64, 1, 300, 300), (2**22, 1, 1, 1), (8, 64, 112, 112)):
        plan, splits = bias_grad.planned(shape, layout, 4)
        assert plan.items >= 16
        assert splits == 1 or shape[1] == 1
    assert bias_grad.planned((1, 8, 20, 20), layout, 4)[0].items == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
@pytest.mark.parametrize("name", TILED)
def test_nothing_outside_is_touched(name):
    """Between pages that end the process if they are read or written; `test_tiles` does it on each instruction set."""
    done = python(f"import test_bias_grad as t; t.run_between_protected_pages({name!r})")
    assert done.returncode == 0, done.stdout + done.stderr


def run_between_protected_pages(name: str) -> None:
    """What the test above starts."""
    from guarded import copied, guarded

    bias_grad._LEAST, bias_grad.SERIAL = 64, 0
    for dtype in ("f", "d"):
        lanes = backends.pick(name, np.dtype(dtype)).layout(np.dtype(dtype).itemsize).lanes
        row = lanes * SUM_VECTORS
        near = (size * number + more for size in (lanes, row) for number in (1, 2) for more in (-1, 0, 1))
        odd = [1, *near, BLOCK_ROWS * row + lanes + 1]
        extents = ((1, 1), (2, lanes + 1), (BLOCK_ROWS + 1, 3))
        for pixels, (images, channels), at_end in itertools.product(odd, extents, (True, False)):
            shape = images, channels, 1, pixels
            numbers = copied(np.arange(math.prod(shape)).reshape(shape).astype(dtype) % 16, at_end)
            out = guarded((channels,), dtype, at_end)
            grad.conv2d_bias(numbers, backend=name, out=out)
            np.testing.assert_array_equal(out, numbers.sum((0, 2, 3)), err_msg=str(shape))
