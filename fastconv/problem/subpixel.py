"""Sub-pixel phases: every contraction becomes correlations whose taps and outputs are plain index arithmetic.

In a `Phase`, output (i, j) is the sum over taps (a, b) of the kernel's number times the source at

    row  i * stride - pad + a * dilation,        and likewise the column.

The source is zero outside its extent. Reading the large map takes one phase. Writing it takes up to stride_h *
stride_w phases: the rows h of the large map with the same (h + pad) mod stride are linked to the same taps of the
kernel, so they form a stride-1 correlation with a kernel of their own. No zeros are inserted between the small map's
pixels and none are multiplied.
"""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fastconv.problem.arrays import Array
from fastconv.problem.axes import Axis
from fastconv.problem.geometry import Geometry


class AxisMap(NamedTuple):
    """One axis of a phase: output i reads the source at i * stride - pad + a * dilation for tap a.

    Output i is written to position out_start + i * out_stride. Tap a is the kernel's tap first_tap + a * tap_step.
    """

    outputs: int
    stride: int
    taps: int
    dilation: int
    pad: int
    first_tap: int = 0
    tap_step: int = 1
    out_start: int = 0
    out_stride: int = 1

    @property
    def kind(self) -> tuple[int, ...]:
        """All fields but `out_start` and `first_tap`: maps of one kind read the same positions."""
        return self.outputs, self.stride, self.taps, self.dilation, self.pad, self.tap_step, self.out_stride

    @property
    def kernel_taps(self) -> Array:
        """The kernel's taps that take part, as an array."""
        return self.first_tap + self.tap_step * np.arange(self.taps)

    @property
    def kernel_slice(self) -> slice:
        """The kernel's taps that take part, in the order in which the source is read."""
        end = self.first_tap + self.taps * self.tap_step
        return slice(self.first_tap, end if end >= 0 else None, self.tap_step)

    @property
    def out_slice(self) -> slice:
        """The outputs' positions on the axis that is written."""
        return slice(self.out_start, self.out_start + self.outputs * self.out_stride, self.out_stride)

    def inside(self, tap: int, extent: int) -> tuple[int, int]:
        """The outputs that tap `tap` links to a source position inside `extent`: the first, and the one behind the
        last."""
        at_zero = tap * self.dilation - self.pad
        first = min(self.outputs, max(0, -(at_zero // self.stride)))
        return first, max(first, min(self.outputs, (extent - 1 - at_zero) // self.stride + 1))

    def taps_inside(self, first: int, last: int, extent: int) -> tuple[int, int]:
        """The taps by which some output from `first` to `last` reads inside `extent`: the first, and the one behind the
        last."""
        at_first, at_last = first * self.stride - self.pad, last * self.stride - self.pad
        start = min(self.taps, max(0, -(at_last // self.dilation)))
        return start, max(start, min(self.taps, (extent - 1 - at_first) // self.dilation + 1))

    def linked(self, tap: int, extent: int, outputs: slice) -> tuple[slice, slice]:
        """The outputs of the slice `outputs` that tap `tap` links to source positions inside `extent`, counted from the
        slice's start, and these positions."""
        first, end = (min(max(i, outputs.start), outputs.stop) for i in self.inside(tap, extent))
        if first == end:
            return slice(0, 0), slice(0, 0)
        start = first * self.stride - self.pad + tap * self.dilation
        return (
            slice(first - outputs.start, end - outputs.start),
            slice(start, start + (end - first - 1) * self.stride + 1, self.stride),
        )


class Phase(NamedTuple):
    """A correlation on both axes."""

    rows: AxisMap
    cols: AxisMap

    @property
    def kernel_slices(self) -> tuple[slice, slice]:
        """Index of the two last axes of the kernel: the taps that take part."""
        return self.rows.kernel_slice, self.cols.kernel_slice

    @property
    def out_slices(self) -> tuple[slice, slice]:
        """Index of the two last axes of the output: the pixels that are written."""
        return self.rows.out_slice, self.cols.out_slice


class EquivalentMaps:
    """Axis maps that differ in `out_start` and `first_tap` only: tap a of one reads the same positions as of any other.

    first       one of them, with the lowest `out_start`
    out_starts  the `out_start` of each, in rising order
    first_taps  the `first_tap` of each
    """

    __slots__ = ("first", "first_taps", "out_starts")

    def __init__(self, first: AxisMap, out_starts: Array, first_taps: Array) -> None:
        self.first, self.out_starts, self.first_taps = first, out_starts, first_taps

    def __len__(self) -> int:
        return len(self.out_starts)


class EquivalentPhases:
    """Phases that read the same positions: each of the rows with each of the columns."""

    __slots__ = ("cols", "rows")

    def __init__(self, rows: EquivalentMaps, cols: EquivalentMaps) -> None:
        self.rows, self.cols = rows, cols

    @property
    def first(self) -> Phase:
        """The first of them."""
        return Phase(*self.axis_maps)

    @property
    def axis_maps(self) -> tuple[AxisMap, AxisMap]:
        """The first of the rows and of the columns."""
        return self.rows.first, self.cols.first

    def __len__(self) -> int:
        return len(self.rows) * len(self.cols)


def distinct(phases: Sequence[Phase]) -> tuple[list[AxisMap], list[AxisMap]]:
    """The row maps and the column maps of phases, each once: phases share them by identity."""
    return (
        list({id(phase.rows): phase.rows for phase in phases}.values()),
        list({id(phase.cols): phase.cols for phase in phases}.values()),
    )


def reading_large(geometry: Geometry) -> Phase:
    """The phase that reads the large map at every output pixel of the small one."""
    rows, cols = geometry.lifted().axes
    return Phase(reading_map(rows), reading_map(cols))


@functools.lru_cache(512)
def reading_map(axis: Axis) -> AxisMap:
    """One axis of `reading_large`."""
    # a stride or dilation that is never used must not become a huge memory stride
    stride, dilation = axis.stride if axis.small > 1 else 1, axis.dilation if axis.taps > 1 else 1
    return AxisMap(axis.small, stride, axis.taps, dilation, axis.pad_before)


def writing_large(geometry: Geometry) -> Iterator[Phase]:
    """The phases that read the small map and together write the large one, each pixel at most once.

    A pixel that no phase writes is linked to no tap: it holds the bias alone.
    """
    axis_maps = map(_writing_maps, geometry.lifted().axes)
    for rows, cols in itertools.product(*axis_maps):
        yield Phase(rows, cols)


def equivalent_phases(geometry: Geometry) -> list[EquivalentPhases]:
    """The phases of `writing_large`, grouped by what they read: a few groups, however long the stride.

    Two residues of the stride may differ in their number of taps and of pixels, by one, and in their first pixel.
    """
    rows, cols = map(equivalent_maps, geometry.lifted().axes)
    return list(itertools.starmap(EquivalentPhases, itertools.product(rows, cols)))


#: Columns of a table of axis maps, in the order of the fields of `AxisMap`.
_OUTPUTS, _, _TAPS, _DILATION, _PAD, _FIRST_TAP, _TAP_STEP, _OUT_START, _OUT_STRIDE = range(9)


@functools.lru_cache(512)
def _write(axis: Axis) -> Array:
    """The stride-1 axis maps of one axis as a table, a row for each with the fields of `AxisMap`.

    Row h is linked to tap r and small row p when h + pad = p * stride + r * dilation. With g = gcd(stride,
    dilation), the taps r0, r0 + stride/g, r0 + 2 * stride/g, ... share one residue of h + pad modulo stride, and
    p falls by dilation/g from each to the next. Reversed (a = 0 is the last of them), p rises by dilation/g with a.
    """
    if axis.small == 1:
        return _write_from_one(axis)
    shared = math.gcd(axis.stride, axis.dilation)
    tap_step, dilation = axis.stride // shared, axis.dilation // shared
    r0 = np.arange(min(tap_step, axis.taps))
    first = (r0 * axis.dilation - axis.pad_before) % axis.stride  # the least h >= 0 of this residue
    r0, first = r0[first < axis.large], first[first < axis.large]
    taps = -(-(axis.taps - r0) // tap_step)
    last = r0 + (taps - 1) * tap_step
    table = np.ones((len(r0), len(AxisMap._fields)), np.int64)
    table[:, _OUTPUTS] = -(-(axis.large - first) // axis.stride)
    table[:, _TAPS], table[:, _DILATION] = taps, np.where(taps > 1, dilation, 1)
    # minus the p of output i = 0 and the last tap; the division is exact
    table[:, _PAD] = (last * axis.dilation - axis.pad_before - first) // axis.stride
    table[:, _FIRST_TAP], table[:, _TAP_STEP] = last, -tap_step
    table[:, _OUT_START], table[:, _OUT_STRIDE] = first, axis.stride
    return table


def _write_from_one(axis: Axis) -> Array:
    """The axis maps if the small map has one position: a map for each tap, which writes one pixel and reads no zero."""
    r = np.arange(axis.taps)
    h = r * axis.dilation - axis.pad_before
    r, h = (values[(h >= 0) & (h < axis.large)] for values in (r, h))
    table = np.ones((len(r), len(AxisMap._fields)), np.int64)
    table[:, _PAD] = 0
    table[:, _FIRST_TAP], table[:, _OUT_START], table[:, _OUT_STRIDE] = r, h, axis.stride
    return table


@functools.lru_cache(64)  # there may be a million maps
def _writing_maps(axis: Axis) -> list[AxisMap]:
    """The axis maps of `_write`."""
    return [AxisMap(*row) for row in _write(axis).tolist()]


@functools.lru_cache(512)
def equivalent_maps(axis: Axis) -> list[EquivalentMaps]:
    """The axis maps of `_write`, grouped by what they read."""
    table = _write(axis)
    if len(table) == 1:
        return [EquivalentMaps(AxisMap(*table[0].tolist()), table[:, _OUT_START], table[:, _FIRST_TAP])]
    table = table[np.argsort(table[:, _OUT_START], kind="stable")]
    if not len(table):
        return []
    # the fields that may differ, encoded as one number
    same = table[:, [_OUTPUTS, _TAPS, _DILATION, _PAD]] - table[:, [_OUTPUTS, _TAPS, _DILATION, _PAD]].min(0)
    _, numbers = np.unique(np.ravel_multi_index(tuple(same.T), same.max(0) + 1), return_inverse=True)
    groups = (table[numbers == number] for number in range(numbers.max() + 1))
    return [EquivalentMaps(AxisMap(*group[0].tolist()), group[:, _OUT_START], group[:, _FIRST_TAP]) for group in groups]
