"""One contender goes through a pipeline: each layer reads what the layer before wrote, and is timed by itself.

What stands between two layers of the network is not timed. A result is passed on as it is. A pooled or concatenated
map is one array that was made before and was last read a pass ago. A map that a layer reads channels-last is copied by
NumPy into a new array, for every contender, as the network's normalisation would write it there. A result is dropped
after the layer that reads it last, within that layer's time.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any, NamedTuple

import numpy as np

from fastconv.cli.bench.contenders import Contender, Forward, as_array, filled
from fastconv.cli.bench.pipelines import Layer, Pipeline
from fastconv.cli.bench.problems import Problem
from fastconv.problem.arrays import Array

if sys.platform != "win32":
    import resource

#: The fewest passes of a turn.
_PASSES = 3


class Passes(NamedTuple):
    """What a turn measured: medians over its passes.

    layers  the seconds of each layer
    faults  page faults during the layers' calls, None where the system does not count them
    """

    layers: list[float]
    faults: float | None


class Chain:
    """A contender's calls for the layers of a pipeline, and the maps that are no layer's result."""

    def __init__(self, library: Contender, pipeline: Pipeline, dtype: str) -> None:
        self._library, self._pipeline = library, pipeline
        self._calls = [_forward(library, layer.problem, dtype, number) for number, layer in enumerate(pipeline.layers)]
        self._given = {number: _random(library, shape, dtype, number) for number, shape in pipeline.given}
        last = pipeline.last_uses()
        self._dropped = [[target for target, use in last.items() if use == n] for n in range(len(pipeline.layers))]

    def passes(self, seconds: float) -> Passes:
        """Passes for about `seconds`, at least three, after one that wakes the threads."""
        self.run()
        times: list[list[float]] = []
        faults: list[int | None] = []
        end = time.perf_counter() + seconds
        while len(times) < _PASSES or time.perf_counter() < end:
            of_pass, faulted = self.run()
            times.append(of_pass)
            faults.append(faulted)
        counted = [number for number in faults if number is not None]
        return Passes(
            [statistics.median(of_layer) for of_layer in zip(*times, strict=True)],
            statistics.median(counted) if counted else None,
        )

    def run(self) -> tuple[list[float], int | None]:
        """The seconds of each layer in one pass, and the page faults of all."""
        maps = dict(self._given)
        times: list[float] = []
        faults = 0
        for layer, call, dropped in zip(self._pipeline.layers, self._calls, self._dropped, strict=True):
            copied: Any = None
            if layer.channels_last:
                copied = filled(self._library, as_array(maps[layer.source]), channels_last=True)
            before = _page_faults()
            start = time.perf_counter()
            maps[layer.target] = call(maps[layer.source] if copied is None else copied)
            for number in dropped:
                del maps[number]
            times.append(time.perf_counter() - start)
            faults += _page_faults() - before
        return times, faults if sys.platform != "win32" else None


def layer_result(library: Contender, layer: Layer, dtype: str) -> Array:
    """What a layer makes of standard numbers that lie as it reads them."""
    x, _, _ = layer.problem.arrays(dtype)
    source = filled(library, x, channels_last=layer.channels_last)
    return as_array(_forward(library, layer.problem, dtype, 0)(source))


def _forward(library: Contender, problem: Problem, dtype: str, seed: int) -> Forward:
    """The layer's call with a weight of its own, so small that numbers stay near 1 from layer to layer."""
    geometry = problem.geometry
    weight = _random(library, problem.weight_shape, dtype, seed)
    numbers = as_array(weight)
    numbers *= np.asarray(geometry.flops / 2 / np.prod(geometry.output_shape), dtype) ** -0.5
    return library.forward(problem, weight)


def _random(library: Contender, shape: tuple[int, ...], dtype: str, seed: int) -> Any:
    """An array of the contender's own kind with standard normal numbers, written where they stay: malloc would take a
    large array that is freed as a sign to keep such memory from then on, which the network's calls must not find."""
    array = library.empty(shape, dtype)
    np.random.default_rng(seed).standard_normal(dtype=np.dtype(dtype), out=as_array(array))
    return array


def _page_faults() -> int:
    """The page faults of this process so far that needed no disk."""
    if sys.platform == "win32":
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
