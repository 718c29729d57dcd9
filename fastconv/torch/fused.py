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

from fastconv.dispatch.explain import explain
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
    """A convolution or linear layer of a graph, with what is fused behind it.

    Attributes
        number   the number by which the graph names it
    """

    def __init__(
        self, how: Convolution | None, inputs: Constants, weight_shape: Sequence[int], eps: float, activation: Any
    ) -> None:
        """`how` is the convolution; None for a linear layer."""
        self._how, self._inputs, self._eps, self._activation = how, inputs, eps, activation
        self._weight_shape = tuple(weight_shape)
        self._plan: ConvPlan | None = None
        text = f"{how and how.arguments} {self._weight_shape}"
        self.number = (zlib.crc32(text.encode()) << 24) + next(_count)
        _layers[self.number] = self

    def update(self, arguments: Sequence[Any]) -> None:
        """Make the plan of tensors among the inputs of the graph."""
        given: list[Any] = [None if index is None else compute.array(arguments[index]) for index in self._inputs]
        weight, bias, slopes, *norm = given
        if self._how is None:
            self._plan = planned.plan_of_linear(weight, bias, self._activation)
            return
        if norm[0] is not None:
            mean, variance, gamma, beta = norm
            weight, bias = fold_batch_norm(
                weight, bias, mean, variance, gamma, beta, self._eps,
                transposed=self._how.operation.is_transposed, groups=self._how.arguments[-1],
            )  # fmt: skip
        self._plan = planned.plan_of(self._how, weight, bias, self._activation_of(slopes))

    @property
    def indices(self) -> list[int]:
        """The numbers of the inputs of the graph that the plan is made of."""
        return [index for index in self._inputs if index is not None]

    def run(self, input: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
        """The output; `update` was called before."""
        assert self._plan is not None
        if self._how is None:
            return planned.run_linear(self._plan, input, residual)
        return planned.run(self._plan, self._how, input, residual)

    def fake(self, input: torch.Tensor) -> torch.Tensor:
        """A tensor of the output's shape, whose sizes may be symbols, and memory format."""
        if self._how is None:
            return input.new_empty([*input.shape[:-1], self._weight_shape[0]])
        shape = symbolic_output_shape(input.shape, self._weight_shape, *self._how.arguments)
        return compute.empty_like(input, shape)

    def predicted(self, input_shape: tuple[int, ...]) -> tuple[str, float]:
        """The kernel that computes an input of this shape, and the microseconds that it is predicted to take."""
        if self._how is None:
            return "linear", 0.0
        found = explain(planned.NAMES[self._how.operation], input_shape, self._weight_shape, **self._how.named)
        return found.kernel, found.predicted.get(found.kernel, 0.0)

    def _activation_of(self, slopes: Any) -> Any:
        if slopes is None:
            return self._activation
        return ("prelu", slopes) if slopes.size > 1 else ("leaky_relu", slopes.reshape(-1)[0])


_count = itertools.count()
_layers: weakref.WeakValueDictionary[int, FusedLayer] = weakref.WeakValueDictionary()

_library = torch.library.Library("fastconv", "FRAGMENT")
_library.define("planned(Tensor input, Tensor? residual, int number) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,))


def _planned(input: torch.Tensor, residual: torch.Tensor | None, number: int) -> torch.Tensor:
    return _layers[number].run(input, residual)


def _fake_planned(input: torch.Tensor, residual: torch.Tensor | None, number: int) -> torch.Tensor:
    return _layers[number].fake(input)


_library.impl("planned", _planned, "CPU")
torch.library.register_fake("fastconv::planned", _fake_planned, lib=_library)
