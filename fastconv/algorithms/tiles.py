"""Direct convolution for engines that multiply tiles: how a problem is cut, as plans of integers.

A piece of work is a strip of output rows of some images, times some channels written. Its source, a block of channels
at a time, is copied once into a zero-padded *field* in which each tap of the kernel is the same run of pixels at
another distance (`ground.planes`), or is read as it is where that holds already. Tiles of the field are copied into
*panels* where that pays: each tap's pixels one after the other, without the columns that lie between two rows of a
field. The weight is read in its own layout.

Workspace is a field, a panel and the strip's sums for each thread, whatever the problem's size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fastconv.algorithms import cuts
from fastconv.algorithms.cuts import Cut, Way, even
from fastconv.algorithms.planning import (
    Maps,
    Tables,
    field_of,
    field_offsets,
    fills,
    plan_of,
    planes_tables,
    weight_offsets,
)
from fastconv.engines.contract import Layout, Plan
from fastconv.engines.plans import Place as P
from fastconv.ground.geometry import Geometry
from fastconv.ground.phases import Phase
from fastconv.ground.planes import Planes

#: Taps that are summed at a time: more are read from the second-level cache, fewer load and store sums more often.
_PANEL_TAPS = 384


#: Plans so few that a thread does a piece of each in one go.
_FEW = 4
#: The places that say which pieces there are, whole rows provided.
_CUTS = [P.ITEMS, P.IMAGES, P.ROWS, P.BLOCK_IMAGES, P.BLOCK_ROWS, P.BLOCK_RESULTS]
#: The places that hold where a table starts.
_STARTS = [P.ORIGINS_H, P.ORIGINS_W, P.TAPS, P.PANEL_TAPS]


def together(plans: Sequence[Plan], beside: int) -> Plan:
    """One plan that runs several of one pass, of which each `beside` write the same rows.

    A thread does a piece of each plan of a group before the next. Those that write the same rows are a group; up to
    four are, whatever they write, as two threads that write neighbouring rows wait for each other's cache lines.
    """
    vectors = np.concatenate([plan.vector for plan in plans])
    starts = np.cumsum([0, *(len(plan.tables) for plan in plans[:-1])])
    vectors[:, _STARTS] += starts[:, None]
    workspace = max(plan.workspace for plan in plans)
    vectors[:, P.WORKSPACE] = workspace
    vectors[:, P.GROUP] = len(plans) if len(plans) <= _FEW else beside
    if beside == 2:
        pairs = vectors.reshape(-1, 2, len(P))
        are_cut_alike = (pairs[:, 0, _CUTS] == pairs[:, 1, _CUTS]).all(1)
        are_whole = (pairs[:, :, P.BLOCK_COLS] == pairs[:, :, P.COLS]).all(1)
        pairs[:, :, P.WEAVES] = np.outer(are_cut_alike & are_whole & (pairs[:, 0, P.OUT_COL] == 2), (1, 2))
    items = sum(plan.items for plan in plans)
    tables = np.concatenate([plan.tables for plan in plans])
    return Plan(plans[0].name, plans[0].itemsize, vectors, tables, items, workspace)


#: The cost of reading an element of the weight for the first time, in multiply-adds of a vector.
_FETCHING = 0.3


class _Correlation:
    """A phase that reads the large map and writes the small one, or the other way round, and its plan."""

    def __init__(self, geometry: Geometry, phase: Phase, to_large: bool, layout: Layout, itemsize: int) -> None:
        self.phase, self.layout, self.itemsize = phase, layout, itemsize
        self.kernel_width = geometry.axes[1].taps
        self.maps = Maps(geometry, to_large)
        rows, cols = phase.rows, phase.cols
        self.taps = rows.taps * cols.taps
        self.in_planes, self.across_planes = Planes.of(rows), Planes.of(cols)
        self.planes = len(self.in_planes.origins) * len(self.across_planes.origins)
        self.reach = self.in_planes.reach, self.across_planes.reach
        self.copies = not self.maps.is_inside(phase)
        most = c = self.maps.channels
        if self.copies:
            line = self.planes * (1 + self.reach[0]) * (min(cols.outputs, 64 * layout.lanes) + self.reach[1])
            most = cuts.FIELD // itemsize // line
        self.block_c = even(max(1, min(_PANEL_TAPS // self.taps, most)), c)

    def cut(self, adds: bool, threads: int) -> Cut:
        """The cheapest way to cut it."""
        maps, rows, cols = self.maps, self.phase.rows, self.phase.cols
        extents = maps.batch, maps.groups, maps.channels, maps.results, rows.outputs, cols.outputs
        is_whole = not self.copies and self.taps == 1 and cols.outputs == maps.source[1]
        # those that a phase takes of the weight lie apart
        fetching = _FETCHING * min(16, maps.kernel / self.taps)
        is_summed_there = cols.apart == 1 and not adds and maps.channels <= 2 * self.block_c
        return cuts.best(
            False, self.layout, self.itemsize, extents, self.taps, self.reach, self.planes, self.block_c,
            self.copies, is_whole, is_summed_there, fetching, threads,
        )  # fmt: skip

    def plan(self, cut: Cut, adds: bool, is_only: bool) -> Plan:
        """Its plan, cut so; `is_only`: there is no other phase."""
        maps, rows, cols, lanes, block_c = self.maps, self.phase.rows, self.phase.cols, self.layout.lanes, self.block_c
        out_w, i, j = maps.out[1], rows.outputs, cols.outputs
        tile = self.layout.tiles[cut.tile][1] * lanes
        field = field_of(block_c, cut.rows + self.reach[0], cut.cols + self.reach[1], self.itemsize)
        strips = -(-maps.batch // cut.images) * maps.groups * -(-i // cut.rows) * -(-j // cut.cols)

        tables = Tables()
        in_weight = weight_offsets(self.phase, self.kernel_width)
        if self.copies:
            in_field, step = field_offsets(self.in_planes, self.across_planes, field), field[P.FIELD_CHANNEL]
        else:
            in_field, step = maps.offsets(self.phase), math.prod(maps.source)
        channels = np.arange(block_c)[:, None]
        in_weight = (channels * maps.weight[P.WEIGHT_CHANNEL] + in_weight).ravel()
        in_field = (channels * step + in_field).ravel()
        in_panel = np.arange(len(in_field)) * (tile + lanes)
        integers = {
            P.ITEMS: strips * -(-maps.results // cut.results),
            P.ROWS: i, P.COLS: j, P.TAPS_A: rows.taps, P.TAPS_B: cols.taps,
            **maps.integers,
            P.OUT_START: rows.place * out_w + cols.place, P.OUT_ROW: rows.apart * out_w, P.OUT_COL: cols.apart,
            P.ADDS: adds, P.COPIES: self.copies, P.PIXELS: cut.pixels, P.TILE: cut.tile,
            **field,
            P.BLOCK_IMAGES: cut.images, P.BLOCK_ROWS: cut.rows, P.BLOCK_COLS: cut.cols, P.BLOCK_CHANNELS: block_c,
            P.BLOCK_RESULTS: cut.results,
            **(fills([self.phase], cut.cols) if is_only and not adds else {}),
            P.TAPS: tables.add(np.stack([in_weight, in_field], 1)),
            P.PANEL_TAPS: tables.add(np.stack([in_weight, in_panel], 1)),
            **planes_tables(tables, self.in_planes, self.across_planes),
        }  # fmt: skip
        parts = {
            P.START: cut.results * lanes,
            P.SUMS: cut.sums,
            P.PANEL: block_c * self.taps * (tile + lanes) + 2 * lanes,
            P.FIELD: self.copies * cut.images * self.planes * field[P.FIELD_PLANE] + tile + 2 * lanes,
        }
        return plan_of("correlate", self.itemsize, tables, integers, parts)


def applies(phases: Sequence[Phase], adds: bool) -> bool:
    """Whether it can compute phases: always."""
    return True


def correlation(
    geometry: Geometry, phases: Sequence[Phase], to_large: bool, adds: bool, layout: Layout, itemsize: int, threads: int
) -> Way:
    """The way to compute phases that read the large map and write the small one, or the other way round."""
    problems = [_Correlation(geometry, phase, to_large, layout, itemsize) for phase in phases]
    found = [problem.cut(adds, threads) for problem in problems]

    def plans() -> list[Plan]:
        made = [problem.plan(cut, adds, len(phases) == 1) for problem, cut in zip(problems, found, strict=True)]
        if adds or not made:
            return made  # tap by tap they write the same elements
        apart = phases[0].cols.apart > 1
        return [together(made, sum(phase.rows == phases[0].rows for phase in phases) if apart else 1)]

    return Way(sum(cut.excess for cut in found), sum(cut.cost for cut in found), plans)
