"""The blocking of the weight gradient for tile engines, the same for all kinds of lanes.

A work item is some results and some channels of a group, with all taps between them. It goes through strips of pixels
one after the other, and adds to the same sums.
"""

import abc
import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fastconv.backends.contract import Plan
from fastconv.kernels.arguments import Block, PaddedTile, WeightOut
from fastconv.kernels.chains import Chains
from fastconv.planner import matmul
from fastconv.planner.blocking import even_block
from fastconv.planner.plan_builder import Maps, Tables, padded_tile, plane_offsets, slots_of
from fastconv.planner.request import Proposal, Request
from fastconv.problem.arrays import Array
from fastconv.problem.polyphase import Planes
from fastconv.problem.subpixel import Phase


class WeightBlocking(NamedTuple):
    """The blocking: images, rows and columns of a strip; channels and results of a work item; number of work items for
    each partial sum; number of partial sums."""

    images: int
    rows: int
    cols: int
    channels: int
    results: int
    items: int
    splits: int


@functools.cache
def _parts(counts: tuple[int, ...], limit: int) -> list[int]:
    """Numbers of parts of results, `limit` at most, the most first."""
    return sorted({min(parts, limit) for parts in counts}, reverse=True)


class Gradient(abc.ABC):
    """What all kinds of lanes have in common: what is read, the blocking, and the shared arguments of plans.

    maps       the large and the small map
    phase      how the large one is read
    steps      positions of a plane from what one output reads to what the next one reads, on both axes
    planes     the planes of a padded tile, on both axes
    is_padded  whether the source is read through a padded tile
    model      the nominal constants, as the blocking decides in which order numbers are added
    may_split  whether there may be partial sums, of some of the pixels each
    blocking   the cheapest blocking, and `least` its cost
    """

    blocking: WeightBlocking
    least: float
    #: Elements that a sum takes, and the most results of a work item.
    elements_per_sum, most_results = 1, 512
    #: Whether a padded tile may have the channels of a pixel side by side.
    keeps_pixels = False

    def __init__(self, request: Request, phase: Phase, steps: tuple[int, int]) -> None:
        self.layout, self.itemsize, self.model = request.tiles, request.itemsize, request.model
        self.threads = request.threads
        self.phase, self.steps, self.may_split = phase, steps, not request.forbids_partial_sums
        self.maps = maps = Maps(request)
        self.planes = Planes.of(phase.rows), Planes.of(phase.cols)
        self.is_padded = not maps.is_inside(phase)
        self.pixels: int = math.prod(maps.out)
        self.weight_size: int = maps.groups * maps.results * maps.channels * maps.taps
        # those made before; copies of this object share them
        self._blockings: dict[tuple[int, int, bool], list[WeightBlocking]] = {}

    @property
    def tile(self) -> int:
        """The taps of a tile."""
        return self.layout.full[1] * self.layout.lanes

    def positions_read(self, axis: int, outputs: int) -> int:
        """The positions of a plane that `outputs` outputs read, on an axis."""
        return (outputs - 1) * self.steps[axis] + 1 + self.planes[axis].halo

    def most_outputs(self, axis: int, positions: int) -> int:
        """The most outputs, at least 1, that read at most `positions` positions."""
        return max(1, (positions - self.planes[axis].halo - 1) // self.steps[axis] + 1)

    def blockings(self, step: int, fewest: int) -> list[WeightBlocking]:
        """What `_every_blocking` gives."""
        key = step, fewest, self.is_padded
        if key not in self._blockings:
            self._blockings[key] = list(self._every_blocking(step, fewest))
        return self._blockings[key]

    def _every_blocking(self, step: int, fewest: int) -> Iterator[WeightBlocking]:
        """The blockings to try, with more or fewer blocks of channels and of results. Results are multiples of `step`,
        and at least `fewest` if there are as many, as each work item makes its copies anew.

        None of it depends on the number of threads.
        """
        maps, layout, model = self.maps, self.layout, self.model
        n, g, c, k, taps = maps.batch, maps.groups, maps.channels, maps.results, maps.taps
        i, j = maps.out
        planes = math.prod(len(planes.origins) for planes in self.planes)
        size = n * self.pixels * self.weight_size
        one_row, whole_row = self.positions_read(0, 1), self.positions_read(1, j)

        tiles_k = -(-k // step)
        most_k = step * min(tiles_k, max(1, self.most_results // step))
        most_taps = max(
            self.tile, model.sums_bytes // self.itemsize // (min(k, most_k) * self.elements_per_sum) // 2
        )  # taps of an item
        fewest_taps = 3 * self.tile
        tried: set[int] = set()
        for blocks in model.block_counts:
            block_c = max(1, min(c, most_taps // taps, max(-(-fewest_taps // taps), -(-c // blocks))))
            block_c = even_block(block_c, c)
            if (block_c * taps) % layout.lanes and block_c < c and taps < layout.lanes:
                whole = layout.lanes // math.gcd(layout.lanes, taps)
                block_c = min(c, -(-block_c // whole) * whole)
            if block_c in tried:
                continue
            tried.add(block_c)
            rows_in_tile, block_j = i, j
            if self.is_padded:
                fits = model.padded_tile_bytes // self.itemsize // (block_c * planes)
                block_j = even_block(max(layout.lanes, self.most_outputs(1, fits // one_row)), j)
                # whole vectors, so that a pixel is in the same lane whatever the blocking
                block_j = min(j, -(-block_j // layout.lanes) * layout.lanes)
                rows_in_tile = 1 if block_j < j else even_block(self.most_outputs(0, fits // whole_row), i)
            # small images together
            block_n = 1
            if (rows_in_tile, block_j) == (i, j) and i * j < model.small_image:
                tile_elements = block_c * planes * self.positions_read(0, i) * whole_row
                fits = model.padded_tile_bytes // self.itemsize // tile_elements if self.is_padded else n
                block_n = even_block(max(1, min(n, fits, 4 * model.small_image // (i * j))), n)
            # With too few work items for the threads, first results are divided, as long as they are worth the copies;
            # then pixels, whose partial sums are added in order.
            blocks_c = g * -(-c // block_c)
            limit = min(-(-model.work_items // blocks_c), max(1, k // fewest))
            for parts in _parts(model.block_counts, limit):
                block_k = step * min(most_k // step, -(-tiles_k // parts))
                items = blocks_c * -(-k // block_k)
                block_i, splits = rows_in_tile, 1
                if self.may_split and items < model.work_items and size >= model.split_from:
                    wanted = max(1, min(-(-model.work_items // items), model.partial_sums // self.weight_size))
                    if block_n == 1 and n * -(-i // block_i) * -(-j // block_j) < wanted:
                        block_i = even_block(-(-i // -(-wanted // n)), i)
                    splits = min(-(-n // block_n) * -(-i // block_i) * -(-j // block_j), wanted)
                yield WeightBlocking(block_n, block_i, block_j, block_c, block_k, items, splits)

    def cheapest(self, step: int, fewest: int) -> tuple[WeightBlocking, float]:
        """The cheapest of the blockings that give the most work items, up to `CostModel.work_items`, and its cost.

        With many blocks of channels the results are transposed often, with many blocks of results the source is read
        often, and with few of both there are more partial sums.
        """
        blockings = self.blockings(step, fewest)
        busy = [min(self.model.work_items, blocking.items * blocking.splits) for blocking in blockings]
        most = max(busy)
        costs = [(self.cost(blocking), number) for number, blocking in enumerate(blockings) if busy[number] == most]
        cost, number = min(costs)
        return blockings[number], cost

    def proposal(self) -> Proposal:
        """How the weight gradient is computed with the blocking that was chosen."""
        blocking = self.blocking
        sharing = min(self.threads, blocking.items * blocking.splits)
        return Proposal(0, self.least, lambda: [self.plan()], blocking.splits, sharing)

    @abc.abstractmethod
    def plan(self) -> Plan:
        """Its plan."""

    @abc.abstractmethod
    def cost(self, blocking: WeightBlocking) -> float:
        """In multiply-adds of a vector."""

    def arguments(self, blocking: WeightBlocking, tables: Tables) -> tuple[Array, dict[str, Any]]:
        """The offset of each tap of a block of channels in what is read, and the arguments that all kinds share."""
        maps, (rows, cols) = self.maps, self.planes
        extents = blocking.channels, self.positions_read(0, blocking.rows), self.positions_read(1, blocking.cols)
        keeps = self.keeps_pixels and maps.reads_channels_last
        tile = padded_tile(tables, rows, cols, *extents, self.itemsize, maps.is_transposed, keeps)
        offsets, step = maps.offsets(self.phase), maps.source_order.channel
        if self.is_padded:
            offsets, step = plane_offsets(rows, cols, tile.plane, tile.cols, tile.pixel), tile.channel
        result = maps.channels * maps.taps
        return (np.arange(blocking.channels)[:, None] * step + offsets).ravel(), {
            "items": blocking.items * blocking.splits,
            "group": 1,
            "workspace": 0,
            "extents": maps.extents(*maps.out),
            "source": maps.source_strides,
            "small": maps.small_strides,
            "out": WeightOut(self.weight_size, maps.results * result, result),
            "tile": tile,
            "block": Block(blocking.images, blocking.rows, blocking.cols, blocking.channels, blocking.results),
            "splits": blocking.splits,
            "padded": self.is_padded,
        }

    def chain_of(self, rows: int, cols: int) -> int:
        """The multiply-adds of a chain over `rows` x `cols` pixels."""
        return rows * cols

    def chains(self, blocking: WeightBlocking) -> tuple[Chains, int]:
        """How the sums of a work item are divided into chains, and the elements of their workspace.

        Where partial sums are forbidden there is one chain, as where others end depends on the blocking.
        """
        maps, (rows, cols) = self.maps, self.maps.out
        strips = -(-maps.batch // blocking.images) * -(-rows // blocking.rows) * -(-cols // blocking.cols)
        of_strip = blocking.images * self.chain_of(blocking.rows, blocking.cols)
        longest = min(maps.batch * self.chain_of(rows, cols), -(-strips // blocking.splits) * of_strip)
        length = self.model.chain_pixels if self.may_split else longest
        slots = slots_of(-(-longest // length))
        # slots are added in whole vectors
        sums = min(blocking.results, maps.results) * blocking.channels * maps.taps
        pitch = -(-sums // self.layout.lanes) * self.layout.lanes
        return Chains(length, slots, pitch), (slots > 1) * slots * pitch

    def tile_size(self, blocking: WeightBlocking, tile: PaddedTile) -> int:
        """Elements of a strip's padded tile, and of the space behind it, as reads go beyond its end."""
        return self.is_padded * blocking.images * tile.planes_h * tile.planes_w * tile.plane + 2 * self.layout.lanes

    def cost_of_reading(self, blocking: WeightBlocking, each: float) -> float:
        """The cost of reading the source in all work items, if a vector of it costs `each`."""
        maps, (rows, cols) = self.maps, self.maps.source
        if self.is_padded:
            (out_h, out_w), (down, across) = maps.out, self.planes
            rows = -(-out_h // blocking.rows) * self.positions_read(0, blocking.rows) * len(down.origins)
            cols = -(-out_w // blocking.cols) * self.positions_read(1, blocking.cols) * len(across.origins)
        vectors: float = maps.batch * maps.groups * maps.channels * (rows * cols) / self.layout.lanes
        return -(-maps.results // blocking.results) * vectors * each

    def cost_of_adding(self, blocking: WeightBlocking) -> float:
        """The cost of adding partial sums, which one thread does while the others wait."""
        return (blocking.splits > 1) * (
            self.model.add_partials + blocking.splits * self.weight_size / self.layout.lanes * self.model.add_partial
        )

    def cost_of_summing(self, blocking: WeightBlocking, most: int, pixel: float, panel: float) -> float:
        """The cost of all sums: `pixel` for each pixel, and `panel` for each panel of `most` pixels."""
        maps = self.maps
        panels = max(1.0, self.pixels / most) / max(1, min(blocking.images, most // self.pixels))
        blocks: int = maps.groups * -(-maps.channels // blocking.channels)
        return maps.batch * blocks * (self.pixels * pixel + panels * panel)


def needs_sums_of_lanes(request: Request) -> str | None:
    """Why lanes cannot be taps or results."""
    if request.forbids_partial_sums and has_long_rows(request):
        return "the rows of a product are long: each sum has a chain of multiply-adds in each lane"
    return None


def has_long_rows(request: Request) -> bool:
    """Whether a row of the large map is so long that it pays to sum in lanes of pixels."""
    return matmul.has_long_rows(request.geometry.axes[1].large, request)
