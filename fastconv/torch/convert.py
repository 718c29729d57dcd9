"""Models whose convolutions compute here, and what was left."""

from __future__ import annotations

import logging
from typing import NamedTuple, TypeVar

import torch
from torch.nn.modules.conv import _ConvNd

from fastconv.problem.errors import ArgumentError
from fastconv.torch import layers

Model = TypeVar("Model", bound=torch.nn.Module)

_log = logging.getLogger("fastconv")


class Report(NamedTuple):
    """The convolution layers of a model by their names in it; that of the model itself is "".

    converted   those that fastconv computes
    left        those that PyTorch computes, each with the reason
    """

    converted: tuple[str, ...]
    left: dict[str, str]

    def __str__(self) -> str:
        lines = [f"convolutions computed by fastconv: {len(self.converted)}, by PyTorch: {len(self.left)}"]
        return "\n".join([*lines, *(f"  {name or 'the model itself'}: {reason}" for name, reason in self.left.items())])


def convert(module: Model, *, revert: bool = False) -> Model:
    """Let fastconv compute every convolution of a model.

    The layers `Conv1d`, `Conv2d`, `ConvTranspose1d` and `ConvTranspose2d` in `module`, it included, become those of
    fastconv, in place: the modules are the same objects, with the same parameters, hooks, training mode and
    `state_dict`, and change their class alone. So optimizers and references to layers stay valid. Lazy layers are
    converted when they learn their sizes; layers with weight norm or parametrizations, and those of subclasses that
    have no `forward` of their own, as well. Other layers, and convolutions that a model computes by
    `torch.nn.functional`, stay PyTorch's; a warning of the logger `fastconv` names the layers, and `report` lists them.

    In inference (`eval()`, without gradients), a layer keeps copies of its weight, as it is and packed. It notices a
    changed weight (`fastconv.torch.planned`).

    Arguments
        module   a module, for the layers in it
        revert   give the layers the classes that they had

    Returns `module`. Raises `ArgumentError` if it is no module.

    >>> import torch
    >>> import fastconv.torch as ft
    >>> model = ft.convert(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU()))
    >>> model
    Sequential(
      (0): fastconv.Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1))
      (1): ReLU()
    )
    >>> ft.convert(model, revert=True)[0]
    Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1))
    """
    if not isinstance(module, torch.nn.Module):
        raise ArgumentError(f"module must be a torch.nn.Module, not {type(module).__name__}")
    for layer in module.modules():
        if revert and layers.is_converted(layer):
            layers.revert_class(layer)
        elif not revert and isinstance(layer, _ConvNd) and not layers.is_converted(layer) and _why_not(layer) is None:
            layers.convert_class(layer)
    if not revert and (left := report(module).left):
        named = "; ".join(f"{name or 'the model itself'}: {reason}" for name, reason in left.items())
        _log.warning("convolutions that PyTorch still computes: %s", named)
    return module


def report(module: torch.nn.Module) -> Report:
    """Which convolution layers of a model compute here, and why others do not.

    >>> import torch
    >>> import fastconv.torch as ft
    >>> print(ft.report(ft.convert(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Conv3d(1, 2, 3)))))
    convolutions computed by fastconv: 1, by PyTorch: 1
      1: fastconv computes one and two spatial axes
    """
    converted, left = [], {}
    for name, layer in module.named_modules():
        if layers.is_converted(layer):
            converted.append(name)
        elif isinstance(layer, _ConvNd):
            left[name] = _why_not(layer) or "it was not converted"
    return Report(tuple(converted), left)


def _why_not(layer: torch.nn.Module) -> str | None:
    """Why a convolution is left to PyTorch."""
    weight = layer._parameters.get("weight")
    if weight is not None and weight.device.type not in ("cpu", "meta"):
        return f"its weight is on the device {weight.device}"
    return layers.why_not(layer)
