"""Geometry erased: every contraction becomes correlations whose taps and outputs are plain index arithmetic.

A `Phase` says: for the outputs at `place`, output (i, j) is the sum over the kernel's taps at `taps` of tap (a, b)
times the source at

    row  i * hop - before + a * step,        and likewise the column.

Reading the large map takes one phase. Writing it takes up to stride_h * stride_w: the rows h of the large map with
the same (h + before) mod stride are linked to the same taps of the kernel, so they are a stride-1 problem with a
kernel of their own. No zeros are inserted between the small map's pixels and none are multiplied.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from fastconv.ground.geometry import Axis, Geometry


@dataclass(frozen=True, slots=True)
class Line:
    """One axis of a phase: output i meets the source at i * hop - before + a * step for tap a."""

    outputs: int
    hop: int
    taps: int
    step: int
    before: int
    kernel: slice
    place: slice

    @property
    def reach(self) -> int:
        """Source positions from the first tap of an output to the last one, both included."""
        return (self.taps - 1) * self.step + 1


@dataclass(frozen=True, slots=True)
class Phase:
    """A correlation on both axes. `taps` and `place` index the two last axes of the kernel and of the output."""

    rows: Line
    cols: Line

    @property
    def taps(self) -> tuple[slice, slice]:
        """The kernel's taps that take part, in the order in which the source is read."""
        return self.rows.kernel, self.cols.kernel

    @property
    def place(self) -> tuple[slice, slice]:
        """The output's pixels that are written."""
        return self.rows.place, self.cols.place


def reading_large(geometry: Geometry) -> Phase:
    """The phase that reads the large map at every output pixel of the small one."""
    return Phase(*(_read(axis) for axis in geometry.lifted().axes))


def writing_large(geometry: Geometry) -> Iterator[Phase]:
    """The phases that read the small map and together write the large one, each pixel at most once.

    A pixel that no phase writes is linked to no tap: it holds the bias alone.
    """
    for rows, cols in itertools.product(*(_write(axis) for axis in geometry.lifted().axes)):
        yield Phase(rows, cols)


def _read(axis: Axis) -> Line:
    return _line(axis.small, axis.stride, axis.taps, axis.dilation, axis.before, slice(None), slice(None))


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
        taps = -(-(axis.taps - r0) // between)
        last = r0 + (taps - 1) * between
        # p of output i = 0 and the last tap; the division is exact
        start = (first + axis.before - last * axis.dilation) // axis.stride
        lines.append(
            _line(
                outputs=-(-(axis.large - first) // axis.stride),
                hop=1,
                taps=taps,
                step=step,
                before=-start,
                kernel=slice(last, r0 - 1 if r0 else None, -between),
                place=slice(first, None, axis.stride),
            )
        )
    return lines


def _line(outputs: int, hop: int, taps: int, step: int, before: int, kernel: slice, place: slice) -> Line:
    # a hop or a step that is never taken must not turn into a huge memory stride
    return Line(outputs, hop if outputs > 1 else 1, taps, step if taps > 1 else 1, before, kernel, place)
