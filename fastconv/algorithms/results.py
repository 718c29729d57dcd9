"""Direct convolution with a lane of the vectors for each result: how it is cut, as a plan.

The weight of a block of channels is transposed, so that a tap's weights of as many results as a register has lanes are
a vector; the source's pixels are read one at a time, from a field or from where they are, and neither the length of a
row nor the number of channels in a group leaves lanes empty. The phases of a transposed convolution are one plan: they
read one field, use one transposed weight, and their sums lie as they are written.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastconv.algorithms import cuts
from fastconv.algorithms.cuts import Cut, Way, even
from fastconv.algorithms.tiles import Maps, _field, _field_offsets, _plan, _planes_tables, _Tables, _weight_offsets
from fastconv.engines.contract import Layout, Plan
from fastconv.engines.plans import Place as P
from fastconv.ground.geometry import Geometry
from fastconv.ground.phases import Phase
from fastconv.ground.planes import Planes, are_side_by_side

#: Taps that are summed at a time: what is read of the field stays in the first-level cache.
_TAPS = 144
#: Bytes, at most, of a transposed block of the weight; a single channel may take more.
_PANEL = 2**17

#: Phases, at most, of a plan: as many times are its sums larger than what it reads.
_PHASES = 16


def applies(phases: Sequence[Phase], adds: bool) -> bool:
    """Whether it is one phase, or several that read near each other and write each pixel once."""
    return not adds and (len(phases) == 1 or (1 < len(phases) <= _PHASES and are_side_by_side(phases)))


class _Correlation:
    """Phases that read the large map and write the small one, or the other way round, and their plan."""

    def __init__(
        self, geometry: Geometry, phases: Sequence[Phase], to_large: bool, layout: Layout, itemsize: int
    ) -> None:
        self.phases, self.layout, self.itemsize = phases, layout, itemsize
        self.kernel_width = geometry.axes[1].taps
        self.maps = maps = Maps(geometry, to_large)
        self.is_one, one = len(phases) == 1, phases[0]
        rows, cols = [phase.rows for phase in phases], [phase.cols for phase in phases]
        self.i, self.j = max(line.outputs for line in rows), max(line.outputs for line in cols)
        self.in_planes = Planes.of(one.rows) if self.is_one else Planes.joined(rows)
        self.across_planes = Planes.of(one.cols) if self.is_one else Planes.joined(cols)
        self.planes = len(self.in_planes.origins) * len(self.across_planes.origins)
        self.reach = self.in_planes.reach, self.across_planes.reach
        # one phase's sums lie side by side and are written apart; those of several lie as they are written
        self.apart = (1, 1) if self.is_one else (one.rows.apart, one.cols.apart)
        self.sums = (self.i, self.j) if self.is_one else maps.out
        self.copies = not all(maps.is_inside(phase) for phase in phases)
        self.taps = [phase.rows.taps * phase.cols.taps for phase in phases]
        most = _PANEL // itemsize // (maps.kernel * layout.lanes)
        if self.copies:
            line = self.planes * (1 + self.reach[0]) * (min(self.j, 64 * layout.lanes) + self.reach[1])
            most = min(most, cuts.FIELD // itemsize // line)
        self.block_c = even(max(1, min(_TAPS // max(self.taps), most)), maps.channels)

    def cut(self, threads: int) -> Cut:
        """The cheapest way to cut it."""
        maps, lanes = self.maps, self.layout.lanes
        extents = maps.batch, maps.groups, maps.channels, maps.results, self.i, self.j
        is_line = self.is_one and (self.reach[1] == 0 if self.copies else self.j == maps.source[1])
        described = tuple((taps, phase.cols.outputs) for taps, phase in zip(self.taps, self.phases, strict=True))
        # the taps of a result's channels lie together, or those of a channel's results
        run, runs = maps.kernel, maps.channels
        if maps.weight[P.WEIGHT_CHANNEL] == maps.kernel:
            run, runs = maps.kernel * maps.channels, 1
        packed = runs if maps.weight[P.WEIGHT_RESULT] == 1 else runs * -(-run // lanes) * lanes
        scatters = self.is_one and self.phases[0].cols.apart > 1
        return cuts.best(
            True, self.layout, self.itemsize, extents, described, self.apart, self.reach, self.planes, self.block_c,
            self.copies, is_line, scatters, packed, threads,
        )  # fmt: skip

    def plan(self, cut: Cut) -> Plan:
        """Its plan, cut so."""
        maps, one, lanes, block_c = self.maps, self.phases[0], self.layout.lanes, self.block_c
        out_w = maps.out[1]
        field = _field(block_c, cut.rows + self.reach[0], cut.cols + self.reach[1], self.itemsize)
        channels = np.arange(block_c)[:, None]
        tables = _Tables()
        described = []
        for p, phase in enumerate(self.phases):
            rows, cols = phase.rows, phase.cols
            in_field, step = maps.offsets(phase), maps.source[0] * maps.source[1]
            if self.copies:
                lines = (self.in_planes, "rows"), (self.across_planes, "cols")
                down, across = (
                    planes.part([getattr(phase, name).taps for phase in self.phases], p) for planes, name in lines
                )
                in_field, step = _field_offsets(down, across, field), field[P.FIELD_CHANNEL]
            # a transposed weight has all taps of a channel, each in a row of lanes
            in_panel = (channels * maps.kernel + _weight_offsets(phase, self.kernel_width)) * lanes
            taps = tables.add(np.stack([in_panel.ravel(), (channels * step + in_field).ravel()], 1))
            first = (0, 0) if self.is_one else (rows.place, cols.place)
            described += [rows.outputs, cols.outputs, *first, taps, rows.taps * cols.taps]
        strips = -(-maps.batch // cut.images) * maps.groups * -(-self.i // cut.rows) * -(-self.j // cut.cols)
        written = sum(phase.rows.outputs * phase.cols.outputs for phase in self.phases)
        integers = {
            P.ITEMS: strips * -(-maps.results // cut.results),
            P.ROWS: self.i, P.COLS: self.j,
            **maps.integers,
            P.OUT_START: self.is_one * (one.rows.place * out_w + one.cols.place),
            P.OUT_ROW: one.rows.apart * out_w if self.is_one else out_w,
            P.OUT_COL: one.cols.apart if self.is_one else 1,
            P.COPIES: self.copies, P.GAPS: written < self.sums[0] * self.sums[1],
            P.PHASES: len(self.phases), P.PHASE_TABLE: tables.add(described),
            P.APART_H: self.apart[0], P.APART_W: self.apart[1],
            P.SUMS_ROWS: self.sums[0], P.SUMS_COLS: self.sums[1],
            **field,
            P.BLOCK_IMAGES: cut.images, P.BLOCK_ROWS: cut.rows, P.BLOCK_COLS: cut.cols, P.BLOCK_CHANNELS: block_c,
            P.BLOCK_RESULTS: cut.results,
            **_planes_tables(tables, self.in_planes, self.across_planes),
        }  # fmt: skip
        # squares of lanes go beyond what they hold
        square, pixels = lanes * lanes, cut.sums // cut.results
        parts = {
            P.START: lanes,
            P.SUMS: cut.sums + square,
            P.PANEL: block_c * maps.kernel * lanes + square,
            P.EXTRA: lanes * pixels,
            P.FIELD: self.copies * cut.images * self.planes * field[P.FIELD_PLANE] + 2 * lanes,
        }
        return _plan("correlate_results", self.itemsize, tables, integers, parts)


def correlation(
    geometry: Geometry, phases: Sequence[Phase], to_large: bool, layout: Layout, itemsize: int, threads: int
) -> Way:
    """The way to compute phases to which it `applies`."""
    problem = _Correlation(geometry, phases, to_large, layout, itemsize)
    cut = problem.cut(threads)
    return Way(cut.excess, cut.cost, lambda: [problem.plan(cut)])
