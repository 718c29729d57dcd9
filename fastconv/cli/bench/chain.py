"""One contender goes through a pipeline: each layer reads what the layer before wrote, and is timed by itself.

What stands between two layers of the network is not timed. A result is passed on as it is. A pooled or concatenated
map is one array that was made before and was last read a pass ago. A map that a layer reads channels-last is copied by
NumPy into a new array, for every contender, as the network's normalisation would write it there; where all maps have
their channels last there is no such copy. A result is dropped after the layer that reads it last, within that layer's
time.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any, NamedTuple

import numpy as np

from fastconv.cli.bench.contenders import as_array, filled_map
from fastconv.cli.bench.interface import USUAL, Contender, Forward, Setup
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

    def __init__(self, library: Contender, pipeline: Pipeline, dtype: str, setup: Setup = USUAL) -> None:
        self._library, self._pipeline, self._setup = library, pipeline, setup
        self._calls = [
            _forward(library, layer.problem, dtype, number, setup) for number, layer in enumerate(pipeline.layers)
        ]
        self._given = {number: _random_map(library, shape, dtype, number) for number, shape in pipeline.given}
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
            if layer.channels_last and not self._setup.channels_last:
                copied = filled_map(self._library, self._library.as_map(maps[layer.source]), channels_last=True)
            before = _page_faults()
            start = time.perf_counter()
            maps[layer.target] = call(maps[layer.source] if copied is None else copied)
            for number in dropped:
                del maps[number]
            times.append(time.perf_counter() - start)
            faults += _page_faults() - before
        return times, faults if sys.platform != "win32" else None


def layer_result(library: Contender, layer: Layer, dtype: str, setup: Setup = USUAL) -> Array:
    """What a layer makes of standard numbers that lie as it reads them."""
    x, _, _ = layer.problem.arrays(dtype)
    source = filled_map(library, x, channels_last=layer.channels_last)
    return library.as_map(_forward(library, layer.problem, dtype, 0, setup)(source))


def _forward(library: Contender, problem: Problem, dtype: str, seed: int, setup: Setup) -> Forward:
    """The layer's call with a weight of its own, so small that numbers stay near 1 from layer to layer."""
    geometry = problem.geometry
    weight = library.new_weight(problem.weight_shape, dtype)
    numbers = as_array(weight)
    generator = np.random.default_rng(seed)
    for part in numbers:  # in the order of its axes, as the weight may lie in another one
        part[...] = generator.standard_normal(part.shape, part.dtype)
    numbers *= np.asarray(geometry.flops / 2 / np.prod(geometry.output_shape), dtype) ** -0.5
    return library.forward(problem, weight, problem.bias(dtype, seed) if setup.fused else None)


def _random_map(library: Contender, shape: tuple[int, ...], dtype: str, seed: int) -> Any:
    """A map of the contender's own kind with standard normal numbers, written where they stay: malloc would take a
    large array that is freed as a sign to keep such memory from then on, which the network's calls must not find."""
    own = library.new_map(shape, dtype)
    array = library.as_map(own)
    as_it_lies = array.transpose(sorted(range(array.ndim), key=lambda axis: -array.strides[axis]))
    np.random.default_rng(seed).standard_normal(dtype=np.dtype(dtype), out=as_it_lies)
    return own


def _page_faults() -> int:
    """The page faults of this process so far that needed no disk."""
    if sys.platform == "win32":
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
