"""Pipelines: the convolutions of a network in their order, each with what it reads.

A line of a pipeline's file is a layer, written as in a shape file, or says what the next layer reads if that is not the
result of the layer before:

    conv2d 1,3,224,224 64,3,7,7 stride=2 padding=3
    pool 1,64,56,56               a smaller map of as many channels
    conv2d 1,64,56,56 64,64,1,1
    conv2d 1,64,56,56 256,64,1,1
    back 2                        the map of two steps earlier: the pooled one
    conv2d 1,64,56,56 256,64,1,1

`concat SHAPE` is a map with more channels. What changes no shape, such as an activation or a sum with another map, is
left out. `channels_last` at the end of a layer says that the map it reads lies channels-last in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from importlib.resources.abc import Traversable
from typing import NamedTuple

import numpy as np

from fastconv.cli.bench.problems import Problem, files, of_line, shape
from fastconv.problem.errors import ArgumentError, FastconvError, one_of
from fastconv.problem.parameters import count, shown

_Shape = tuple[int, ...]

#: What makes a map of another shape, and whether it can make the second shape from the first.
CHANGES: Mapping[str, Callable[[_Shape, _Shape], bool]] = {
    "pool": lambda old, new: old[:2] == new[:2] and old > new and all(map(int.__ge__, old, new)),
    "concat": lambda old, new: (old[0], *old[2:]) == (new[0], *new[2:]) and old[1] < new[1],
}


class Layer(NamedTuple):
    """A layer of a pipeline.

    source         the number of the map that it reads; its result is a map with the next free number
    target         the number of its result
    channels_last  whether the map that it reads lies channels-last in memory
    """

    problem: Problem
    source: int
    target: int
    channels_last: bool


class Pipeline(NamedTuple):
    """Layers in their order, and the maps that are no layer's result: the input, and what pooling or concatenation
    makes, as numbers and shapes."""

    name: str
    layers: tuple[Layer, ...]
    given: tuple[tuple[int, _Shape], ...]

    def footprint(self, dtype: str) -> int:
        """The bytes of inputs and weights of all layers, which a pass reads."""
        read = sum(math.prod(shape) for layer in self.layers for shape in layer.problem.shapes[:2])
        return read * np.dtype(dtype).itemsize

    def last_uses(self) -> dict[int, int]:
        """For each result that is read, or by nobody, the number of the layer after which it is not needed."""
        last = {layer.target: number for number, layer in enumerate(self.layers)}
        return last | {layer.source: number for number, layer in enumerate(self.layers) if layer.source in last}


def pipeline_files() -> dict[str, Traversable]:
    """The pipelines that come with fastconv, by name: in a checkout bench/pipelines, and in a wheel the same files."""
    return files("pipelines")


def read(name: str) -> Pipeline:
    """The pipeline of that name."""
    found = pipeline_files()
    if name not in found:
        raise ArgumentError(f"--pipeline {shown(name)}: {one_of(name, found)}")
    return parse(found[name].read_text(encoding="utf-8"), name)


def parse(text: str, name: str) -> Pipeline:
    """The pipeline of a file's text. Raises `ArgumentError` naming the line if a layer cannot read what it is to."""
    reader = _Reader()
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.partition("#")[0].strip()
        try:
            if content:
                reader.take(content)
        except FastconvError as error:
            raise ArgumentError(f"{name}, line {number}: {error}") from None
    if not reader.layers:
        raise ArgumentError(f"{name} has no layer in it")
    return Pipeline(name, tuple(reader.layers), tuple(reader.given))


class _Reader:
    """What was read so far: all maps in the order in which they came, and the number of the one to read next."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.given: list[tuple[int, _Shape]] = []
        self._maps: list[_Shape] = []
        self._current = 0

    def take(self, content: str) -> None:
        """Take one line."""
        kind, *rest = content.split()
        if kind not in CHANGES and kind != "back":
            self._layer(content)
        elif len(rest) != 1 or not self._maps:
            raise ArgumentError(
                f"{shown(content)} must be a layer, or pool SHAPE, concat SHAPE or back NUMBER after one"
            )
        elif kind == "back":
            self._back(rest[0])
        else:
            self._change(kind, shape(rest[0]))

    def _layer(self, content: str) -> None:
        head = content.removesuffix(" channels_last")
        (problem,) = of_line(head)
        if not self._maps:
            self._give(problem.input_shape)
        if problem.input_shape != self._maps[self._current]:
            raise ArgumentError(f"{shown(head)} must read the map before it, which is {self._maps[self._current]}")
        self._maps.append(problem.geometry.output_shape)
        self.layers.append(Layer(problem, self._current, len(self._maps) - 1, head != content))
        self._current = len(self._maps) - 1

    def _change(self, kind: str, new: _Shape) -> None:
        old = self._maps[self._current]
        if len(old) != len(new) or not CHANGES[kind](old, new):
            raise ArgumentError(f"{kind} cannot make {new} from {old}")
        self._give(new)

    def _back(self, steps: str) -> None:
        number = count(steps)
        if number is None or not 1 <= number <= self._current:
            raise ArgumentError(f"back {shown(steps)} must be a number from 1 to {self._current}")
        self._current -= number

    def _give(self, new: _Shape) -> None:
        self._maps.append(new)
        self._current = len(self._maps) - 1
        self.given.append((self._current, new))
