"""The network: convolutions at low resolution, then a transposed convolution of stride 2 that doubles it.

Its output is added to the bicubic enlargement. It is a small FSRCNN (C. Dong, C. C. Loy, X. Tang, Accelerating the
Super-Resolution Convolutional Neural Network, 2016).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import nn
from fastconv.problem.arrays import Array


class ReLU:
    """max(x, 0), forward and backward, with the interface of the layers in `fastconv.nn`."""

    def __call__(self, x: Array) -> Array:
        """max(x, 0), an array of x's shape."""
        self._is_positive = x > 0
        return np.maximum(x, 0)

    def backward(self, grad_output: Array) -> Array:
        """The gradient with respect to the input of the last call."""
        return grad_output * self._is_positive


class SuperResolution:
    """Makes a better enlargement from a picture of low resolution and its bicubic enlargement.

    `width` is the number of inner channels, `depth` the number of 3x3 convolutions, `rng` a seed or a generator.
    `layers` are the layers with parameters, first to last.
    """

    def __init__(self, width: int = 24, depth: int = 3, dtype: Any = np.float32, rng: Any = None) -> None:
        rng = np.random.default_rng(rng)
        first = nn.Conv2d(3, width, kernel_size=5, padding=2, dtype=dtype, rng=rng)
        inner = [nn.Conv2d(width, width, kernel_size=3, padding=1, dtype=dtype, rng=rng) for _ in range(depth)]
        last = nn.ConvTranspose2d(width, 3, kernel_size=4, stride=2, padding=1, dtype=dtype, rng=rng)
        for parameter in last.state_dict().values():
            parameter[...] = 0  # training starts from bicubic

        self.layers = [first, *inner, last]
        self._chain = [part for convolution in (first, *inner) for part in (convolution, ReLU())] + [last]

    def __call__(self, low: Array, bicubic: Array) -> Array:
        """The enlargement (..., 3, 2h, 2w) of `low` (..., 3, h, w), given `bicubic` (..., 3, 2h, 2w)."""
        x: Array = low - 0.5  # values around zero train better
        for part in self._chain:
            x = part(x)
        return bicubic + x

    def backward(self, grad_output: Array) -> None:
        """Compute the `gradients` of a loss from its gradient with respect to the output of the last call."""
        for part in reversed(self._chain):
            grad_output = part.backward(grad_output)

    def parameters(self) -> list[Array]:
        """The weights and biases, layer by layer: the network's own arrays, not copies."""
        return [parameter for layer in self.layers for parameter in layer.state_dict().values()]

    def gradients(self) -> list[Array]:
        """The loss's gradients with respect to `parameters`, in their order."""
        pairs = [(layer.weight_grad, layer.bias_grad) for layer in self.layers]
        return [gradient for pair in pairs for gradient in pair if gradient is not None]
