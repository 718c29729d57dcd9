"""Layers in inference: one that is called again with the same weight computes by a plan, which keeps the weight packed.

A changed weight is noticed: at each call its address, PyTorch's count of its changes (`_version`) and a sample of its
numbers are compared. The count misses a change through `weight.data`; the sample sees it unless it leaves all of the
sampled numbers as they were. `train()` and `eval()` drop the plan.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fastconv.plans import ConvPlan
from fastconv.problem.operations import FAMILIES
from fastconv.torch import compute
from fastconv.torch.convolution import Convolution, output_shape

#: Numbers of a tensor that are compared at each call, about; each is in a cache line of its own.
_SAMPLE = 8

#: The parameters of a convolution with a kernel of one pixel.
_POINTWISE = 1, 0, 1, 1, "zeros", "channels_last"

#: The name of each operation's function.
NAMES = {operation: name for name, operation in FAMILIES.items()}


class Watched:
    """Tensors as they were when this was made."""

    __slots__ = ("_addresses", "_counted", "_numbers", "_versions", "_views")

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._addresses = [tensor.data_ptr() for tensor in tensors]
        # of a tensor that was made in inference mode PyTorch counts no changes
        self._counted = [number for number, tensor in enumerate(tensors) if not tensor.is_inference()]
        self._versions = [tensors[number]._version for number in self._counted]
        self._views = [_sample(tensor) for tensor in tensors]
        self._numbers = np.concatenate(self._views).tobytes()

    def holds(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether these are the tensors, and as they were. Memory is read only if it is where it was."""
        return (
            [tensor.data_ptr() for tensor in tensors] == self._addresses
            and [tensors[number]._version for number in self._counted] == self._versions
            and np.concatenate(self._views).tobytes() == self._numbers
        )


def _sample(tensor: torch.Tensor) -> Any:
    """A view of some of a tensor's numbers."""
    numbers = compute.array(tensor).ravel("K")  # a view, in the order of memory
    return numbers[:: max(1, numbers.size // _SAMPLE)]


def plan_of(how: Convolution, weight: Any, bias: Any, activation: Any = None) -> ConvPlan:
    """The plan of a convolution with these arrays."""
    return ConvPlan(NAMES[how.operation], weight, bias, how.how, activation, "auto", None)


def run(plan: ConvPlan, how: Convolution, input: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
    """The output of a plan."""
    out = compute.empty_like(input, output_shape(how, input.shape, plan.weight.shape))
    plan(compute.array(input), None if residual is None else compute.array(residual), compute.array(out))
    return out


def plan_of_linear(weight: Any, bias: Any, activation: Any = None) -> ConvPlan:
    """The plan of a linear layer with a weight (outputs, inputs)."""
    return ConvPlan("conv2d", weight[:, :, None, None], bias, _POINTWISE, activation, "auto", None)


def run_linear(plan: ConvPlan, input: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
    """The output of a plan of a linear layer for an input (..., inputs): its rows are the pixels of an image."""
    out = torch.empty((*input.shape[:-1], plan.weight.shape[0]), dtype=input.dtype)
    maps = [None if one is None else _as_row(compute.array(one)) for one in (input, residual, out)]
    plan(*maps)
    return out


def _as_row(rows: Any) -> Any:
    return rows.reshape(1, 1, -1, rows.shape[-1])


class _Layer:
    """What is known of a layer: its parameters as they were, and its plan; None until a second call finds them so."""

    __slots__ = ("how", "plan", "watched")

    def __init__(self, how: Convolution, parameters: Sequence[torch.Tensor]) -> None:
        self.how, self.watched = how, Watched(parameters)
        self.plan: ConvPlan | None = None


_layers: weakref.WeakKeyDictionary[torch.nn.Module, _Layer] = weakref.WeakKeyDictionary()


def forget(module: torch.nn.Module) -> None:
    """Drop the plan of a layer."""
    _layers.pop(module, None)


def forward(
    module: torch.nn.Module, how: Convolution, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """The output of a layer in inference, whose tensors are plain."""
    layer, parameters = _layers.get(module), (weight,) if bias is None else (weight, bias)
    if layer is None or layer.how is not how or not layer.watched.holds(parameters):
        if weight.dtype is not torch.bfloat16:  # which NumPy does not have
            _layers[module] = _Layer(how, parameters)
        return compute.forward(how, input, weight, bias)
    if layer.plan is None:
        layer.plan = plan_of(how, compute.array(weight), None if bias is None else compute.array(bias))
    compute.check_dtypes("input, weight and bias", input, weight, bias)
    return run(layer.plan, how, input)
