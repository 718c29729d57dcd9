"""Benchmark problems: the grammar of a shape file, the classes of the report, and a problem's arrays.

A line of a shape file is a problem: the operation, the shapes of input and weight, and its parameters,

    conv2d N,64,56,56 64,64,3,3 stride=2 padding=1

A pair is written 2,1. After a line `N = 1 8`, a problem with `N` stands for one problem of each batch size. Text after
# is a comment. `bench/README.md` documents the files.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.problem.arrays import Array
from fastconv.problem.errors import ArgumentError, FastconvError, one_of
from fastconv.problem.geometry import Geometry
from fastconv.problem.operations import FAMILIES
from fastconv.problem.parameters import shown
from fastconv.problem.subpixel import reading_large

#: What is timed of a problem: the forward call, and the gradients of input and weight.
PASSES = ("forward", "input", "weight")

_PARAMETERS = ("stride", "padding", "output_padding", "output_size", "dilation", "groups")


@dataclass(frozen=True)
class Problem:
    """One layer. `str()` gives its line."""

    operation: str
    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    parameters: tuple[tuple[str, int | tuple[int, ...]], ...] = ()

    @property
    def geometry(self) -> Geometry:
        """Its geometry; raises what the call itself would raise."""
        return FAMILIES[self.operation].geometry(self.input_shape, self.weight_shape, **dict(self.parameters))

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """The shapes of input, weight and result."""
        return self.input_shape, self.weight_shape, self.geometry.output_shape

    @property
    def kind(self) -> str:
        """The class that the report counts it in."""
        geometry = self.geometry
        return next(name for name, belongs in CLASSES.items() if belongs(geometry))

    def arrays(self, dtype: str, seed: int = 0) -> tuple[Array, Array, Array]:
        """Input, weight and the output's gradient, of standard normal numbers: the same in every process.

        All start 16 bytes behind a cache line, as NumPy's large arrays do; a small layer's speed depends on it.
        """
        generator = np.random.default_rng(seed)
        x, w, dy = (placed(shape, dtype) for shape in self.shapes)
        for array in (x, w, dy):
            array[...] = generator.standard_normal(array.shape, np.dtype(dtype))
        return x, w, dy

    def bias(self, dtype: str, seed: int = 0) -> Array:
        """A bias of standard normal numbers: the same in every process."""
        return np.random.default_rng((seed, 1)).standard_normal(self.geometry.output_shape[1], np.dtype(dtype))

    def reduced(self) -> Problem:
        """A problem of the same kind that is quick, for checks: one image, few channels, small maps."""
        channels, (first, second, *taps) = self.input_shape[1], self.weight_shape
        groups = int(dict(self.parameters).get("groups", 1))  # type: ignore[arg-type]
        per_group = [max(1, min(4, length)) for length in (first // groups, second)]
        fewer = min(groups, 3)
        inputs = fewer * (per_group[0] if "transpose" in self.operation else per_group[1])
        assert channels % groups == 0
        span = [axis.span for axis in self.geometry.axes]
        extents = [
            min(extent, 8) if "transpose" in self.operation else min(extent, length + 9)
            for extent, length in zip(self.input_shape[2:], span, strict=True)
        ]
        parameters = tuple((name, fewer if name == "groups" else value) for name, value in self.parameters)
        weight = (per_group[0] * fewer, per_group[1], *taps)
        return Problem(self.operation, (1, inputs, *extents), weight, parameters)

    def __str__(self) -> str:
        words = [self.operation, _written(self.input_shape), _written(self.weight_shape)]
        return " ".join([*words, *(f"{name}={_written(value)}" for name, value in self.parameters)])


def placed(shape: tuple[int, ...], dtype: str) -> Array:
    """An empty array that starts 16 bytes behind a cache line, as NumPy's large arrays do."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    start = (16 - memory.ctypes.data) % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def output_padding(geometry: Geometry) -> tuple[int, ...]:
    """By how much the output of a transposed convolution exceeds its least extent, on each axis."""
    return tuple(
        axis.large - ((axis.small - 1) * axis.stride - axis.pad_before - axis.pad_after + axis.span)
        for axis in geometry.axes
    )


def _is_depthwise(geometry: Geometry) -> bool:
    return geometry.groups == geometry.large_channels > 1 and _taps(geometry) > 1


def _taps(geometry: Geometry) -> int:
    """The longer side of the kernel."""
    return max(axis.taps for axis in geometry.axes)


def _any(geometry: Geometry, name: str) -> bool:
    return any(getattr(axis, name) > 1 for axis in geometry.axes)


#: The classes of the report, each with its predicate; a problem belongs to the first class whose predicate holds.
CLASSES: Mapping[str, Callable[[Geometry], bool]] = {
    "tiny": lambda g: max(g.large_channels, g.small_channels) <= 16 and max(axis.large for axis in g.axes) < 20,
    "transposed, grouped or depthwise": lambda g: g.is_transposed and g.groups > 1,
    "transposed": lambda g: g.is_transposed,
    "one-dimensional": lambda g: len(g.axes) == 1,
    "depthwise 3x3": lambda g: _is_depthwise(g) and _taps(g) <= 3,
    "depthwise 5x5 and 7x7": lambda g: _is_depthwise(g) and _taps(g) <= 7,
    "depthwise 13x13 to 31x31": _is_depthwise,
    "grouped, dilated": lambda g: g.groups > 1 or _any(g, "dilation"),
    "large dense kernels": lambda g: _taps(g) >= 11 and not _any(g, "stride"),
    "stride 2 and stems": lambda g: _any(g, "stride"),
    "1x1": lambda g: _taps(g) == 1,
    "3x3 stride 1": lambda g: True,  # and the few other small dense kernels
}


def multiply_adds(geometry: Geometry) -> int:
    """The multiply-adds of a contraction, without taps that fall on the padding."""
    phase = reading_large(geometry)
    linked = 1
    for line, axis in zip((phase.rows, phase.cols), geometry.lifted().axes, strict=True):
        linked *= sum(end - first for first, end in (line.inside(tap, axis.large) for tap in range(line.taps)))
    return geometry.batch * geometry.small_channels * geometry.large_channels // geometry.groups * linked


def read(name: str) -> list[Problem]:
    """The problems of a shape file: of a path, or of the name of one that comes with fastconv."""
    shipped = shape_files()
    path = shipped.get(name, Path(name))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"--shapes {name} cannot be read ({error}); {one_of(name, shipped)}") from None
    return parse(text, name)


def shape_files() -> dict[str, Traversable]:
    """The shape files that come with fastconv, by name."""
    return files("shapes")


def files(kind: str, suffix: str = ".txt") -> dict[str, Traversable]:
    """The files of a kind that come with fastconv, by name: in a checkout those of bench/KIND, and in a wheel the same
    files."""
    package = resources.files("fastconv")
    checkout = Path(str(package)).parent / "bench" / kind
    folder = checkout if checkout.is_dir() else package / kind
    found = sorted((file.name, file) for file in (folder.iterdir() if folder.is_dir() else ()))
    return {name.removesuffix(suffix): file for name, file in found if name.endswith(suffix)}


def parse(text: str, origin: str) -> list[Problem]:
    """The problems of a shape file's text, each once. Raises `ArgumentError` naming `origin` and the line."""
    problems: dict[Problem, None] = {}
    batches: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].strip()
        try:
            if setting := re.fullmatch(r"N\s*=\s*((?:\d+\s*)+)", words):
                batches = setting[1].split()
            elif words:
                problems |= dict.fromkeys(of_line(words, batches))
        except FastconvError as error:
            raise ArgumentError(f"{origin}, line {number}: {error}") from None
    if not problems:
        raise ArgumentError(f"{origin} has no problem in it")
    return list(problems)


def of_line(words: str, batches: Sequence[str] = ()) -> Iterator[Problem]:
    """The problems of one line: one, or one for each batch size."""
    operation, *rest = words.split()
    if operation not in FAMILIES:
        raise ArgumentError(f"operation {shown(operation)}: {one_of(operation, FAMILIES)}")
    if len(rest) < 2:
        raise ArgumentError(f"{shown(words)} must be: operation, shape of input, shape of weight, name=value ...")
    has_batches = rest[0].startswith("N,")
    if has_batches and not batches:
        raise ArgumentError("a line `N = 1 8` must come before the first input shape with N")
    weight, *settings = rest[1:]
    takes = inspect.signature(FAMILIES[operation].make).parameters
    valid = [name for name in _PARAMETERS if name in takes]
    parameters = []
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or name not in valid:
            raise ArgumentError(f"{shown(setting)} must be name=value: {one_of(name, valid)}")
        parameters.append((name, _read(value)))
    for batch in batches if has_batches else [""]:
        written = batch + rest[0][1:] if has_batches else rest[0]
        problem = Problem(operation, shape(written), shape(weight), tuple(parameters))
        _ = problem.geometry  # raises if it cannot be
        yield problem


def _read(text: str) -> int | tuple[int, ...]:
    """A number, or numbers with commas between."""
    try:
        numbers = tuple(int(word) for word in text.split(","))
    except ValueError:
        raise ArgumentError(f"{shown(text)} must be a number, or numbers with commas between") from None
    return numbers if len(numbers) > 1 else numbers[0]


def shape(text: str) -> tuple[int, ...]:
    """A shape, written as lengths with commas between."""
    numbers = _read(text)
    lengths = numbers if isinstance(numbers, tuple) else (numbers,)
    if min(lengths) < 1:
        raise ArgumentError(f"{shown(text)} must be a shape whose lengths are all at least 1")
    return lengths


def _written(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
