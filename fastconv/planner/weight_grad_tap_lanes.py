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
        self.blocking, self.least = self.cheapest(self.layout.full[0], self.model.fewest_results)

    def cost(self, blocking: WeightBlocking) -> float:
        """In multiply-adds of a vector."""
        rows = self.layout.full[0]
        vectors = -(-blocking.channels * self.maps.taps // self.layout.lanes)
        multiplied = -(-self.maps.results // rows) * rows * vectors
        gathered = -(-self.maps.results // blocking.results) * vectors * self.model.gather
        reading = self.model.tap_lanes_read if self.planes[1].stride <= 2 else self.model.copy_far_planes
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
        pixels = in_small = np.arange(most if blocking.images == 1 else blocking.images * self.pixels)
        if blocking.images > 1:
            in_small = pixels // self.pixels * of_all["small"].image + pixels % self.pixels
        arguments = WeightGradTapLanes(
            **of_all, taps=self.maps.taps,
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
