"""The backend `fastconv` of `torch.compile`, and `optimize`.

For inference, convolutions become plans with what is behind them (`fusion`). The rest of a graph is compiled by
PyTorch's `inductor`, or run as it is. Graphs that are differentiated are inductor's altogether.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import GraphModule

from fastconv.problem.errors import ArgumentError
from fastconv.torch import fusion, internals, planned
from fastconv.torch.fused import FusedLayer

Compiled = Callable[..., Any]

_log = logging.getLogger("fastconv")


def backend(graph: GraphModule, example: Sequence[Any], **options: Any) -> Compiled:
    """`torch.compile(model, backend="fastconv")`: plans for the convolutions, inductor for the rest."""
    compile_rest = internals.inductor()
    if _is_differentiated(example):
        return compile_rest(graph, example, **options)
    layers = _Layers(fusion.fuse(graph, example))
    return layers.before(compile_rest(graph, example, **options))


def _without_compiler(graph: GraphModule, example: Sequence[Any], **options: Any) -> Compiled:
    """The same for inference, with the rest as it is."""
    return _Layers(fusion.fuse(graph, example)).before(graph.forward)


def _is_differentiated(example: Sequence[Any]) -> bool:
    """Whether gradients of a graph with these inputs may be wanted, which plans do not have. A warning says so."""
    if not torch.is_grad_enabled() or not any(isinstance(one, torch.Tensor) and one.requires_grad for one in example):
        return False
    _log.warning(
        "the backend fastconv of torch.compile is for inference: inductor compiles this graph without fastconv, as "
        "gradients are enabled; call the model within torch.no_grad()"
    )
    return True


class _Layers:
    """The layers of a graph, whose plans are made anew when a tensor of the model is another one or was changed."""

    def __init__(self, layers: list[FusedLayer]) -> None:
        self._layers = layers
        self._indices = sorted({index for layer in layers for index in layer.indices})
        self._watched: planned.Watched | None = None

    def before(self, compute: Compiled) -> Compiled:
        """A compiled graph that looks at its weights before it computes."""
        if not self._layers:
            return compute

        def run(*arguments: Any) -> Any:
            tensors = [arguments[index] for index in self._indices]
            if self._watched is None or not self._watched.holds(tensors):
                self._watched = planned.Watched(tensors)
                for layer in self._layers:
                    layer.update(arguments)
            return compute(*arguments)

        return run


def optimize(model: torch.nn.Module, example: Any) -> torch.nn.Module:
    """A model for inference, without a compiler: its convolutions are plans, with batch norms, residuals and
    activations fused; everything else is PyTorch's as before.

    Arguments
        model     a module in evaluation mode; it is not changed, and its parameters are shared. A changed parameter is
                  noticed at the next call
        example   a tensor, or a tuple of the arguments of a call; other shapes are planned when they come

    Returns a module that is called as the model is, without gradients. Raises `ArgumentError` for a model in training.

    >>> import torch
    >>> import fastconv.torch as ft
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.ReLU()).eval()
    >>> image = torch.ones(1, 1, 5, 5)
    >>> fast = ft.optimize(model, image)
    >>> torch.allclose(fast(image), model(image), atol=1e-5)
    True
    """
    if not isinstance(model, torch.nn.Module):
        raise ArgumentError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    if model.training:
        raise ArgumentError("model is in training mode; call model.eval() first, as batch norms are folded")
    optimized = _Optimized(model)
    optimized(*(example if isinstance(example, tuple) else (example,)))
    return optimized


class _Optimized(torch.nn.Module):
    """A model whose graphs are fused."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model
        self._compiled = torch.compile(model, backend=_without_compiler)
        self.eval()

    @torch.no_grad()
    def forward(self, *arguments: Any, **named: Any) -> Any:
        """The model's output."""
        return self._compiled(*arguments, **named)
