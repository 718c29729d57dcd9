"""The kernel of the weight gradient with pixel lanes: its cost and plan.

Both maps are read in whole vectors, and only the sums are transposed. That suits few results, as each multiply-add
loads more than with other lanes.
"""

from __future__ import annotations

import math

import numpy as np

from fastconv.backends.contract import Plan
from fastconv.kernels.drivers.weight_grad_pixel_lanes import WeightGradPixelLanes
from fastconv.planner.plan_builder import Tables, plan_of, share_cache_sets
from fastconv.planner.request import Proposal, Request
from fastconv.planner.weight_grad_blocking import Gradient, WeightBlocking, has_long_rows
from fastconv.problem.subpixel import reading_large


class _Gradient(Gradient):
    """Pixel lanes: the source is split into planes, in which there is no stride."""

    def __init__(self, request: Request) -> None:
        self.elements_per_sum, self.most_results = request.tiles.lanes, request.model.pixel_lanes_results
        super().__init__(request, reading_large(request.geometry), (1, 1))
        self.blocking, self.least = self.cheapest(self.layout.dots[0], self.layout.dots[0])

    @property
    def tile(self) -> int:
        """The taps of a tile."""
        return self.layout.dots[1]

    def chain_of(self, rows: int, cols: int) -> int:
        """The multiply-adds of a chain: each lane has one."""
        return rows * -(-cols // self.layout.lanes)

    def _sums_size(self, blocking: WeightBlocking) -> int:
        """Elements of its sums: whole squares of lanes for each result."""
        lanes, taps = self.layout.lanes, blocking.channels * self.maps.taps
        return min(blocking.results, self.maps.results) * -(-taps // lanes) * lanes * lanes

    def cost(self, blocking: WeightBlocking) -> float:
        """In multiply-adds of a vector; infinite if the sums of so many taps exceed the workspace."""
        if self._sums_size(blocking) * self.itemsize > self.model.sums_bytes:
            return math.inf
        maps, (rows, cols), (height, width) = self.maps, self.maps.out, self.layout.dots
        model = self.model
        run, runs = (cols, rows) if self.is_padded or cols < maps.source[1] else (rows * cols, 1)
        vectors = runs * -(-run // self.layout.lanes)
        blocks = -(-maps.channels // blocking.channels)
        tiles = -(-maps.results // height) * blocks * -(-blocking.channels * maps.taps // width)
        same_sets = maps.results > height and share_cache_sets(maps.out, self.itemsize)
        turns = vectors * (model.aliased if same_sets else model.unaligned)
        turns += max(1, self.pixels / model.pixel_lanes_pixels) * model.load_pixel_sums
        small = maps.results * vectors * blocks
        summed: float = maps.batch * maps.groups * (tiles * height * width * turns + small * model.read_small)
        totals = blocking.splits * self.weight_size / self.layout.lanes * model.add_lanes
        totals += self.cost_of_adding(blocking)
        copying = model.pixel_lanes_copy if self.planes[1].stride <= 2 else model.copy_far_planes
        return summed + totals + self.cost_of_reading(blocking, copying if self.is_padded else model.pixel_lanes_read)

    def plan(self) -> Plan:
        """Its plan."""
        blocking, lanes = self.blocking, self.layout.lanes
        tables = Tables()
        taps, of_all = self.arguments(blocking, tables)
        chains, chains_size = self.chains(blocking)
        arguments = WeightGradPixelLanes(
            **of_all, taps=self.maps.taps, block_pixels=self.model.pixel_lanes_pixels,
            chains=chains, taps_table=tables.add(np.stack([0 * taps, taps], 1)),
            tile_at=0, sums_at=0, square_at=0, chains_at=0,
        )  # fmt: skip
        parts = {
            "sums_at": self._sums_size(blocking),
            "square_at": lanes * lanes,
            "chains_at": chains_size,
            "tile_at": self.tile_size(blocking, arguments.tile),
        }
        return plan_of("weight_grad_pixel_lanes", self.itemsize, tables, arguments, parts)


def applies(request: Request) -> str | None:
    """Why lanes cannot be pixels."""
    if request.forbids_partial_sums and not has_long_rows(request):
        return "the rows of a product are short: the lanes of each sum would not be worth adding up"
    return None


def propose(request: Request) -> Proposal:
    """How it is computed with a lane for each pixel."""
    return _Gradient(request).proposal()
