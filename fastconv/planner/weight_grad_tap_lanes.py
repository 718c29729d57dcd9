"""The kernel of the weight gradient with tap lanes: its cost and plan.

The source's pixels are transposed into lanes of taps, each as often as taps read it; the small map is read as it is.
"""

from __future__ import annotations

import numpy as np

from fastconv.backends.contract import Plan
from fastconv.kernels.drivers.weight_grad_tap_lanes import WeightGradTapLanes
from fastconv.planner.blocking import even_block
from fastconv.planner.plan_builder import Tables, plan_of
from fastconv.planner.request import Proposal, Request
from fastconv.planner.weight_grad_blocking import Gradient, WeightBlocking, needs_sums_of_lanes
from fastconv.problem.subpixel import reading_large


class _Gradient(Gradient):
    """Tap lanes: the source is split into planes, in which there is no stride."""

    def __init__(self, request: Request) -> None:
        super().__init__(request, reading_large(request.geometry), (1, 1))
        # the channels of a pixel are its taps
        self.has_lanes = self.maps.taps == 1 and self.maps.reads_channels_last and self.maps.has_no_padding(self.phase)
        self.is_padded &= not self.has_lanes
        self.blocking, self.least = self.cheapest(self.layout.full[0], self.model.fewest_results)

    def cost(self, blocking: WeightBlocking) -> float:
        """In multiply-adds of a vector."""
        rows = self.layout.full[0]
        vectors = -(-blocking.channels * self.maps.taps // self.layout.lanes)
        multiplied = -(-self.maps.results // rows) * rows * vectors
        model = self.model
        gather, reading = model.gather, model.tap_lanes_read
        if self.has_lanes:
            gather, reading = model.copy_lanes, model.channel_lanes_read
        elif self.planes[1].stride > 2:
            reading = model.copy_far_planes
        gathered = -(-self.maps.results // blocking.results) * vectors * gather
        summing = self.cost_of_summing(
            blocking, self.model.tap_lanes_pixels, multiplied + gathered, multiplied * self.model.load_tap_sums
        )
        return summing + self.cost_of_adding(blocking) + self.cost_of_reading(blocking, reading)

    def plan(self) -> Plan:
        """Its plan."""
        blocking, lanes, width = self.blocking, self.layout.lanes, self.layout.full[1]
        most = self.model.tap_lanes_pixels
        tables = Tables()
        taps, of_all = self.arguments(blocking, tables)
        chains, chains_size = self.chains(blocking)
        # lanes beyond the last tap repeat it
        taps = np.concatenate([taps, np.repeat(taps[-1], -len(taps) % lanes)])
        small, tile = of_all["small"], of_all["tile"]
        pitch, row_pitch = (1, tile.cols) if self.is_padded else self.maps.pitches(self.phase)
        all_pixels = blocking.images > 1 or (blocking.rows > 1 and small.row != blocking.cols * small.col)
        in_small = np.arange(most) * small.col
        if all_pixels:
            n, i, j = (np.arange(length) for length in blocking[:3])
            in_small = (n[:, None, None] * small.image + i[:, None] * small.row + j * small.col).ravel()
        pixels = np.arange(len(in_small))
        arguments = WeightGradTapLanes(
            **of_all, taps=self.maps.taps, pitch=pitch, row_pitch=row_pitch, all_pixels=all_pixels,
            block_pixels=even_block(most, blocking.images * blocking.rows * blocking.cols),
            chains=chains, taps_table=tables.add(np.stack([0 * taps, taps], 1)),
            pixels_table=tables.add(np.stack([in_small, pixels * width * lanes], 1)),
            tile_at=0, panel_at=0, sums_at=0, zeros_at=0, chains_at=0,
        )  # fmt: skip
        parts = {
            "zeros_at": lanes,
            "sums_at": blocking.results * (len(taps) + width * lanes),
            "panel_at": (most * width + 1) * lanes,
            "chains_at": chains_size,
            "tile_at": self.tile_size(blocking, arguments.tile),
        }
        return plan_of("weight_grad_tap_lanes", self.itemsize, tables, arguments, parts)


def applies(request: Request) -> str | None:
    """Why lanes cannot be taps."""
    return needs_sums_of_lanes(request)


def propose(request: Request) -> Proposal:
    """How it is computed with a lane for each tap."""
    return _Gradient(request).proposal()
