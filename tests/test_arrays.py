"""Every kind of array and dtype that the public face promises to take, and where a result goes."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv as fc
from fastconv import grad

RNG = np.random.default_rng(0)
X = RNG.integers(-3, 4, (2, 4, 6, 7)).astype(np.float64)
W = RNG.integers(-3, 4, (6, 2, 3, 2)).astype(np.float64)
B = RNG.integers(-3, 4, 6).astype(np.float64)
PARAMETERS = {"stride": (2, 1), "padding": 1, "groups": 2}
Y = fc.conv2d(X, W, B, **PARAMETERS)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def misaligned(array):
    buffer = np.zeros(array.nbytes + 1, np.uint8)
    view = buffer[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    assert not view.flags.aligned
    return view


def spread(array):
    """Every other element of a larger array along each axis."""
    larger = np.full([2 * length for length in array.shape], np.nan)
    view = larger[(slice(None, None, 2),) * array.ndim]
    view[...] = array
    return view


class OnlyDLPack:
    """An array type of another library that knows nothing of NumPy."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


class Subclass(np.ndarray):
    """An array type that does as it likes with what is written into it, and reads as another."""

    def __setitem__(self, key, value):
        np.asarray(self)[key] = -7

    def __array_finalize__(self, other):
        self.unit = "m"


def masked_nowhere(array):
    return np.ma.array(array, mask=np.zeros(array.shape, bool))


KINDS = {
    "read-only": read_only,
    "Fortran order": np.asfortranarray,
    "negative strides": lambda array: np.flip(np.flip(array).copy()),
    "every other element": spread,
    "byte-swapped": lambda array: array.astype(array.dtype.newbyteorder()),
    "misaligned": misaligned,
    "nested lists": np.ndarray.tolist,
    "memoryview": memoryview,
    "DLPack": OnlyDLPack,
    "subclass": lambda array: array.view(Subclass),
    "masked nowhere": masked_nowhere,
    "without a mask": np.ma.array,
    "list of masked arrays": lambda array: list(masked_nowhere(array)),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_array(engine, kind):
    x, w, b = (KINDS[kind](array) for array in (X, W, B))
    np.testing.assert_array_equal(fc.conv2d(x, w, b, **PARAMETERS), Y, strict=True)
    dy = KINDS[kind](Y)
    expected = grad.conv2d_backward(Y, X, W, **PARAMETERS)
    for result, wanted in zip(grad.conv2d_backward(dy, x, w, **PARAMETERS), expected, strict=True):
        np.testing.assert_array_equal(result, wanted, strict=True)
    up = fc.conv_transpose2d(Y, W, **PARAMETERS)
    np.testing.assert_array_equal(fc.conv_transpose2d(dy, w, **PARAMETERS), up, strict=True)


def test_broadcast_arrays(engine):
    x = np.broadcast_to(X[:1, :1], X.shape)
    w = np.broadcast_to(W[:, :1, :1], W.shape)
    expected = fc.conv2d(x.copy(), w.copy(), **PARAMETERS)
    np.testing.assert_array_equal(fc.conv2d(x, w, **PARAMETERS), expected)
    dy = np.broadcast_to(np.array(1.0), Y.shape)
    for result, wanted in zip(
        grad.conv2d_backward(dy, x, w, **PARAMETERS),
        grad.conv2d_backward(dy.copy(), x.copy(), w.copy(), **PARAMETERS),
        strict=True,
    ):
        np.testing.assert_array_equal(result, wanted)


def test_torch_tensors(engine):
    torch = pytest.importorskip("torch")
    x, w, b = (torch.from_numpy(array) for array in (X, W, B))
    np.testing.assert_array_equal(fc.conv2d(x, w, b, **PARAMETERS), Y)


OUTS = {
    "contiguous": np.empty,
    "Fortran order": lambda shape: np.empty(shape, order="F"),
    "channels last": lambda shape: np.moveaxis(np.empty((shape[0], *shape[2:], shape[1])), -1, 1),
    "negative strides": lambda shape: np.empty(shape)[..., ::-1],
    "every other element": lambda shape: spread(np.zeros(shape)),
    "misaligned": lambda shape: misaligned(np.empty(shape)),
    "part of a larger array": lambda shape: np.empty([length + 3 for length in shape])[
        tuple(slice(1, 1 + length) for length in shape)
    ],
}


@pytest.mark.parametrize("kind", OUTS)
def test_out(engine, kind):
    calls = {
        "conv2d": (fc.conv2d, (X, W, B), {}),
        "conv_transpose2d": (fc.conv_transpose2d, (Y, W), {}),
        "conv2d_input": (grad.conv2d_input, (X.shape, W, Y), {}),
        "reflected conv2d_input": (grad.conv2d_input, (X.shape, W, Y), {"padding_mode": "reflect"}),
        "conv2d_weight": (grad.conv2d_weight, (X, W.shape, Y), {}),
        "conv_transpose2d_input": (grad.conv_transpose2d_input, (Y.shape, W, X[:, :, :5]), {}),
        "unbatched conv2d": (fc.conv2d, (X[0], W, B), {}),
    }
    for name, (function, arguments, more) in calls.items():
        expected = function(*arguments, **PARAMETERS, **more)
        out = OUTS[kind](expected.shape)
        assert function(*arguments, **PARAMETERS, **more, out=out) is out, name
        np.testing.assert_array_equal(out, expected, err_msg=name)


@pytest.mark.parametrize("kind", [Subclass, np.memmap, np.ma.MaskedArray, masked_nowhere])
def test_out_is_written_as_its_plain_data(engine, kind):
    for dtype, parameters in ((np.float64, {}), (np.float32, {}), (np.float64, {"stride": 2})):
        x, w = X.astype(dtype), RNG.integers(-3, 4, (4, 4, 2, 2)).astype(np.float64)
        expected = fc.conv2d(x, w, **parameters)
        plain = np.full(expected.shape, np.nan)
        out = kind(plain) if kind is masked_nowhere else plain.view(kind)
        assert fc.conv2d(x, w, **parameters, out=out) is out
        np.testing.assert_array_equal(np.asarray(out), expected)
        out = out[..., ::-1]
        fc.conv2d(x, w, **parameters, out=out)
        np.testing.assert_array_equal(np.asarray(out), expected)


@pytest.mark.parametrize("strides", [(0, 0, 0, 0), (1, 1, 1, 1), (8, 8, 8, 8), (-8, 3, 5, 0)])
def test_out_without_elements_has_any_strides(engine, strides):
    out = np.lib.stride_tricks.as_strided(np.empty(0), (0, 6, 4, 8), strides)
    assert fc.conv2d(X[:0], W, B, stride=(2, 1), padding=1, groups=2, out=out[:, :, :3]).size == 0
    up = np.lib.stride_tricks.as_strided(np.empty(0), (0, 4, 8, 9), strides)
    assert fc.conv_transpose2d(np.empty((0, 6, 6, 8)), W, groups=2, out=up).size == 0
    np.testing.assert_array_equal(grad.conv2d_bias(np.empty((0, 6, 4, 8))), 0)


def test_out_of_a_bias_gradient(engine):
    out = np.empty(12)[::-2]
    assert grad.conv2d_bias(Y, out=out) is out
    np.testing.assert_array_equal(out, Y.sum(axis=(0, 2, 3)))


def test_what_lies_around_out_is_left_alone(engine):
    field = np.full((4, 8, 5, 9), 7.0)
    inside = (slice(1, 3), slice(1, 7), slice(1, 4), slice(0, 8))
    fc.conv2d(X, W, B, **PARAMETERS, out=field[inside])
    np.testing.assert_array_equal(field[inside], Y)
    field[inside] = 7
    np.testing.assert_array_equal(field, 7)


def test_out_may_share_memory_with_an_input(engine):
    """The result is that of the input as it was before the call."""
    weight = RNG.integers(-3, 4, (4, 4, 3, 3)).astype(np.float64)
    expected = fc.conv2d(X, weight, padding=1)
    x = X.copy()
    np.testing.assert_array_equal(fc.conv2d(x, weight, padding=1, out=x), expected)
    field = np.zeros((2, 4, 7, 7))
    field[:, :, 1:] = X
    fc.conv2d(field[:, :, 1:], weight, padding=1, out=field[:, :, :-1])
    np.testing.assert_array_equal(field[:, :, :-1], expected)


FLOATS = (np.float16, np.float32, np.float64)


@pytest.mark.parametrize("x_dtype", FLOATS)
@pytest.mark.parametrize("w_dtype", FLOATS)
@pytest.mark.parametrize("b_dtype", FLOATS)
def test_floating_dtypes(engine, x_dtype, w_dtype, b_dtype):
    x, w, b = X.astype(x_dtype), W.astype(w_dtype), B.astype(b_dtype)
    result = fc.conv2d(x, w, b, **PARAMETERS)
    assert result.dtype == np.result_type(x, w, b)
    np.testing.assert_array_equal(result, Y)
    assert grad.conv2d_weight(x, w.shape, Y.astype(b_dtype), **PARAMETERS).dtype == np.result_type(x, b)
    assert grad.conv2d_bias(Y.astype(b_dtype)).dtype == b_dtype


def test_float16_is_rounded_once(engine):
    """Computed in float32: sums that float16 cannot hold on the way come out right, and each result is the nearest."""
    rng = np.random.default_rng(1)
    x, w, b = (rng.standard_normal(shape).astype(np.float16) for shape in ((2, 64, 5, 5), (8, 64, 3, 3), (8,)))
    in_float32 = fc.conv2d(*(array.astype(np.float32) for array in (x, w, b)), padding=1)
    np.testing.assert_array_equal(fc.conv2d(x, w, b, padding=1), in_float32.astype(np.float16), strict=True)
    large = np.full((1, 2, 1, 1), 60000, np.float16)
    signs = np.array([[[[1]], [[-1]]], [[[1]], [[1]]]], np.float16)
    np.testing.assert_array_equal(fc.conv2d(large, signs).ravel(), [0, np.inf])
    dy = rng.standard_normal((2, 8, 5, 5)).astype(np.float16)
    for name, arguments in (("input", (x.shape, w, dy)), ("weight", (x, w.shape, dy))):
        function = getattr(grad, f"conv2d_{name}")
        widened = [array.astype(np.float32) if isinstance(array, np.ndarray) else array for array in arguments]
        expected = function(*widened, padding=1).astype(np.float16)
        np.testing.assert_array_equal(function(*arguments, padding=1), expected, strict=True)
    ones = np.ones((1, 1, 64, 64), np.float16)
    np.testing.assert_array_equal(grad.conv2d_bias(ones), np.array([4096], np.float16), strict=True)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u4", "i8", "u8", "c8", "c16", "g"])
def test_dtypes_of_the_numpy_engine(dtype):
    """Integers wrap as NumPy's do; complex and long double are exact on small integers."""
    x, w, b = (np.abs(array).astype(dtype) for array in (X, W, B))
    with fc.use_backend("numpy"):
        result = fc.conv2d(x, w, b, **PARAMETERS)
        gradients = grad.conv2d_backward(result, x, w, **PARAMETERS)
    exact = fc.conv2d(np.abs(X), np.abs(W), np.abs(B), **PARAMETERS)
    np.testing.assert_array_equal(result, exact.astype("i8").astype(dtype), strict=True)
    expected = grad.conv2d_backward(
        result.astype("c16" if dtype[0] == "c" else "f8"), np.abs(X), np.abs(W), **PARAMETERS
    )
    for ours, wanted in zip(gradients, expected, strict=True):
        assert ours.dtype == dtype
        np.testing.assert_array_equal(ours, wanted.real.astype("i8").astype(dtype))


def test_integers_wrap():
    x = np.full((1, 1, 1, 2), 100, np.int8)
    np.testing.assert_array_equal(fc.conv2d(x, np.ones((1, 1, 1, 2), np.int8)), [[[[200 - 256]]]])


def test_booleans_count_where_they_meet_numbers():
    np.testing.assert_array_equal(fc.conv2d(X > 0, W, **PARAMETERS), fc.conv2d((X > 0).astype(float), W, **PARAMETERS))


def test_a_result_owns_its_memory(engine):
    """Nobody keeps a padded field alive with a result, or writes into an input through it."""
    for mode in ("zeros", "reflect"):
        result = grad.conv2d_input(X.shape, W, Y, **PARAMETERS, padding_mode=mode)
        assert result.flags.owndata or result.base.nbytes == result.nbytes
        assert result.flags.c_contiguous
        assert not np.may_share_memory(result, Y)
    # one image, one channel, rows alone padded: the part without its padding is contiguous as it is
    pads = ((500, 500), (0, 0))
    result = grad.conv2d_input((1, 1, 4, 4), np.ones((1, 1, 3, 3)), np.ones((1, 1, 1002, 2)), padding=pads,
                               padding_mode="replicate")  # fmt: skip
    assert result.flags.owndata or result.base.nbytes == result.nbytes


def test_a_bias_gradient_is_summed_with_care(engine):
    """In float32, of many equal numbers, whatever the order in memory: pairwise, not one after the other."""
    values = np.random.default_rng(0).random((8, 3, 224, 224)).astype(np.float32)
    exact = values.sum(axis=(0, 2, 3), dtype=np.float64)
    channels_last = np.moveaxis(np.moveaxis(values, 1, -1).copy(), -1, 1)
    for layout in (values, channels_last):
        np.testing.assert_allclose(grad.conv2d_bias(layout), exact, rtol=1e-6)
