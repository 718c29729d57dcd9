"""The three gradients at once: the bits of each one alone, and no conversion of the output's gradient made twice."""

from __future__ import annotations

import numpy as np
import pytest
from problems import Problem

from fastconv import nn
from fastconv.dispatch import backends, call, gradients
from fastconv.problem.arrays import compute_dtype

PROBLEMS = {
    "3x3": Problem(False, 2, (2, 20, 9, 17), (18, 20, 3, 3), {"padding": 1}),
    "1x1, stride 2": Problem(False, 2, (1, 12, 9, 8), (18, 12, 1, 1), {"stride": 2}),
    "depthwise": Problem(False, 2, (2, 17, 9, 10), (34, 1, 3, 3), {"groups": 17, "padding": 1}),
    "reflected": Problem(False, 2, (1, 6, 9, 8), (9, 6, 3, 3), {"padding": 1, "padding_mode": "reflect"}),
    "row": Problem(False, 1, (2, 6, 30), (9, 6, 3), {"dilation": 2}),
    "transposed": Problem(True, 2, (2, 20, 7, 6), (20, 9, 4, 4), {"stride": 2, "padding": 1}),
    "transposed row": Problem(True, 1, (12, 9), (12, 7, 3), {"stride": 2}),
}


def _swapped(array):
    return array.astype(array.dtype.newbyteorder())


def _misaligned(array):
    """The same numbers at an odd address."""
    copy = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _as(dtype):
    return lambda array: array.astype(dtype)


def _same(array):
    return array


def _every_second(array):
    return np.repeat(array, 2, -1)[..., ::2]


def _broadcast(array):
    return np.broadcast_to(array[..., :1], array.shape)


def _last_in_memory(array):
    return np.ascontiguousarray(array.T).T


#: What becomes of the output's gradient, the input and the weight, which are float32; and how often the first one is
#: converted for all three gradients.
KINDS = {
    "as it is": (_same, _same, _same, 0),
    "float16": (_as(np.float16),) * 3 + (1,),
    "float16, the others float32": (_as(np.float16), _same, _same, 1),
    "another byte order": (_swapped, _same, _same, 1),
    "every byte order": (_swapped, _swapped, _swapped, 1),
    "misaligned": (_misaligned, _same, _same, 1),
    "the weight float64": (_same, _same, _as(np.float64), 1),
    "the others float64": (_same, _as(np.float64), _as(np.float64), 1),
    "the others complex": (_same, _as(np.complex64), _as(np.complex64), 1),
    "float64": (_as(np.float64), _same, _same, 0),
    "integers": (_as(np.int8), _as(np.int8), _as(np.int8), 0),
    "integers, the others float32": (_as(np.int16), _same, _same, 1),
    "every second": (_every_second, _same, _same, 0),
    "broadcast": (_broadcast, _same, _same, 0),
    "in another order, of another byte order": (lambda array: _swapped(_last_in_memory(array)), _same, _same, 1),
}


def arrays_of(problem, kind, backend):
    """The output's gradient, input and weight, and the number of conversions; skips what the engine does not take."""
    x, w, _, dy = problem.arrays("integers" if "integers" in kind else "normal", np.float32)
    of_dy, of_x, of_w, conversions = KINDS[kind]
    dy, x, w = of_dy(dy), of_x(x), of_w(w)
    for dtype in (dy.dtype, np.result_type(dy, x), np.result_type(dy, w)):
        if reason := backends.loaded(backend).unsupported(compute_dtype(dtype)):
            pytest.skip(reason)
    return dy, x, w, conversions


@pytest.mark.parametrize("kind", KINDS)
def test_at_once_gives_the_bits_of_one_by_one(engine, kind):
    for name, problem in PROBLEMS.items():
        dy, x, w, _ = arrays_of(problem, kind, engine[0])
        together = problem.gradient("backward", dy, x, w)
        for one, other in zip(together, problem.gradients(dy, x, w), strict=True):
            assert one.dtype == other.dtype, name
            assert one.tobytes() == other.tobytes(), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_output_s_gradient_is_converted_once(monkeypatch, engine, kind):
    """To each dtype that is computed in."""
    problem = PROBLEMS["3x3"]
    dy, x, w, conversions = arrays_of(problem, kind, engine[0])
    converted = []

    def counting(array, dtype):
        result = real(array, dtype)
        if result is not array and np.shares_memory(array, dy):
            converted.append(dtype)
        return result

    real = call.prepared
    for module in (call, gradients):
        monkeypatch.setattr(module, "prepared", counting)
    for _ in range(2):  # planned, and as it is cached
        converted.clear()
        problem.gradient("backward", dy, x, w)
        assert len(converted) == conversions
    converted.clear()
    problem.gradient("backward", dy, x, w, output_mask=(False, False, False))
    assert not converted


def test_a_layer_goes_back_through_all_gradients_at_once(monkeypatch):
    layer = nn.Conv2d(3, 4, 3, rng=0)
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float16)
    y = layer(x)
    real, converted = gradients.prepared, []
    monkeypatch.setattr(gradients, "prepared", lambda array, dtype: converted.append(array) or real(array, dtype))
    dy = np.ones(y.shape, np.float16)
    layer.backward(dy)
    assert sum(array is dy for array in converted) == 1
