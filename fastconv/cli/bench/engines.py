"""Our own engines as contenders: the public functions, and plans."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastconv import functional, grad, plans
from fastconv.cli.bench.interface import Declined, Forward, Timed
from fastconv.cli.bench.problems import Problem, placed
from fastconv.dispatch.threads import set_num_threads
from fastconv.problem.arrays import Array


class Engine:
    """An engine through the public functions. With channels last, its maps are arrays (N, H, W, C)."""

    sessions: int | None = None

    def __init__(self, name: str, threads: int, channels_last: bool = False) -> None:
        self._name, self._channels_last = name, channels_last
        set_num_threads(threads)  # the default would follow this thread's affinity, which is one processor

    def new_map(self, shape: tuple[int, ...], dtype: str, channels_last: bool = False) -> Array:
        """An array (N, H, W, C) if the setup is channels last; else, if `channels_last`, a view (N, C, H, W) of one."""
        if not (self._channels_last or channels_last):
            return placed(shape, dtype)
        last = placed((shape[0], *shape[2:], shape[1]), dtype)
        return last if self._channels_last else np.moveaxis(last, -1, 1)

    def new_weight(self, shape: tuple[int, ...], dtype: str) -> Array:
        """As NumPy places it."""
        return placed(shape, dtype)

    def as_map(self, own: Array) -> Array:
        """A view."""
        return np.moveaxis(own, -1, 1) if self._channels_last else own

    def forward(self, problem: Problem, weight: Array, bias: Array | None = None) -> Forward:
        """The public function; relu is NumPy's, in place."""
        function = getattr(functional, problem.operation)
        convolve = functools.partial(function, weight=weight, bias=bias, **self._parameters(problem))
        if bias is None:
            return convolve

        def fused(x: Array) -> Array:
            result: Array = convolve(x)
            return np.maximum(result, 0, out=result)

        return fused

    def gradient(self, problem: Problem, which: str, x: Array, w: Array, dy: Array) -> Timed:
        """The public function for one gradient."""
        function = getattr(grad, f"{problem.operation}_{which}")
        sizes = (x.shape, w, dy) if which == "input" else (x, w.shape, dy)
        return functools.partial(function, *sizes, **self._parameters(problem))

    def _parameters(self, problem: Problem) -> dict[str, Any]:
        data_format = "channels_last" if self._channels_last else "channels_first"
        return {**dict(problem.parameters), "data_format": data_format, "backend": self._name}


class Plan(Engine):
    """An engine through a plan, which packs its weight once and finishes the sums where it stores them."""

    sessions = 512  # as many as the other libraries that pack a weight beforehand may have at most

    def forward(self, problem: Problem, weight: Array, bias: Array | None = None) -> Forward:
        """A plan of its own."""
        make = getattr(plans, f"plan_{problem.operation}")
        activation = None if bias is None else "relu"
        return make(weight, bias, activation=activation, **self._parameters(problem))  # type: ignore[no-any-return]

    def gradient(self, problem: Problem, which: str, x: Array, w: Array, dy: Array) -> Timed:
        """It has none."""
        raise Declined("a plan has no gradients")
