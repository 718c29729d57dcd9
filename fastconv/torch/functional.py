"""Convolution and transposed convolution of CPU tensors, with the arguments of `torch.nn.functional`."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import handle_torch_function, has_torch_function

from fastconv.problem import parameters
from fastconv.problem.errors import ArgumentError, DTypeError, ShapeError
from fastconv.torch import differentiable, internals
from fastconv.torch.convolution import Convolution, read


def conv2d(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> torch.Tensor:  # fmt: skip
    """`fastconv.conv2d` of CPU tensors, differentiable any number of times.

    Arguments
        input, weight, bias   tensors of one dtype, shaped as for `torch.nn.functional.conv2d`; they are read where they
                              are, whatever their strides
        the others            as for `torch.nn.functional.conv2d`; padding may also be ((top, bottom), (left, right))

    Returns a tensor with the input's memory format. Backend and algorithm are those that are set, see
    `fastconv.set_backend` and `fastconv.set_algorithm`.

    Raises `ShapeError`, `ArgumentError` or `DTypeError`, before any work.

    >>> import torch
    >>> import fastconv.torch as ft
    >>> ft.conv2d(torch.arange(9.0).reshape(1, 1, 3, 3), torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    tensor([[[[27., 37.],
              [57., 67.]]]])
    """
    return _call(conv2d, False, 2, input, weight, bias, stride, padding, 0, groups, dilation)


def conv1d(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> torch.Tensor:  # fmt: skip
    """`conv2d` with one spatial axis.

    >>> import torch
    >>> import fastconv.torch as ft
    >>> ft.conv1d(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[[1.0, 0.0, -1.0]]]))
    tensor([[-2., -2.]])
    """
    return _call(conv1d, False, 1, input, weight, bias, stride, padding, 0, groups, dilation)


def conv_transpose2d(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> torch.Tensor:  # fmt: skip
    """`fastconv.conv_transpose2d` of CPU tensors, see `conv2d`; arguments as for `torch.nn.functional`.

    >>> import torch
    >>> import fastconv.torch as ft
    >>> ft.conv_transpose2d(torch.ones(1, 1, 1, 2), torch.tensor([[[[1.0, 10.0]]]]), stride=(1, 2))
    tensor([[[[ 1., 10.,  1., 10.]]]])
    """
    return _call(conv_transpose2d, True, 2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose1d(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> torch.Tensor:  # fmt: skip
    """`conv_transpose2d` with one spatial axis.

    >>> import torch
    >>> import fastconv.torch as ft
    >>> ft.conv_transpose1d(torch.tensor([[1.0, 2.0]]), torch.tensor([[[1.0, 10.0]]]), stride=2)
    tensor([[ 1., 10.,  2., 20.]])
    """
    return _call(conv_transpose1d, True, 1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def _call(
    function: Any, is_transposed: bool, axes: int, input: torch.Tensor, weight: torch.Tensor,
    bias: torch.Tensor | None, *written: Any,
) -> torch.Tensor:  # fmt: skip
    """The output of one of the four functions; `written` are the parameters as `convolution.read` takes them."""
    if internals.are_plain(input, weight, bias) and input.dim() == weight.dim() == axes + 2:
        kernel = tuple(weight.shape[2:]) if isinstance(written[1], str) else None
        return differentiable.at_once(convolution(is_transposed, axes, kernel, *written), input, weight, bias)
    tensors: tuple[Any, ...] = input, weight, bias
    if has_torch_function(tensors):  # a subclass of Tensor, or a tracer such as torch.fx
        stride, padding, output_padding, groups, dilation = written
        others = (output_padding, groups, dilation) if is_transposed else (dilation, groups)
        return handle_torch_function(function, tensors, input, weight, bias, stride, padding, *others)  # type: ignore[arg-type]
    _check_tensors(axes, input, weight, bias)
    if input.dim() == axes + 1:
        return _call(function, is_transposed, axes, input.unsqueeze(0), weight, bias, *written).squeeze(0)
    kernel = tuple(weight.shape[2:]) if isinstance(written[1], str) else None
    if torch.compiler.is_compiling():
        arguments = _arguments(is_transposed, axes, kernel, *written)
        return torch.ops.fastconv.convolution(input, weight, bias, *arguments)
    return differentiable.convolution(convolution(is_transposed, axes, kernel, *written), input, weight, bias)


def convolution(is_transposed: bool, axes: int, kernel: tuple[int, ...] | None, *written: Any) -> Convolution:
    """The parameters that a person wrote, as `convolution.read` takes them; they may be in lists."""
    try:
        return read(is_transposed, axes, kernel, *written)
    except TypeError:  # a list cannot be a key
        known = parameters.plain(written)
        return read.__wrapped__(is_transposed, axes, kernel, *(written if known is None else known))


@internals.constant_in_graphs
def _arguments(*written: Any) -> tuple[Any, ...]:
    """The operator's arguments, for a compiler, which takes them as constants."""
    return convolution(*written).arguments


def _check_tensors(axes: int, input: Any, weight: Any, bias: Any) -> None:
    """Raise unless these are tensors on the CPU with the right number of axes."""
    for name, tensor in (("input", input), ("weight", weight), ("bias", bias)):
        if not isinstance(tensor, torch.Tensor):
            if name == "bias" and tensor is None:
                continue
            raise DTypeError(f"{name} must be a torch.Tensor, not {type(tensor).__name__}")
        if not tensor.is_cpu and not tensor.is_meta:
            raise ArgumentError(f"{name} is on the device {tensor.device}; fastconv computes on the CPU")
        if tensor.layout is not torch.strided:
            raise ArgumentError(f"{name} has the layout {tensor.layout}; fastconv computes with torch.strided")
    if input.dim() not in (axes + 1, axes + 2):
        raise ShapeError(
            f"input must have {axes + 2} axes, or {axes + 1} without the batch axis, not shape {tuple(input.shape)}"
        )
    if weight.dim() != axes + 2:
        raise ShapeError(f"weight must have {axes + 2} axes, not shape {tuple(weight.shape)}")
