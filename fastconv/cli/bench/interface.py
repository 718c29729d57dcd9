"""What the benchmark asks of a contender, a library that convolves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

from fastconv.cli.bench.problems import Problem
from fastconv.problem.arrays import Array

Timed: TypeAlias = Callable[[], Any]
#: A forward pass with its weight bound: from an input to the result, both of the contender's own kind of map.
Forward: TypeAlias = Callable[[Any], Any]


class Setup(NamedTuple):
    """What all contenders do alike, whatever the problem.

    fused          whether the forward pass adds a bias and applies relu
    channels_last  whether maps have their channels last, (N, H, W, C) in memory
    """

    fused: bool = False
    channels_last: bool = False

    def __str__(self) -> str:
        words = ["convolution + bias + relu"] * self.fused + ["channels last"] * self.channels_last
        return ", ".join(words)


USUAL = Setup()


class Declined(Exception):  # noqa: N818 - it is no error: the row stays empty
    """Why a contender has no call for a problem's pass."""


class Contender(Protocol):
    """A library on a number of threads."""

    @property
    def sessions(self) -> int | None:
        """The most weights of a layer for which it makes calls, as each costs memory and time; None if it does not."""

    def new_map(self, shape: tuple[int, ...], dtype: str, channels_last: bool = False) -> Any:
        """A map of `shape` (N, C, H, W) or (N, C, W), of the library's own kind, in memory as the library places it.

        `channels_last` asks for this order in memory in a setup in which maps are channels first.
        """

    def new_weight(self, shape: tuple[int, ...], dtype: str) -> Any:
        """A weight, likewise."""

    def as_map(self, own: Any) -> Array:
        """A map of the library's own kind as an array (N, C, H, W) or (N, C, W) on the same memory."""

    def forward(self, problem: Problem, weight: Any, bias: Array | None = None) -> Forward:
        """The forward pass with this weight; with a bias, it is added, and relu applied."""

    def gradient(self, problem: Problem, which: str, x: Any, w: Any, dy: Any) -> Timed:
        """The call of a gradient, "input" or "weight"."""
