"""Padding modes: the forward call against numpy.pad, the gradients against finite differences."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv as fc

NUMPY_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
PADS = ((2, 3), (1, 0))


@pytest.mark.parametrize("mode", NUMPY_MODES)
def test_forward_is_convolution_of_the_padded_input(engine, mode):
    rng = np.random.default_rng(0)
    x, w = rng.integers(-3, 4, (2, 2, 4, 5)).astype(float), rng.integers(-3, 4, (3, 2, 3, 2)).astype(float)
    padded = np.pad(x, ((0, 0), (0, 0), *PADS), mode=NUMPY_MODES[mode])
    expected = fc.conv2d(padded, w, stride=2)
    np.testing.assert_array_equal(fc.conv2d(x, w, stride=2, padding=PADS, padding_mode=mode), expected)
    row = np.pad(x[0, :, 0], ((0, 0), PADS[0]), mode=NUMPY_MODES[mode])
    expected = fc.conv1d(row, w[:, :, 0])
    result = fc.conv1d(x[0, :, 0], w[:, :, 0], padding=(PADS[0],), padding_mode=mode)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("which", ["input", "weight"])
@pytest.mark.parametrize("mode", NUMPY_MODES)
def test_gradients_by_finite_differences(engine, mode, which):
    """Central differences of a bilinear function are exact but for rounding, whatever the step."""
    rng = np.random.default_rng(0)
    arrays = {"input": rng.standard_normal((2, 2, 4, 5)), "weight": rng.standard_normal((4, 1, 3, 2))}
    parameters = {"stride": (1, 2), "padding": PADS, "dilation": (2, 1), "groups": 2, "padding_mode": mode}
    dy = rng.standard_normal(fc.conv2d(**arrays, **parameters).shape)

    array = arrays[which]
    expected = np.empty_like(array)
    for position in np.ndindex(array.shape):
        value = array[position]
        losses = []
        for array[position] in (value + 0.5, value - 0.5):
            losses.append(np.vdot(fc.conv2d(**arrays, **parameters), dy))
        array[position] = value
        expected[position] = losses[0] - losses[1]

    sizes = arrays | {which: array.shape}
    result = getattr(fc.grad, f"conv2d_{which}")(*sizes.values(), dy, **parameters)
    np.testing.assert_allclose(result, expected, rtol=1e-11, atol=1e-11)
