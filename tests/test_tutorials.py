"""The worked examples of the tutorials on convolution, with their numbers, on every backend that can run here.

Sources: V. Dumoulin, F. Visin, A guide to convolution arithmetic for deep learning, 2016, arXiv:1603.07285; A. Zhang,
Z. C. Lipton, M. Li, A. J. Smola, Dive into Deep Learning, chapters on convolutions and on transposed convolution; the
examples in the documentation of `torch.nn.Conv2d` and `torch.nn.ConvTranspose2d`. All numbers are small integers,
which float32 holds exactly, so that every comparison is one of equality.
"""

import itertools

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn


@pytest.fixture(autouse=True, params=fc.available_backends())
def backend(request):
    with fc.use_backend(request.param):
        yield request.param


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return np.dtype(request.param)


def image(rows, dtype):
    """A picture of one channel, unbatched: (1, H, W)."""
    return np.array(rows, dtype)[None]


def kernel(rows, dtype):
    """A kernel from one channel to one channel: (1, 1, R, S)."""
    return np.array(rows, dtype)[None, None]


def numbers(shape, dtype, seed=0):
    """Integers from -4 to 4."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


def equal(result, rows, dtype):
    np.testing.assert_array_equal(result, image(rows, dtype), strict=True)


def zero_inserted(x, stride):
    """`x` with stride - 1 zeros between its pixels."""
    *outer, height, width = x.shape
    wide = np.zeros((*outer, (height - 1) * stride + 1, (width - 1) * stride + 1), x.dtype)
    wide[..., ::stride, ::stride] = x
    return wide


# Convolution


def test_cross_correlation(dtype):
    x, w = image(np.arange(9).reshape(3, 3), dtype), kernel([[0, 1], [2, 3]], dtype)
    equal(fc.conv2d(x, w), [[19, 25], [37, 43]], dtype)


def test_cross_correlation_with_kernel_1_to_4(dtype):
    x, w = image(np.arange(9).reshape(3, 3), dtype), kernel([[1, 2], [3, 4]], dtype)
    equal(fc.conv2d(x, w), [[27, 37], [57, 67]], dtype)


def test_padding_and_stride(dtype):
    x, w = image(np.arange(9).reshape(3, 3), dtype), kernel([[0, 1], [2, 3]], dtype)
    equal(fc.conv2d(x, w, padding=1), [[0, 3, 8, 4], [9, 19, 25, 10], [21, 37, 43, 16], [6, 7, 8, 0]], dtype)
    equal(fc.conv2d(x, w, padding=1, stride=(3, 2)), [[0, 8], [6, 8]], dtype)


def test_edge_detector(dtype):
    x = np.ones((6, 8))
    x[:, 2:6] = 0
    w = kernel([[1, -1]], dtype)
    equal(fc.conv2d(image(x, dtype), w), [[0, 1, 0, 0, 0, -1, 0]] * 6, dtype)
    equal(fc.conv2d(image(x.T, dtype), w), np.zeros((8, 5)), dtype)


def test_several_channels(dtype):
    x = np.array([[[0, 1, 2], [3, 4, 5], [6, 7, 8]], [[1, 2, 3], [4, 5, 6], [7, 8, 9]]], dtype)
    w = np.array([[[0, 1], [2, 3]], [[1, 2], [3, 4]]], dtype)
    equal(fc.conv2d(x, w[None]), [[56, 72], [104, 120]], dtype)
    three = fc.conv2d(x, np.stack([w, w + 1, w + 2]))
    expected = [[[56, 72], [104, 120]], [[76, 100], [148, 172]], [[96, 128], [192, 224]]]
    np.testing.assert_array_equal(three, np.array(expected, dtype), strict=True)


@pytest.mark.parametrize(
    ("size", "taps", "parameters", "expected"),
    [
        (4, 3, {}, 2),
        (5, 4, {"padding": 2}, 6),
        (5, 3, {"padding": 1}, 5),
        (5, 3, {"padding": "same"}, 5),
        (5, 3, {"padding": 2}, 7),
        (5, 3, {"stride": 2}, 2),
        (5, 3, {"stride": 2, "padding": 1}, 3),
        (6, 3, {"stride": 2, "padding": 1}, 3),
        (7, 3, {"dilation": 2}, 3),
    ],
)
def test_sizes(size, taps, parameters, expected, dtype):
    output = fc.conv2d(np.ones((1, size, size), dtype), np.ones((1, 1, taps, taps), dtype), **parameters)
    assert output.shape == (1, expected, expected)


# Transposed convolution


def test_transposed_ones_stride_1(dtype):
    ones = image([[1, 1], [1, 1]], dtype)
    expected = [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    equal(fc.conv_transpose2d(ones, ones[None]), expected, dtype)
    equal(fc.conv2d(ones, ones[None], padding=1), expected, dtype)


def test_transposed_ones_stride_2(dtype):
    ones = image([[1, 1], [1, 1]], dtype)
    expected = [[1, 1, 1, 1]] * 4
    equal(fc.conv_transpose2d(ones, ones[None], stride=2), expected, dtype)
    inserted = image([[1, 0, 1], [0, 0, 0], [1, 0, 1]], dtype)
    equal(fc.conv2d(inserted, ones[None], padding=1), expected, dtype)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, [[0, 0, 1], [0, 4, 6], [4, 12, 9]]),
        ({"padding": 1}, [[4]]),
        ({"stride": 2}, [[0, 0, 0, 1], [0, 0, 2, 3], [0, 2, 0, 3], [4, 6, 6, 9]]),
    ],
)
def test_transposed_0_to_3(parameters, expected, dtype):
    x = image([[0, 1], [2, 3]], dtype)
    equal(fc.conv_transpose2d(x, x[None], **parameters), expected, dtype)


#: Size, taps, stride, padding and output_padding of transposed convolutions, and the size that comes out.
TRANSPOSED_SIZES = [
    (2, 3, 1, 0, 0, 4),
    (6, 4, 1, 2, 0, 5),
    (5, 3, 1, 1, 0, 5),
    (7, 3, 1, 2, 0, 5),
    (2, 3, 2, 0, 0, 5),
    (3, 3, 2, 1, 0, 5),
    (3, 3, 2, 1, 1, 6),
]


@pytest.mark.parametrize(("size", "taps", "stride", "padding", "output_padding", "expected"), TRANSPOSED_SIZES)
def test_transposed_is_a_convolution_of_the_zero_inserted_input(
    size, taps, stride, padding, output_padding, expected, dtype
):
    x, w = numbers((2, 3, size, size), dtype), numbers((3, 4, taps, taps), dtype, 1)
    output = fc.conv_transpose2d(x, w, stride=stride, padding=padding, output_padding=output_padding)
    assert output.shape == (2, 4, expected, expected)
    around = taps - 1 - padding
    pads = ((around, around + output_padding),) * 2
    flipped = w.swapaxes(0, 1)[:, :, ::-1, ::-1]
    same = fc.conv2d(zero_inserted(x, stride), flipped, padding=pads)
    np.testing.assert_array_equal(output, same, strict=True)


def test_there_and_back(dtype):
    x = np.ones((1, 10, 16, 16), dtype)
    there = nn.Conv2d(10, 20, kernel_size=5, padding=2, stride=3, dtype=dtype, rng=0)
    back = nn.ConvTranspose2d(20, 10, kernel_size=5, padding=2, stride=3, dtype=dtype, rng=0)
    assert there(x).shape == (1, 20, 6, 6)
    assert back(there(x)).shape == x.shape


def test_down_and_up_with_output_size(dtype):
    x = np.ones((1, 16, 12, 12), dtype)
    down = nn.Conv2d(16, 16, 3, stride=2, padding=1, dtype=dtype, rng=0)
    up = nn.ConvTranspose2d(16, 16, 3, stride=2, padding=1, dtype=dtype, rng=0)
    h = down(x)
    assert h.shape == (1, 16, 6, 6)
    assert up(h).shape == (1, 16, 11, 11)
    assert up(h, output_size=(12, 12)).shape == x.shape
    assert up(h, output_size=x.shape).shape == x.shape
    assert fc.conv_transpose2d(h, up.weight, stride=2, padding=1, output_size=(12, 12)).shape == x.shape


def test_unequal_kernel_stride_and_padding():
    x = np.ones((20, 16, 50, 100), np.float32)
    unequal = {"kernel_size": (3, 5), "stride": (2, 1), "padding": (4, 2), "rng": 0}
    assert nn.Conv2d(16, 33, **unequal)(x).shape == (20, 33, 28, 100)
    assert nn.Conv2d(16, 33, **unequal, dilation=(3, 1))(x).shape == (20, 33, 26, 100)
    assert nn.ConvTranspose2d(16, 33, **unequal)(x).shape == (20, 33, 93, 100)
    assert nn.Conv2d(16, 33, 3, stride=2, rng=0)(x).shape == (20, 33, 24, 49)
    assert nn.ConvTranspose2d(16, 33, 3, stride=2, rng=0)(x).shape == (20, 33, 101, 201)


# Convolution as a matrix


def test_matrix_4x9(dtype):
    w = kernel([[1, 2], [3, 4]], dtype)
    matrix = fc.conv2d_matrix(w, (3, 3))
    expected = [
        [1, 2, 0, 3, 4, 0, 0, 0, 0],
        [0, 1, 2, 0, 3, 4, 0, 0, 0],
        [0, 0, 0, 1, 2, 0, 3, 4, 0],
        [0, 0, 0, 0, 1, 2, 0, 3, 4],
    ]
    np.testing.assert_array_equal(matrix.toarray(), np.array(expected, dtype), strict=True)
    x = np.arange(9, dtype=dtype)
    np.testing.assert_array_equal(matrix @ x, [27, 37, 57, 67])
    equal(fc.conv2d(x.reshape(1, 3, 3), w), [[27, 37], [57, 67]], dtype)
    y = image([[27, 37], [57, 67]], dtype)
    np.testing.assert_array_equal(fc.conv_transpose2d(y, w).ravel(), matrix.T @ y.ravel())


def test_matrix_4x16_and_its_transpose(dtype):
    w = kernel([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype)
    matrix = fc.conv2d_matrix(w, (4, 4))
    expected = [
        [1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0, 0],
        [0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0],
        [0, 0, 0, 0, 0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9],
    ]
    np.testing.assert_array_equal(matrix.toarray(), np.array(expected, dtype), strict=True)
    y = image([[1, 0], [0, -1]], dtype)
    equal(fc.conv_transpose2d(y, w), [[1, 2, 3, 0], [4, 4, 4, -3], [7, 4, 4, -6], [0, -7, -8, -9]], dtype)
    np.testing.assert_array_equal(fc.conv_transpose2d(y, w).ravel(), matrix.T @ y.ravel())


#: (C_in, C_out, groups)
CHANNELS = [(1, 1, 1), (3, 2, 1), (4, 2, 2), (2, 6, 2), (3, 3, 3)]
PADDINGS = [0, 1, (2, 1), ((0, 2), (1, 0)), "valid", "same", "same_lower"]


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("dilation", [1, 2, (1, 3)], ids=str)
@pytest.mark.parametrize("stride", [1, 2, (3, 1), (2, 4)], ids=str)
def test_matrix_is_the_convolution_and_its_transpose_the_transposed(stride, dilation, padding, dtype):
    for (channels, outputs, groups), size in itertools.product(CHANNELS, [(7, 8), (8, 5)]):
        w = numbers((outputs, channels // groups, 3, 2), dtype)
        matrix = fc.conv2d_matrix(w, size, stride, padding, dilation, groups)

        x = numbers((channels, *size), dtype, 1)
        y = fc.conv2d(x, w, None, stride, padding, dilation, groups)
        assert matrix.shape == (y.size, x.size)
        np.testing.assert_array_equal(y.ravel(), matrix @ x.ravel(), strict=True)

        z = numbers(y.shape, dtype, 2)
        back = fc.conv_transpose2d(z, w, None, stride, padding, 0, groups, dilation, output_size=size)
        assert back.shape == x.shape
        np.testing.assert_array_equal(back.ravel(), matrix.T @ z.ravel(), strict=True)
