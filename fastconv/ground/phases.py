"""Geometry erased: every contraction becomes correlations whose taps and outputs are plain index arithmetic.

A `Phase` says: of the outputs at `place`, output (i, j) is the sum over the kernel's taps at `taps` of tap (a, b) times
the source, which is zero outside its extent, at

    row  i * hop - before + a * step,        and likewise the column.

Reading the large map takes one phase. Writing it takes up to stride_h * stride_w: the rows h of the large map with
the same (h + before) mod stride are linked to the same taps of the kernel, so they are a stride-1 problem with a
kernel of their own. No zeros are inserted between the small map's pixels and none are multiplied.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from fastconv.ground.arrays import Array
from fastconv.ground.axes import Axis
from fastconv.ground.geometry import Geometry


@dataclass(frozen=True, slots=True)
class Line:
    """One axis of a phase: output i meets the source at i * hop - before + a * step for tap a.

    Output i stands at `place` + i * `apart` of the axis written; tap a is the kernel's number `kernel` + a * `between`.
    """

    outputs: int
    hop: int
    taps: int
    step: int
    before: int
    kernel: int = 0
    between: int = 1
    place: int = 0
    apart: int = 1

    @property
    def kind(self) -> tuple[int, ...]:
        """What it has in common with lines that differ in `place` and `kernel` only."""
        return self.outputs, self.hop, self.taps, self.step, self.before, self.between, self.apart

    @property
    def kernels(self) -> Array:
        """The kernel's taps that take part, as numbers."""
        return self.kernel + self.between * np.arange(self.taps)

    @property
    def kernel_slice(self) -> slice:
        """The kernel's taps that take part, in the order in which the source is read."""
        end = self.kernel + self.taps * self.between
        return slice(self.kernel, end if end >= 0 else None, self.between)

    @property
    def place_slice(self) -> slice:
        """The outputs' positions on the axis that is written."""
        return slice(self.place, self.place + self.outputs * self.apart, self.apart)

    def inside(self, tap: int, extent: int) -> tuple[int, int]:
        """The outputs, from the first to before the last, that tap `tap` links to a source position in `extent`."""
        at_zero = tap * self.step - self.before
        first = min(self.outputs, max(0, -(at_zero // self.hop)))
        return first, max(first, min(self.outputs, (extent - 1 - at_zero) // self.hop + 1))

    def met(self, first: int, last: int, extent: int) -> tuple[int, int]:
        """The taps, from the first to before the last, that outputs `first` to `last` meet inside 0 <= h < extent, and
        those between."""
        at_first, at_last = first * self.hop - self.before, last * self.hop - self.before
        start = min(self.taps, max(0, -(at_last // self.step)))
        return start, max(start, min(self.taps, (extent - 1 - at_first) // self.step + 1))

    def linked(self, tap: int, extent: int, outputs: slice) -> tuple[slice, slice]:
        """Which of some outputs tap `tap` links to source positions in `extent`, from the first of them, and which
        positions those are."""
        first, end = (min(max(i, outputs.start), outputs.stop) for i in self.inside(tap, extent))
        if first == end:
            return slice(0, 0), slice(0, 0)
        start = first * self.hop - self.before + tap * self.step
        return (
            slice(first - outputs.start, end - outputs.start),
            slice(start, start + (end - first - 1) * self.hop + 1, self.hop),
        )


@dataclass(frozen=True, slots=True)
class Phase:
    """A correlation on both axes."""

    rows: Line
    cols: Line

    @property
    def taps(self) -> tuple[slice, slice]:
        """Index of the two last axes of the kernel: the taps that take part."""
        return self.rows.kernel_slice, self.cols.kernel_slice

    @property
    def place(self) -> tuple[slice, slice]:
        """Index of the two last axes of the output: the pixels that are written."""
        return self.rows.place_slice, self.cols.place_slice


@dataclass(frozen=True, slots=True, eq=False)
class Alike:
    """Lines that differ in `place` and `kernel` only: each tap of one reads the same pixels as that of any other.

    one       the first of them
    places    the `place` of each, in rising order
    kernels   the `kernel` of each
    """

    one: Line
    places: Array
    kernels: Array

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True, slots=True)
class Phases:
    """Phases that are alike: each of the rows with each of the columns."""

    rows: Alike
    cols: Alike

    @property
    def one(self) -> Phase:
        """The first of them."""
        return Phase(*self.lines)

    @property
    def lines(self) -> tuple[Line, Line]:
        """The first of the rows and of the columns."""
        return self.rows.one, self.cols.one

    def __len__(self) -> int:
        return len(self.rows) * len(self.cols)


def distinct(phases: Sequence[Phase]) -> tuple[list[Line], list[Line]]:
    """The rows and the columns of phases, each line once: they have them from one list for each axis."""
    return (
        list({id(phase.rows): phase.rows for phase in phases}.values()),
        list({id(phase.cols): phase.cols for phase in phases}.values()),
    )


def reading_large(geometry: Geometry) -> Phase:
    """The phase that reads the large map at every output pixel of the small one."""
    rows, cols = geometry.lifted().axes
    return Phase(*(_line(axis.small, axis.stride, axis.taps, axis.dilation, axis.before) for axis in (rows, cols)))


def writing_large(geometry: Geometry) -> Iterator[Phase]:
    """The phases that read the small map and together write the large one, each pixel at most once.

    A pixel that no phase writes is linked to no tap: it holds the bias alone.
    """
    lines = ([Line(*line) for line in _write(axis).tolist()] for axis in geometry.lifted().axes)
    for rows, cols in itertools.product(*lines):
        yield Phase(rows, cols)


def writing_large_alike(geometry: Geometry) -> list[Phases]:
    """The same phases, those that are alike together: however long the stride, there are a few kinds of them.

    Two residues of the stride may differ in their number of taps and of pixels, by one, and in their first pixel.
    """
    rows, cols = geometry.remembered("alike", lambda: [_alike(axis) for axis in geometry.lifted().axes])
    return list(itertools.starmap(Phases, itertools.product(rows, cols)))


#: The places of a line's fields in a row of a table of lines, in the order of `Line`.
_OUTPUTS, _, _TAPS, _STEP, _BEFORE, _KERNEL, _BETWEEN, _PLACE, _APART = range(9)


@functools.lru_cache(512)
def _write(axis: Axis) -> Array:
    """The stride-1 lines of one axis, each a row with the fields of a `Line`.

    Row h is linked to tap r and small row p when h + before = p * stride + r * dilation. With g = gcd(stride,
    dilation), the taps r0, r0 + stride/g, r0 + 2 * stride/g, ... share one residue of h + before modulo stride, and
    p falls by dilation/g from each to the next. Reversed (a = 0 is the last of them), p rises by dilation/g with a.
    """
    if axis.small == 1:
        return _write_from_one(axis)
    shared = math.gcd(axis.stride, axis.dilation)
    between, step = axis.stride // shared, axis.dilation // shared
    r0 = np.arange(min(between, axis.taps))
    first = (r0 * axis.dilation - axis.before) % axis.stride  # the least h >= 0 of this residue
    r0, first = r0[first < axis.large], first[first < axis.large]
    taps = -(-(axis.taps - r0) // between)
    last = r0 + (taps - 1) * between
    lines = np.ones((len(r0), len(fields(Line))), np.int64)
    lines[:, _OUTPUTS] = -(-(axis.large - first) // axis.stride)
    lines[:, _TAPS], lines[:, _STEP] = taps, np.where(taps > 1, step, 1)
    # minus the p of output i = 0 and the last tap; the division is exact
    lines[:, _BEFORE] = (last * axis.dilation - axis.before - first) // axis.stride
    lines[:, _KERNEL], lines[:, _BETWEEN] = last, -between
    lines[:, _PLACE], lines[:, _APART] = first, axis.stride
    return lines


def _write_from_one(axis: Axis) -> Array:
    """The lines of an axis whose small map has one position: each tap writes a pixel of its own, and reads no zero."""
    r = np.arange(axis.taps)
    place = r * axis.dilation - axis.before
    r, place = (values[(place >= 0) & (place < axis.large)] for values in (r, place))
    lines = np.ones((len(r), len(fields(Line))), np.int64)
    lines[:, _BEFORE] = 0
    lines[:, _KERNEL], lines[:, _PLACE], lines[:, _APART] = r, place, axis.stride
    return lines


@functools.lru_cache(512)
def _alike(axis: Axis) -> list[Alike]:
    """The lines of one axis, those that are alike together."""
    lines = _write(axis)
    if len(lines) == 1:
        return [Alike(Line(*lines[0].tolist()), lines[:, _PLACE], lines[:, _KERNEL])]
    lines = lines[np.argsort(lines[:, _PLACE], kind="stable")]
    if not len(lines):
        return []
    # what they may differ in as one number
    same = lines[:, [_OUTPUTS, _TAPS, _STEP, _BEFORE]] - lines[:, [_OUTPUTS, _TAPS, _STEP, _BEFORE]].min(0)
    _, numbers = np.unique(np.ravel_multi_index(tuple(same.T), same.max(0) + 1), return_inverse=True)
    groups = (lines[numbers == number] for number in range(numbers.max() + 1))
    return [Alike(Line(*group[0].tolist()), group[:, _PLACE], group[:, _KERNEL]) for group in groups]


def _line(outputs: int, hop: int, taps: int, step: int, before: int) -> Line:
    # a hop or a step that is never taken must not turn into a huge memory stride
    return Line(outputs, hop if outputs > 1 else 1, taps, step if taps > 1 else 1, before)
