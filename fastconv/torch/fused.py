"""Convolutions of a compiled graph as plans, and the operator `fastconv::planned` that runs one.

A graph names a plan by a number. Its upper digits come from what decides the shape of its output, so a graph that
PyTorch has compiled and kept on disk is used again by the same model alone.
"""

from __future__ import annotations

import itertools
import weakref
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from fastconv.nn import fold_batch_norm
from fastconv.plans import ConvPlan
from fastconv.torch import compute, planned
from fastconv.torch.convolution import Convolution, symbolic_output_shape


class Constants(NamedTuple):
    """The tensors that a plan is made of, each a tensor of the model or the number of an input of the graph.

    The last four are those of a batch norm; slopes are those of a PReLU.
    """

    weight: Any
    bias: Any = None
    slopes: Any = None
    mean: Any = None
    variance: Any = None
    gamma: Any = None
    beta: Any = None


class FusedLayer:
    """A convolution of a graph, with a batch norm and an activation behind it or without.

    Attributes
        number   the number by which the graph names it
        how      the convolution
        plan     its plan; None before `update`
    """

    def __init__(
        self, how: Convolution, inputs: Constants, weight_shape: Sequence[int], eps: float, activation: Any
    ) -> None:
        self.how, self._inputs, self._eps, self._activation = how, inputs, eps, activation
        self.weight_shape = tuple(weight_shape)
        self.plan: ConvPlan | None = None
        text = f"{how.arguments} {self.weight_shape}"
        self.number = (zlib.crc32(text.encode()) << 24) + next(_count)
        _layers[self.number] = self

    def update(self, arguments: Sequence[Any]) -> None:
        """Make the plan of tensors among the inputs of the graph."""
        given: list[Any] = [None if index is None else compute.array(arguments[index]) for index in self._inputs]
        weight, bias, slopes, *norm = given
        if norm[0] is not None:
            mean, variance, gamma, beta = norm
            weight, bias = fold_batch_norm(
                weight, bias, mean, variance, gamma, beta, self._eps,
                transposed=self.how.operation.is_transposed, groups=self.how.arguments[-1],
            )  # fmt: skip
        self.plan = planned.plan_of(self.how, weight, bias, self._activation_of(slopes))

    @property
    def indices(self) -> list[int]:
        """The numbers of the inputs of the graph that the plan is made of."""
        return [index for index in self._inputs if index is not None]

    def _activation_of(self, slopes: Any) -> Any:
        if slopes is None:
            return self._activation
        return ("prelu", slopes) if slopes.size > 1 else ("leaky_relu", slopes.reshape(-1)[0])


_count = itertools.count()
_layers: weakref.WeakValueDictionary[int, FusedLayer] = weakref.WeakValueDictionary()

_library = torch.library.Library("fastconv", "FRAGMENT")
_library.define("planned(Tensor input, Tensor? residual, int number) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,))


def _planned(input: torch.Tensor, residual: torch.Tensor | None, number: int) -> torch.Tensor:
    layer = _layers[number]
    assert layer.plan is not None
    return planned.run(layer.plan, layer.how, input, residual)


def _fake_planned(input: torch.Tensor, residual: torch.Tensor | None, number: int) -> torch.Tensor:
    layer = _layers[number]
    shape = symbolic_output_shape(input.shape, layer.weight_shape, *layer.how.arguments)
    return compute.empty_like(input, shape)


_library.impl("planned", _planned, "CPU")
torch.library.register_fake("fastconv::planned", _fake_planned, lib=_library)
