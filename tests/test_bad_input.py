"""Every bad call fails before any work, with the promised exception and a message that names the argument.

One table of bad calls and one test of them all. A call whose function takes `out` gets one of the right shape that is
filled with a sentinel, and must leave it as it was.
"""

import collections
import copy
import re

import numpy as np
import pytest
from registry import copied_registry

import fastconv as fc
from fastconv import grad, nn
from fastconv.backends.numpy import NumpyEngine
from fastconv.dispatch import backends
from fastconv.dispatch.backends import backend_reasons

SHAPE, VALUE, DTYPE, USAGE = fc.ShapeError, fc.ArgumentError, fc.DTypeError, fc.UsageError
UNAVAILABLE = fc.BackendUnavailableError
BUILT_IN = {SHAPE: ValueError, VALUE: ValueError, DTYPE: TypeError, USAGE: RuntimeError, UNAVAILABLE: RuntimeError}

# y has the shape of conv2d(x, w), x that of conv_transpose2d(y, w); no two axes of a map have the same length
x, w, y = np.ones((2, 6, 10, 11)), np.ones((4, 6, 3, 2)), np.ones((2, 4, 8, 10))
x1, w1, y1 = x[:, :, 0], w[:, :, 0], y[:, :, 0]
half = w[:, :3]  # the weight for groups=2
LAST = "channels_last"

conv, back = fc.conv2d, fc.conv_transpose2d
conv_input, conv_weight = grad.conv2d_input, grad.conv2d_weight
conv_bias, conv_all = grad.conv2d_bias, grad.conv2d_backward
back_input, back_weight = grad.conv_transpose2d_input, grad.conv_transpose2d_weight
back_bias, back_all = grad.conv_transpose2d_bias, grad.conv_transpose2d_backward

#: Functions that take `out`: arguments of a good call, and the shape of its result.
GOOD = {
    conv: ((x, w), y.shape),
    back: ((y, w), x.shape),
    fc.conv1d: ((x1, w1), y1.shape),
    fc.conv_transpose1d: ((y1, w1), x1.shape),
    conv_input: ((x.shape, w, y), x.shape),
    conv_weight: ((x, w.shape, y), w.shape),
    conv_bias: ((y,), (4,)),
    back_input: ((y.shape, w, x), y.shape),
    back_weight: ((y, w.shape, x), w.shape),
    back_bias: ((x,), (6,)),
    grad.conv1d_input: ((x1.shape, w1, y1), x1.shape),
    grad.conv1d_weight: ((x1, w1.shape, y1), w1.shape),
    grad.conv1d_bias: ((y1,), (4,)),
    grad.conv_transpose1d_input: ((y1.shape, w1, x1), y1.shape),
    grad.conv_transpose1d_weight: ((y1, w1.shape, x1), w1.shape),
    grad.conv_transpose1d_bias: ((x1,), (6,)),
}


def bad(case, error, argument, function, *args, says="", **keywords):
    """A row: the message of `function(*args, **keywords)` has the word `argument` and somewhere the pattern `says`."""
    return pytest.param(error, argument, says, function, args, keywords, id=case)


def filled(shape, dtype=float):
    return np.full(shape, -7, dtype)


def read_only():
    out = filled(y.shape)
    out.flags.writeable = False
    return out


def strided(*strides):
    """An array of y's shape with these strides, of elements that overlap."""
    return np.lib.stride_tricks.as_strided(filled(9999), y.shape, strides)


def masked(array, *, nothing=False):
    """`array` with its last element masked, or none."""
    mask = np.zeros(array.shape, bool)
    mask[(-1,) * array.ndim] = not nothing
    return np.ma.array(array, mask=mask)


class GivesMasked:
    """An array type of another library that gives NumPy a masked array."""

    def __array__(self, dtype=None, copy=None):
        return masked(x)


def huge(*shape):
    """An array of any shape, in one byte."""
    return np.broadcast_to(np.int8(1), shape)


def of_rank(rank):
    return np.ones((2,) * rank)


def enter(context, name):
    with context(name):
        pass


def in_environment(variable, value, out):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable, value)
        conv(x, w, out=out)


def tensor_with_grad(function):
    torch = pytest.importorskip("torch")
    return function(torch.ones(x.shape, dtype=torch.float64, requires_grad=True))


def load(state_dict, change=None):
    """Load into a layer, perhaps a changed one, which must stay as it was if that fails."""
    layer = nn.Conv2d(6, 4, (3, 2), rng=0)
    if change is not None:
        change(layer)
    weight, bias = layer.weight.copy(), layer.bias.copy()
    try:
        layer.load_state_dict(state_dict)
    finally:
        np.testing.assert_array_equal(layer.weight, weight)
        np.testing.assert_array_equal(layer.bias, bias)


def locked(name):
    """What makes one of a layer's parameters read-only."""
    return lambda layer: setattr(getattr(layer, name).flags, "writeable", False)


def share(layer):
    """Make a layer's bias a part of its weight."""
    layer.bias = layer.weight[:, 0, 0, 0]


def backward(input, grad_output):
    """Go back through a layer, whose gradients must stay as they were if that fails."""
    layer = nn.Conv2d(6, 4, (3, 2), rng=0)
    layer.backward(layer(x))
    gradients = layer.weight_grad, layer.bias_grad
    try:
        layer(input)
        layer.backward(grad_output)
    finally:
        assert layer.weight_grad is gradients[0]
        assert layer.bias_grad is gradients[1]


state = {"weight": w, "bias": np.ones(4)}

#: What is no number of pixels, whatever the parameter.
NO_INTEGERS = {
    "negative": -1, "fraction": 1.5, "whole-float": 2.0, "nan": float("nan"), "infinity": float("inf"), "true": True,
    "false": False, "numpy-true": np.True_, "none": None, "complex": 1j, "set": {1, 2}, "dict": {1: 2},
    "iterator": iter([1, 2]), "2**31": 2**31, "2**63": 2**63, "2**70": 2**70, "10**30": 10**30, "-10**30": -(10**30),
    "array-of-floats": np.array([1.0, 2.0]), "array-of-booleans": np.array([True, True]),
    "bytes": b"12", "object": object(),
}  # fmt: skip
#: What is no pair either.
NO_PAIRS = {
    "empty": (), "triple": (1, 1, 1), "fraction-in-pair": (1, 1.5), "none-in-pair": (None, 1),
    "true-in-pair": (1, True), "string-in-pair": (1, "1"), "negative-in-pair": (1, -1), "2**63-in-pair": (1, 2**63),
    "nested": ((1, 1), (1, 1, 1)), "matrix": np.ones((3, 3), int),
}  # fmt: skip
#: What is no length of an axis.
NO_LENGTHS = {
    "nan": float("nan"), "fraction": 1.5, "whole-float": 2.0, "true": True, "negative": -1, "none": None, "string": "6",
}  # fmt: skip
NO_MASKS = {
    "two": (True, True), "four": (True,) * 4, "boolean": True, "none": None, "dict": {"input": True}, "empty": (),
    "text": "yes", "texts": ("yes", "no", "no"), "fractions": (1.5, 0.5, float("nan")),
}  # fmt: skip
NO_THREADS = {
    "zero": 0, "negative": -1, "fraction": 1.5, "true": True, "nan": float("nan"), "text": "4", "10**30": 10**30,
}  # fmt: skip
#: Values that a variable cannot have.
ENVIRONMENTS = {
    "FASTCONV_BACKEND": ["npy", "numpy,numba"], "FASTCONV_ALGORITHM": ["x"],
    "FASTCONV_NUM_THREADS": ["all", "0", "-1", "1.5", "10000000000"],
}  # fmt: skip
#: Backends that are known and cannot run here: what their message says, the reason and the valid names.
LACKING = {name: f"{re.escape(why)}.*'numpy'" for name, why in backend_reasons().items() if why is not None}
LAYER = {"in_channels": 4, "out_channels": 6, "kernel_size": 3}

TABLE = [
    # the parameters of the geometry
    *(bad(f"stride-{k}", VALUE, "stride", conv, x, w, stride=v) for k, v in (NO_INTEGERS | NO_PAIRS).items()),
    *(bad(f"dilation-{k}", VALUE, "dilation", conv, x, w, dilation=v) for k, v in (NO_INTEGERS | NO_PAIRS).items()),
    *(bad(f"padding-{k}", VALUE, "padding", conv, x, w, padding=v) for k, v in (NO_INTEGERS | NO_PAIRS).items()),
    *(bad(f"groups-{k}", VALUE, "groups", conv, x, w, groups=v) for k, v in (NO_INTEGERS | NO_PAIRS).items()),
    *(
        bad(f"output_padding-{k}", VALUE, "output_padding", back, y, w, stride=3, output_padding=v)
        for k, v in (NO_INTEGERS | NO_PAIRS).items()
    ),
    bad("stride-zero", VALUE, "stride", conv, x, w, stride=0),
    bad("stride-zero-in-pair", VALUE, "stride", conv, x, w, stride=(1, 0)),
    bad("stride-string", VALUE, "stride", conv, x, w, stride="2"),
    bad("stride-transposed", VALUE, "stride", back, y, w, stride=0),
    bad("dilation-zero", VALUE, "dilation", conv, x, w, dilation=0),
    bad("dilation-string", VALUE, "dilation", conv, x, w, dilation="same"),
    bad("dilation-transposed", VALUE, "dilation", back, y, w, dilation=(1, 0)),
    bad("groups-zero", VALUE, "groups", conv, x, w, groups=0),
    bad("groups-string", VALUE, "groups", conv, x, w, groups="1"),
    bad("groups-tuple-of-one", VALUE, "groups", conv, x, w, groups=(1,)),
    bad("groups-transposed", VALUE, "groups", back, y, w, groups=0),
    # paddings, their names and modes
    bad("padding-four-flat", VALUE, "padding", conv, x, w, padding=(1, 1, 1, 1), says=r"\(\(top, bottom\), \(left"),
    bad("padding-one-pair", VALUE, "padding", conv, x, w, padding=((1, 1),)),
    bad("padding-three-pairs", VALUE, "padding", conv, x, w, padding=((1, 1), (1, 1), (1, 1))),
    bad("padding-pair-and-number", VALUE, "padding", conv, x, w, padding=((1, 1), 1)),
    bad("padding-pair-and-single", VALUE, "padding", conv, x, w, padding=((1, 1), (1,))),
    bad("padding-empty-pairs", VALUE, "padding", conv, x, w, padding=((), ())),
    bad("padding-too-deep", VALUE, "padding", conv, x, w, padding=(((1,), (1,)), ((1,), (1,)))),
    bad("padding-negative-in-pairs", VALUE, "padding", conv, x, w, padding=((0, 0), (0, -1))),
    bad("padding-fraction-in-pairs", VALUE, "padding", conv, x, w, padding=((0, 0.5), (0, 0))),
    bad("padding-2**31-in-pairs", VALUE, "padding", conv, x, w, padding=((0, 2**31), (0, 0))),
    bad("padding-name-in-pair", VALUE, "padding", conv, x, w, padding=("same", "same")),
    bad("padding-case", VALUE, "padding", conv, x, w, padding="Same", says="did you mean 'same'"),
    bad("padding-slip", VALUE, "padding", conv, x, w, padding="vaild", says="did you mean 'valid'"),
    bad("padding-hyphen", VALUE, "padding", conv, x, w, padding="same-lower", says="did you mean 'same_lower'"),
    bad("padding-unknown", VALUE, "padding", conv, x, w, padding="full", says="'same', 'same_lower', 'valid'"),
    bad("padding-mode-as-name", VALUE, "padding", conv, x, w, padding="reflect"),
    bad("padding-transposed", VALUE, "padding", back, y, w, padding="smae", says="did you mean 'same'"),
    bad("mode-slip", VALUE, "padding_mode", conv, x, w, padding_mode="reflects", says="did you mean 'reflect'"),
    bad("mode-case", VALUE, "padding_mode", conv, x, w, padding_mode="Circular", says="did you mean 'circular'"),
    bad("mode-singular", VALUE, "padding_mode", conv, x, w, padding_mode="zero", says="did you mean 'zeros'"),
    bad("mode-unknown", VALUE, "padding_mode", conv, x, w, padding_mode="wrap", says="'circular', 'reflect', 'rep"),
    bad("mode-none", VALUE, "padding_mode", conv, x, w, padding_mode=None),
    bad("mode-number", VALUE, "padding_mode", conv, x, w, padding_mode=0),
    bad("mode-list", VALUE, "padding_mode", conv, x, w, padding_mode=["zeros"]),
    bad("reflect-too-large", VALUE, "padding", conv, x, w, padding=10, padding_mode="reflect", says="height"),
    bad("reflect-too-wide", VALUE, "padding", conv, x, w, padding=(9, 11), padding_mode="reflect", says="width"),
    bad("reflect-of-one", VALUE, "padding", conv, x[:, :, :1], w, padding=(1, 1), padding_mode="reflect"),
    bad("circular-too-large", VALUE, "padding", conv, x, w, padding=11, padding_mode="circular", says="height"),
    bad("circular-at-the-end", VALUE, "padding", conv, x, w, padding=((0, 0), (0, 12)), padding_mode="circular"),
    # shapes: ranks, channels, groups, bias
    *(bad(f"input-{r}d", SHAPE, "input", conv, of_rank(r), w, says=f"{r}-dim") for r in (0, 1, 2, 5, 6)),
    *(bad(f"weight-{r}d", SHAPE, "weight", conv, x, of_rank(r), says=f"{r}-dim") for r in (0, 1, 2, 3, 5, 6)),
    *(bad(f"input-{r}d-transposed", SHAPE, "input", back, of_rank(r), w) for r in (0, 1, 2, 5, 6)),
    *(bad(f"weight-{r}d-transposed", SHAPE, "weight", back, y, of_rank(r)) for r in (0, 1, 2, 3, 5, 6)),
    *(bad(f"bias-{r}d", SHAPE, "bias", conv, x, w, of_rank(r)) for r in (0, 2, 3, 4)),
    bad("input-channels", SHAPE, "input", conv, x[:, :5], w, says="5 channels"),
    bad("input-channels-transposed", SHAPE, "input", back, y[:, :3], w, says="3 channels"),
    bad("groups-not-for-this-weight", SHAPE, "groups", conv, x, w, groups=2),
    bad("groups-not-for-these-inputs", SHAPE, "groups", conv, x[:, :5], half, groups=2),
    bad("groups-not-for-these-outputs", SHAPE, "groups", conv, x, half[:3], groups=2, says="weight"),
    bad("groups-more-than-channels", SHAPE, "groups", conv, x, w, groups=12),
    bad("groups-not-for-transposed", SHAPE, "groups", back, y, w, groups=3, says="weight"),
    bad("bias-too-short", SHAPE, "bias", conv, x, w, np.ones(3), says=r"\(4,\)"),
    bad("bias-of-inputs", SHAPE, "bias", conv, x, w, np.ones(6), says=r"\(4,\)"),
    bad("bias-of-one", SHAPE, "bias", conv, x, w, np.ones(1), says=r"\(4,\)"),
    bad("bias-transposed", SHAPE, "bias", back, y, w, np.ones(4), says=r"\(6,\)"),
    bad("bias-per-group", SHAPE, "bias", back, y, half, np.ones(3), groups=2, says=r"\(6,\)"),
    bad("input-no-channels", SHAPE, "input", conv, x[:, :0], w),
    bad("input-no-rows", SHAPE, "input", conv, x[:, :, :0], w, padding=5),
    bad("input-no-columns", SHAPE, "input", conv, x[..., :0], w, padding=5),
    bad("input-no-rows-transposed", SHAPE, "input", back, y[:, :, :0], w),
    bad("weight-no-outputs", SHAPE, "weight", conv, x, w[:0]),
    bad("weight-no-inputs", SHAPE, "weight", conv, x, w[:, :0]),
    bad("weight-no-taps", SHAPE, "weight", conv, x, w[:, :, :0]),
    bad("no-channels-at-all", SHAPE, "input|weight", conv, x[:, :0], w[:, :0]),
    bad("empty-batch-wrong-channels", SHAPE, "input", conv, x[:0, :5], w),
    bad("kernel-larger-than-input", SHAPE, "weight", conv, x[:, :, :2], w, says="height"),
    bad("kernel-larger-than-padded", SHAPE, "weight", conv, x[..., :1], np.ones((4, 6, 3, 6)), padding=(0, 2)),
    bad("kernel-larger-by-dilation", SHAPE, "dilation", conv, x, w, dilation=5, says="weight.*11"),
    bad("kernel-larger-with-valid", SHAPE, "weight", conv, x, np.ones((4, 6, 1, 12)), padding="valid", says="width"),
    # common slips, each with its hint
    bad("slip-swapped", SHAPE, "weight", conv, x, w.swapaxes(0, 1), says="transposed.*swapaxes"),
    bad("slip-swapped-transposed", SHAPE, "weight", back, y, w.swapaxes(0, 1), says="swapaxes"),
    bad("slip-channels-last", SHAPE, "input", conv, np.moveaxis(x, 1, -1), w, says="channels last"),
    bad("slip-channels-last-unbatched", SHAPE, "input", conv, np.moveaxis(x[0], 0, -1), w, says="channels last"),
    bad("slip-channels-last-grouped", SHAPE, "input", conv, np.moveaxis(x, 1, -1), half, groups=2, says="channels l"),
    bad("slip-channels-last-back", SHAPE, "input", back, np.moveaxis(y, 1, -1), w, says="channels last"),
    bad("slip-channels-first", SHAPE, "input", conv, x, w, data_format=LAST, says="use data_format='channels_first'"),
    bad("slip-channels-first-back", SHAPE, "input", back, y[0], w, data_format=LAST, says="channels first"),
    bad("last-no-channel-axis", SHAPE, "input", conv, x[0, 0], w, data_format=LAST, says=r"H, W, C.*t\[..., None\]"),
    bad("last-no-channel-axis-batched", SHAPE, "input", conv, x[:, 0], w[:, :1], data_format=LAST, says=r"\[..., None"),
    bad("last-input_size", SHAPE, "input_size", conv_input, x.shape, w, y, data_format=LAST, says="did you mean"),
    bad(
        "last-grad_output",
        SHAPE,
        "grad_output",
        conv_weight,
        np.moveaxis(x, 1, -1),
        w.shape,
        y,
        data_format=LAST,
        says=r"\(2, 8, 10, 4\)",
    ),
    bad("last-bias", SHAPE, "grad_output", conv_bias, y[0, 0], data_format=LAST, says="N, H, W, C"),
    bad("data_format", VALUE, "data_format", conv, x, w, data_format="NHWC", says="'channels_first'.*'channels_last'"),
    bad("data_format-slip", VALUE, "data_format", back, y, w, data_format="channel_last", says="mean 'channels_last'"),
    bad("data_format-bias", VALUE, "data_format", conv_bias, y, data_format=None),
    bad("data_format-all", VALUE, "data_format", conv_all, y, x, w, data_format=1),
    bad("data_format-layer", VALUE, "data_format", nn.Conv2d, 1, 1, 1, data_format="last"),
    bad("slip-kernel-first", SHAPE, "weight", conv, x, w.transpose(2, 3, 1, 0), says=r"transpose\(3, 2, 0, 1\)"),
    bad("slip-no-channel-axis", SHAPE, "input", conv, x[0, 0], w[:, :1], says=r"channel axis.*input\[None\]"),
    bad("slip-no-channel-axis-batched", SHAPE, "input", conv, x[:, 0], w[:, :1], says=r"input\[:, None\]"),
    bad("slip-no-channel-axis-back", SHAPE, "input", back, x[:, 0], w[:1], says=r"input\[:, None\]"),
    bad("slip-bare-kernel", SHAPE, "weight", conv, x[:, :1], w[0, 0], says=r"weight\[None, None\]"),
    bad("slip-volume", SHAPE, "input", conv, x[None], w, says="extra axis"),
    # the output of a transposed convolution
    bad("unreachable", SHAPE, "output_size", back, y, w, stride=2, output_size=(19, 20), says="17.*18"),
    bad("unreachable-width", SHAPE, "output_size", back, y, w, stride=2, output_size=(17, 9), says="20.*21"),
    bad("unreachable-stride-1", SHAPE, "output_size", back, y, w, output_size=(11, 11), says="10"),
    bad("unreachable-zero", SHAPE, "output_size", back, y, w, output_size=(0, 11), says="10"),
    bad("unreachable-2**62", SHAPE, "output_size", back, y, w, output_size=(2**62, 11), says="10"),
    bad("unreachable-same", SHAPE, "output_size", back, y, w, None, 2, "same", output_size=(17, 20), says="15.*16"),
    bad("contradictory", VALUE, "output_padding", back, y, w, None, 2, 0, 1, output_size=(17, 20), says="output_size"),
    bad("output_padding-with-same", VALUE, "output_padding", back, y, w, stride=2, padding="same", output_padding=1),
    *(
        bad(f"output_size-{k}", VALUE, "output_size", back, y, w, output_size=(10, v))
        for k, v in (NO_LENGTHS | {"2**70": 2**70}).items()
    ),
    bad("output_size-number", VALUE, "output_size", back, y, w, output_size=10),
    bad("output_size-one", VALUE, "output_size", back, y, w, output_size=(10,)),
    bad("output_size-shape", VALUE, "output_size", back, y, w, output_size=x.shape),
    bad("output_size-text", VALUE, "output_size", back, y, w, output_size="10"),
    bad("output_size-set", VALUE, "output_size", back, y, w, output_size={10, 11}),
    bad("output_padding-1", VALUE, "output_padding", back, y, w, output_padding=1),
    bad("output_padding-stride", VALUE, "output_padding", back, y, w, stride=3, output_padding=3),
    bad("output_padding-dilation", VALUE, "output_padding", back, y, w, dilation=2, output_padding=(0, 2)),
    bad("nothing-left", SHAPE, "padding", back, y, w, padding=5, says="height"),
    bad("nothing-left-width", SHAPE, "padding", back, y, w, padding=((0, 0), (3, 9)), says="width"),
    bad("nothing-left-2**31-1", SHAPE, "padding", back, y, w, padding=2**31 - 1),
    bad("nothing-left-wanted", SHAPE, "padding", back, y, w, padding=9, output_size=(1, 1)),
    # out
    bad("out-shape", SHAPE, "out", conv, x, w, out=filled((2, 4, 10, 8)), says=r"\(2, 4, 8, 10\)"),
    bad("out-unbatched", SHAPE, "out", conv, x[:1], w, out=filled(y.shape[1:])),
    bad("out-broadcastable", SHAPE, "out", conv, x[:1], w, out=filled(y.shape)),
    bad("out-float32", DTYPE, "out", conv, x, w, out=filled(y.shape, np.float32), says="float64"),
    bad("out-complex", DTYPE, "out", conv, x, w, out=filled(y.shape, complex), says="float64"),
    bad("out-object", DTYPE, "out", conv, x, w, out=filled(y.shape, object), says="float64"),
    bad("out-read-only", VALUE, "out", conv, x, w, out=read_only(), says="read-only"),
    bad("out-broadcast", VALUE, "out", conv, x, w, out=np.broadcast_to(-7.0, y.shape)),
    bad("out-one-element", VALUE, "out", conv, x, w, out=strided(0, 0, 0, 0), says="overlap"),
    bad("out-one-image", VALUE, "out", conv, x, w, out=strided(0, 640, 80, 8), says="overlap"),
    bad("out-sliding", VALUE, "out", conv, x, w, out=strided(8, 8, 8, 8), says="overlap"),
    bad("out-rows-overlap", VALUE, "out", conv, x, w, out=strided(2560, 640, 72, 8), says="overlap"),
    bad("out-bytes-overlap", VALUE, "out", conv, x, w, out=strided(1280, 320, 40, 4), says="overlap"),
    bad("out-list", VALUE, "out", conv, x, w, out=y.tolist(), says="ndarray"),
    bad("out-number", VALUE, "out", conv, x, w, out=0.0, says="ndarray"),
    bad("out-type", VALUE, "out", conv, x, w, out=np.ndarray, says="ndarray"),
    bad("out-transposed", SHAPE, "out", back, y, w, out=filled(y.shape)),
    bad("out-of-input-gradient", SHAPE, "out", conv_input, x.shape, w, y, out=filled(y.shape)),
    bad("out-of-weight-gradient", DTYPE, "out", conv_weight, x, w.shape, y, out=filled(w.shape, int)),
    bad("out-of-bias-gradient", SHAPE, "out", conv_bias, y, out=filled(6)),
    bad("out-of-bias-gradient-float32", DTYPE, "out", conv_bias, y, out=filled(4, np.float32)),
    # what is no array of numbers
    bad("input-objects", DTYPE, "input", conv, x.astype(object), w, says="object"),
    bad("input-none", DTYPE, "input", conv, None, w),
    bad("input-dict", DTYPE, "input", conv, {"x": x}, w),
    bad("input-large-integers", DTYPE, "input", conv, [[[10**30]]], w),
    bad("input-strings", DTYPE, "input", conv, x.astype(str), w),
    bad("input-text", DTYPE, "input", conv, "photo.png", w),
    bad("input-dates", DTYPE, "input", conv, x.astype("datetime64[s]"), w, says="datetime64"),
    bad("input-durations", DTYPE, "input", conv, x.astype("timedelta64[s]"), w, says="timedelta64"),
    bad("input-structured", DTYPE, "input", conv, np.zeros(x.shape, [("red", "f4")]), w, says="red"),
    bad("input-void", DTYPE, "input", conv, np.zeros(x.shape, "V4"), w),
    bad("input-ragged", VALUE, "input", conv, [[[1.0, 2.0], [3.0]]], w),
    bad("weight-objects", DTYPE, "weight", conv, x, w.astype(object), says="object"),
    bad("weight-none", DTYPE, "weight", conv, x, None),
    bad("weight-dates", DTYPE, "weight", conv, x, w.astype("datetime64[s]")),
    bad("weight-ragged", VALUE, "weight", conv, x, [[[[1.0, 2.0], [3.0]]]]),
    bad("bias-strings", DTYPE, "bias", conv, x, w, list("abcd")),
    bad("bias-objects", DTYPE, "bias", conv, x, w, [None] * 4),
    bad("bias-ragged", VALUE, "bias", conv, x, w, [1.0, [2.0], 3.0, 4.0]),
    bad("booleans-alone", DTYPE, "input", conv, x > 0, w > 0, says="weight.*boolean"),
    bad("booleans-alone-transposed", DTYPE, "input", back, y > 0, w > 0, np.ones(6, bool), says="bool"),
    bad("booleans-alone-gradient", DTYPE, "grad_output", conv_bias, y > 0, says="bool"),
    bad("grad_output-objects", DTYPE, "grad_output", conv_input, x.shape, w, y.astype(object)),
    bad("grad_output-none", DTYPE, "grad_output", conv_weight, x, w.shape, None),
    bad("tensor-with-grad", VALUE, "input", tensor_with_grad, lambda t: conv(t, w), says="detach"),
    bad("tensor-with-grad-grad_output", VALUE, "grad_output", tensor_with_grad, conv_bias, says="detach"),
    # masked arrays and what else has no numbers of its own
    bad("input-masked", VALUE, "input", conv, masked(x), w, says="masked.*filled"),
    bad("input-masked-integers", VALUE, "input", conv, masked(x.astype(int)), w, says="masked"),
    bad("input-masked-subclass", VALUE, "input", conv, masked(x).view(np.ma.MaskedArray), w, says="masked"),
    bad("input-list-of-masked", VALUE, "input", conv, list(masked(x)), w, says="masked"),
    bad("input-lists-of-masked", VALUE, "input", conv, [[*image] for image in masked(x)], w, says="masked"),
    bad("input-deque-of-masked", VALUE, "input", conv, collections.deque(masked(x)), w, says="masked"),
    bad("input-mixed-list", VALUE, "input", conv, [x[0], (masked(x[0]))], w, says="masked"),
    bad("input-masked-element", VALUE, "input", fc.conv1d, [[1.0, np.ma.masked]], [[[1.0]]], says="masked", out=None),
    bad("input-gives-masked", VALUE, "input", conv, GivesMasked(), w, says="masked"),
    bad("weight-masked", VALUE, "weight", conv, x, masked(w), says="masked"),
    bad("bias-masked", VALUE, "bias", conv, x, w, masked(np.ones(4)), says="masked"),
    bad("bias-list-masked", VALUE, "bias", conv, x, w, [1, 2, np.ma.masked, 4], says="masked"),
    bad("back-input-masked", VALUE, "input", back, masked(y), w, says="masked"),
    bad("back-weight-masked", VALUE, "weight", back, y, masked(w), says="masked"),
    bad("1d-input-masked", VALUE, "input", fc.conv1d, masked(x1), w1, says="masked"),
    bad("1d-back-weight-masked", VALUE, "weight", fc.conv_transpose1d, y1, masked(w1), says="masked"),
    bad("grad_output-masked", VALUE, "grad_output", conv_input, x.shape, w, masked(y), says="masked"),
    bad("gradient-weight-masked", VALUE, "weight", conv_input, x.shape, masked(w), y, says="masked"),
    bad("gradient-input-masked", VALUE, "input", conv_weight, masked(x), w.shape, y, says="masked"),
    bad("gradient-bias-masked", VALUE, "grad_output", conv_bias, masked(y), says="masked"),
    bad("gradient-all-masked", VALUE, "weight", conv_all, y, x, masked(w), says="masked"),
    bad("matrix-weight-masked", VALUE, "weight", fc.conv2d_matrix, masked(w), (10, 11), says="masked"),
    bad("layer-input-masked", VALUE, "input", nn.Conv2d(6, 4, (3, 2)), masked(x), says="masked"),
    bad("layer-grad_output-masked", VALUE, "grad_output", backward, x, masked(y), says="masked"),
    bad("load-weight-masked", VALUE, "state_dict", load, state | {"weight": masked(w)}, says="weight.*masked"),
    bad("load-bias-masked", VALUE, "state_dict", load, state | {"bias": masked(np.ones(4))}, says="bias.*masked"),
    bad("out-masked", VALUE, "out", conv, x, w, out=masked(filled(y.shape)), says="masked"),
    bad("out-masked-gradient", VALUE, "out", conv_weight, x, w.shape, y, out=masked(filled(w.shape)), says="masked"),
    bad("out-masked-bias-gradient", VALUE, "out", conv_bias, y, out=masked(filled(4)), says="masked"),
    # sizes beyond 64 bits
    bad("huge-input", SHAPE, "input", conv, huge(2**31, 1, 2**31, 1), np.ones((4, 1, 1, 1)), out=None),
    bad("huge-weight", SHAPE, "weight", conv, huge(1, 2**31, 1, 1), huge(2**31, 2**31, 1, 1), out=None),
    bad("huge-kernel", SHAPE, "weight", conv, x, huge(4, 6, 2**31, 2**20)),
    bad("huge-padding", SHAPE, "padding", conv, x, w, padding=2**31 - 1, out=None),
    bad("huge-padding-replicate", SHAPE, "padding", conv, x, w, padding=2**31 - 1, padding_mode="replicate", out=None),
    bad("huge-result", SHAPE, "stride", back, huge(1, 4, 2**16, 2**16), w, stride=2**31 - 1, out=None),
    bad("huge-result-pair", SHAPE, "stride", back, huge(1, 4, 1, 2**40), w, stride=(1, 2**31 - 1), out=None),
    bad("huge-result-dilation", SHAPE, "dilation", back, y, huge(4, 6, 2**16, 2**16), dilation=2**31 - 1, out=None),
    bad("huge-result-channels", SHAPE, "input|weight", back, huge(1, 1, 2**20, 2**20), huge(1, 2**31, 1, 1), out=None),
    bad("huge-result-1d", SHAPE, "stride", fc.conv_transpose1d, huge(1, 4, 2**32), w1, stride=2**31 - 1, out=None),
    bad("huge-input-1d", SHAPE, "input", fc.conv1d, huge(2**31, 1, 2**31), np.ones((4, 1, 1)), out=None),
    bad("huge-of-empty-batch", SHAPE, "padding", conv, x[:0], w, padding=2**31 - 1, out=None),
    bad("huge-of-empty-batch-back", SHAPE, "stride", back, y[:0], w, stride=2**31 - 1, out=None),
    bad("huge-input_size", SHAPE, "input_size", conv_input, (2, 6, 2**40, 2**40), w, y),
    bad("huge-input_size-batch", SHAPE, "input_size", conv_input, (2**62, 6, 10, 11), w, y),
    bad("huge-input_size-2**63-1", SHAPE, "input_size", conv_input, (2, 6, 10, 2**63 - 1), w, y),
    bad("huge-input_size-10**5000", VALUE, "input_size", conv_input, (2, 6, 10, 10**5000), w, y),
    bad("huge-input_size-back", SHAPE, "input_size", back_input, (2, 4, 2**62, 10), w, x),
    bad("huge-weight_size-outputs", SHAPE, "weight_size", conv_weight, x, (2**62, 6, 3, 2), y),
    bad("huge-weight_size-taps", SHAPE, "weight_size", conv_weight, x, (4, 6, 2**62, 2), y),
    bad("huge-weight_size-back", SHAPE, "weight_size", back_weight, y, (4, 2**62, 3, 2), x),
    bad("huge-stride-10**5000", VALUE, "stride", conv, x, w, stride=10**5000),
    # gradients
    *(bad(f"input_size-{k}", VALUE, "input_size", conv_input, (2, 6, 10, v), w, y) for k, v in NO_LENGTHS.items()),
    *(bad(f"weight_size-{k}", VALUE, "weight_size", conv_weight, x, (4, 6, v, 2), y) for k, v in NO_LENGTHS.items()),
    *(bad(f"input_size-back-{k}", VALUE, "input_size", back_input, (v, 4, 8, 10), w, x) for k, v in NO_LENGTHS.items()),
    *(
        bad(f"weight_size-back-{k}", VALUE, "weight_size", back_weight, y, (v, 6, 3, 2), x)
        for k, v in NO_LENGTHS.items()
    ),
    bad("input_size-too-short", VALUE, "input_size", conv_input, (10, 11), w, y),
    bad("input_size-too-long", VALUE, "input_size", conv_input, (1, 2, 6, 10, 11), w, y),
    bad("input_size-number", VALUE, "input_size", conv_input, 10, w, y),
    bad("input_size-array", VALUE, "input_size", conv_input, x, w, y),
    bad("input_size-text", VALUE, "input_size", conv_input, "2611", w, y),
    bad("input_size-dict", VALUE, "input_size", conv_input, dict.fromkeys(x.shape), w, y),
    bad("input_size-channels", SHAPE, "input_size", conv_input, (2, 5, 10, 11), w, y, says="5 channels"),
    bad("input_size-channels-last", SHAPE, "input_size", conv_input, (2, 10, 11, 6), w, y, says="channels last"),
    bad("input_size-no-rows", SHAPE, "input_size", conv_input, (2, 6, 0, 11), w, y),
    bad("input_size-small", SHAPE, "weight", conv_input, (2, 6, 2, 11), w, y, says="input_size"),
    bad("input_size-unbatched", SHAPE, "grad_output", conv_input, (6, 10, 11), w, y),
    bad("input_size-not-of-grad_output", SHAPE, "grad_output", conv_input, (2, 6, 12, 11), w, y, says=r"2, 4, 10, 10"),
    bad("weight_size-too-short", VALUE, "weight_size", conv_weight, x, (4, 6, 3), y),
    bad("weight_size-too-long", VALUE, "weight_size", conv_weight, x, (4, 6, 3, 2, 1), y),
    bad("weight_size-kernel-only", VALUE, "weight_size", conv_weight, x, (3, 2), y),
    bad("weight_size-missing", VALUE, "weight_size", conv_weight, x, None, y),
    bad("weight_size-set", VALUE, "weight_size", conv_weight, x, {4, 6, 3, 2}, y),
    bad("weight_size-swapped", SHAPE, "weight_size", conv_weight, x, (6, 4, 3, 2), y, says="transposed"),
    bad("weight_size-no-taps", SHAPE, "weight_size", conv_weight, x, (4, 6, 0, 2), y),
    bad("weight_size-no-outputs", SHAPE, "weight_size", conv_weight, x, (0, 6, 3, 2), y),
    bad("weight_size-groups", SHAPE, "groups", conv_weight, x, (4, 6, 3, 2), y, groups=2),
    bad("weight_size-not-of-grad_output", SHAPE, "grad_output", conv_weight, x, (4, 6, 3, 3), y, says=r"2, 4, 8, 9"),
    bad("grad_output-swapped", SHAPE, "grad_output", conv_input, x.shape, w, y.swapaxes(2, 3), says=r"2, 4, 8, 10"),
    bad("grad_output-channels", SHAPE, "grad_output", conv_weight, x, w.shape, y[:, :3], says=r"2, 4, 8, 10"),
    bad("grad_output-batch", SHAPE, "grad_output", conv_all, y[:1], x, w, says=r"2, 4, 8, 10"),
    bad("grad_output-unbatched", SHAPE, "grad_output", conv_all, y[0], x, w),
    bad("grad_output-stride", SHAPE, "grad_output", conv_all, y, x, w, 2, says=r"2, 4, 4, 5"),
    bad("grad_output-back", SHAPE, "grad_output", back_all, y, y, w, says=r"2, 6, 10, 11"),
    bad("grad_output-back-output_padding", SHAPE, "grad_output", back_input, y.shape, w, x, 2, 0, 1, says=r"18, 21"),
    *(bad(f"grad_output-bias-{r}d", SHAPE, "grad_output", conv_bias, of_rank(r)) for r in (0, 1, 2, 5)),
    *(bad(f"grad_output-bias-1d-{r}d", SHAPE, "grad_output", grad.conv1d_bias, of_rank(r)) for r in (0, 1, 4)),
    *(bad(f"output_mask-{k}", VALUE, "output_mask", conv_all, y, x, w, output_mask=v) for k, v in NO_MASKS.items()),
    bad("output_mask-back", VALUE, "output_mask", back_all, x, y, w, output_mask=(True, True)),
    bad("booleans-alone-backward", DTYPE, "grad_output", conv_all, y > 0, x, w, says="bool"),
    bad("gradient-stride", VALUE, "stride", conv_input, x.shape, w, y, 0),
    bad("gradient-padding", VALUE, "padding", conv_weight, x, w.shape, y, 1, -1),
    bad("gradient-dilation", VALUE, "dilation", conv_all, y, x, w, 1, 0, 1.5),
    bad("gradient-mode", VALUE, "padding_mode", conv_all, y, x, w, padding_mode="reflct", says="mean 'reflect'"),
    bad("gradient-output_size", SHAPE, "output_size", back_all, x, y, w, output_size=(11, 11), says="10"),
    bad("gradient-output_padding", VALUE, "output_padding", back_weight, y, w.shape, x, 1, 0, 1),
    # one spatial axis
    *(bad(f"1d-input-{r}d", SHAPE, "input", fc.conv1d, of_rank(r), w1) for r in (0, 1, 4, 5)),
    *(bad(f"1d-weight-{r}d", SHAPE, "weight", fc.conv1d, x1, of_rank(r)) for r in (0, 1, 2, 4)),
    bad("1d-stride-pair", VALUE, "stride", fc.conv1d, x1, w1, stride=(1, 1)),
    bad("1d-stride-zero", VALUE, "stride", fc.conv_transpose1d, y1, w1, stride=0),
    bad("1d-padding-pair", VALUE, "padding", fc.conv1d, x1, w1, padding=(1, 1), says=r"\(\(left, right\),\)"),
    bad("1d-padding-two-pairs", VALUE, "padding", fc.conv1d, x1, w1, padding=((1, 1), (1, 1))),
    bad("1d-padding-name", VALUE, "padding", fc.conv1d, x1, w1, padding="valid_", says="did you mean 'valid'"),
    bad("1d-dilation", SHAPE, "dilation", fc.conv1d, x1, w1, dilation=11, says="weight.*width"),
    bad("1d-bias", SHAPE, "bias", fc.conv1d, x1, w1, np.ones(2), says=r"\(4,\)"),
    bad("1d-swapped", SHAPE, "weight", fc.conv1d, x1, w1.swapaxes(0, 1), says="transposed.*swapaxes"),
    bad("1d-channels-last", SHAPE, "input", fc.conv1d, x1.swapaxes(1, 2), w1, says="channels last"),
    bad("1d-no-channel-axis", SHAPE, "input", fc.conv1d, x1[0, 0], w1[:, :1], says=r"input\[None\]"),
    bad("1d-reflect", VALUE, "padding", fc.conv1d, x1, w1, padding=11, padding_mode="reflect", says="width"),
    bad("1d-output_size-pair", VALUE, "output_size", fc.conv_transpose1d, y1, w1, output_size=(1, 11)),
    bad("1d-output_size-unreachable", SHAPE, "output_size", fc.conv_transpose1d, y1, w1, None, 3, output_size=(32,)),
    bad("1d-output_padding", VALUE, "output_padding", fc.conv_transpose1d, y1, w1, output_padding=1),
    bad("1d-out", SHAPE, "out", fc.conv1d, x1, w1, out=filled((2, 4, 1, 10))),
    bad("1d-input_size", VALUE, "input_size", grad.conv1d_input, x.shape, w1, y1),
    bad("1d-weight_size", VALUE, "weight_size", grad.conv1d_weight, x1, w.shape, y1),
    bad("1d-grad_output", SHAPE, "grad_output", grad.conv1d_backward, x1, x1, w1),
    # backends, algorithms, threads
    bad("backend-slip", VALUE, "backend", conv, x, w, backend="nunpy", says="'numba'.*did you mean 'numpy'"),
    bad("backend-case", VALUE, "backend", conv, x, w, backend="NumPy", says="did you mean 'numpy'"),
    bad("backend-empty", VALUE, "backend", conv, x, w, backend=""),
    bad("backend-number", VALUE, "backend", conv, x, w, backend=1),
    bad("backend-transposed", VALUE, "backend", back, y, w, backend="cyton", says="did you mean 'cython'"),
    bad("backend-gradient", VALUE, "backend", conv_weight, x, w.shape, y, backend="cuda", says="'numpy'"),
    bad("backend-bias", VALUE, "backend", conv_bias, y, backend="numbas", says="did you mean 'numba'"),
    bad("backend-backward", VALUE, "backend", conv_all, y, x, w, backend="torch", says="'numpy'"),
    bad("backend-set", VALUE, "set_backend", fc.set_backend, "nummpy", says="did you mean 'numpy'"),
    bad("backend-set-number", VALUE, "backend", fc.set_backend, 3),
    bad("backend-use", VALUE, "use_backend", enter, fc.use_backend, "nmpy", says="did you mean 'numpy'"),
    bad("backend-use-none", VALUE, "backend", enter, fc.use_backend, None),
    *(bad(f"lacking-{k}", UNAVAILABLE, "backend", conv, x, w, backend=k, says=v) for k, v in LACKING.items()),
    *(bad(f"lacking-{k}-bias", UNAVAILABLE, "backend", conv_bias, y, backend=k, says=v) for k, v in LACKING.items()),
    *(bad(f"lacking-{k}-set", UNAVAILABLE, "set_backend", fc.set_backend, k, says=v) for k, v in LACKING.items()),
    *(
        bad(f"lacking-{k}-variable", UNAVAILABLE, v, in_environment, v, k, out=filled(y.shape), says=says)
        for v in ("FASTCONV_BACKEND",)
        for k, says in LACKING.items()
    ),
    *(
        bad(f"lacking-{k}-use", UNAVAILABLE, "use_backend", enter, fc.use_backend, k, says=v)
        for k, v in LACKING.items()
    ),
    bad("register-empty", VALUE, "name", fc.register_backend, "", dict),
    bad("register-auto", VALUE, "name", fc.register_backend, "auto", dict, says="auto"),
    bad("register-ours", VALUE, "name", fc.register_backend, "numpy", dict, says="numpy"),
    bad("register-none", VALUE, "name", fc.register_backend, None, dict),
    bad("register-number", VALUE, "name", fc.register_backend, 5, dict),
    bad("register-no-loader", VALUE, "loader", fc.register_backend, "another", None),
    bad("register-module-name", VALUE, "loader", fc.register_backend, "another", "package.module"),
    bad("algorithm-slip", VALUE, "algorithm", conv, x, w, algorithm="winogard", says="did you mean 'winograd'"),
    bad("algorithm-unknown", VALUE, "algorithm", conv, x, w, algorithm="strassen", says="'direct', 'fft', 'winograd'"),
    bad("algorithm-number", VALUE, "algorithm", back, y, w, algorithm=1),
    bad("algorithm-list", VALUE, "algorithm", conv, x, w, algorithm=["direct"]),
    bad("algorithm-gradient", VALUE, "algorithm", conv_input, x.shape, w, y, algorithm="dirct", says="mean 'direct'"),
    bad("algorithm-set", VALUE, "set_algorithm", fc.set_algorithm, "fff", says="did you mean 'fft'"),
    bad("algorithm-use", VALUE, "use_algorithm", enter, fc.use_algorithm, "Direct", says="did you mean 'direct'"),
    bad("algorithm-declines", VALUE, "winograd", conv, x, w, None, 3, algorithm="winograd", out=None, says="apply"),
    *(bad(f"threads-{k}", VALUE, "threads", fc.set_num_threads, v) for k, v in NO_THREADS.items()),
    *(
        bad(f"{variable}={value}", VALUE, variable, in_environment, variable, value, out=filled(y.shape))
        for variable, values in ENVIRONMENTS.items()
        for value in values
    ),
    # explain
    bad("explain-slip", VALUE, "operation", fc.explain, "conv2", x.shape, w.shape, says="did you mean 'conv2d'"),
    bad("explain-3d", VALUE, "operation", fc.explain, "conv3d", x.shape, w.shape, says="'conv_transpose2d_weight'"),
    bad("explain-function", VALUE, "operation", fc.explain, conv, x.shape, w.shape),
    bad("explain-keyword", VALUE, "strides", fc.explain, "conv2d", x.shape, w.shape, strides=2),
    bad("explain-other-keyword", VALUE, "output_size", fc.explain, "conv2d", x.shape, w.shape, output_size=(9, 9)),
    bad("explain-mode", VALUE, "padding_mode", fc.explain, "conv_transpose2d", y.shape, w.shape, padding_mode="zeros"),
    bad("explain-stride", VALUE, "stride", fc.explain, "conv2d", x.shape, w.shape, stride=0),
    bad("explain-array", VALUE, "input_shape", fc.explain, "conv2d", x, w),
    bad("explain-number", VALUE, "weight_shape", fc.explain, "conv2d", x.shape, 3),
    bad("explain-channels", SHAPE, "input_shape", fc.explain, "conv2d", (2, 5, 10, 11), w.shape, says="5 channels"),
    bad("explain-no-rows", SHAPE, "input_shape", fc.explain, "conv2d", (2, 6, 0, 11), w.shape),
    bad("explain-huge", SHAPE, "input_shape", fc.explain, "conv2d", (2, 6, 2**40, 2**40), w.shape),
    bad("explain-backend", VALUE, "backend", fc.explain, "conv2d", x.shape, w.shape, backend="nunpy", says="'numpy'"),
    bad("explain-algorithm", VALUE, "algorithm", fc.explain, "conv2d", x.shape, w.shape, algorithm="ftt", says="'fft'"),
    bad("explain-dtype-name", DTYPE, "dtype", fc.explain, "conv2d", x.shape, w.shape, dtype="floot"),
    bad("explain-dtype-object", DTYPE, "dtype", fc.explain, "conv2d", x.shape, w.shape, dtype=object),
    bad("explain-dtype-text", DTYPE, "dtype", fc.explain, "conv2d", x.shape, w.shape, dtype="U3"),
    bad("explain-dtype-date", DTYPE, "dtype", fc.explain, "conv2d", x.shape, w.shape, dtype="datetime64[s]"),
    bad("explain-dtype-boolean", DTYPE, "dtype", fc.explain, "conv2d", x.shape, w.shape, dtype=bool),
    # the matrix
    bad("matrix-three", VALUE, "input_size", fc.conv2d_matrix, w, (6, 10, 11)),
    bad("matrix-number", VALUE, "input_size", fc.conv2d_matrix, w, 10),
    bad("matrix-missing", VALUE, "input_size", fc.conv2d_matrix, w, None),
    *(bad(f"matrix-{k}", VALUE, "input_size", fc.conv2d_matrix, w, (10, v)) for k, v in NO_LENGTHS.items()),
    bad("matrix-zero", SHAPE, "input_size", fc.conv2d_matrix, w, (10, 0)),
    bad("matrix-small", SHAPE, "input_size", fc.conv2d_matrix, w, (2, 11), says="weight.*height"),
    bad("matrix-huge", SHAPE, "input_size", fc.conv2d_matrix, w, (2**40, 2**40)),
    bad("matrix-groups", SHAPE, "groups", fc.conv2d_matrix, w, (10, 11), groups=3, says="weight"),
    bad("matrix-groups-zero", VALUE, "groups", fc.conv2d_matrix, w, (10, 11), groups=0),
    bad("matrix-stride", VALUE, "stride", fc.conv2d_matrix, w, (10, 11), (1, 0)),
    bad("matrix-padding", VALUE, "padding", fc.conv2d_matrix, w, (10, 11), 1, "sam", says="did you mean 'same'"),
    bad("matrix-weight-3d", SHAPE, "weight", fc.conv2d_matrix, w[0], (10, 11)),
    bad("matrix-weight-2d", SHAPE, "weight", fc.conv2d_matrix, w[0, 0], (10, 11), says=r"\[None, None\]"),
    bad("matrix-weight-no-inputs", SHAPE, "weight", fc.conv2d_matrix, w[:, :0], (10, 11)),
    bad("matrix-weight-objects", DTYPE, "weight", fc.conv2d_matrix, w.astype(object), (10, 11)),
    bad("matrix-weight-booleans", DTYPE, "weight", fc.conv2d_matrix, w > 0, (10, 11)),
    # layers
    *(
        bad(f"layer-{argument}-{k}", VALUE, argument, nn.Conv2d, **(LAYER | {argument: v}))
        for argument in ("in_channels", "out_channels", "kernel_size", "stride", "dilation", "groups")
        for k, v in ({"zero": 0} | NO_LENGTHS).items()
    ),
    bad("layer-kernel_size-triple", VALUE, "kernel_size", nn.Conv2d, 4, 6, (3, 3, 3)),
    bad("layer-kernel_size-pair-1d", VALUE, "kernel_size", nn.Conv1d, 4, 6, (3, 3)),
    bad("layer-padding", VALUE, "padding", nn.Conv2d, 4, 6, 3, padding="smae", says="did you mean 'same'"),
    bad("layer-padding-negative", VALUE, "padding", nn.ConvTranspose2d, 4, 6, 3, padding=-1),
    bad("layer-output_padding", VALUE, "output_padding", nn.ConvTranspose2d, 4, 6, 3, output_padding=-1),
    bad("layer-groups-inputs", VALUE, "in_channels", nn.Conv2d, 4, 6, 3, groups=3, says="groups"),
    bad("layer-groups-outputs", VALUE, "out_channels", nn.Conv2d, 4, 6, 3, groups=4, says="groups"),
    bad("layer-groups-transposed", VALUE, "out_channels", nn.ConvTranspose2d, 4, 6, 3, groups=4, says="groups"),
    bad("layer-mode", VALUE, "padding_mode", nn.Conv2d, 4, 6, 3, padding_mode="reflects", says="mean 'reflect'"),
    bad("layer-mode-back", VALUE, "padding_mode", nn.ConvTranspose2d, 4, 6, 3, padding_mode="reflect", says="zeros"),
    bad("layer-mode-back-1d", VALUE, "padding_mode", nn.ConvTranspose1d, 4, 6, 3, padding_mode="circular"),
    bad("layer-device", VALUE, "device", nn.Conv2d, 4, 6, 3, device="cuda", says="cpu"),
    bad("layer-device-1d", VALUE, "device", nn.ConvTranspose1d, 4, 6, 3, device="cuda:0", says="cpu"),
    *(
        bad(f"layer-dtype-{dtype}", DTYPE, "dtype", nn.Conv2d, 4, 6, 3, dtype=dtype)
        for dtype in ("int32", "bool", "complex64", "object", "U3", "float31")
    ),
    bad("layer-dtype-int", DTYPE, "dtype", nn.ConvTranspose2d, 4, 6, 3, dtype=int),
    bad("layer-bias-array", VALUE, "bias", nn.Conv2d, 4, 6, 3, bias=np.ones(6)),
    bad("layer-rng-text", VALUE, "rng", nn.Conv2d, 4, 6, 3, rng="seed"),
    bad("layer-rng-negative", VALUE, "rng", nn.Conv2d, 4, 6, 3, rng=-1),
    bad("layer-huge", VALUE, "in_channels|out_channels|kernel_size|weight", nn.Conv2d, 2**20, 2**20, 2**15),
    bad("layer-input-channels", SHAPE, "input", nn.Conv2d(6, 4, 3), x[:, :5], says="5 channels"),
    bad("layer-input-text", DTYPE, "input", nn.Conv2d(6, 4, 3), "photo.png"),
    bad("layer-output_size", SHAPE, "output_size", nn.ConvTranspose2d(4, 6, (3, 2)), y, (11, 11), says="10"),
    bad("layer-output_size-number", VALUE, "output_size", nn.ConvTranspose2d(4, 6, (3, 2)), y, 10),
    bad("layer-backward-first", USAGE, "backward", nn.Conv2d(6, 4, (3, 2)).backward, y, says="call"),
    bad("layer-backward-first-transposed", USAGE, "backward", nn.ConvTranspose2d(4, 6, 3).backward, y, says="call"),
    bad("layer-backward-shape", SHAPE, "grad_output", backward, x, y[:, :3], says=r"2, 4, 8, 10"),
    bad("load-nothing", VALUE, "state_dict", load, {}, says="bias.*weight"),
    bad("load-missing", VALUE, "state_dict", load, {"weight": w}, says="bias"),
    bad("load-unexpected", VALUE, "state_dict", load, state | {"gamma": 1}, says="gamma"),
    bad("load-unexpected-number", VALUE, "state_dict", load, state | {1: 1}),
    bad("load-weight-shape", SHAPE, "state_dict", load, state | {"weight": w[0]}, says=r"weight.*4, 6, 3, 2"),
    bad("load-weight-swapped", SHAPE, "state_dict", load, state | {"weight": w.swapaxes(0, 1)}, says="weight"),
    bad("load-bias-shape", SHAPE, "state_dict", load, state | {"bias": np.ones((4, 1))}, says=r"bias.*\(4,\)"),
    bad("load-bias-number", SHAPE, "state_dict", load, state | {"bias": 1.0}, says="bias"),
    bad("load-bias-strings", DTYPE, "state_dict", load, state | {"bias": list("abcd")}, says="bias"),
    bad("load-bias-ragged", VALUE, "state_dict", load, state | {"bias": [1.0, [2.0], 3.0, 4.0]}, says="bias"),
    bad("load-bias-complex", DTYPE, "state_dict", load, state | {"bias": np.ones(4, complex)}, says="bias"),
    bad("load-read-only-weight", VALUE, "weight", load, state, locked("weight"), says="read-only"),
    bad("load-bias-inside-weight", VALUE, "bias", load, state, share, says="share memory"),
    bad("load-read-only-bias", VALUE, "bias", load, state, locked("bias"), says="read-only"),
    bad("load-list", VALUE, "state_dict", load, [w, np.ones(4)]),
    bad("load-none", VALUE, "state_dict", load, None),
]


@pytest.mark.parametrize(("error", "argument", "says", "function", "args", "keywords"), TABLE)
def test_bad_call(error, argument, says, function, args, keywords):
    if function in GOOD and "out" not in keywords:
        keywords = keywords | {"out": filled(GOOD[function][1])}
    out = keywords.get("out")
    before = copy.deepcopy(out)
    with pytest.raises(Exception, match=rf"\b(?:{argument})\b") as caught:
        function(*args, **keywords)
    assert type(caught.value) is error
    assert isinstance(caught.value, fc.FastconvError)
    assert isinstance(caught.value, BUILT_IN[error])
    assert re.search(says, str(caught.value), re.DOTALL)
    np.testing.assert_array_equal(out, before)


@pytest.mark.parametrize("function", GOOD, ids=lambda function: function.__name__)
def test_the_call_that_the_rows_vary_is_good(function):
    args, shape = GOOD[function]
    out = filled(shape)
    assert function(*args, out=out) is out
    assert np.all(out > 0)


def test_backward_refuses_what_its_last_gradient_cannot_be_before_the_first(monkeypatch):
    monkeypatch.setattr(backends, "_registry", copied_registry())
    computed = []

    class Watching(NumpyEngine):
        def unsupported(self, dtype):
            return None if dtype.kind == "f" else "integers are not for it"

        def correlate(self, windows, weight, out):
            computed.append(out)

    fc.register_backend("watching", Watching)
    for grad_output in (y > 0, y.astype(int)):
        with pytest.raises(fc.DTypeError):
            conv_all(grad_output, x, w, backend="watching")
    assert not computed
    assert conv_all(y.astype(int), x, w, backend="watching", output_mask=(True, True, False))[2] is None
