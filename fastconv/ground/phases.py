"""Geometry erased: every contraction becomes correlations whose taps and outputs are plain index arithmetic.

A `Phase` says: of the outputs at `place`, output (i, j) is the sum over the kernel's taps at `taps` of tap (a, b) times
the source, which is zero outside its extent, at

    row  i * hop - before + a * step,        and likewise the column.

Reading the large map takes one phase. Writing it takes up to stride_h * stride_w: the rows h of the large map with
the same (h + before) mod stride are linked to the same taps of the kernel, so they are a stride-1 problem with a
kernel of their own. No zeros are inserted between the small map's pixels and none are multiplied.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

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

    def alone(self, extent: int) -> Iterator[Line]:
        """For each tap a line of its own, of the outputs only that it links to a source position in `extent`."""
        for tap in range(self.taps):
            first, end = self.inside(tap, extent)
            if first < end:
                yield Line(
                    outputs=end - first,
                    hop=self.hop,
                    taps=1,
                    step=1,
                    before=self.before - tap * self.step - first * self.hop,
                    kernel=self.kernel + tap * self.between,
                    place=self.place + first * self.apart,
                    apart=self.apart,
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


def reading_large(geometry: Geometry) -> Phase:
    """The phase that reads the large map at every output pixel of the small one."""
    rows, cols = geometry.lifted().axes
    return Phase(*(_line(axis.small, axis.stride, axis.taps, axis.dilation, axis.before) for axis in (rows, cols)))


def writing_large(geometry: Geometry) -> Iterator[Phase]:
    """The phases that read the small map and together write the large one, each pixel at most once.

    A pixel that no phase writes is linked to no tap: it holds the bias alone.
    """
    for rows, cols in itertools.product(*(_write(axis) for axis in geometry.lifted().axes)):
        yield Phase(rows, cols)


def _write(axis: Axis) -> list[Line]:
    """The stride-1 lines of one axis.

    Row h is linked to tap r and small row p when h + before = p * stride + r * dilation. With g = gcd(stride,
    dilation), the taps r0, r0 + stride/g, r0 + 2 * stride/g, ... share one residue of h + before modulo stride, and
    p falls by dilation/g from each to the next. Reversed (a = 0 is the last of them), p rises by dilation/g with a.
    """
    shared = math.gcd(axis.stride, axis.dilation)
    between, step = axis.stride // shared, axis.dilation // shared
    lines = []
    for r0 in range(min(between, axis.taps)):
        first = (r0 * axis.dilation - axis.before) % axis.stride  # the least h >= 0 of this residue
        if first >= axis.large:
            continue
        outputs = -(-(axis.large - first) // axis.stride)
        taps = -(-(axis.taps - r0) // between)
        last = r0 + (taps - 1) * between
        # p of output i = 0 and the last tap; the division is exact
        start = (first + axis.before - last * axis.dilation) // axis.stride
        line = _line(outputs, 1, taps, step, -start)
        lines.append(replace(line, kernel=last, between=-between, place=first, apart=axis.stride))
    if axis.small == 1:
        # each tap writes a pixel of its own, and reads no zero
        return [alone for line in lines for alone in line.alone(1)]
    return lines


def _line(outputs: int, hop: int, taps: int, step: int, before: int) -> Line:
    # a hop or a step that is never taken must not turn into a huge memory stride
    return Line(outputs, hop if outputs > 1 else 1, taps, step if taps > 1 else 1, before)
