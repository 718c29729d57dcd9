"""The kernels of Winograd's convolution: blocking, cost and plans.

F(m, 3) in two dimensions makes m x m outputs from (m + 2) x (m + 2) products, instead of 9 m**2: 4 times fewer for
m = 4, 2.25 times for m = 2. It rounds more (docs/numerics.md), so it is part of the algorithm `winograd`, and computes
float32 only.

There are two passes: one transforms the weight, in plans once and for all; the other does the rest for a strip of
tiles, whose transformed pixels stay in the second-level cache.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np

from fastconv.backends import memory
from fastconv.backends.contract import AnyEngine, FinishingRun, Plan, Run, TileEngine, finishes
from fastconv.kernels.abi import WINOGRAD
from fastconv.kernels.arguments import Block
from fastconv.kernels.drivers.winograd import PANEL, Winograd, WinogradWeight
from fastconv.kernels.pack_weight import LanePacking
from fastconv.planner.blocking import Vectors, even_block
from fastconv.planner.cost_model import CACHE_LINE, SET_STRIDE
from fastconv.planner.plan_builder import Maps, Tables, plan_of, weight_offsets
from fastconv.planner.request import Proposal, Request
from fastconv.planner.steps import MakeCount, PanelRun, workspace_of_plans
from fastconv.problem.arrays import Array
from fastconv.problem.subpixel import Phase

#: Bytes of an element: only float32 is computed.
_ITEMSIZE = 4


class Blocking(NamedTuple):
    """The blocking of a map: its cost, whether the weight is transformed before, by a pass of its own, and the outputs,
    channels and results of a work item."""

    cost: float
    packed: bool
    images: int
    rows: int
    cols: int
    channels: int
    results: int


class Planner:
    """A map by F(m, r), row `number` of `abi.WINOGRAD`."""

    def __init__(self, request: Request, number: int) -> None:
        self.request, self.number = request, number
        self.outputs, self.taps = WINOGRAD[number]
        self.size = self.outputs + self.taps - 1
        self.maps, self.layout, self.model = Maps(request), request.tiles, request.model
        self.phase: Phase = request.phases[0]

    @property
    def transformed_shape(self) -> tuple[int, int, int, int]:
        """(panels of channels of all vectors of results, elements of a tile, channels of a panel, lanes) of the
        transformed weight."""
        maps, lanes = self.maps, self.layout.lanes
        vectors = maps.groups * -(-maps.results // lanes)
        return vectors * -(-maps.channels // PANEL), self.size**2, PANEL, lanes

    def _whole_panels(self, most: int) -> int:
        """Channels of a block, about `most`: whole panels, or all channels."""
        channels = self.maps.channels
        return min(channels, -(-even_block(most, channels) // PANEL) * PANEL)

    def _tiles(self, images: int, rows: int, cols: int) -> int:
        return images * -(-rows // self.outputs) * -(-cols // self.outputs)

    def pitch(self, channels: int) -> int:
        """Elements from one transformed tile to the next: an odd number of cache lines, for as many sets of a cache."""
        line = CACHE_LINE // _ITEMSIZE
        return (-(-channels // line) | 1) * line

    def blocking(self, threads: int) -> Blocking:
        """The cheapest blocking whose transformed tiles and products fit into the second-level cache."""
        maps, (rows, cols), lanes = self.maps, self.phase[:2], self.layout.lanes
        tiles_h, tiles_w = -(-rows.outputs // self.outputs), -(-cols.outputs // self.outputs)
        images = range(1, maps.batch + 1) if tiles_h * tiles_w < 2 * self.layout.span else (1,)
        heights = sorted({-(-tiles_h // parts) for parts in range(1, min(tiles_h, 32) + 1)})
        widths = sorted({-(-tiles_w // parts) for parts in range(1, min(tiles_w, 8) + 1)})
        blocks_c = sorted({self._whole_panels(most) for most in (32, 64, 128, 256, 512, maps.channels)})
        vectors = -(-maps.results // lanes)
        blocks_k = sorted({-(-vectors // parts) * lanes for parts in (1, 2, 4, 8, 16)})
        ways = (True,) if self.request.packs_weight else (True, False)
        best: Blocking | None = None
        for n, h, w in itertools.product(images, heights, widths):
            if (n > 1 and (h < tiles_h or w < tiles_w)) or n * h * w > self.model.winograd_tiles:
                continue
            strip = n, min(h * self.outputs, rows.outputs), min(w * self.outputs, cols.outputs)
            for c, k, packed in itertools.product(blocks_c, blocks_k, ways):
                found = Blocking(self._cost(strip, c, k, packed, threads), packed, *strip, c, k)
                best = found if best is None or found.cost < best.cost else best
        assert best is not None
        return best

    def _cost(self, strip: tuple[int, int, int], channels: int, results: int, packed: bool, threads: int) -> float:
        """The cost of the thread with the most work items, in multiply-adds of a vector."""
        maps, model, lanes = self.maps, self.model, self.layout.lanes
        images, rows, cols = strip
        tiles, points, kind = self._tiles(*strip), self.size**2, self.number
        blocks, results = -(-maps.channels // channels), min(results, maps.results)
        beside = min(results, self.layout.beside(results) * lanes)
        elements = points * tiles * (self.pitch(channels) + (results if blocks > 1 else beside))
        elements += 0 if packed else points * channels * beside
        if elements * _ITEMSIZE > model.winograd_bytes and (tiles > 1 or channels > 2 * PANEL):
            return math.inf
        vectors = Vectors.of(results, self.layout, False, model)
        spans = -(-tiles // self.layout.span)
        read = images * (-(-rows // self.outputs) * self.outputs + 2) * (-(-cols // self.outputs) * self.outputs + 2)
        copying = model.pad_vector if maps.reads_channels_last else model.transpose_source
        storing = model.store_lanes if maps.has_channels_last else model.transpose_sums
        of_input = -(-maps.channels // lanes) * (read * copying + tiles * model.winograd_input[kind])
        of_sums = maps.channels * vectors.cost(tiles / spans) + blocks * (model.call + tiles / spans * model.load_sums)
        of_output = vectors.number * (tiles * model.winograd_output[kind] + images * rows * cols * storing)
        of_each = vectors.number * maps.channels  # vectors of the weight that a work item uses
        item = of_input + points * spans * vectors.number * of_sums + of_output + model.start_item
        item += of_each * (points * model.winograd_fetch if packed else self._read_weight + model.winograd_weight[kind])
        items = -(-maps.batch // images) * -(-self.phase.rows.outputs // rows) * -(-self.phase.cols.outputs // cols)
        items *= maps.groups * -(-maps.results // results)
        cost = item * -(-items // threads)
        if packed:
            cost += self._cost_of_weight(threads)
        return cost

    @property
    def _read_weight(self) -> float:
        """The cost of reading the taps of a vector of results, if the weight exceeds the second-level cache."""
        is_far = self.maps.weight_size * _ITEMSIZE > self.model.level2_source_bytes
        return self.maps.taps * self.model.winograd_read_far * is_far

    def _cost_of_weight(self, threads: int) -> float:
        """The cost of the pass that transforms the weight, and of what is read of it from memory."""
        maps, model, lanes = self.maps, self.model, self.layout.lanes
        vectors = maps.groups * -(-maps.results // lanes) * maps.channels
        is_far = vectors * self.size**2 * lanes * _ITEMSIZE > model.winograd_level3_bytes
        each = is_far * self.size**2 * model.winograd_read_far
        if not self.request.packs_weight:
            each += self._read_weight + model.winograd_weight[self.number]
            each += model.winograd_write * self.size**2 * (1 + 2 * is_far)
        return vectors * each / threads + model.start_item

    def plan(self, blocking: Blocking) -> Plan:
        """The plan of the map."""
        maps, (rows, cols), lanes, layout = self.maps, self.phase[:2], self.layout.lanes, self.layout
        tables, points, tiles = Tables(), self.size**2, self._tiles(blocking.images, blocking.rows, blocking.cols)
        pitch, blocks = self.pitch(blocking.channels), -(-maps.channels // blocking.channels)
        numbers = np.arange(blocking.channels)
        in_panels = numbers // PANEL * points * PANEL + numbers % PANEL
        strips = -(-maps.batch // blocking.images) * -(-rows.outputs // blocking.rows)
        strips *= -(-cols.outputs // blocking.cols)
        far = maps.out_order.col * _ITEMSIZE % (SET_STRIDE // 2) == 0
        direct = maps.has_channels_last and maps.results % lanes == 0 and not far
        arguments = Winograd(
            items=strips * maps.groups * -(-maps.results // blocking.results), group=1, workspace=0,
            extents=maps.extents(rows.outputs, cols.outputs), source=maps.source_strides, weight=maps.weight_strides,
            out=maps.out_strides(rows.out_start, cols.out_start, (1, 1)),
            block=Block(blocking.images, blocking.rows, blocking.cols, blocking.channels, blocking.results),
            packing=self._packing, packed=blocking.packed, number=self.number, outputs=self.outputs, size=self.size,
            pad_h=rows.pad, pad_w=cols.pad, pitch=pitch,
            halves=layout.halves, pairs=layout.pairs, direct=direct,
            channels_table=tables.add(np.stack([in_panels * lanes, numbers], 1)), taps_table=tables.add(self._taps),
            tile_at=0, values_at=0, starts_at=0, products_at=0, sums_at=0, maps_at=0, panel_at=0, weight_at=0,
        )  # fmt: skip
        beside = layout.beside(blocking.results) * lanes
        kept = -(-blocking.results // lanes) * lanes if blocks > 1 else beside
        pixels = blocking.images * blocking.rows * blocking.cols
        stored = -(-blocking.results // lanes) if maps.has_channels_last else 1
        across = -(-blocking.rows // self.outputs) * self.outputs + self.size - self.outputs
        along = -(-blocking.cols // self.outputs) * self.outputs + self.size - self.outputs
        in_pass = 0 if blocking.packed else (blocking.channels + PANEL) * lanes
        parts = {
            "starts_at": 2 * lanes,
            "tile_at": (across * along + lanes) * lanes,
            "values_at": points * tiles * pitch,
            "products_at": points * (tiles // 2 * 2 + 1) * kept,
            "sums_at": 0 if direct else (stored * pixels + lanes) * lanes,
            "maps_at": 0 if maps.has_channels_last else lanes * (pixels + 2 * lanes),
            "panel_at": maps.taps * in_pass,
            "weight_at": points * in_pass * layout.beside(blocking.results),
        }
        return plan_of("winograd", _ITEMSIZE, tables, arguments, parts)

    def weight_plan(self) -> Plan:
        """The plan of the weight's transform."""
        maps, lanes, tables = self.maps, self.layout.lanes, Tables()
        block = self._whole_panels(self.model.winograd_weight_channels)
        arguments = WinogradWeight(
            items=maps.groups * -(-maps.results // lanes) * -(-maps.channels // block), group=1, workspace=0,
            groups=maps.groups, results=maps.results, channels=maps.channels, weight=maps.weight_strides,
            packing=self._packing,
            number=self.number, size=self.size, block=block,
            taps_table=tables.add(self._taps), panel_at=0,
        )  # fmt: skip
        parts = {"panel_at": (block * maps.taps + lanes) * lanes}
        return plan_of("winograd_weight", _ITEMSIZE, tables, arguments, parts)

    @property
    def _packing(self) -> LanePacking:
        """A group's results in their order are lanes."""
        maps = self.maps
        return LanePacking(maps.taps, maps.results, run=0, weight_table=0, out_table=0, bias_table=0, taps_table=0)

    @property
    def _taps(self) -> Array:
        """For each tap its offset in the packed weight."""
        return weight_offsets(self.phase, self.request.geometry.axes[1].taps) * self.layout.lanes

    def plans(self, blocking: Blocking) -> list[Plan]:
        """The plan of the map, after that of the weight if it is transformed before."""
        return [*([self.weight_plan()] if blocking.packed else []), self.plan(blocking)]

    def propose(self) -> Proposal:
        """How it computes the map."""
        blocking = self.blocking(self.request.threads)
        return Proposal(0, blocking.cost, lambda: self.plans(blocking))


def applies(number: int) -> Callable[[Request], str | None]:
    """The `applies` of a row of `abi.WINOGRAD`."""
    taps = WINOGRAD[number][1]

    def reason(request: Request) -> str | None:
        axes = request.geometry.axes
        if request.itemsize != _ITEMSIZE:
            return "it computes in float32 only"
        if any(axis.taps != taps for axis in axes):
            return f"the kernel is not {taps}x{taps}"
        if any(axis.stride > 1 for axis in axes):
            return "the stride is not 1"
        if any(axis.dilation > 1 for axis in axes):
            return "the dilation is not 1"
        if request.phase_count != 1:
            return "there are no outputs"
        return None

    return reason


def propose(number: int) -> Callable[[Request], Proposal]:
    """The `propose` of a row of `abi.WINOGRAD`."""
    return lambda request: Planner(request, number).propose()


def prepare(number: int) -> Callable[..., Run]:
    """The `prepare` of a row of `abi.WINOGRAD`."""

    def prepared(engine: TileEngine, request: Request, proposal: Proposal, make_count: MakeCount) -> Run:
        *transforms, compute = (engine.prepared(plan, request.threads) for plan in proposal.plans())
        if not transforms:
            return compute
        (transform,), shape = transforms, Planner(request, number).transformed_shape

        def run(source: Array, weight: Array, bias: Array | None, out: Array) -> None:
            transformed = memory.empty(shape, weight.dtype)
            transform(weight, weight, None, transformed)
            compute(source, transformed, bias, out)

        return run

    return prepared


class TransformedWeight:
    """The weight as the pass `winograd` takes it, see `steps.PanelRun`."""

    def __init__(self, planner: Planner, transform: Run) -> None:
        self._key = "winograd", planner.number, planner.request.target, planner.layout.lanes
        self._shape, self._transform = planner.transformed_shape, transform

    def packed(self, weight: Array, known: dict[Any, Array]) -> Array:
        """The transformed weight, from `known` if it is there."""
        if (found := known.get(self._key)) is None:
            known[self._key] = found = np.empty(self._shape, weight.dtype)
            self._transform(weight, weight, None, found)
        return found


def panel_run(number: int) -> Callable[[AnyEngine, Request, Proposal], PanelRun | None]:
    """The `panel_run` of a row of `abi.WINOGRAD`."""

    def made(engine: AnyEngine, request: Request, proposal: Proposal) -> PanelRun | None:
        if not finishes(engine):
            return None
        of_weight, of_map = proposal.plans()
        transform, compute = engine.prepared(of_weight, request.threads), engine.prepared(of_map, request.threads)
        return PanelRun((cast(FinishingRun, compute),), (TransformedWeight(Planner(request, number), transform),))

    return made


def workspace(number: int) -> Callable[[Request, Proposal], int]:
    """The `workspace` of a row of `abi.WINOGRAD`: with the transformed weight."""

    def bytes_of(request: Request, proposal: Proposal) -> int:
        transformed = math.prod(Planner(request, number).transformed_shape) if len(proposal.plans()) > 1 else 0
        return workspace_of_plans(request, proposal) + _ITEMSIZE * transformed

    return bytes_of
