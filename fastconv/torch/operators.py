"""The operators `torch.ops.fastconv`, through which compilers, tracers, modes and transforms see our convolutions.

    convolution(input, weight, bias, ...)                      the output
    convolution_input(input_size, weight, grad_output, ...)    the gradient of the input
    convolution_weight(input, weight_size, grad_output, ...)   the gradient of the weight

Further arguments are those of `Convolution.arguments`; shapes are (N, C, H, W) or (N, C, W).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from fastconv.torch import compute, differentiable, internals, transforms
from fastconv.torch.convolution import Convolution, convolution_of, symbolic_output_shape

_HOW = "int[] stride, int[] padding, int[] dilation, bool transposed, int[] output_padding, int groups"
_SCHEMAS = {
    "convolution": f"(Tensor input, Tensor weight, Tensor? bias, {_HOW}) -> Tensor",
    "convolution_input": f"(SymInt[] input_size, Tensor weight, Tensor grad_output, {_HOW}) -> Tensor",
    "convolution_weight": f"(Tensor input, SymInt[] weight_size, Tensor grad_output, {_HOW}) -> Tensor",
}

_library = torch.library.Library("fastconv", "DEF")


def _how(arguments: Sequence[Any]) -> Convolution:
    """The parameters of an operator's call."""
    stride, padding, dilation, is_transposed, output_padding, groups = arguments
    return convolution_of(tuple(stride), tuple(padding), tuple(dilation), is_transposed, tuple(output_padding), groups)


# what they compute


def _convolution(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *arguments: Any) -> torch.Tensor:
    return compute.forward(_how(arguments), input, weight, bias)


def _convolution_input(
    input_size: Sequence[int], weight: torch.Tensor, grad_output: torch.Tensor, *arguments: Any
) -> torch.Tensor:
    return compute.input_gradient(_how(arguments), tuple(input_size), weight, grad_output)


def _convolution_weight(
    input: torch.Tensor, weight_size: Sequence[int], grad_output: torch.Tensor, *arguments: Any
) -> torch.Tensor:
    return compute.weight_gradient(_how(arguments), input, tuple(weight_size), grad_output)


# the shapes, dtypes and strides of what they compute


def _fake_convolution(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *arguments: Any
) -> torch.Tensor:
    compute.check_dtypes("input, weight and bias", input, weight, bias)
    return compute.empty_like(input, symbolic_output_shape(input.shape, weight.shape, *arguments))


def _fake_input(
    input_size: Sequence[int], weight: torch.Tensor, grad_output: torch.Tensor, *arguments: Any
) -> torch.Tensor:
    compute.check_dtypes("grad_output and weight", grad_output, weight)
    return compute.empty_like(grad_output, input_size)


def _fake_weight(
    input: torch.Tensor, weight_size: Sequence[int], grad_output: torch.Tensor, *arguments: Any
) -> torch.Tensor:
    compute.check_dtypes("grad_output and input", grad_output, input)
    return input.new_empty(weight_size)


# their gradients: as many as there are arguments, None for those that are no tensors

_NONE = (None,) * 6


def _save_convolution(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.how = inputs[3:]
    ctx.save_for_backward(inputs[0], inputs[1])


def _of_convolution(ctx: Any, v: torch.Tensor) -> tuple[Any, ...]:
    input, weight = ctx.saved_tensors
    return *differentiable.of_convolution(_how(ctx.how), input, weight, v, ctx.needs_input_grad[:3]), *_NONE


def _save_input(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.how = inputs[3:]
    ctx.save_for_backward(inputs[1], inputs[2])


def _of_input(ctx: Any, v: torch.Tensor) -> tuple[Any, ...]:
    weight, grad_output = ctx.saved_tensors
    found = differentiable.of_input_gradient(_how(ctx.how), weight, grad_output, v, ctx.needs_input_grad[1:3])
    return None, *found, *_NONE


def _save_weight(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.how = inputs[3:]
    ctx.save_for_backward(inputs[0], inputs[2])


def _of_weight(ctx: Any, v: torch.Tensor) -> tuple[Any, ...]:
    (input, grad_output), needed = ctx.saved_tensors, ctx.needs_input_grad
    wanted = needed[0], needed[2]
    by_input, by_output = differentiable.of_weight_gradient(_how(ctx.how), input, grad_output, v, wanted)
    return by_input, None, by_output, *_NONE


# torch.vmap


def _vmap_convolution(info: Any, in_dims: tuple[Any, ...], *given: Any) -> tuple[torch.Tensor, int]:
    return transforms.vmap_convolution(info.batch_size, in_dims, _how(given[3:]), *given[:3])


def _vmap_input(info: Any, in_dims: tuple[Any, ...], *given: Any) -> tuple[torch.Tensor, int]:
    return transforms.vmap_input(info.batch_size, in_dims, _how(given[3:]), *given[:3])


def _vmap_weight(info: Any, in_dims: tuple[Any, ...], *given: Any) -> tuple[torch.Tensor, int]:
    return transforms.vmap_weight(info.batch_size, in_dims, _how(given[3:]), *given[:3])


# what `torch.utils.flop_counter` counts


def _flops(small: Sequence[int], weight: Sequence[int], images: int) -> int:
    """The FLOPs of a contraction: each number of the weight is used at each pixel of the small map."""
    return 2 * math.prod(weight) * math.prod(small) * images


def _flops_convolution(input: Any, weight: Any, bias: Any, *arguments: Any, out_shape: Any = None, **_: Any) -> int:
    small = input if arguments[3] else out_shape
    return _flops(small[2:], weight, input[0])


def _flops_input(input_size: Any, weight: Any, grad_output: Any, *arguments: Any, **_: Any) -> int:
    small = input_size if arguments[3] else grad_output
    return _flops(small[2:], weight, grad_output[0])


def _flops_weight(input: Any, weight_size: Any, grad_output: Any, *arguments: Any, **_: Any) -> int:
    small = input if arguments[3] else grad_output
    return _flops(small[2:], weight_size, grad_output[0])


# autocast


def _cast(name: str) -> Callable[..., torch.Tensor]:
    """An operator under autocast: its floating tensors are in autocast's dtype, as those of PyTorch's convolutions."""
    operator = getattr(torch.ops.fastconv, name).default

    def under_autocast(*given: Any) -> torch.Tensor:
        dtype = torch.get_autocast_dtype("cpu")
        cast = [one.to(dtype) if isinstance(one, torch.Tensor) and one.is_floating_point() else one for one in given]
        with internals.below_autocast():
            result: torch.Tensor = operator(*cast)
        return result

    return under_autocast


_TABLE: dict[str, tuple[Callable[..., Any], ...]] = {
    "convolution": (
        _convolution, _fake_convolution, _save_convolution, _of_convolution, _vmap_convolution, _flops_convolution,
    ),
    "convolution_input": (_convolution_input, _fake_input, _save_input, _of_input, _vmap_input, _flops_input),
    "convolution_weight": (_convolution_weight, _fake_weight, _save_weight, _of_weight, _vmap_weight, _flops_weight),
}  # fmt: skip


def _at_once(name: str) -> Callable[..., torch.Tensor]:
    """An operator of plain tensors, which needs no second way through the dispatcher; others go the way that PyTorch
    made for it."""
    general = torch.library.get_kernel(f"fastconv::{name}", "AutogradCPU")
    compute: Any = _DIFFERENTIABLE[name]

    def kernel(keys: Any, first: Any, second: Any, third: Any, *arguments: Any) -> torch.Tensor:
        tensors = [one for one in (first, second, third) if isinstance(one, torch.Tensor)]
        if internals.are_plain(*tensors):
            return compute(_how(arguments), first, second, third)
        return general.call_boxed(keys, first, second, third, *arguments)

    return kernel


_DIFFERENTIABLE = {
    "convolution": differentiable.convolution,
    "convolution_input": differentiable.input_gradient,
    "convolution_weight": differentiable.weight_gradient,
}


def _register(name: str) -> None:
    """Define an operator with all that PyTorch wants to know of it."""
    computes, fake, save, gradients, vmap, flops = _TABLE[name]
    _library.define(name + _SCHEMAS[name], tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, computes, "CPU")
    qualified = f"fastconv::{name}"
    torch.library.register_fake(qualified, fake, lib=_library)
    torch.library.register_autograd(qualified, gradients, setup_context=save, lib=_library)
    torch.library.register_vmap(qualified, vmap, lib=_library)
    _library.impl(name, _cast(name), "AutocastCPU")
    if internals.can_replace_kernels():
        _library.impl(name, _at_once(name), "AutogradCPU", with_keyset=True)
    register_flop_formula(getattr(torch.ops.fastconv, name))(flops)


for _name in _SCHEMAS:
    _register(_name)
