"""The kernel channel lanes, a vector lane for each result: its blocking, cost and plan.

The phases of a transposed convolution are one plan: they read one padded tile and one packed weight, and their sums are
interleaved as in the output. `Lanes` says which results are the lanes of a vector: those of a group in their order, or
those of several phases (`interleaved_phases`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from fastconv.backends.contract import Plan
from fastconv.kernels.arguments import Block, PaddedTile
from fastconv.kernels.drivers.channel_lanes import ChannelLanes, PhaseEntry, Sums
from fastconv.kernels.pack_weight import LanePacking
from fastconv.planner.blocking import Blocking, cheapest_blocking, even_block, strip_rows
from fastconv.planner.cost_model import CACHE_LINE, SET_STRIDE
from fastconv.planner.panels import Panels
from fastconv.planner.phase_group import PhaseGroup
from fastconv.planner.plan_builder import (
    Maps,
    Tables,
    channel_taps,
    padded_tile,
    plan_of,
    plane_offsets,
    weight_offsets,
)
from fastconv.planner.request import Proposal, Request
from fastconv.planner.tap_ranges import TapRanges, cost_of_finite_check
from fastconv.problem.arrays import Array
from fastconv.problem.polyphase import are_side_by_side
from fastconv.problem.subpixel import Phase

#: Phases, at most, of a plan: its sums have so many times the pixels that it reads.
_PHASES = 16

#: Cache lines of a set of the first-level cache that pixels may take.
_LINES_OF_SET = 8


def applies(request: Request) -> str | None:
    """Why it cannot compute a map: it needs one phase, or several that read neighbouring pixels and write each
    pixel once."""
    number = request.phase_count
    if number == 1:
        return None
    if not 0 < number <= _PHASES:
        return f"there are {number or 'no'} phases"
    return None if are_side_by_side(request.phases) else "its phases do not read pixels near each other"


class Lanes(Protocol):
    """Which results are lanes.

    results  how many there are in a group
    taps     taps of a channel in the packed weight
    """

    results: int
    taps: int

    def costs(self) -> tuple[float, float]:
        """The cost of packing the weight of a vector of results, and that of storing a vector of sums."""

    def panel_taps(self, phase: Phase) -> Array:
        """For each tap of a phase, its number in the packed weight."""

    def offsets(self) -> tuple[Array, Array]:
        """The offset in the weight of each result, and of each tap in the packed weight."""

    def packing(self, tables: Tables) -> LanePacking:
        """Which results are lanes, as arguments of the driver."""

    def panels(self) -> Panels:
        """The packed weight."""


class ResultsInOrder:
    """A group's results in their order: all phases use one packed weight, which has all taps of the kernel."""

    def __init__(self, request: Request, phases: Sequence[Phase], maps: Maps) -> None:
        self.maps, self.results, self.taps, self._model = maps, maps.results, maps.taps, request.model
        self._lanes, self._kernel_width = request.tiles.lanes, request.geometry.axes[1].taps
        self._phases = [weight_offsets(phase, self._kernel_width) for phase in phases]
        self._scatters = len(phases) == 1 and phases[0].cols.out_stride > 1

    def costs(self) -> tuple[float, float]:
        """As `Lanes`: the weight and sums are transposed."""
        maps, lanes, strides = self.maps, self._lanes, self.maps.weight_strides
        # contiguous in the weight: all taps of a result, or only those of one channel of it
        run, runs = maps.taps, maps.channels
        if strides.channel == maps.taps:
            run, runs = maps.taps * maps.channels, 1
        packed = runs if strides.result == 1 else runs * -(-run // lanes) * lanes
        model = self._model
        storing = model.transpose_sums + self._scatters * model.scatter
        return packed * model.transpose_weight, model.store_lanes if maps.has_channels_last else storing

    def panel_taps(self, phase: Phase) -> Array:
        """As `Lanes`."""
        return weight_offsets(phase, self._kernel_width)

    def offsets(self) -> tuple[Array, Array]:
        """As `Lanes`."""
        return np.arange(self.results) * self.maps.weight_strides.result, np.arange(self.taps)

    def packing(self, tables: Tables) -> LanePacking:
        """As `Lanes`."""
        return LanePacking(self.taps, self.results, run=0, weight_table=0, out_table=0, bias_table=0, taps_table=0)

    def panels(self) -> Panels:
        """As `Lanes`."""
        return self.maps.panels(self._phases, self._lanes)


class PhaseGroupPlanner:
    """The phases of a contraction that writes a map: their blocking and their plan.

    lanes       which results are lanes
    is_all      whether these are all phases of the map
    keeps_pixels  the channels of a pixel are read side by side, as they lie in the source
    tap_ranges  the taps that are multiplied: those on the padding are skipped where that pays
    """

    def __init__(self, request: Request, phases: Sequence[Phase], maps: Maps, lanes: Lanes, *, is_all: bool) -> None:
        layout, itemsize, model = request.tiles, request.itemsize, request.model
        self.phases, self.maps, self.lanes, self.is_all = phases, maps, lanes, is_all
        self.groups = maps.groups_beside(1, model, itemsize)
        self.layout, self.itemsize, self.model = layout, itemsize, model.of_each(self.groups)
        self.panels, model = lanes.panels() if request.packs_weight else None, self.model
        self.group = group = PhaseGroup(phases, maps.out, strip_rows(phases, layout.lanes, model))
        self.is_padded = not all(maps.is_inside(phase) or self._reads_pixels_in_place(phase) for phase in phases)
        # pixels of few channels are copied one by one, unless a row of them is one run
        is_run = maps.channels >= layout.lanes or all(phase.cols.stride == 1 for phase in phases)
        self.keeps_pixels = maps.reads_channels_last and (is_run or not self.is_padded)
        self.taps = [phase.rows.taps * phase.cols.taps for phase in phases]
        most = model.weight_panel_bytes // itemsize // (lanes.taps * layout.lanes)
        longest = model.row_parts[-1] * layout.lanes
        if self.is_padded:
            line = group.planes * (1 + group.halo[0]) * (min(group.extents[1], longest) + group.halo[1])
            most = min(most, model.padded_tile_bytes // itemsize // line)
        self.block_c = even_block(max(1, min(model.block_taps // max(self.taps), most)), maps.channels)
        self.tap_ranges = [TapRanges.everywhere(phase) for phase in phases]
        # tap ranges belong to spans of whole rows, so no work item has a part of a row
        self.skips_padding = self.is_padded and group.halo[1] > 0 and group.extents[1] <= longest
        if self.skips_padding:
            inside = [TapRanges.inside(phase, maps.source, layout.span) for phase in phases]
            checking = 0 if self.panels else cost_of_finite_check(model, maps.weight_size, maps.out_size)
            self.skips_padding = self._saved(inside) > checking
            self.tap_ranges = inside if self.skips_padding else self.tap_ranges

    def _reads_pixels_in_place(self, phase: Phase) -> bool:
        """Whether the source is read in place: its channels are neighbours, no tap reads padding, and the pixels of a
        register tile fit into the first-level cache.

        They do not if their distance is a multiple of a large power of two: then they share a few sets and evict each
        other before all their channels are read.
        """
        maps, (rows, cols), span = self.maps, phase[:2], self.layout.span
        if not (maps.reads_channels_last and maps.has_no_padding(phase)):
            return False
        between = maps.source_order.col * self.itemsize * (cols.stride if cols.taps == 1 else 1)
        sets = SET_STRIDE // max(CACHE_LINE, math.gcd(between, SET_STRIDE))
        return rows.taps * cols.taps * min(span, cols.outputs) <= _LINES_OF_SET * sets

    def _saved(self, inside: Sequence[TapRanges]) -> float:
        """The multiply-adds saved if only the taps in these ranges are multiplied."""
        maps = self.maps
        pixels = sum(
            phase.rows.outputs * phase.cols.outputs * taps * (1 - ranges.kept)
            for phase, taps, ranges in zip(self.phases, self.taps, inside, strict=True)
        )
        return maps.batch * maps.groups * maps.channels * self.lanes.results * pixels

    def blocking(self, threads: int) -> Blocking:
        """Its cheapest blocking."""
        maps, group = self.maps, self.group
        extents = maps.batch, maps.groups, maps.channels, self.lanes.results, *group.extents
        is_line = group.is_one and (group.halo[1] == 0 if self.is_padded else self._has_rows_in_line())
        described = tuple(
            (taps * ranges.kept, phase.cols.outputs)
            for taps, ranges, phase in zip(self.taps, self.tap_ranges, self.phases, strict=True)
        )
        shares = self.layout.run > 1 and all(
            phase.cols.taps > 1 and phase.cols.dilation == phase.cols.stride for phase in self.phases
        )
        packing, storing = self.lanes.costs()
        copying = self.model.pad_vector if self.keeps_pixels or not maps.is_transposed else self.model.transpose_source
        packing = 0 if self.panels else packing
        return cheapest_blocking(
            True, self.layout, self.itemsize, extents, described, group.out_stride, group.halo, group.planes,
            self.block_c, self.is_padded, is_line, shares, packing, storing, copying, threads, self.model,
        )  # fmt: skip

    def _has_rows_in_line(self) -> bool:
        """Whether a row of outputs reads on in place where the one before ended."""
        pitch, row_pitch = self.maps.pitches(self.phases[0])
        return row_pitch == self.group.extents[1] * pitch

    @property
    def _exceeds_level2(self) -> bool:
        """Whether the source exceeds half of the second-level cache."""
        return self.maps.source_bytes(self.itemsize) > self.model.level2_source_bytes

    @property
    def _sums_in_output(self) -> bool:
        """Whether the last sums are made in the output: its results are neighbours there, in whole vectors, and pixels
        do not share few sets of a cache."""
        maps, far = self.maps, self.maps.out_order.col * self.itemsize % (SET_STRIDE // 2) == 0
        return maps.has_channels_last and maps.results % self.layout.lanes == 0 and not (self.group.has_gaps or far)

    def _phases_table(self, tables: Tables, tile: PaddedTile) -> int:
        """The table of phases, and the tables of their spans and taps."""
        maps, group, lanes = self.maps, self.group, self.layout.lanes
        entries, of_channel, of_tile = [], 0, (tile.plane, tile.cols, tile.pixel)
        for number, (phase, ranges) in enumerate(zip(self.phases, self.tap_ranges, strict=True)):
            in_source, step = maps.offsets(phase), maps.source_order.channel
            if self.is_padded:
                in_source, step = plane_offsets(*group.planes_of(phase), *of_tile), tile.channel
            in_panel = self.lanes.taps * lanes, self.lanes.panel_taps(phase) * lanes
            if self.panels:
                taps = self.taps[number]
                of_channel = taps * lanes
                in_panel = of_channel, self.panels.start(number) + np.arange(taps) * lanes
            pairs = channel_taps(self.block_c, in_panel, (step, in_source))
            pairs = pairs.reshape(self.block_c, phase.rows.taps, phase.cols.taps, 2)
            # the sums of a single phase are contiguous
            first = (0, 0) if group.is_one else (phase.rows.out_start, phase.cols.out_start)
            spans_table = ranges.add_to(tables, pairs)
            entries.append(PhaseEntry(phase.rows.outputs, phase.cols.outputs, *first, spans_table, of_channel))
        return tables.add(np.array(entries))

    def _fetches(self, strips: int) -> Array:
        """The offset of each cache line of the weight that is packed at once, which is prefetched.

        Empty if the weight is packed already or small. With many strips, a weight that fits into half of the
        second-level cache is left out too, as it stays there from strip to strip.
        """
        maps, line = self.maps, CACHE_LINE // self.itemsize
        model = self.model
        least = model.prefetched_weight_bytes if strips <= model.work_items else model.level2_source_bytes
        if self.panels or maps.weight_size * self.itemsize < least:
            return np.zeros(0, np.int64)
        results, taps = self.lanes.offsets()
        results = results[: self.layout.beside(len(results)) * self.layout.lanes]
        channels = np.arange(self.block_c) * maps.weight_strides.channel
        offsets = np.sort((results[:, None, None] + channels[:, None] + taps).ravel())
        # the weight may begin inside a cache line, so a run of elements may end in one line more
        is_first = np.diff(offsets // line, prepend=-1) > 0
        is_last = np.diff(offsets, append=offsets[-1] + 2 * line) > line
        found: Array = offsets[is_first | is_last]
        return found

    def plan(self, blocking: Blocking) -> Plan:
        """Its plan with this blocking."""
        maps, group, lanes, block_c = self.maps, self.group, self.layout.lanes, self.block_c
        tables, groups = Tables(), self.groups if blocking.results >= self.lanes.results else 1
        # a padded tile has the channels of all groups, unless channels are divided into blocks
        packed = block_c * (groups if block_c == maps.channels else 1)
        extents = packed, blocking.rows + group.halo[0], blocking.cols + group.halo[1]
        tile = padded_tile(
            tables, group.rows, group.cols, *extents, self.itemsize, maps.is_transposed, self.keeps_pixels
        )
        pitch, row_pitch = tile.pixel, tile.cols * tile.pixel
        if not self.is_padded:
            pitch, row_pitch = maps.pitches(self.phases[0])
        fills = self.is_all and maps.fills_gaps(self.phases, blocking.cols)
        i, j = group.extents
        strips = -(-maps.batch // blocking.images) * -(-i // blocking.rows) * -(-j // blocking.cols)
        panels, panel_pitch = self.panels, block_c * self.lanes.taps * lanes
        weight = maps.weight_strides
        if panels:
            weight, panel_pitch = panels.strides, panels.panel
        fetches = self._fetches(strips)
        arguments = ChannelLanes(
            items=strips * -(-maps.groups // groups) * -(-self.lanes.results // blocking.results), group=1, workspace=0,
            extents=maps.extents(i, j)._replace(results=self.lanes.results), source=maps.source_strides,
            weight=weight, out=group.written(maps)._replace(fill_gaps=fills), tile=tile,
            block=Block(blocking.images, blocking.rows, blocking.cols, block_c, blocking.results, groups),
            sums=Sums(group.sums[0], group.sums[1], *group.out_stride, group.has_gaps),
            packing=self.lanes.packing(tables),
            halves=self.layout.halves, pairs=self.layout.pairs, packed=panels is not None,
            padded=self.is_padded,
            prefetch=not self.is_padded and self._exceeds_level2,
            skips_padding=self.skips_padding, fetches=len(fetches), fetches_table=tables.add(fetches),
            direct=self._sums_in_output, phases=len(self.phases),
            phases_table=self._phases_table(tables, tile), panel_pitch=panel_pitch,
            pitch=pitch, row_pitch=row_pitch,
            tile_at=0, panel_at=0, starts_at=0, sums_at=0, maps_at=0,
        )  # fmt: skip
        # transposed squares of lanes are written beyond the end
        square, pixels, beside = lanes * lanes, blocking.sums // blocking.results, self.layout.beside(blocking.results)
        parts = {
            "starts_at": beside * lanes,
            "sums_at": groups * blocking.sums + square,
            "panel_at": 0 if panels else beside * panel_pitch,
            "maps_at": lanes * (pixels + 2 * lanes),
            "tile_at": self.is_padded * blocking.images * group.planes * tile.plane + 2 * lanes,
        }
        return plan_of(
            "channel_lanes", self.itemsize, tables, arguments, parts,
            skips_padding=self.skips_padding, fills_gaps=fills, panels=panels,
        )  # fmt: skip

    def propose(self, threads: int) -> Proposal:
        """How it computes the phases."""
        blocking = self.blocking(threads)
        return Proposal(blocking.excess, blocking.cost, lambda: [self.plan(blocking)])


def planner_of(request: Request, phases: Sequence[Phase], *, is_all: bool) -> PhaseGroupPlanner:
    """Phases whose lanes are a group's results in order; `is_all`: these are all phases of the map."""
    maps = Maps(request)
    return PhaseGroupPlanner(request, phases, maps, ResultsInOrder(request, phases, maps), is_all=is_all)


def propose(request: Request) -> Proposal:
    """How it computes a map."""
    return planner_of(request, request.phases, is_all=True).propose(request.threads)
