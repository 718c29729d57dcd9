"""The kernel of the weight gradient of Winograd's convolution: its blocking, cost and plan.

F(3, 4) on both axes makes the 3x3 taps of a tile of 4x4 pixels from 36 products instead of 144. For kernels of one row
or column it makes 3 taps of a tile of 4 pixels from 6 products instead of 12. All of it is nominal, as the blocking
decides in which order numbers are added.
"""

import math

import numpy as np

from fastconv.backends.contract import Plan
from fastconv.kernels.abi import WINOGRAD
from fastconv.kernels.arguments import Block, Source, WeightOut
from fastconv.kernels.chains import Chains
from fastconv.kernels.drivers.winograd import Plane
from fastconv.kernels.drivers.winograd_weight_grad import WinogradWeightGrad
from fastconv.planner import tiled_weight_grad
from fastconv.planner.blocking import Vectors, even_block
from fastconv.planner.map_parts import ITEMSIZE
from fastconv.planner.plan_builder import Tables, odd_lines, plan_of, slots_of
from fastconv.planner.request import Proposal, Request
from fastconv.planner.tiled_weight_grad import Blocking, Gradient

#: The rows of `abi.WINOGRAD` that make a kernel of so many taps from a tile of the small map.
_NUMBERS = {
    (axes[0][0], axes[1][0]): number
    for number, axes in enumerate(WINOGRAD)
    if {*axes} <= {(3, 4), (1, 1)}
}  # fmt: skip


def applies(request: Request) -> str | None:
    """Why it cannot compute a weight gradient."""
    axes = request.geometry.axes
    if (axes[0].taps, axes[1].taps) not in _NUMBERS:
        return f"it has no tiles for kernels of {axes[0].taps}x{axes[1].taps}"
    return tiled_weight_grad.applies(request)


class _Gradient(Gradient):
    """A weight gradient by Winograd's convolution."""

    def __init__(self, request: Request) -> None:
        rows, cols = request.geometry.axes
        self.taps = rows.taps, cols.taps
        self.number = _NUMBERS[self.taps]
        self.tile = WINOGRAD[self.number][0][1], WINOGRAD[self.number][1][1]
        super().__init__(request, self.tile)
        (tile_h, tile_w), (taps_h, taps_w) = self.tile, self.taps
        self.points = (tile_h + taps_h - 1) * (tile_w + taps_w - 1)
        lanes, maps = self.layout.lanes, self.maps
        vectors = -(-maps.results // lanes)
        blocks_k = {even_block(most, vectors) * lanes for most in (2, 4)}
        blocks_c = {min(maps.channels, -(-even_block(most, maps.channels) // lanes) * lanes) for most in (32, 64)}
        tried = [self._blocking(c, k) for k in sorted(blocks_k) for c in sorted(blocks_c)]
        self.cost, self.blocking = min((self._cost(blocking), blocking) for blocking in tried)

    def _blocking(self, channels: int, results: int) -> Blocking:
        """The blocking for so many channels and results of a work item."""
        maps, model = self.maps, self.model
        elements = model.winograd_bytes // ITEMSIZE // self.points - channels * results
        tiles = max(
            self.layout.span, min(elements // (odd_lines(channels, ITEMSIZE) + results), model.winograd_gradient_tiles)
        )
        images, down, across = self.strip_of(tiles)
        items, splits = self.items(channels, results), 1
        if items < model.work_items and maps.weight_size <= model.partial_sums:
            strips = self.strips(images, down, across)
            splits = min(strips, -(-model.work_items // items), model.partial_sums // maps.weight_size)
        return Blocking(images, down, across, channels, results, splits)

    def _cost(self, blocking: Blocking) -> float:
        maps, model, lanes, layout = self.maps, self.model, self.layout.lanes, self.layout
        images, down, across, channels, results, splits = blocking
        tiles = images * down * across
        lanes_c, vectors = -(-channels // lanes), Vectors.of(results, layout, False, model)
        (tile_h, tile_w), (taps_h, taps_w) = self.tile, self.taps
        pixels = images * down * across * tile_h * tile_w
        read = images * (down * tile_h + taps_h - 1) * (across * tile_w + taps_w - 1)
        copying = model.pad_vector if maps.reads_channels_last else model.transpose_source
        strip = lanes_c * (read * copying + tiles * self.points * model.winograd_input)
        strip += vectors.number * (pixels * copying + tiles * self.points * model.winograd_small)
        spans = -(-channels // layout.span)
        width = channels / spans
        strip += (
            self.points * spans * vectors.number * (tiles * vectors.cost(width) + model.call + width * model.load_sums)
        )
        strips = self.strips(images, down, across)
        taps = self.points * model.winograd_output + taps_h * taps_w * model.store_weight
        chains = max(splits, images * strips * down * across // self._length)
        ending = chains * vectors.number * channels * taps
        adding = (splits > 1) * (model.add_partials + splits * maps.weight_size / lanes * model.add_partial)
        return self.items(channels, results) * (strips * strip + ending + splits * model.start_item) + adding

    @property
    def _length(self) -> int:
        """The tiles of a chain."""
        return max(1, self.model.chain_pixels // math.prod(self.tile))

    def plan(self) -> Plan:
        """Its plan."""
        maps, lanes, layout, (rows, cols) = self.maps, self.layout.lanes, self.layout, self.axes
        images, down, across, channels, results, splits = self.blocking
        tables, tiles, pitch = Tables(), images * down * across, odd_lines(channels, ITEMSIZE)
        strips = self.strips(images, down, across)
        slots = slots_of(-(-(-(-strips // splits) * tiles) // self._length))
        (tile_h, tile_w), (taps_h, taps_w) = self.tile, self.taps
        count, taps = channels * maps.taps, maps.channels * maps.taps
        sums = -(-min(results, maps.results) * count // lanes) * lanes
        small = maps.small_strides
        numbers, (height, width) = np.arange(tiles), maps.source
        in_tile = np.arange(tile_h)[:, None] * across * tile_w + np.arange(tile_w)
        arguments = WinogradWeightGrad(
            items=self.items(channels, results) * splits, group=1, workspace=0,
            extents=maps.extents(rows.small, cols.small), source=maps.source_strides,
            small=Source(small.size, small.image, small.group, small.result, small.row, small.col, rows.small,
                         cols.small),
            out=WeightOut(maps.weight_size, maps.results * taps, taps),
            block=Block(images, down * tile_h, across * tile_w, channels, results), number=self.number, taps_h=taps_h,
            taps_w=taps_w, tile_h=tile_h, tile_w=tile_w,
            large_table=tables.add(Plane(0, height, width, rows.pad_before, cols.pad_before)),
            small_table=tables.add(Plane(0, rows.small, cols.small, 0, 0)), splits=splits, pitch=pitch,
            chains=Chains(self._length, slots, sums), halves=layout.halves, pairs=layout.pairs,
            tiles_table=tables.add(np.stack([numbers * lanes, numbers * pitch], 1)),
            pixels_table=tables.add(in_tile * lanes),
            tile_at=0, large_at=0, small_at=0, sums_at=0, zeros_at=0, taps_at=0, square_at=0, chains_at=0,
        )  # fmt: skip
        vectors = -(-results // lanes)
        parts = {
            "zeros_at": lanes,
            "tile_at": ((down * tile_h + taps_h) * (across * tile_w + taps_w) + lanes) * lanes,
            "large_at": self.points * (tiles + 1) * pitch,
            "small_at": self.points * (tiles + 1) * vectors * lanes,
            "sums_at": self.points * vectors * lanes * (channels + 1),
            "taps_at": (count + lanes) * lanes,
            "square_at": lanes * lanes,
            "chains_at": (slots > 1) * slots * sums + lanes,
        }
        return plan_of("winograd_weight_grad", ITEMSIZE, tables, arguments, parts)


def propose(request: Request) -> Proposal:
    """How it is computed."""
    return _Gradient(request).proposal(request.threads)
