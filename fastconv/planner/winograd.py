"""The kernels of Winograd's convolution: blocking, cost and plans.

F(m, r) on both axes makes m x m outputs of a kernel of r x r taps from (m + r - 1)**2 products of transformed numbers,
instead of m**2 * r**2: a quarter for F(4, 3). It rounds more (docs/numerics.md), so it is part of the algorithm
`winograd`, and computes float32 only. The phases of a transposed convolution have small kernels of their own.

Tiles of 6 pixels take fewer products than tiles of 5 and 4, which round less and waste less where a map is small.

The weight is transformed by a pass before, or in the pass of the map, whichever is cheaper; in plans, once and for all.
The transformed pixels of a strip of tiles stay in the second-level cache.
"""

import functools
from collections.abc import Iterator

import numpy as np

from fastconv.backends.contract import Layout, Plan
from fastconv.kernels.abi import WINOGRAD
from fastconv.kernels.arguments import Block
from fastconv.kernels.drivers.winograd import PANEL, Winograd, WinogradWeight
from fastconv.planner.blocking import Vectors, even_block
from fastconv.planner.cost_model import SET_STRIDE, CostModel
from fastconv.planner.map_parts import ITEMSIZE, Part, planes_of, taps_of
from fastconv.planner.plan_builder import Maps, Tables, joined_plans, odd_lines, plan_of
from fastconv.planner.request import Proposal, Request
from fastconv.planner.transformed_tiles import Blocking, TransformedTiles, lanes_in_order

#: Channels of a small block.
_FEW = 64


def _rows_by_taps(size: int) -> dict[tuple[int, int], int]:
    """The rows of `abi.WINOGRAD` whose tiles have this size on one axis at least, by their taps."""
    found = {}
    for number, axes in enumerate(WINOGRAD):
        if max(outputs + taps - 1 for outputs, taps in axes) == size:
            found[axes[0][1], axes[1][1]] = number
    return found


#: For each size of tiles the rows of `abi.WINOGRAD` by the taps of a kernel.
SIZES = {size: _rows_by_taps(size) for size in (6, 5, 4)}


@functools.lru_cache(512)
def _vectors(results: int, layout: Layout, model: CostModel) -> Vectors:
    """The vectors of results, which share no pixels."""
    return Vectors.of(results, layout, False, model)


class PartPlanner:
    """A part of a map by row `number` of `abi.WINOGRAD`; `start`: where its transformed weight starts."""

    def __init__(self, request: Request, part: Part, number: int, start: int) -> None:
        self.request, self.part, self.number, self.start = request, part, number, start
        self.planes = len(part.rows.planes) * len(part.cols.planes)
        (self.outputs_h, taps_h), (self.outputs_w, taps_w) = WINOGRAD[number]
        self.size_h, self.size_w = self.outputs_h + taps_h - 1, self.outputs_w + taps_w - 1
        self.points = self.size_h * self.size_w
        self.maps, self.layout, self.model = maps, _, model = Maps(request), request.tiles, request.model
        self._copying = part.cols.step * (model.pad_vector if maps.reads_channels_last else model.transpose_source)
        self._storing = model.store_lanes if maps.has_channels_last else model.transpose_sums
        self._storing += model.scatter * (part.cols.out_stride > 1)

    @property
    def weight_elements(self) -> int:
        """Elements of the transformed weight."""
        maps, lanes = self.maps, self.layout.lanes
        vectors = maps.groups * -(-maps.results // lanes)
        return vectors * self.planes * -(-maps.channels // PANEL) * PANEL * self.points * lanes

    def _whole_panels(self, most: int) -> int:
        """Channels of a block, about `most`: whole panels, or all channels."""
        channels = self.maps.channels
        return min(channels, -(-even_block(most, channels) // PANEL) * PANEL)

    def _tiles(self, images: int, rows: int, cols: int) -> tuple[int, int]:
        """Tiles of a strip, and the pixels that they read."""
        down, across = -(-rows // self.outputs_h), -(-cols // self.outputs_w)
        height = down * self.outputs_h + self.size_h - self.outputs_h
        width = across * self.outputs_w + self.size_w - self.outputs_w
        return images * down * across, height * width

    def blocking(self, threads: int, packed: bool, is_far: bool) -> Blocking:
        """The cheapest blocking; `packed`: the weight is transformed before; `is_far`: it exceeds the caches."""
        found = [
            Blocking(self._cost(strip, channels, results, packed, is_far, threads), *strip, channels, results)
            for channels, results, tiles in self._blocks(threads, packed)
            for strip in self._strips(tiles, -(-self.maps.results // results), threads)
        ]
        return min(found, key=lambda blocking: blocking.cost)

    def _blocks(self, threads: int, packed: bool) -> Iterator[tuple[int, int, int]]:
        """Channels and results of work items, and for each the most tiles whose transformed pixels and products fit
        into the second-level cache.

        With nominal costs, which need not be those of the best blocking, there is only one for each block of channels.
        """
        maps, lanes, most = self.maps, self.layout.lanes, self.model.winograd_bytes // (ITEMSIZE * self.points)
        vectors, wanted = -(-maps.results // lanes), min(self.model.winograd_tiles, maps.batch * self._tiles_of_image)
        parts = (1, threads) if packed else (1, 2, 4, 8, 16)
        for channels in dict.fromkeys(self._whole_panels(block) for block in (maps.channels, _FEW)):
            for part in dict.fromkeys(parts[: 1 if packed and self.request.is_nominal else None]):
                results = -(-vectors // part) * lanes
                beside = min(results, self.layout.beside(results) * lanes)
                kept = results if channels < maps.channels or self.planes > 1 else beside
                free = most - (0 if packed else channels * beside)
                if free < odd_lines(channels, ITEMSIZE) + kept and channels > _FEW:
                    continue  # smaller blocks are tried as well
                tiles = max(1, min(free // (odd_lines(channels, ITEMSIZE) + kept), self.model.winograd_tiles))
                yield channels, results, tiles
                if not packed and tiles >= wanted and part >= threads:  # more would transform pixels again
                    break

    @property
    def _tiles_of_image(self) -> int:
        rows, cols = self.part
        return -(-rows.outputs // self.outputs_h) * -(-cols.outputs // self.outputs_w)

    def _strips(self, tiles: int, parts: int, threads: int) -> Iterator[tuple[int, int, int]]:
        """Images, rows and columns of strips of at most so many tiles: as many as fit, and with several threads as many
        as give each of them the same number of work items; there are `parts` of them for a strip."""
        maps, (rows, cols), span = self.maps, self.part, self.layout.span
        tiles_h, tiles_w = -(-rows.outputs // self.outputs_h), -(-cols.outputs // self.outputs_w)
        widths = [tiles_w if 2 * tiles_w <= tiles else even_block(min(span, tiles), tiles_w)]
        if tiles_w > span // 2 and not self.request.is_nominal:
            widths.append(even_block(min(span // 2, tiles), tiles_w))
        for width in dict.fromkeys(widths):
            height, images = even_block(max(1, tiles // width), tiles_h), 1
            if height == tiles_h and width == tiles_w:
                images = even_block(max(1, tiles // (tiles_h * tiles_w)), maps.batch)
            strips = -(-maps.batch // images) * -(-tiles_h // height) * -(-tiles_w // width) * maps.groups * parts
            yield images, min(height * self.outputs_h, rows.outputs), min(width * self.outputs_w, cols.outputs)
            if strips % threads and strips < 4 * threads:
                more = -(-strips // threads) * threads / strips  # so many times as many strips
                if images > 1:
                    images = even_block(max(1, int(images / more)), maps.batch)
                else:
                    height = even_block(max(1, int(height / more)), tiles_h)
                yield images, min(height * self.outputs_h, rows.outputs), min(width * self.outputs_w, cols.outputs)

    def _cost(
        self, strip: tuple[int, int, int], channels: int, results: int, packed: bool, is_far: bool, threads: int
    ) -> float:
        """The cost of the thread with the most work items, in multiply-adds of a vector."""
        maps, model, lanes, points = self.maps, self.model, self.layout.lanes, self.points
        (images, rows, cols), (tiles, read) = strip, self._tiles(*strip)
        blocks, results = self.planes * -(-maps.channels // channels), min(results, maps.results)
        vectors = _vectors(results, self.layout, model)
        spans = -(-tiles // self.layout.span)
        all_channels = self.planes * maps.channels
        of_input = images * read * self._copying + tiles * points * model.winograd_input
        of_input *= self.planes * -(-maps.channels // lanes)
        of_sums = all_channels * vectors.cost(tiles / spans) + blocks * (model.call + tiles / spans * model.load_sums)
        of_output = vectors.number * (tiles * points * model.winograd_output + images * rows * cols * self._storing)
        of_each = vectors.number * all_channels  # vectors of the weight that a work item uses
        item = of_input + points * spans * vectors.number * of_sums + of_output + model.start_item
        if packed:
            item += of_each * points * (model.winograd_fetch + model.winograd_far * is_far)
        else:
            item += of_each * (points * model.winograd_weight + self._read_weight(is_far))
        items = -(-maps.batch // images) * -(-self.part.rows.outputs // rows) * -(-self.part.cols.outputs // cols)
        items *= maps.groups * -(-maps.results // results)
        return item * -(-items // threads)

    def _read_weight(self, is_far: bool) -> float:
        """The cost of reading the taps of a vector of results for a plane: those of other phases and planes are in the
        same cache lines."""
        return self.maps.taps / self.planes * self.model.winograd_far * is_far

    def cost_of_weight(self, threads: int, is_far: bool) -> float:
        """The cost of transforming the weight before; none if plans keep it."""
        if self.request.packs_weight:
            return 0
        maps, model = self.maps, self.model
        each = model.winograd_weight + model.winograd_write + model.winograd_far * is_far
        each = self.points * each + self._read_weight(is_far)
        return maps.groups * -(-maps.results // self.layout.lanes) * self.planes * maps.channels * each / threads

    def plan(self, blocking: Blocking, packed: bool) -> Plan:
        """The plan of the part."""
        maps, (rows, cols), lanes, layout = self.maps, self.part, self.layout.lanes, self.layout
        tables, points, (tiles, read) = Tables(), self.points, self._tiles(*blocking[1:4])
        pitch, blocks = odd_lines(blocking.channels, ITEMSIZE), self.planes * -(-maps.channels // blocking.channels)
        numbers = np.arange(blocking.channels)
        in_panels = numbers // PANEL * points * PANEL + numbers % PANEL
        strips = -(-maps.batch // blocking.images) * -(-rows.outputs // blocking.rows)
        strips *= -(-cols.outputs // blocking.cols)
        far = maps.out_order.col * ITEMSIZE % (SET_STRIDE // 2) == 0
        direct = maps.has_channels_last and maps.results % lanes == 0 and not far
        arguments = Winograd(
            items=strips * maps.groups * -(-maps.results // blocking.results), group=1, workspace=0,
            extents=maps.extents(rows.outputs, cols.outputs), source=maps.source_strides, weight=maps.weight_strides,
            out=maps.out_strides(rows.out_start, cols.out_start, (rows.out_stride, cols.out_stride)),
            block=Block(blocking.images, blocking.rows, blocking.cols, blocking.channels, blocking.results),
            packing=lanes_in_order(maps), packed=packed, number=self.number, outputs_h=self.outputs_h,
            outputs_w=self.outputs_w, size_h=self.size_h, size_w=self.size_w, weight_start=self.start,
            planes=self.planes, planes_table=tables.add(planes_of(self.part, maps)), step_h=rows.step, step_w=cols.step,
            pitch=pitch, halves=layout.halves, pairs=layout.pairs, direct=direct,
            channels_table=tables.add(np.stack([in_panels * lanes, numbers], 1)), taps=rows.taps * cols.taps,
            taps_table=tables.add(taps_of(self.part, self.request, lanes)), tile_at=0, line_at=0, values_at=0,
            starts_at=0, products_at=0, sums_at=0, maps_at=0, panel_at=0, weight_at=0,
        )  # fmt: skip
        beside = layout.beside(blocking.results) * lanes
        kept = -(-blocking.results // lanes) * lanes if blocks > 1 else beside
        pixels = blocking.images * blocking.rows * blocking.cols
        stored = -(-blocking.results // lanes) if maps.has_channels_last else 1
        in_pass = 0 if packed else (blocking.channels + PANEL) * lanes
        parts = {
            "starts_at": 2 * lanes,
            "tile_at": (read + lanes) * lanes,
            "line_at": (cols.step > 1) * (maps.source[1] + lanes) * lanes,
            "values_at": points * (tiles // 2 * 2 + 1) * pitch,
            "products_at": points * (tiles // 2 * 2 + 1) * kept,
            "sums_at": 0 if direct else (stored * pixels + lanes) * lanes,
            "maps_at": 0 if maps.has_channels_last else lanes * (pixels + 2 * lanes),
            "panel_at": maps.taps * in_pass,
            "weight_at": points * in_pass * layout.beside(blocking.results),
        }
        return plan_of("winograd", ITEMSIZE, tables, arguments, parts)

    def weight_plan(self) -> Plan:
        """The plan of the weight's transform."""
        maps, lanes, tables = self.maps, self.layout.lanes, Tables()
        block = self._whole_panels(self.model.winograd_weight_channels)
        arguments = WinogradWeight(
            items=maps.groups * -(-maps.results // lanes) * -(-maps.channels // block), group=1, workspace=0,
            groups=maps.groups, results=maps.results, channels=maps.channels, weight=maps.weight_strides,
            packing=lanes_in_order(maps), number=self.number, points=self.points, out_start=self.start, block=block,
            planes=self.planes, taps=self.part.rows.taps * self.part.cols.taps,
            taps_table=tables.add(taps_of(self.part, self.request, lanes)), panel_at=0,
        )  # fmt: skip
        parts = {"panel_at": (block * maps.taps + lanes) * lanes}
        return plan_of("winograd_weight", ITEMSIZE, tables, arguments, parts)


class Tiles(TransformedTiles):
    """Winograd's convolution with tiles of a size."""

    kind = "winograd"

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._numbers = SIZES[size]

    def _why_not(self, part: Part) -> str | None:
        if (part.rows.taps, part.cols.taps) not in self._numbers:
            return f"it has no tiles for kernels of {part.rows.taps}x{part.cols.taps}"
        return None

    def _planner(self, request: Request, part: Part, start: int) -> PartPlanner:
        return PartPlanner(request, part, self._numbers[part.rows.taps, part.cols.taps], start)

    def propose(self, request: Request) -> Proposal:
        """How it computes a map: the cheaper of transforming the weight before and in the pass."""
        planners, threads = self.planners(request), request.threads
        elements = sum(planner.weight_elements for planner in planners)
        is_far = elements * ITEMSIZE > request.model.winograd_level3_bytes
        before = [planner.blocking(threads, True, is_far) for planner in planners]
        within = [planner.blocking(threads, False, is_far) for planner in planners]
        cost = sum(blocking.cost for blocking in before) + request.model.start_item
        cost += sum(planner.cost_of_weight(threads, is_far) for planner in planners)
        cost_within = sum(blocking.cost for blocking in within)
        packed = cost <= cost_within
        chosen, cost = (before, cost) if packed else (within, cost_within)
        cost += request.model.winograd_start

        def plans() -> list[Plan]:
            of_map = [planner.plan(blocking, packed) for planner, blocking in zip(planners, chosen, strict=True)]
            of_weight = [planner.weight_plan() for planner in planners] if packed else []
            joined = [joined_plans(WinogradWeight, of_weight, 1)] if packed else []
            return [*joined, joined_plans(Winograd, of_map, len(of_map))]

        return Proposal(0, cost, plans)
