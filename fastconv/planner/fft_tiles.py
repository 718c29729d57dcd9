"""The kernels of maps by spectra of tiles, for compiled engines: blocking, cost and plans.

A tile of T x T pixels gives L x L outputs, L = T - taps + 1. Its spectrum has T * T / 2 + 2 points, whose products
take 4 multiply-adds each, instead of taps**2 for each output: 1 of 29 for 11x11 taps and T = 32. The rounding error is
less than that of direct convolution. Only float32 is computed.

The weight is transformed by a pass before; in plans, once and for all. The spectra of a strip of tiles stay in the
second-level cache. `planner.fft` has the kernel of all engines for long kernels.
"""

import functools
from collections.abc import Iterator

import numpy as np

from fastconv.backends.contract import Plan
from fastconv.kernels.abi import COMPLEX_SPAN, FOURIER, SPAN
from fastconv.kernels.arguments import Block
from fastconv.kernels.drivers.fft_tiles import FftTiles, FftWeight
from fastconv.kernels.drivers.winograd import PANEL
from fastconv.planner.blocking import even_block
from fastconv.planner.fft_costs import TILE_COSTS
from fastconv.planner.map_parts import ITEMSIZE, Part, planes_of, taps_of
from fastconv.planner.plan_builder import Maps, Tables, joined_plans, odd_lines, plan_of, rows_of
from fastconv.planner.request import Proposal, Request
from fastconv.planner.transformed_tiles import Blocking, TransformedTiles, lanes_in_order

#: Kernels with fewer taps on an axis take fewer multiply-adds without the transforms.
FEWEST_TAPS = 5
TOO_FEW = f"it is for kernels of at least {FEWEST_TAPS}x{FEWEST_TAPS}"


@functools.cache
def complex_span(span: int) -> int:
    """The most tiles of `complex_span` where `span` takes so many pixels."""
    return next(COMPLEX_SPAN[kind] for kind, most in SPAN.items() if most == span)


def fits(length: int, *taps: int) -> bool:
    """Whether tiles of a length have at least a quarter of their pixels as outputs on each axis."""
    return all(4 * of_axis <= 3 * length for of_axis in taps)


class PartPlanner:
    """A part of a map in tiles of `length` pixels on a side; `start`: where its transformed weight starts."""

    def __init__(self, request: Request, part: Part, length: int, start: int) -> None:
        self.request, self.part, self.length, self.start = request, part, length, start
        self.planes = len(part.rows.planes) * len(part.cols.planes)
        self.outputs_h, self.outputs_w = length - part.rows.taps + 1, length - part.cols.taps + 1
        self.points = length * length // 2 + 2
        self.maps, self.layout, self.model = maps, _, model = Maps(request), request.tiles, request.model
        self.vectors, self.channel_vectors = -(-maps.results // self.lanes), -(-maps.channels // self.lanes)
        self.ld_weight = odd_lines(2 * min(maps.channels, PANEL) * self.lanes, ITEMSIZE)
        self.tiles_h, self.tiles_w = -(-part.rows.outputs // self.outputs_h), -(-part.cols.outputs // self.outputs_w)
        self._copying = part.cols.step * (model.pad_vector if maps.reads_channels_last else model.transpose_source)
        self._storing = model.store_lanes if maps.has_channels_last else model.transpose_sums
        self._storing += model.scatter * (part.cols.out_stride > 1)

    @property
    def lanes(self) -> int:
        """Elements of a vector."""
        return self.layout.lanes

    @property
    def weight_elements(self) -> int:
        """Elements of the transformed weight."""
        panels = -(-self.maps.channels // PANEL)
        return self.maps.groups * self.vectors * self.planes * panels * self.points * self.ld_weight

    @property
    def least_cost(self) -> float:
        """The cost of its transforms and products on one thread without anything else."""
        maps, of_tile = self.maps, TILE_COSTS.transforms[self.length] * self.length**2
        products = 4 * self.points * maps.channels * self.vectors
        each = self.planes * (products + of_tile * self.channel_vectors) + of_tile * self.vectors
        tiles = self.part.rows.outputs * self.part.cols.outputs / (self.outputs_h * self.outputs_w)
        return maps.batch * maps.groups * tiles * each

    def blocking(self, threads: int, is_far: bool) -> Blocking:
        """The cheapest blocking; `is_far`: the transformed weight exceeds the caches."""
        found = [
            Blocking(self._cost(strip, channels, results, is_far, threads), *strip, channels, results)
            for channels, results, tiles in self._blocks()
            for strip in self._strips(tiles, -(-self.maps.results // results), threads)
        ]
        return min(found, key=lambda blocking: blocking.cost)

    def _kept(self, channels: int, results: int) -> tuple[int, int]:
        """Elements of a tile's products for each point, and those from one vector of results to the next in a point.

        Products of several blocks of channels are summed, so those of all results are kept. Where channels and
        results are one vector each, products take the memory of the spectra.
        """
        lanes = self.lanes
        if self.planes * -(-self.maps.channels // channels) > 1:
            return 2 * lanes * -(-results // lanes), 2 * lanes
        return (0, 0) if max(channels, results) <= lanes else (2 * lanes, 0)

    def _blocks(self) -> Iterator[tuple[int, int, int]]:
        """Channels and results of work items, and for each the most tiles whose spectra fit into the second-level
        cache."""
        maps, lanes = self.maps, self.lanes
        budget = min(3 * self.model.winograd_bytes // 2, TILE_COSTS.workspace) // ITEMSIZE
        for most in (maps.channels, 4 * PANEL, 2 * PANEL, PANEL):
            channels = min(maps.channels, -(-even_block(most, maps.channels) // PANEL) * PANEL)
            for parts in sorted({self.vectors, *(of for of in (1, 2, 4, 8) if of < self.vectors)}):
                results = -(-self.vectors // parts) * lanes
                each = self.points * (2 * -(-channels // lanes) * lanes + self._kept(channels, results)[0])
                if maps.has_channels_last:
                    each += self.outputs_h * self.outputs_w * -(-results // lanes) * lanes
                tiles = budget // each
                if tiles or (channels <= PANEL and results <= lanes):
                    yield channels, results, max(1, tiles)

    def _strips(self, tiles: int, parts: int, threads: int) -> Iterator[tuple[int, int, int]]:
        """Images, rows and columns of strips of at most so many tiles; there are `parts` work items for a strip."""
        rows, cols = self.part
        for most in dict.fromkeys((tiles, max(1, tiles // 2))):
            width = even_block(most, self.tiles_w)
            height, images = even_block(max(1, most // width), self.tiles_h), 1
            if (height, width) == (self.tiles_h, self.tiles_w):
                images = even_block(max(1, most // (height * width)), self.maps.batch)
            strips = -(-self.maps.batch // images) * -(-self.tiles_h // height) * -(-self.tiles_w // width)
            yield images, min(height * self.outputs_h, rows.outputs), min(width * self.outputs_w, cols.outputs)
            strips *= self.maps.groups * parts
            if strips % threads and strips < 4 * threads:
                more = -(-strips // threads) * threads / strips  # so many times as many strips
                if images > 1:
                    images = even_block(max(1, int(images / more)), self.maps.batch)
                elif height > 1:
                    height = even_block(max(1, int(height / more)), self.tiles_h)
                else:
                    width = even_block(max(1, int(width / more)), self.tiles_w)
                yield images, min(height * self.outputs_h, rows.outputs), min(width * self.outputs_w, cols.outputs)

    def _cost(self, strip: tuple[int, int, int], channels: int, results: int, is_far: bool, threads: int) -> float:
        """The cost of the thread with the most work items, in multiply-adds of a vector."""
        maps, model, costs, length = self.maps, self.model, TILE_COSTS, self.length
        images, rows, cols = strip
        down, across = images * -(-rows // self.outputs_h), -(-cols // self.outputs_w)
        tiles, width = down * across, (across - 1) * self.outputs_w + length
        results = min(results, maps.results)
        vectors, blocks = -(-results // self.lanes), self.planes * -(-maps.channels // channels)
        spans = -(-tiles // complex_span(self.layout.span))
        transform = costs.transforms[length] * length * length
        of_input = down * length * width * self._copying + tiles * transform
        of_input *= self.planes * self.channel_vectors
        pixels = images * rows * cols
        of_output = vectors * (tiles * transform * costs.restore + pixels * self._storing)
        # of each span: the multiply-adds, whose latency is hidden from 4 tiles on, and reading and writing the sums
        each = self.planes * maps.channels * max(4 * tiles / spans, model.latency)
        each += blocks * (model.call + 2 * tiles / spans * model.load_sums)
        reading = 2 * self.planes * maps.channels * (costs.fetch + costs.far * is_far)
        item = of_input + self.points * vectors * (spans * each + reading) + of_output + model.start_item
        items = -(-maps.batch // images) * -(-self.part.rows.outputs // rows) * -(-self.part.cols.outputs // cols)
        items *= maps.groups * -(-maps.results // results)
        return item * -(-items // threads)

    def cost_of_weight(self, threads: int, is_far: bool) -> float:
        """The cost of transforming the weight before; none if plans keep it."""
        if self.request.packs_weight:
            return 0
        maps, length = self.maps, self.length
        costs = TILE_COSTS
        each = costs.weight * costs.transforms[length] * length * length
        each += 2 * self.points * (costs.write + costs.far * is_far)
        each = self.planes * each + maps.taps * self.model.transpose_weight
        return maps.groups * self.vectors * maps.channels * each / threads

    def plan(self, blocking: Blocking) -> Plan:
        """The plan of the part."""
        maps, (rows, cols), lanes, tables, points = self.maps, self.part, self.lanes, Tables(), self.points
        _, images, out_rows, out_cols, channels, results = blocking
        down, across = images * -(-out_rows // self.outputs_h), -(-out_cols // self.outputs_w)
        tiles, width = down * across, (across - 1) * self.outputs_w + self.length
        pitch, (kept, next_result) = 2 * -(-channels // lanes) * lanes, self._kept(channels, results)
        numbers = np.arange(channels)
        in_panels = numbers // PANEL * points * self.ld_weight + numbers % PANEL * 2 * lanes
        in_values = numbers // lanes * 2 * lanes + numbers % lanes
        strips = -(-maps.batch // images) * -(-rows.outputs // out_rows) * -(-cols.outputs // out_cols)
        ld_products = (2 * tiles + 1) * lanes
        arguments = FftTiles(
            items=strips * maps.groups * -(-maps.results // results), group=1, workspace=0,
            extents=maps.extents(rows.outputs, cols.outputs), source=maps.source_strides,
            out=maps.out_strides(rows.out_start, cols.out_start, (rows.out_stride, cols.out_stride)),
            block=Block(images, out_rows, out_cols, channels, results), packing=lanes_in_order(maps),
            number=FOURIER.index(self.length), length=self.length, points=points, outputs_h=self.outputs_h,
            outputs_w=self.outputs_w, weight_start=self.start, ld_weight=self.ld_weight, planes=self.planes,
            planes_table=tables.add(planes_of(self.part, maps)), step_h=rows.step, step_w=cols.step, pitch=pitch,
            next_result=points * ld_products if next_result else 0,
            channels_table=tables.add(np.stack([in_panels, in_values], 1)), line_at=0, source_line_at=0,
            values_at=0, starts_at=0, products_at=0, sums_at=0, maps_at=0,
        )  # fmt: skip
        pixels = images * out_rows * out_cols
        is_pixelwise = maps.has_channels_last
        parts = {
            "starts_at": 3 * lanes,
            "line_at": (width + lanes) * lanes,
            "source_line_at": (cols.step > 1) * (maps.source[1] + lanes) * lanes,
            "values_at": points * (tiles * pitch + lanes),
            "products_at": -(-kept // (2 * lanes)) * points * ld_products,
            "sums_at": is_pixelwise * (-(-results // lanes) * pixels + lanes) * lanes,
            "maps_at": (not is_pixelwise) * lanes * (out_cols + 2 * lanes),
        }
        plan = plan_of("fft_tiles", ITEMSIZE, tables, arguments, parts)
        if not kept:
            shared = plan.vector.copy()
            of = rows_of(FftTiles, shared)
            of["products_at"] = of["values_at"]
            plan = plan._replace(vector=shared)
        return plan

    def weight_plan(self) -> Plan:
        """The plan of the weight's transform."""
        maps, lanes, tables, (rows, cols) = self.maps, self.lanes, Tables(), self.part
        block = even_block(TILE_COSTS.weight_channels, maps.channels)
        arguments = FftWeight(
            items=maps.groups * self.vectors * -(-maps.channels // block), group=1, workspace=0, groups=maps.groups,
            results=maps.results, channels=maps.channels, weight=maps.weight_strides, packing=lanes_in_order(maps),
            number=FOURIER.index(self.length), length=self.length, points=self.points, ld_weight=self.ld_weight,
            out_start=self.start, block=block, planes=self.planes, taps_h=rows.taps, taps_w=cols.taps,
            taps_table=tables.add(taps_of(self.part, self.request, lanes)), panel_at=0, line_at=0, values_at=0,
        )  # fmt: skip
        parts = {
            "panel_at": (block * maps.taps + lanes) * lanes,
            "line_at": self.length * lanes,
            "values_at": 2 * self.points * lanes,
        }
        return plan_of("fft_weight", ITEMSIZE, tables, arguments, parts)


class SpectralTiles(TransformedTiles):
    """Convolution by spectra of tiles of a length."""

    kind = "fft"

    def applies(self, request: Request) -> str | None:
        """Why it cannot compute a map."""
        if request.stands_for:
            return "it makes no products of matrices"
        if min(axis.taps for axis in request.geometry.axes) < FEWEST_TAPS:  # those of phases and planes are no more
            return TOO_FEW
        if (reason := super().applies(request)) is not None:
            return reason
        if ITEMSIZE * sum(planner.weight_elements for planner in self.planners(request)) > TILE_COSTS.transformed_bytes:
            return "the spectra of its weight take too much memory"
        return None

    def _why_not(self, part: Part) -> str | None:
        if min(part.rows.taps, part.cols.taps) < FEWEST_TAPS:
            return TOO_FEW
        if not fits(self.size, part.rows.taps, part.cols.taps):
            return f"tiles of {self.size} pixels are too small for kernels of {part.rows.taps}x{part.cols.taps}"
        return None

    def _planner(self, request: Request, part: Part, start: int) -> PartPlanner:
        return PartPlanner(request, part, self.size, start)

    def propose(self, request: Request) -> Proposal:
        """How it computes a map."""
        planners, threads = self.planners(request), request.threads
        is_far = ITEMSIZE * sum(planner.weight_elements for planner in planners) > TILE_COSTS.near_bytes

        @functools.cache
        def blockings() -> list[Blocking]:
            return [planner.blocking(threads, is_far) for planner in planners]

        def plans() -> list[Plan]:
            of_map = [planner.plan(blocking) for planner, blocking in zip(planners, blockings(), strict=True)]
            of_weight = [planner.weight_plan() for planner in planners]
            return [joined_plans(FftWeight, of_weight, 1), joined_plans(FftTiles, of_map, len(of_map))]

        least = sum(planner.least_cost for planner in planners) / threads
        if least > TILE_COSTS.hopeless * request.least_cost:  # finding the blocking would take longer than the others
            return Proposal(0, TILE_COSTS.start + least, plans)
        cost = TILE_COSTS.start + sum(blocking.cost for blocking in blockings())
        if not request.packs_weight:
            cost += request.model.start_item + sum(planner.cost_of_weight(threads, is_far) for planner in planners)
        return Proposal(0, cost, plans)
