"""The three contractions under the transforms of `torch.func` and under forward-mode differentiation.

Each is a `torch.autograd.Function` with all of its rules: the gradients (`differentiable`), the derivative along a
tangent, which is a sum as each contraction is linear in both of its tensors, and the batching of `torch.vmap`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import Function

from fastconv.torch import differentiable
from fastconv.torch.convolution import Convolution


class _Convolution(Function):
    """`differentiable.convolution`."""

    @staticmethod
    def forward(how: Convolution, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return torch.ops.fastconv.convolution(input, weight, bias, *how.arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.how, input, weight, _ = inputs
        ctx.shape = output.shape
        ctx.save_for_backward(input, weight)
        ctx.save_for_forward(input, weight)

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        return None, *differentiable.of_convolution(ctx.how, input, weight, v, ctx.needs_input_grad[1:])

    @staticmethod
    def jvp(ctx: Any, _: Any, of_input: Any, of_weight: Any, of_bias: Any) -> Any:
        input, weight = ctx.saved_tensors
        terms = []
        if of_input is not None:
            terms.append(differentiable.convolution(ctx.how, of_input, weight, None))
        if of_weight is not None:
            terms.append(differentiable.convolution(ctx.how, input, of_weight, None))
        if of_bias is not None:
            terms.append(of_bias.reshape(-1, *(1,) * (len(ctx.shape) - 2)).expand(ctx.shape))
        return sum(terms[1:], terms[0])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], how: Convolution, *given: Any) -> tuple[torch.Tensor, int]:
        return vmap_convolution(info.batch_size, in_dims[1:], how, *given)


class _InputGradient(Function):
    """`differentiable.input_gradient`."""

    @staticmethod
    def forward(
        how: Convolution, input_size: Sequence[int], weight: torch.Tensor, grad_output: torch.Tensor
    ) -> torch.Tensor:
        return torch.ops.fastconv.convolution_input(input_size, weight, grad_output, *how.arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.how, ctx.input_size, weight, grad_output = inputs
        ctx.save_for_backward(weight, grad_output)
        ctx.save_for_forward(weight, grad_output)

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight, grad_output = ctx.saved_tensors
        found = differentiable.of_input_gradient(ctx.how, weight, grad_output, v, ctx.needs_input_grad[2:])
        return None, None, *found

    @staticmethod
    def jvp(ctx: Any, _: Any, __: Any, of_weight: Any, of_output: Any) -> Any:
        weight, grad_output = ctx.saved_tensors
        terms = []
        if of_weight is not None:
            terms.append(differentiable.input_gradient(ctx.how, ctx.input_size, of_weight, grad_output))
        if of_output is not None:
            terms.append(differentiable.input_gradient(ctx.how, ctx.input_size, weight, of_output))
        return sum(terms[1:], terms[0])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], how: Convolution, *given: Any) -> tuple[torch.Tensor, int]:
        return vmap_input(info.batch_size, in_dims[1:], how, *given)


class _WeightGradient(Function):
    """`differentiable.weight_gradient`."""

    @staticmethod
    def forward(
        how: Convolution, input: torch.Tensor, weight_size: Sequence[int], grad_output: torch.Tensor
    ) -> torch.Tensor:
        return torch.ops.fastconv.convolution_weight(input, weight_size, grad_output, *how.arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.how, input, ctx.weight_size, grad_output = inputs
        ctx.save_for_backward(input, grad_output)
        ctx.save_for_forward(input, grad_output)

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (input, grad_output), needed = ctx.saved_tensors, ctx.needs_input_grad
        wanted = needed[1], needed[3]
        by_input, by_output = differentiable.of_weight_gradient(ctx.how, input, grad_output, v, wanted)
        return None, by_input, None, by_output

    @staticmethod
    def jvp(ctx: Any, _: Any, of_input: Any, __: Any, of_output: Any) -> Any:
        input, grad_output = ctx.saved_tensors
        terms = []
        if of_input is not None:
            terms.append(differentiable.weight_gradient(ctx.how, of_input, ctx.weight_size, grad_output))
        if of_output is not None:
            terms.append(differentiable.weight_gradient(ctx.how, input, ctx.weight_size, of_output))
        return sum(terms[1:], terms[0])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], how: Convolution, *given: Any) -> tuple[torch.Tensor, int]:
        return vmap_weight(info.batch_size, in_dims[1:], how, *given)


convolution, input_gradient, weight_gradient = _Convolution.apply, _InputGradient.apply, _WeightGradient.apply


def vmap_convolution(
    size: int, in_dims: tuple[Any, ...], how: Convolution, input: torch.Tensor, weight: torch.Tensor, bias: Any
) -> tuple[torch.Tensor, int]:
    """The outputs of `size` convolutions, and their batch axis; `in_dims` are those of the tensors, or None."""
    of_input, of_weight, of_bias, *_ = in_dims
    if of_weight is None and of_bias is None:  # as images of one batch
        return _unfold(differentiable.convolution(how, _fold(input, of_input, size, 0), weight, bias), size, 0)
    found = differentiable.convolution(
        how.with_groups(size), _fold(input, of_input, size, 1), _fold(weight, of_weight, size, 0),
        None if bias is None else _fold(bias, of_bias, size, 0),
    )  # fmt: skip
    return _unfold(found, size, 1)


def vmap_input(
    size: int, in_dims: tuple[Any, ...], how: Convolution, input_size: Sequence[int], weight: torch.Tensor,
    grad_output: torch.Tensor,
) -> tuple[torch.Tensor, int]:  # fmt: skip
    """The gradients of the inputs, likewise."""
    (_, of_weight, of_output, *_), (images, channels, *extents) = in_dims, input_size
    if of_weight is None:
        folded = images * size, channels, *extents
        found = differentiable.input_gradient(how, folded, weight, _fold(grad_output, of_output, size, 0))
        return _unfold(found, size, 0)
    folded = images, channels * size, *extents
    of_all = _fold(weight, of_weight, size, 0), _fold(grad_output, of_output, size, 1)
    return _unfold(differentiable.input_gradient(how.with_groups(size), folded, *of_all), size, 1)


def vmap_weight(
    size: int, in_dims: tuple[Any, ...], how: Convolution, input: torch.Tensor, weight_size: Sequence[int],
    grad_output: torch.Tensor,
) -> tuple[torch.Tensor, int]:  # fmt: skip
    """The gradients of the weights, likewise."""
    (of_input, _, of_output, *_), (first, *others) = in_dims, weight_size
    found = differentiable.weight_gradient(
        how.with_groups(size), _fold(input, of_input, size, 1), (first * size, *others),
        _fold(grad_output, of_output, size, 1),
    )  # fmt: skip
    return _unfold(found, size, 0)


def _fold(tensor: torch.Tensor, dim: int | None, size: int, axis: int) -> torch.Tensor:
    """A tensor whose batch axis `dim` is merged with axis `axis` of the tensors in it; None: the same in all."""
    batched = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return batched.movedim(0, axis).flatten(axis, axis + 1)


def _unfold(tensor: torch.Tensor, size: int, axis: int) -> tuple[torch.Tensor, int]:
    """The result of tensors that `_fold` made, and its batch axis."""
    return tensor.unflatten(axis, (size, tensor.shape[axis] // size)), axis
