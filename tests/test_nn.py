"""Layers by themselves; that they agree with PyTorch's is in test_torch.py."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn

X = np.random.default_rng(0).standard_normal((2, 4, 9, 8))


def test_a_layer_is_its_function(engine):
    layer = nn.Conv2d(4, 6, (3, 2), 2, (1, 0), (2, 1), 2, padding_mode="replicate", dtype=np.float64, rng=0)
    parameters = {"stride": 2, "padding": (1, 0), "dilation": (2, 1), "groups": 2, "padding_mode": "replicate"}
    y = layer(X)
    np.testing.assert_array_equal(y, fc.conv2d(X, layer.weight, layer.bias, **parameters))
    dx, dw, db = fc.grad.conv2d_backward(y, X, layer.weight, **parameters)
    np.testing.assert_array_equal(layer.backward(y), dx)
    np.testing.assert_array_equal(layer.weight_grad, dw)
    np.testing.assert_array_equal(layer.bias_grad, db)


def test_output_size_replaces_output_padding(engine):
    layer = nn.ConvTranspose2d(4, 3, 3, stride=3, output_padding=1, rng=0)
    assert layer(X).shape == (2, 3, 28, 25)
    for size in ((27, 26), (2, 3, 27, 26)):
        y = layer(X, output_size=size)
        assert y.shape == (2, 3, 27, 26)
        assert layer.backward(y).shape == X.shape
    assert layer(X[0], output_size=(3, 27, 26)).shape == (3, 27, 26)
    with pytest.raises(fc.ArgumentError, match="output_size"):
        layer(X, output_size=(3, 27, 26))


def test_attributes_are_the_parameters():
    """As in torch, to set one changes the layer."""
    layer = nn.Conv2d(4, 6, 3)
    assert (layer.stride, layer.padding, layer.dilation, layer.groups) == ((1, 1), 0, (1, 1), 1)
    assert layer(X).shape == (2, 6, 7, 6)
    layer.stride = (2, 3)
    assert layer(X).shape == (2, 6, 4, 2)
    assert "stride=(2, 3)" in repr(layer)


def test_start_values_come_from_the_generator():
    first, again, other = (nn.Conv2d(4, 6, 3, rng=seed).weight for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    generator = np.random.default_rng(0)
    np.testing.assert_array_equal(nn.Conv2d(4, 6, 3, rng=generator).weight, first)
    assert (nn.Conv2d(4, 6, 3, rng=generator).weight != first).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtype(dtype):
    layer = nn.ConvTranspose1d(4, 6, 3, dtype=dtype)
    y = layer(X[:, :, 0].astype(dtype))
    assert y.dtype == layer.weight.dtype == layer.bias.dtype == dtype
    assert layer.backward(y).dtype == layer.weight_grad.dtype == layer.bias_grad.dtype == dtype


def test_copies_and_pickles_leave_the_last_input_behind():
    layer = nn.Conv2d(4, 6, 3, rng=0)
    y = layer(X)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        with pytest.raises(fc.UsageError):
            twin.backward(y)
        np.testing.assert_array_equal(twin(X), y)
    assert len(pickle.dumps(layer)) < 4000
    layer.backward(y)


def test_load_state_dict_casts_to_the_layers_dtype():
    layer = nn.Conv2d(4, 6, 3, rng=0)
    weight = layer.weight
    layer.load_state_dict({"weight": np.ones((6, 4, 3, 3)), "bias": [1, 2, 3, 4, 5, 6]})
    assert layer.weight is weight
    assert (weight == 1).all()
    np.testing.assert_array_equal(layer.bias, np.arange(1, 7, dtype=np.float32), strict=True)


@pytest.mark.parametrize("padding", [1, (1, 2), "same", ((1, 0), (2, 1))])
def test_lists_and_numpy_integers_are_stored_as_torch_stores_them(padding):
    def other(value):
        return [other(item) for item in value] if isinstance(value, tuple) else np.int64(value)

    written = padding if isinstance(padding, str) else other(padding)
    layer = nn.Conv2d(4, 6, [3, 3], [1, 1], written, np.array([1, 1]), np.int64(2))
    assert repr(layer) == repr(nn.Conv2d(4, 6, 3, padding=padding, groups=2))
    assert layer.padding == padding
    expected = layer(X)
    layer.padding, layer.stride, layer.groups = written, [1, 1], np.int32(2)
    np.testing.assert_array_equal(layer(X), expected)
    layer.padding = [2, 3]
    np.testing.assert_array_equal(layer(X), fc.conv2d(X, layer.weight, layer.bias, padding=(2, 3), groups=2))


def test_load_state_dict_takes_views_of_the_layers_own_arrays():
    """Everything is read before anything is written."""
    layer = nn.Conv2d(4, 6, 3, rng=0)
    weight, bias = layer.weight.copy(), layer.weight[:, 0, 0, 0].copy()
    layer.load_state_dict({"weight": layer.weight[::-1], "bias": layer.weight[:, 0, 0, 0]})
    np.testing.assert_array_equal(layer.weight, weight[::-1])
    np.testing.assert_array_equal(layer.bias, bias)


def test_load_state_dict_keeps_what_a_replaced_parameter_can_hold():
    layer = nn.Conv2d(4, 6, 3, rng=0)
    layer.weight = layer.weight.astype(np.float64)
    layer.load_state_dict({"weight": np.full((6, 4, 3, 3), 1 / 3), "bias": np.zeros(6)})
    assert (layer.weight == 1 / 3).all()


def test_a_parameter_that_is_no_array_is_not_loaded_into():
    layer = nn.Conv2d(4, 6, 3, rng=0)
    state = {name: np.zeros_like(array) for name, array in layer.state_dict().items()}
    weight, layer.bias = layer.weight.copy(), layer.bias.tolist()
    with pytest.raises(fc.ArgumentError, match="bias"):
        layer.load_state_dict(state)
    np.testing.assert_array_equal(layer.weight, weight)
