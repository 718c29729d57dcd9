"""The kernel of the weight gradient by spectra of tiles, for compiled engines: its blocking, cost and plan.

All of it is nominal, as the tiles and the blocking decide in which order numbers are added.
"""

from collections.abc import Iterator

import numpy as np

from fastconv.backends.contract import Plan
from fastconv.kernels.abi import FOURIER
from fastconv.kernels.arguments import Block, Source, WeightOut
from fastconv.kernels.chains import Chains
from fastconv.kernels.drivers.fft_weight_grad import FftWeightGrad
from fastconv.kernels.drivers.winograd import Plane
from fastconv.planner import tiled_weight_grad
from fastconv.planner.fft_costs import TILE_COSTS
from fastconv.planner.fft_tiles import FEWEST_TAPS, TOO_FEW, complex_span, fits
from fastconv.planner.map_parts import ITEMSIZE
from fastconv.planner.plan_builder import Tables, plan_of, slots_of
from fastconv.planner.request import Proposal, Request
from fastconv.planner.tiled_weight_grad import Blocking, Gradient


def applies(request: Request) -> str | None:
    """Why it cannot compute a weight gradient."""
    taps = [axis.taps for axis in request.geometry.axes]
    if request.stands_for:
        return "it makes no products of matrices"
    if min(taps) < FEWEST_TAPS:
        return TOO_FEW
    if not fits(FOURIER[-1], *taps):
        return f"it has no tiles for kernels of {taps[0]}x{taps[1]}"
    return tiled_weight_grad.applies(request)


class _Gradient(Gradient):
    """A weight gradient by spectra of tiles of a length."""

    def __init__(self, request: Request, length: int) -> None:
        self.length, (rows, cols) = length, request.geometry.axes
        self.taps_h, self.taps_w = rows.taps, cols.taps
        self.outputs_h, self.outputs_w = length - self.taps_h + 1, length - self.taps_w + 1
        super().__init__(request, (self.outputs_h, self.outputs_w))
        self.points = length * length // 2 + 2
        self.cost, self.blocking = min((self._cost(blocking), blocking) for blocking in self._blockings())

    def _blockings(self) -> Iterator[Blocking]:
        maps, model, lanes = self.maps, self.model, self.layout.lanes
        most = TILE_COSTS.gradient_workspace // ITEMSIZE // self.points
        for channels in dict.fromkeys(min(maps.channels, of) for of in (2 * lanes, lanes, lanes // 2, lanes // 4)):
            for vectors in dict.fromkeys(min(-(-maps.results // lanes), of) for of in (2, 1)):
                of_tile = 2 * lanes * (-(-channels // lanes) + vectors)
                slots = slots_of(-(-maps.batch * self.down * self.across // TILE_COSTS.chain))
                chains = (slots > 1) * slots * channels * vectors * lanes * maps.taps
                sums = (2 * channels + 1) * vectors * lanes + 2 * lanes  # with the spectra of the rows of a tile
                left = most - sums - -(-chains // self.points)
                tiles = min(left // of_tile, TILE_COSTS.gradient_tiles)
                if tiles < 1 and (channels, vectors) != (min(maps.channels, lanes // 4), 1):
                    continue
                images, down, across = self.strip_of(max(1, tiles))
                items, most_splits = self.items(channels, vectors * lanes), 1
                if maps.weight_size <= model.partial_sums:
                    most_splits = min(self.strips(images, down, across), model.partial_sums // maps.weight_size)
                for splits in (1, 2, 4, 8):
                    if splits <= most_splits and (splits == 1 or (splits - 1) * items < TILE_COSTS.gradient_items):
                        yield Blocking(images, down, across, channels, vectors * lanes, splits)

    def _cost(self, blocking: Blocking) -> float:
        """Its cost; what is left over when work items are shared by a few threads counts as well."""
        maps, model, lanes, costs, length = self.maps, self.model, self.layout.lanes, TILE_COSTS, self.length
        images, down, across, channels, results, splits = blocking
        tiles, lanes_c, vectors = images * down * across, -(-channels // lanes), -(-results // lanes)
        copying = model.pad_vector if maps.reads_channels_last else model.transpose_source
        transform = costs.transforms[length] * length * length
        width = (across - 1) * self.outputs_w + length
        strip = lanes_c * (images * down * length * width * copying + tiles * transform)
        strip += vectors * tiles * (self.outputs_h * self.outputs_w * copying + costs.small * transform)
        spans = -(-channels // complex_span(self.layout.span))
        width_c = channels / spans
        product = tiles * max(4 * width_c, model.latency) + model.call + 2 * width_c * costs.gradient_sums
        strip += self.points * vectors * spans * product
        strips, items = self.strips(images, down, across), self.items(channels, results)
        chains = max(splits, images * strips * down * across // costs.chain)
        taps = self.taps_h * self.taps_w * (model.store_weight + model.load_result_sums)
        ending = chains * vectors * channels * (transform * costs.restore + taps)
        adding = (splits > 1) * (model.add_partials + splits * maps.weight_size / lanes * model.add_partial)
        cost = items * (strips * strip + ending + splits * model.start_item)
        sharing = items * splits / (-(-items * splits // costs.gradient_items) * costs.gradient_items)
        return cost / sharing + adding

    def plan(self) -> Plan:
        """Its plan."""
        maps, lanes, (rows, cols) = self.maps, self.layout.lanes, self.axes
        images, down, across, channels, results, splits = self.blocking
        tables, tiles, points = Tables(), images * down * across, self.points
        pitch, vectors = 2 * -(-channels // lanes) * lanes, results // lanes
        strips = self.strips(images, down, across)
        slots = slots_of(-(-(-(-strips // splits) * tiles) // TILE_COSTS.chain))
        count, taps = channels * maps.taps, maps.channels * maps.taps
        sums = -(-min(results, maps.results) * count // lanes) * lanes
        small, numbers, (height, width) = maps.small_strides, np.arange(tiles), maps.source
        arguments = FftWeightGrad(
            items=self.items(channels, results) * splits, group=1, workspace=0,
            extents=maps.extents(rows.small, cols.small), source=maps.source_strides,
            small=Source(small.size, small.image, small.group, small.result, small.row, small.col, rows.small,
                         cols.small),
            out=WeightOut(maps.weight_size, maps.results * taps, taps),
            block=Block(images, down * self.outputs_h, across * self.outputs_w, channels, results),
            number=FOURIER.index(self.length), length=self.length, points=points, taps_h=self.taps_h,
            taps_w=self.taps_w, outputs_h=self.outputs_h, outputs_w=self.outputs_w,
            large_table=tables.add(Plane(0, height, width, rows.pad_before, cols.pad_before)),
            small_table=tables.add(Plane(0, rows.small, cols.small, 0, 0)), splits=splits, pitch=pitch,
            chains=Chains(TILE_COSTS.chain, slots, sums),
            tiles_table=tables.add(np.stack([numbers * 2 * lanes, numbers * pitch], 1)), line_at=0, tile_line_at=0,
            rows_at=0, large_at=0, small_at=0, sums_at=0, zeros_at=0, taps_at=0, square_at=0, chains_at=0,
        )  # fmt: skip
        parts = {
            "zeros_at": 2 * lanes,
            "line_at": (across * self.outputs_w + self.length + lanes) * lanes,
            "tile_line_at": self.length * lanes,
            "rows_at": 2 * points * lanes,
            "large_at": points * (tiles * pitch + lanes),
            "small_at": vectors * points * (2 * tiles + 1) * lanes,
            "sums_at": vectors * points * (2 * channels + 1) * lanes,
            "taps_at": (maps.taps + lanes) * lanes,
            "square_at": lanes * lanes,
            "chains_at": (slots > 1) * slots * sums + lanes,
        }
        return plan_of("fft_weight_grad", ITEMSIZE, tables, arguments, parts)


def propose(request: Request) -> Proposal:
    """How it is computed, with the cheapest tiles."""
    taps = [axis.taps for axis in request.geometry.axes]
    able = (length for length in FOURIER if fits(length, *taps))
    gradient = min((_Gradient(request, length) for length in able), key=lambda found: found.cost)
    return gradient.proposal(request.threads)
