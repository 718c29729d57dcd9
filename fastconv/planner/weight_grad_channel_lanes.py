"""The kernel of the weight gradient with channel lanes, a lane for each result: its cost and plan.

The small map is transposed, once for each block of channels; the source is read in place, or from a padded tile. Tap
groups can keep to the outputs for which they read inside the source, so that no padding is read.
"""

from __future__ import annotations

import copy
import math

import numpy as np

from fastconv.backends.contract import Plan
from fastconv.kernels.drivers.weight_grad_channel_lanes import TapGroup, WeightGradChannelLanes
from fastconv.planner.blocking import Vectors
from fastconv.planner.plan_builder import Tables, plan_of, share_cache_sets
from fastconv.planner.request import Proposal, Request
from fastconv.planner.tap_ranges import TapGroups, all_taps, cost_of_finite_check, tap_groups
from fastconv.planner.weight_grad_blocking import Gradient, WeightBlocking, needs_sums_of_lanes
from fastconv.problem.arrays import Array
from fastconv.problem.subpixel import Phase, reading_large


class _Gradient(Gradient):
    """Channel lanes: the source is not split into planes; the stride is the step from one pixel read to the next.

    All taps are multiplied for all outputs; `skipping_padding` skips the padding.
    """

    keeps_pixels = True

    def __init__(self, request: Request) -> None:
        self.reading = reading = reading_large(request.geometry)
        axis_maps = (
            axis_map
            if axis_map.stride == 1
            else axis_map._replace(stride=1, outputs=(axis_map.outputs - 1) * axis_map.stride + 1)
            for axis_map in (reading.rows, reading.cols)
        )
        steps = reading.rows.stride, reading.cols.stride
        super().__init__(request, Phase(*axis_maps), steps)
        self.is_padded = not self.maps.has_no_padding(self.phase)  # any stride can be read in place
        self.skips_padding = False
        self.vectors = [Vectors.of(self.maps.results, self.layout, shares, self.model) for shares in (False, True)]
        self._choose_tap_groups(all_taps(reading, self._longest_run()))

    def skipping_padding(self) -> _Gradient:
        """The same with tap groups that skip the padding: they keep to the outputs that read inside the source."""
        other, width = copy.copy(self), self.reading.cols.taps
        other.skips_padding = True
        lengths = *range(1, min(self.layout.taps, width)), width
        other._choose_tap_groups(tap_groups(self.reading, self.maps.source, lengths, self._longest_run()))
        return other

    def _choose_tap_groups(self, found: list[TapGroups]) -> None:
        """Take the cheapest of these tap groups, and then the cheapest blocking."""
        self.tap_groups = found[0]
        if len(found) > 1:
            channels = self.blockings(*self._results())[0].channels
            self.tap_groups = min(found, key=lambda taps: self._multiplied(taps, channels))
        if self.skips_padding:
            same_sets = share_cache_sets(self.maps.source, self.itemsize)
            self.is_padded = self.tap_groups.cols.reads_padding or (same_sets and not self.maps.reads_channels_last)
        self.blocking, self.least = self.cheapest(*self._results())

    def _longest_run(self) -> int:
        """The most neighbouring taps in a run: 1, unless they read neighbouring pixels and register tiles gain by
        sharing these reads. Those with two vectors of results gain nothing, as they share them already."""
        layout, (alone, sharing) = self.layout, self.vectors
        axis_map = self.reading.cols
        are_neighbours = axis_map.stride == axis_map.dilation == self.maps.source_order.col == 1
        return layout.run if are_neighbours and layout.beside(self.maps.results) == 1 and alone != sharing else 1

    def _results(self) -> tuple[int, int]:
        """The number of which a work item's results are a multiple, and the fewest that it should have."""
        # multiply-adds that use a vector of the padded tile, for each vector of results
        lanes, beside = self.layout.lanes, self.layout.beside(self.maps.results)
        reuse = lanes * self.maps.taps / math.prod(self.steps)
        return beside * lanes, lanes * max(beside, self.is_padded * math.ceil(self.model.worth_copying / reuse))

    def _multiplied(self, tap_groups: TapGroups, channels: int) -> float:
        """The cost of these tap groups over all outputs, with `channels` channels, for an average vector of results."""
        cost = 0.0
        for size, run, outputs in tap_groups.kinds:
            vectors = self.vectors[run > 1]
            taps = channels * size
            tiles = -(-taps // (self.layout.taps // run * run))
            cost += outputs * tiles * vectors.cost(taps / tiles)
        return cost * (self.model.skipping_taps if self.skips_padding else 1)

    def cost(self, blocking: WeightBlocking) -> float:
        """In multiply-adds of a vector."""
        maps, lanes, model = self.maps, self.layout.lanes, self.model
        count, vectors = blocking.channels * maps.taps, -(-maps.results // lanes)
        multiplied = vectors * self._multiplied(self.tap_groups, blocking.channels) / self.pixels
        stored = self.weight_size / maps.results * vectors * blocking.splits * model.store_weight + self.cost_of_adding(
            blocking
        )
        summing = self.cost_of_summing(
            blocking,
            model.channel_lanes_pixels,
            multiplied + vectors * model.transpose_panel,
            vectors * count * model.load_result_sums,
        )
        checking = self.skips_padding * cost_of_finite_check(model, self.weight_size, maps.out_size) / lanes
        reading = self.cost_of_reading(
            blocking, model.channel_lanes_copy if self.is_padded else model.channel_lanes_read
        )
        return summing + stored + reading + checking

    def plan(self) -> Plan:
        """Its plan."""
        blocking, lanes, phase = self.blocking, self.layout.lanes, self.phase
        most, beside = self.model.channel_lanes_pixels, self.layout.beside(blocking.results)
        tables, rows = Tables(), self.tap_groups.rows.tolist()
        offsets, of_all = self.arguments(blocking, tables)
        order = self.maps.source_order
        tile = of_all["tile"]
        row_pitch, pitch = (tile.cols * tile.pixel, tile.pixel) if self.is_padded else (order.row, order.col)
        row_pitch, pitch = self.steps[0] * row_pitch, self.steps[1] * pitch
        chains, chains_size = self.chains(blocking)
        pairs = np.stack([np.arange(len(offsets)) * lanes, offsets], 1)
        # a group has one row of taps or all rows: (channels, groups, rows of a group, columns, 2)
        pairs = pairs.reshape(blocking.channels, len(rows), -1, phase.cols.taps, 2)
        # if a panel is a part of a row, its columns are counted from its own first one
        is_part = blocking.cols < self.maps.out[1] or blocking.cols > most
        high = 1 if is_part else min(blocking.rows, most // blocking.cols)
        cols = self.tap_groups.cols.table.tolist()
        panels = [(0, min(blocking.cols, most)) if is_part else (j, end_j) for _, _, j, end_j in cols]
        pixels = {panel: tables.add(self._pixels(high, panel, row_pitch, pitch)) for panel in sorted(set(panels))}
        of_cols = []
        for (b, end_b, j, end_j), panel, run in zip(cols, panels, self.tap_groups.cols.runs.tolist(), strict=True):
            taps = pairs[:, :, :, b:end_b].swapaxes(0, 1)
            if self.maps.reads_channels_last and self.maps.channels % blocking.channels == 0:
                # register tiles read neighbouring channels of a pixel
                taps = np.moveaxis(taps, 1, 3)
            of_cols.append((tables.add(taps), taps[0].size, j, end_j, pixels[panel], panel[0], run))
        groups = [
            TapGroup(
                start + number * size, size // 2 // blocking.channels, i, end_i, j, end_j, at_pixels, panel_col, run
            )
            for number, (_, _, i, end_i) in enumerate(rows)
            for start, size, j, end_j, at_pixels, panel_col, run in of_cols
        ]
        arguments = WeightGradChannelLanes(
            **of_all, taps=self.maps.taps, block_pixels=most, chains=chains, step_h=self.steps[0], step_w=self.steps[1],
            halves=self.layout.halves, pairs=self.layout.pairs, next_panel=most * lanes,
            tap_groups=len(groups), tap_groups_table=tables.add(groups),
            tile_at=0, panel_at=0, sums_at=0, zeros_at=0, square_at=0, chains_at=0,
        )  # fmt: skip
        square = lanes * lanes
        parts = {
            "zeros_at": lanes,
            "sums_at": -(-blocking.results // lanes) * lanes * len(offsets) + square,
            "panel_at": beside * most * lanes,
            "square_at": square,
            "chains_at": chains_size,
            "tile_at": self.tile_size(blocking, arguments.tile),
        }
        return plan_of(
            "weight_grad_channel_lanes", self.itemsize, tables, arguments, parts, skips_padding=self.skips_padding
        )

    def _pixels(self, rows: int, cols: tuple[int, int], row_pitch: int, pitch: int) -> Array:
        """The pixels of `rows` rows and a range of columns: their offsets in a panel and in what is read."""
        i, j = np.arange(rows)[:, None], np.arange(*cols)
        return np.stack([(i * self.blocking.cols + j) * self.layout.lanes, i * row_pitch + j * pitch], 2)


def applies(request: Request) -> str | None:
    """Why lanes cannot be results."""
    return needs_sums_of_lanes(request)


def propose(request: Request) -> Proposal:
    """How it is computed with a lane for each result: with all taps for all outputs, or skipping the padding, which
    needs a finite small map."""
    of_all = _Gradient(request)
    gradients = [of_all, of_all.skipping_padding()] if of_all.is_padded else [of_all]
    return min(gradients, key=lambda gradient: gradient.least).proposal()
