"""The three contractions of CPU tensors: their memory is read and written as NumPy arrays, without a copy.

Results are PyTorch's own tensors. A map has the memory format of the map that it is made from. bfloat16, which NumPy
does not have, is computed in float32 and rounded once, as float16 is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from fastconv import functional
from fastconv.dispatch import gradients
from fastconv.problem.errors import DTypeError, ShapeError
from fastconv.torch.convolution import Convolution, output_shape

#: Algorithm and backend of a call: those that are set.
_AS_SET = "auto", None


def forward(
    convolution: Convolution, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """The output."""
    shape = output_shape(convolution, input.shape, weight.shape)
    if input.dtype is torch.bfloat16:
        return _in_float32(forward, convolution, input, weight, bias)
    check_dtypes("input, weight and bias", input, weight, bias)
    out = empty_like(input, shape)
    functional.forward(
        convolution.operation, array(input), array(weight), None if bias is None else array(bias), convolution.how,
        *_AS_SET, array(out),
    )  # fmt: skip
    return out


def input_gradient(
    convolution: Convolution, input_size: tuple[int, ...], weight: torch.Tensor, grad_output: torch.Tensor
) -> torch.Tensor:
    """The gradient of the input, of shape `input_size`."""
    _check_shape(convolution, input_size, weight.shape, grad_output)
    if grad_output.dtype is torch.bfloat16:
        return _in_float32(input_gradient, convolution, input_size, weight, grad_output)
    check_dtypes("grad_output and weight", grad_output, weight)
    out = empty_like(grad_output, input_size)
    gradients.input_gradient(
        convolution.operation, tuple(input_size), array(weight), array(grad_output), convolution.how, *_AS_SET,
        array(out),
    )  # fmt: skip
    return out


def weight_gradient(
    convolution: Convolution, input: torch.Tensor, weight_size: tuple[int, ...], grad_output: torch.Tensor
) -> torch.Tensor:
    """The gradient of the weight, of shape `weight_size`."""
    _check_shape(convolution, input.shape, weight_size, grad_output)
    if grad_output.dtype is torch.bfloat16:
        return _in_float32(weight_gradient, convolution, input, weight_size, grad_output)
    check_dtypes("grad_output and input", grad_output, input)
    out = torch.empty(weight_size, dtype=input.dtype)
    gradients.weight_gradient(
        convolution.operation, array(input), tuple(weight_size), array(grad_output), convolution.how, *_AS_SET,
        array(out),
    )  # fmt: skip
    return out


def bias_gradient(grad_output: torch.Tensor) -> torch.Tensor:
    """The gradient of the bias: the sum of `grad_output` over images and pixels."""
    if grad_output.dtype is torch.bfloat16:
        return bias_gradient(grad_output.float()).to(torch.bfloat16)
    out = torch.empty(grad_output.shape[1], dtype=grad_output.dtype)
    gradients.bias_gradient(array(grad_output), grad_output.dim() - 2, "channels_first", *_AS_SET, array(out))
    return out


def array(tensor: torch.Tensor) -> Any:
    """A tensor's memory as a NumPy array."""
    return tensor.numpy(force=True)  # without force, a tensor that requires a gradient is refused


def empty_like(map: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Memory of PyTorch's for another map, with the memory format of `map`."""
    if not map.is_contiguous() and map.dim() == 4 and map.stride(1) == 1:
        return torch.empty(shape, dtype=map.dtype, memory_format=torch.channels_last)
    return torch.empty(shape, dtype=map.dtype)


def check_dtypes(names: str, first: torch.Tensor, *others: torch.Tensor | None) -> None:
    """Raise unless all tensors have one dtype; `names` is what a message calls them."""
    for other in others:
        if other is not None and other.dtype is not first.dtype:
            dtypes = ", ".join(str(tensor.dtype) for tensor in (first, *others) if tensor is not None)
            raise DTypeError(f"{names} must have one dtype, not {dtypes}")


def _check_shape(
    convolution: Convolution, input_size: tuple[int, ...], weight_size: tuple[int, ...], grad_output: torch.Tensor
) -> None:
    wanted = output_shape(convolution, tuple(input_size), tuple(weight_size))
    if grad_output.shape != wanted:
        raise ShapeError(f"grad_output has shape {tuple(grad_output.shape)}, and the output's is {wanted}")


def _in_float32(function: Callable[..., torch.Tensor], convolution: Convolution, *given: Any) -> torch.Tensor:
    """A contraction of bfloat16 tensors."""
    wide = [one.float() if isinstance(one, torch.Tensor) else one for one in given]
    return function(convolution, *wide).to(torch.bfloat16)
