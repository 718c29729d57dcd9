"""Phases that one plan computes: the planes that they read, and the layout of their sums."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fastconv.kernels.arguments import Out
from fastconv.planner.plan_builder import Maps
from fastconv.problem.polyphase import Planes
from fastconv.problem.subpixel import AxisMap, Phase, distinct


class PhaseGroup:
    """One phase, or several that are side by side (`problem.polyphase`), which write a map of extents `out`,
    `strip_rows` rows at a time (default: all).

    rows, cols    the planes of the padded tile that they read
    planes        how many planes there are
    halo          by how much a plane is longer than the outputs, on both axes
    extents       outputs of the longest phase, on both axes
    out_stride    distance of a phase's neighbouring outputs among the sums, on both axes
    sums          extents of the sums: one phase's are contiguous, those of several are interleaved as in the output
    """

    def __init__(self, phases: Sequence[Phase], out: tuple[int, ...], strip_rows: int | None = None) -> None:
        self.phases, self._first = phases, phases[0]
        axis_maps = distinct(phases)
        self.is_one = len(phases) == 1
        if self.is_one:
            self.rows, self.cols = Planes.of(self._first.rows, strip_rows), Planes.of(self._first.cols)
        else:
            self.rows, self.cols = (Planes.joined(axis) for axis in axis_maps)
        self.planes = len(self.rows.origins) * len(self.cols.origins)
        self.halo = self.rows.halo, self.cols.halo
        self.extents: tuple[int, ...] = tuple(max(axis_map.outputs for axis_map in axis) for axis in axis_maps)
        self.out_stride = (1, 1) if self.is_one else (self._first.rows.out_stride, self._first.cols.out_stride)
        self.sums = self.extents if self.is_one else out

    def row_planes_of(self, axis_map: AxisMap) -> Planes:
        """The planes of rows, with the taps of `axis_map`, the row map of one of the phases."""
        return self.rows if self.is_one else self.rows.part(axis_map)

    def col_planes_of(self, axis_map: AxisMap) -> Planes:
        """The planes of columns, likewise."""
        return self.cols if self.is_one else self.cols.part(axis_map)

    def planes_of(self, phase: Phase) -> tuple[Planes, Planes]:
        """The planes with the taps of one of the phases."""
        return self.row_planes_of(phase.rows), self.col_planes_of(phase.cols)

    @property
    def has_gaps(self) -> bool:
        """Whether the sums include pixels that no phase computes."""
        written = math.prod(sum(axis_map.outputs for axis_map in axis_maps) for axis_maps in distinct(self.phases))
        return written < math.prod(self.sums)

    def written(self, maps: Maps) -> Out:
        """The map that is written: from the first output of the one phase on, or all pixels of it."""
        rows, cols = self._first.rows, self._first.cols
        if self.is_one:
            return maps.out_strides(rows.out_start, cols.out_start, (rows.out_stride, cols.out_stride))
        return maps.out_strides(0, 0, (1, 1))
