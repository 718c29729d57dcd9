"""What `numpy.seterr` and warning filters say changes no result and stops no call."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv as fc
from fastconv import grad, nn
from fastconv.dispatch import call_cache

#: Input and weight shape and the parameters: one problem for each way to compute one.
PROBLEMS = {
    "conv2d": ((2, 4, 7, 6), (6, 2, 3, 2), {"stride": (2, 1), "padding": 1, "groups": 2}),
    "conv2d, reflected": ((2, 4, 7, 6), (6, 4, 3, 3), {"padding": 1, "padding_mode": "reflect"}),
    "conv2d, depthwise": ((1, 4, 9, 9), (4, 1, 7, 7), {"padding": 3, "groups": 4}),
    "conv2d, a product": ((2, 300, 1, 1), (6, 300, 1, 1), {}),
    "conv1d, circular": ((2, 4, 30), (6, 2, 3), {"padding": 1, "groups": 2, "padding_mode": "circular"}),
    "conv_transpose2d": ((2, 4, 5, 6), (4, 3, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    "conv_transpose2d, with gaps": ((2, 4, 5, 6), (4, 1, 2, 2), {"stride": 3, "groups": 4}),
    "conv_transpose1d": ((2, 4, 9), (4, 2, 4), {"stride": 2, "padding": 1, "groups": 2}),
}
PAIRS = [("f4", "f4"), ("f2", "f2"), (">f4", "f8"), ("i4", "f4"), ("f4", "c16"), ("u1", "u1")]
SIGNALLING = {2: 0x7D01, 4: 0x7FA00001, 8: 0x7FF4000000000001}


def signalling(real):
    return np.array(SIGNALLING[real.itemsize], f"u{real.itemsize}").view(real)


#: Numbers that raise a flag of the processor somewhere: by their dtype.
NUMBERS = {
    "denormal": lambda real: np.finfo(real).smallest_subnormal,
    "huge": lambda real: np.finfo(real).max,
    "infinite": lambda real: real.type(np.inf),
    "signalling": signalling,
}


def numbers(shape, dtype, kind, seed):
    """Random numbers, of which every third is of the kind."""
    dtype = np.dtype(dtype)
    native = dtype.newbyteorder("=")
    random = np.random.default_rng(seed).standard_normal(shape)
    if dtype.kind in "iu":
        return (random * 50).astype("i8").astype(dtype)
    array = random.astype(native)
    real = array.real.dtype
    array.view(real).reshape(-1)[::3] = NUMBERS[kind](real)
    return array if dtype.isnative else array.byteswap().view(dtype)


def same(call, *arguments, **keywords):
    """The results of a call outside and inside of a strict error state have the same bits."""

    def results():
        call_cache.forget()
        found = [call(*arguments, **keywords) for _ in range(2)]  # the long way, and the short one
        arrays = [array for each in found for array in (each if isinstance(each, tuple) else (each,))]
        return [(array.dtype, array.shape, array.tobytes()) for array in arrays]

    expected = results()
    for how in ("raise", "warn"):  # warnings are errors here
        with np.errstate(all=how):
            assert results() == expected


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_functions(engine, problem, kind):
    name = problem.partition(",")[0]
    x_shape, w_shape, parameters = PROBLEMS[problem]
    forward, backward = getattr(fc, name), getattr(grad, f"{name}_backward")
    y_shape = fc.explain(name, x_shape, w_shape, **parameters).output_shape
    for x_dtype, w_dtype in PAIRS:
        dtype = np.result_type(x_dtype, w_dtype)
        if engine[0] != "numpy" and dtype.kind != "f":
            continue
        x, w = numbers(x_shape, x_dtype, kind, 0), numbers(w_shape, w_dtype, kind, 1)
        b, dy = numbers(y_shape[1], w_dtype, kind, 2), numbers(y_shape, dtype, kind, 3)
        out = np.empty(y_shape, dtype)[..., ::-1]
        same(forward, x, w, **parameters)
        same(forward, x, w, b, **parameters)
        same(forward, x, w, b, **parameters, out=out)
        same(backward, dy, x, w, **parameters)


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_layers(engine, dtype, kind):
    def call():
        layer = nn.Conv2d(64, 4, 3, dtype=dtype, rng=0)
        layer.load_state_dict({"weight": numbers((4, 64, 3, 3), "f8", kind, 0), "bias": numbers(4, "f8", kind, 1)})
        y = layer(numbers((1, 64, 5, 5), "f8", kind, 2))
        return layer.weight, layer.bias, y, layer.backward(y), layer.weight_grad, layer.bias_grad

    same(call)


@pytest.mark.parametrize("layer", [nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d])
def test_start_values(layer):
    """In float16 the smallest of many are denormal."""
    same(lambda: tuple(layer(500, 40, 3, dtype="f2", rng=0).state_dict().values()))


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f8", "c8", "i4"])
@pytest.mark.parametrize("kind", NUMBERS)
def test_the_matrix(dtype, kind):
    pytest.importorskip("scipy")
    weight = numbers((2, 2, 3, 3), dtype, kind, 0)
    same(lambda: fc.conv2d_matrix(weight, (5, 5), padding=1).data)


def test_lists_of_several_dtypes():
    mixed = [signalling(np.dtype("f4")), np.float64(1), np.longdouble("1e-4000"), 2]
    same(fc.conv1d, [mixed], [[[1.0]]], backend="numpy")
