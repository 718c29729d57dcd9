"""Layers in inference: one that is called again with the same weight computes by a plan, which keeps the weight packed.

A changed weight is noticed: at each call its address, PyTorch's count of its changes (`_version`) and a sample of its
numbers are compared. The count misses a change through `weight.data`; the sample sees it unless it leaves all of the
sampled numbers as they were. `train()` and `eval()` drop the plan.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import torch

from fastconv.plans import ConvPlan
from fastconv.problem.operations import FAMILIES
from fastconv.torch import compute
from fastconv.torch.convolution import Convolution, output_shape

#: Numbers of a tensor that are compared at each call, about.
_SAMPLE = 64

_NAMES = {operation: name for name, operation in FAMILIES.items()}


class Watched(NamedTuple):
    """A tensor as it was.

    address, version   where its memory is, and how often it was changed
    view, numbers      a view of some of its numbers, and what these were
    """

    address: int
    version: int
    view: Any
    numbers: bytes

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Watched:
        """A tensor as it is."""
        numbers = compute.array(tensor).ravel("K")  # a view, in the order of memory
        view = numbers[:: max(1, numbers.size // _SAMPLE)]
        return cls(tensor.data_ptr(), _version(tensor), view, view.tobytes())

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor is still as it was. Its memory is read only if it is where it was."""
        return (
            tensor.data_ptr() == self.address
            and _version(tensor) == self.version
            and self.view.tobytes() == self.numbers
        )


def _version(tensor: torch.Tensor) -> int:
    """How often a tensor was changed; of a tensor that was made in inference mode PyTorch does not count it."""
    return 0 if tensor.is_inference() else tensor._version


def plan_of(how: Convolution, weight: Any, bias: Any, activation: Any = None) -> ConvPlan:
    """The plan of a convolution with these arrays."""
    return ConvPlan(_NAMES[how.operation], weight, bias, how.how, activation, "auto", None)


def run(plan: ConvPlan, how: Convolution, input: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
    """The output of a plan."""
    out = compute.empty_like(input, output_shape(how, input.shape, plan.weight.shape))
    plan(compute.array(input), None if residual is None else compute.array(residual), compute.array(out))
    return out


class _Layer:
    """What is known of a layer: its parameters as they were, and its plan; None until a second call finds them so."""

    __slots__ = ("bias", "how", "plan", "weight")

    def __init__(self, how: Convolution, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.how, self.weight = how, Watched.of(weight)
        self.bias = None if bias is None else Watched.of(bias)
        self.plan: ConvPlan | None = None

    def holds(self, how: Convolution, weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
        if how is not self.how or not self.weight.holds(weight):
            return False
        return bias is None if self.bias is None else bias is not None and self.bias.holds(bias)


_layers: weakref.WeakKeyDictionary[torch.nn.Module, _Layer] = weakref.WeakKeyDictionary()


def forget(module: torch.nn.Module) -> None:
    """Drop the plan of a layer."""
    _layers.pop(module, None)


def forward(
    module: torch.nn.Module, how: Convolution, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """The output of a layer in inference, whose tensors are plain."""
    layer = _layers.get(module)
    if layer is None or not layer.holds(how, weight, bias):
        if weight.dtype is not torch.bfloat16:  # which NumPy does not have
            _layers[module] = _Layer(how, weight, bias)
        return compute.forward(how, input, weight, bias)
    if layer.plan is None:
        layer.plan = plan_of(how, compute.array(weight), None if bias is None else compute.array(bias))
    compute.check_dtypes(input, weight, "input,weight", bias)
    return run(layer.plan, how, input)
