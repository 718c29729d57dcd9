"""All convolutions of a process: the CPU kernels of `aten::convolution` and of its gradients, replaced by ours.

What `_taken` declines goes to the kernel that was there before, with the arguments as they came.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import Any

import torch

from fastconv.dispatch import backends, threads
from fastconv.dispatch.explain import explain
from fastconv.problem import environment
from fastconv.problem.errors import FastconvError, UsageError
from fastconv.torch import compute, internals, planned
from fastconv.torch.convolution import Convolution, convolution_of

#: The predicted microseconds from which on a convolution is computed here. A call from the dispatcher takes about 7 us
#: longer than PyTorch's own kernel until it computes, which shorter ones do not make up for.
_LEAST = 12.0

_DTYPES = {torch.float32: "float32", torch.float64: "float64"}

_lock = threading.Lock()
_library: Any = None


class Installed:
    """What `install` returns: a context at whose end the kernels are PyTorch's again."""

    def __enter__(self) -> Installed:
        return self

    def __exit__(self, *error: object) -> None:
        uninstall()


def install() -> Installed:
    """Compute every convolution of the process here if that is faster.

    It holds for functions, layers, gradients and compiled graphs that call `aten::convolution` with CPU tensors in
    float32 or float64 and one or two spatial axes; nothing else changes. A convolution that is predicted to take less
    than 12 us is left to PyTorch, as calling from its dispatcher would take longer than is won. To install again
    changes nothing.

    Returns a context manager: `with install():` ends with `uninstall()`. Raises `UsageError` if this PyTorch is older
    than 2.9, which has no way to the kernel that was there before.

    >>> import torch
    >>> import fastconv.torch as ft
    >>> image, weight = torch.ones(1, 8, 64, 64), torch.ones(8, 8, 3, 3)
    >>> with ft.install():
    ...     torch.nn.functional.conv2d(image, weight)[0, 0, 0, 0]
    tensor(72.)
    """
    global _library
    if not internals.can_replace_kernels():
        raise UsageError(f"install() needs PyTorch 2.9 or newer, not {torch.__version__}; use convert() instead")
    with _lock:
        if _library is None:
            library = torch.library.Library("aten", "IMPL")
            for name, make in (("convolution", _forward), ("convolution_backward", _backward)):
                before = torch.library.get_kernel(f"aten::{name}", "CPU")
                library.impl(name, functools.partial(make, before), "CPU", with_keyset=True)
            _library = library
    return Installed()


def uninstall() -> None:
    """Give the convolutions back to PyTorch; nothing if `install` was not called."""
    global _library
    with _lock:
        if _library is not None:
            _library._destroy()
            _library = None


def is_installed() -> bool:
    """Whether `install` holds."""
    return _library is not None


def _forward(
    before: Any, keys: Any, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *arguments: Any
) -> torch.Tensor:
    """The kernel of `aten::convolution`."""
    how = _taken("", arguments, input, weight, bias)
    if how is None:
        return before.call_boxed(keys, input, weight, bias, *arguments)
    return compute.forward(how, input, weight, bias)


def _backward(
    before: Any, keys: Any, grad_output: torch.Tensor, input: torch.Tensor, weight: torch.Tensor,
    bias_sizes: Sequence[int] | None, *further: Any,
) -> tuple[torch.Tensor | None, ...]:  # fmt: skip
    """The kernel of `aten::convolution_backward`."""
    *arguments, mask = further
    how = _taken("_input" if mask[0] else "_weight", arguments, input, weight, grad_output)
    if how is None:
        return before.call_boxed(keys, grad_output, input, weight, bias_sizes, *further)
    return (
        compute.input_gradient(how, input.shape, weight, grad_output) if mask[0] else None,
        compute.weight_gradient(how, input, weight.shape, grad_output) if mask[1] else None,
        compute.bias_gradient(grad_output) if mask[2] else None,
    )


def _taken(
    which: str, arguments: Sequence[Any], input: torch.Tensor, weight: torch.Tensor, third: torch.Tensor | None
) -> Convolution | None:
    """The convolution, if it is computed here; `third` is a bias or grad_output."""
    dtype = input.dtype
    if dtype not in _DTYPES or weight.dtype is not dtype or (third is not None and third.dtype is not dtype):
        return None
    for tensor in (input, weight, third):
        if tensor is not None and not internals.is_strided(tensor):
            return None
    stride, padding, dilation, is_transposed, output_padding, groups = arguments
    axes = input.dim() - 2
    if axes not in (1, 2):
        return None
    lists = (tuple(one) * (axes if len(one) == 1 else 1) for one in (stride, padding, dilation, output_padding))
    stride, padding, dilation, output_padding = lists
    pads = tuple(number for number in padding for _ in range(2))
    how = convolution_of(stride, pads, dilation, is_transposed, output_padding, groups)
    settings = backends.token(), threads.token(), environment.of_a_call()
    return how if _is_faster(how, which, input.shape, weight.shape, dtype, settings) else None


@functools.lru_cache(4096)
def _is_faster(
    how: Convolution, which: str, input_shape: tuple[int, ...], weight_shape: tuple[int, ...], dtype: torch.dtype,
    settings: Any,
) -> bool:  # fmt: skip
    """Whether a convolution, or its gradient `which`, is predicted to be faster here than in PyTorch.

    `settings` is what else decides it: backend and threads.
    """
    try:
        found = explain(
            planned.NAMES[how.operation] + which,
            tuple(input_shape),
            tuple(weight_shape),
            dtype=_DTYPES[dtype],
            **how.named,
        )
    except FastconvError:  # PyTorch raises its own error, or computes what is no convolution here
        return False
    return found.backend != "numpy" and found.predicted.get(found.kernel, 0.0) >= _LEAST
