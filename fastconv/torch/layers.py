"""PyTorch's convolution layers, computed by fastconv.

`converted(cls)` gives for a class of PyTorch's the class here, and `original(cls)` the way back. A module changes its
class and nothing else: parameters, hooks and attributes are what they were.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional
from torch.nn.utils import parametrize

from fastconv.torch import functional, internals, planned
from fastconv.torch.convolution import Convolution

_FUNCTIONS = {
    (1, False): functional.conv1d,
    (2, False): functional.conv2d,
    (1, True): functional.conv_transpose1d,
    (2, True): functional.conv_transpose2d,
}


class _Layer(torch.nn.Module):
    """What the layers have in common. In inference, those of plain tensors compute by plans (`planned`)."""

    _axes: int
    _is_transposed: bool
    weight: Any
    bias: Any
    stride: Any
    padding: Any
    dilation: Any
    groups: Any
    kernel_size: Any
    padding_mode: Any
    _output_padding: Any
    _reversed_padding_repeated_twice: Any

    def _compute(
        self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, padding: Any, *output_padding: Any
    ) -> torch.Tensor:
        """The output for a padding of zeros."""
        parameters = self._parameters
        if (
            not self.training
            and not torch.compiler.is_compiling()
            and not torch.is_grad_enabled()
            and weight is parameters.get("weight")
            and bias is parameters.get("bias")
            and internals.are_plain(input, weight, bias)
            and input.dim() == self._axes + 2
        ):
            return planned.forward(self, self._how(padding, *output_padding), input, weight, bias)
        stride, dilation, groups = self.stride, self.dilation, self.groups
        written = (*output_padding, groups, dilation) if self._is_transposed else (dilation, groups)
        compute: Any = _FUNCTIONS[self._axes, self._is_transposed]
        return compute(input, weight, bias, stride, padding, *written)  # type: ignore[no-any-return]

    def _how(self, padding: Any, *output_padding: Any) -> Convolution:
        """The parameters as they are now."""
        kernel = tuple(self.weight.shape[2:]) if isinstance(padding, str) else None
        written = self.stride, padding, *(output_padding or (0,)), self.groups, self.dilation
        return functional.convolution(self._is_transposed, self._axes, kernel, *written)

    def train(self, mode: bool = True) -> Any:
        """As every module's; a plan of the weight is dropped."""
        planned.forget(self)
        return super().train(mode)

    def _get_name(self) -> str:
        return f"fastconv.{type(self).__name__}"


class _Conv(_Layer):
    """`Conv1d` and `Conv2d`."""

    _is_transposed = False

    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            pads = self._reversed_padding_repeated_twice
            input, padding = torch.nn.functional.pad(input, pads, mode=self.padding_mode), 0
        return self._compute(input, weight, bias, padding)


class _ConvTranspose(_Layer):
    """`ConvTranspose1d` and `ConvTranspose2d`."""

    _is_transposed = True

    def forward(self, input: torch.Tensor, output_size: Any = None) -> torch.Tensor:
        """The output; `output_size` are the sizes wanted of it."""
        if self.padding_mode != "zeros":
            raise ValueError(f"padding_mode of {type(self).__name__} must be 'zeros', not {self.padding_mode!r}")
        output_padding = self._output_padding(
            input, output_size, self.stride, self.padding, self.kernel_size, self._axes, self.dilation
        )
        return self._compute(input, self.weight, self.bias, self.padding, tuple(output_padding))


class Conv1d(_Conv, torch.nn.Conv1d):
    """`torch.nn.Conv1d`, computed by fastconv."""

    _axes = 1


class Conv2d(_Conv, torch.nn.Conv2d):
    """`torch.nn.Conv2d`, computed by fastconv.

    >>> import torch
    >>> import fastconv.torch as ft
    >>> ft.Conv2d(3, 8, kernel_size=3, padding=1)(torch.ones(1, 3, 5, 5)).shape
    torch.Size([1, 8, 5, 5])
    """

    _axes = 2


class ConvTranspose1d(_ConvTranspose, torch.nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d`, computed by fastconv."""

    _axes = 1


class ConvTranspose2d(_ConvTranspose, torch.nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d`, computed by fastconv."""

    _axes = 2


class LazyConv1d(torch.nn.LazyConv1d):
    """`torch.nn.LazyConv1d`; it becomes a `Conv1d` computed by fastconv."""

    cls_to_become = Conv1d


class LazyConv2d(torch.nn.LazyConv2d):
    """`torch.nn.LazyConv2d`; it becomes a `Conv2d` computed by fastconv."""

    cls_to_become = Conv2d


class LazyConvTranspose1d(torch.nn.LazyConvTranspose1d):
    """`torch.nn.LazyConvTranspose1d`; it becomes a `ConvTranspose1d` computed by fastconv."""

    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(torch.nn.LazyConvTranspose2d):
    """`torch.nn.LazyConvTranspose2d`; it becomes a `ConvTranspose2d` computed by fastconv."""

    cls_to_become = ConvTranspose2d


_EAGER: tuple[type[_Layer], ...] = Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d
_OURS: dict[type, type] = {
    getattr(torch.nn, ours.__name__): ours
    for ours in (*_EAGER, LazyConv1d, LazyConv2d, LazyConvTranspose1d, LazyConvTranspose2d)
}
_TORCHS = {ours: theirs for theirs, ours in _OURS.items()}


def why_not(module: torch.nn.Module) -> str | None:
    """Why a convolution of PyTorch's is left as it is; None if there is a class for it here."""
    cls = _base(type(module), module)
    if cls in _OURS:
        return None
    theirs = next((theirs for theirs in map(_TORCHS.get, _EAGER) if theirs and issubclass(cls, theirs)), None)
    if theirs is None:
        return "fastconv computes one and two spatial axes"
    for name in ("forward", "_conv_forward"):
        if getattr(cls, name, None) is not getattr(theirs, name, None):
            return f"its class {cls.__name__} has a {name} of its own"
    return None


def is_converted(module: torch.nn.Module) -> bool:
    """Whether a module computes here."""
    return isinstance(module, _Layer) or type(module) in _TORCHS


def convert_class(module: torch.nn.Module) -> None:
    """Change a module's class to the one here; it has one (`why_not`)."""
    module.__class__ = _exchanged(module, converted)


def revert_class(module: torch.nn.Module) -> None:
    """Change a converted module's class to the one that it had."""
    planned.forget(module)
    module.__class__ = _exchanged(module, original)


def _base(cls: type, module: torch.nn.Module) -> type:
    """A module's class, without the one that PyTorch puts in front of it for its parametrizations."""
    return cls.__bases__[0] if parametrize.is_parametrized(module) else cls


def _exchanged(module: torch.nn.Module, exchange: Any) -> type:
    """The class of a module with its base exchanged."""
    cls = type(module)
    if not parametrize.is_parametrized(module):
        return exchange(cls)  # type: ignore[no-any-return]
    kept = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    return type(cls.__name__, (exchange(cls.__bases__[0]),), kept)


@functools.cache
def converted(cls: type) -> type:
    """The class here for one of PyTorch's, or for a subclass of a person's that computes as its base does."""
    if cls in _OURS:
        return _OURS[cls]
    ours = next(ours for ours in _EAGER if issubclass(cls, _TORCHS[ours]))
    mixin = _ConvTranspose if ours._is_transposed else _Conv
    made = {"__module__": cls.__module__, "__doc__": cls.__doc__, "_axes": ours._axes, "_original": cls}
    return type(cls.__name__, (_OfSubclass, mixin, cls), made)


def original(cls: type) -> type:
    """The class for which `converted` gave this one."""
    theirs: type = _TORCHS.get(cls) or cls._original  # type: ignore[attr-defined]
    return theirs


class _OfSubclass:
    """A converted class that has no name of its own in its module: it is pickled as the class that it was made of."""

    _original: type

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        state = self.__getstate__()
        return _new, (self._original,), state


def _new(cls: type) -> Any:
    """A converted module without its state, for pickle."""
    return object.__new__(converted(cls))
