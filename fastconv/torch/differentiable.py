"""The three contractions of tensors with their gradients, which are contractions again.

For a loss L, an output y = convolution(x, w) and its gradient dy,

    dx = input_gradient(w, dy)       dw = weight_gradient(x, dy)

each of the three is linear in both of its tensors. Let v be the gradient of L by the result of one of them:

    of convolution(x, w)         by x: input_gradient(w, v)     by w:  weight_gradient(x, v)
    of input_gradient(w, dy)     by w: weight_gradient(v, dy)   by dy: convolution(v, w)
    of weight_gradient(x, dy)    by x: input_gradient(v, dy)    by dy: convolution(x, v)

So derivatives of any order are made of these three. Plain tensors are computed at once, without PyTorch's dispatcher,
which takes longer than a small convolution. All others go through the registered operators (`operators`), or through
the rules for transforms (`transforms`).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch.autograd import Function

from fastconv.torch import compute, internals, transforms
from fastconv.torch.convolution import Convolution

Optional: TypeAlias = torch.Tensor | None


def convolution(how: Convolution, input: torch.Tensor, weight: torch.Tensor, bias: Optional) -> torch.Tensor:
    """The output of a convolution."""
    if internals.are_plain(input, weight, bias):
        return at_once(how, input, weight, bias)
    if internals.are_transformed():
        return transforms.convolution(how, input, weight, bias)
    return torch.ops.fastconv.convolution(input, weight, bias, *how.arguments)


def at_once(how: Convolution, input: torch.Tensor, weight: torch.Tensor, bias: Optional) -> torch.Tensor:
    """`convolution` of plain tensors."""
    if torch.is_grad_enabled() and (
        input.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    ):
        return _Convolution.apply(how, input, weight, bias)
    return compute.forward(how, input, weight, bias)


def input_gradient(
    how: Convolution, input_size: tuple[int, ...], weight: torch.Tensor, grad_output: torch.Tensor
) -> torch.Tensor:
    """The gradient of the input."""
    if not internals.are_plain(weight, grad_output):
        if internals.are_transformed():
            return transforms.input_gradient(how, input_size, weight, grad_output)
        return torch.ops.fastconv.convolution_input(input_size, weight, grad_output, *how.arguments)
    if torch.is_grad_enabled() and (weight.requires_grad or grad_output.requires_grad):
        return _InputGradient.apply(how, input_size, weight, grad_output)
    return compute.input_gradient(how, input_size, weight, grad_output)


def weight_gradient(
    how: Convolution, input: torch.Tensor, weight_size: tuple[int, ...], grad_output: torch.Tensor
) -> torch.Tensor:
    """The gradient of the weight."""
    if not internals.are_plain(input, grad_output):
        if internals.are_transformed():
            return transforms.weight_gradient(how, input, weight_size, grad_output)
        return torch.ops.fastconv.convolution_weight(input, weight_size, grad_output, *how.arguments)
    if torch.is_grad_enabled() and (input.requires_grad or grad_output.requires_grad):
        return _WeightGradient.apply(how, input, weight_size, grad_output)
    return compute.weight_gradient(how, input, weight_size, grad_output)


def bias_gradient(grad_output: torch.Tensor) -> torch.Tensor:
    """The gradient of the bias."""
    if internals.are_plain(grad_output) and not (torch.is_grad_enabled() and grad_output.requires_grad):
        return compute.bias_gradient(grad_output)
    return grad_output.sum([0, *range(2, grad_output.dim())])


def of_convolution(
    how: Convolution, input: torch.Tensor, weight: torch.Tensor, v: torch.Tensor, wanted: tuple[bool, ...]
) -> tuple[Optional, Optional, Optional]:
    """The gradients by input, weight and bias, those that are wanted."""
    return (
        input_gradient(how, input.shape, weight, v) if wanted[0] else None,
        weight_gradient(how, input, weight.shape, v) if wanted[1] else None,
        bias_gradient(v) if wanted[2] else None,
    )


def of_input_gradient(
    how: Convolution, weight: torch.Tensor, grad_output: torch.Tensor, v: torch.Tensor, wanted: tuple[bool, ...]
) -> tuple[Optional, Optional]:
    """The gradients by weight and grad_output."""
    return (
        weight_gradient(how, v, weight.shape, grad_output) if wanted[0] else None,
        convolution(how, v, weight, None) if wanted[1] else None,
    )


def of_weight_gradient(
    how: Convolution, input: torch.Tensor, grad_output: torch.Tensor, v: torch.Tensor, wanted: tuple[bool, ...]
) -> tuple[Optional, Optional]:
    """The gradients by input and grad_output."""
    return (
        input_gradient(how, input.shape, v, grad_output) if wanted[0] else None,
        convolution(how, input, v, None) if wanted[1] else None,
    )


class _Convolution(Function):
    """`convolution` of plain tensors."""

    @staticmethod
    def forward(ctx: Any, how: Convolution, input: torch.Tensor, weight: torch.Tensor, bias: Optional) -> torch.Tensor:
        ctx.how = how
        ctx.save_for_backward(input, weight)
        return compute.forward(how, input, weight, bias)

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> tuple[Optional, ...]:
        input, weight = ctx.saved_tensors
        return None, *of_convolution(ctx.how, input, weight, v, ctx.needs_input_grad[1:])


class _InputGradient(Function):
    """`input_gradient` of plain tensors."""

    @staticmethod
    def forward(
        ctx: Any, how: Convolution, input_size: tuple[int, ...], weight: torch.Tensor, grad_output: torch.Tensor
    ) -> torch.Tensor:
        ctx.how = how
        ctx.save_for_backward(weight, grad_output)
        return compute.input_gradient(how, input_size, weight, grad_output)

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> tuple[Optional, ...]:
        weight, grad_output = ctx.saved_tensors
        return None, None, *of_input_gradient(ctx.how, weight, grad_output, v, ctx.needs_input_grad[2:])


class _WeightGradient(Function):
    """`weight_gradient` of plain tensors."""

    @staticmethod
    def forward(
        ctx: Any, how: Convolution, input: torch.Tensor, weight_size: tuple[int, ...], grad_output: torch.Tensor
    ) -> torch.Tensor:
        ctx.how = how
        ctx.save_for_backward(input, grad_output)
        return compute.weight_gradient(how, input, weight_size, grad_output)

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> tuple[Optional, ...]:
        (input, grad_output), needed = ctx.saved_tensors, ctx.needs_input_grad
        by_input, by_output = of_weight_gradient(ctx.how, input, grad_output, v, (needed[1], needed[3]))
        return None, by_input, None, by_output
