"""The weight's gradient for engines that multiply tiles: how it is cut, as plans of integers.

A piece of work is some results of a group and some of its channels, with all taps between them. It goes through strips
of pixels one after the other, and its sums stay. The lanes of a vector are taps, and then the source's pixels are
transposed, each as often as taps meet it; or they are results, and then the small map's are, each once for a block of
channels, and the source's are read where they are, or in a field that is the source with its padding. There taps may
keep to the outputs that they meet, so that nothing of the padding is read.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from fastconv.algorithms import cuts
from fastconv.algorithms.cuts import Vectors, even
from fastconv.algorithms.met import Bundle, bundles, cost_of_looking, everything, in_runs
from fastconv.algorithms.planning import Maps, Tables, field_of, field_offsets, plan_of, planes_tables
from fastconv.engines.contract import Layout, Plan
from fastconv.engines.plans import Place as P
from fastconv.ground.arrays import Array
from fastconv.ground.geometry import Geometry
from fastconv.ground.phases import Phase, reading_large
from fastconv.ground.planes import Planes

#: Pixels that are summed at a time, with a lane for each tap and for each result.
_PIXELS, _PANEL = 256, 512
#: Blocks of channels, and parts of results, that are tried.
_COUNTS = (8, 4, 2, 1)
#: Multiply-adds from which on several partial sums are worth adding up.
_SPLITTING = 2**18
#: Results that a piece has at least, if it can, where it transposes its taps' pixels anew.
_FEWEST = 64
#: Multiply-adds that a vector of a field should be copied for.
_WORTH = 128
#: What a vector costs, in multiply-adds of one: of a panel of taps, and of one of results; of the source when it is
#: read, as it is or into a field, by pieces that transpose it, and by those that do not, as it is and into a field, and
#: into a field whose planes' pixels lie further apart than two; of sums when they are placed; of partial sums when they
#: are added, and what any take beside; and for each panel.
_GATHERING, _TRANSPOSING = 6.0, 9.0
_READING, _READING_ONCE, _COPYING_ONCE, _READING_APART = 10.0, 2.0, 5.0, 27.0
_PLACING = 14.0
_ADDING, _ADDING_ANY = 40.0, 3e4
_SUMMING_TAPS, _SUMMING_RESULTS = 10.0, 2.0
#: What each costs more where taps keep to the outputs that they meet.
_MEETING = 1.06
#: Bytes: where planes are a multiple of them long, the same pixels of many channels are in few sets of a cache.
_ALIASING = 2048


@dataclass(frozen=True, slots=True)
class _Cut:
    """So many images, rows and columns of a strip, channels and results of a piece; pieces, and the parts of a sum."""

    images: int
    rows: int
    cols: int
    channels: int
    results: int
    pieces: int
    splits: int


class _Gradient(abc.ABC):
    """What both ways to compute one have in common: what it reads, how it is cut, and what plans say of that.

    maps      the large and the small map
    phase     how the large one is read
    steps     pixels of a plane from those that one output meets to the next one's, on both axes
    planes    the planes of a field, on both axes
    copies    whether the source is read through a field
    """

    def __init__(self, geometry: Geometry, layout: Layout, itemsize: int, phase: Phase, steps: tuple[int, int]) -> None:
        self.layout, self.itemsize, self.phase, self.steps = layout, itemsize, phase, steps
        self.maps = maps = Maps(geometry, False)
        self.planes = Planes.of(phase.rows), Planes.of(phase.cols)
        self.copies = not maps.is_inside(phase)
        self.pixels: int = math.prod(maps.out)
        self.size: int = maps.groups * maps.results * maps.channels * maps.kernel

    def read(self, axis: int, outputs: int) -> int:
        """The positions of a plane that so many outputs meet."""
        return (outputs - 1) * self.steps[axis] + 1 + self.planes[axis].reach

    def most(self, axis: int, positions: int) -> int:
        """The most outputs, but at least 1, that meet so many."""
        return max(1, (positions - self.planes[axis].reach - 1) // self.steps[axis] + 1)

    def cut_into(self, step: int, fewest: int, blocks: int = cuts.PIECES, parts: int = cuts.PIECES) -> _Cut:
        """Cut into so many blocks of channels, about, and then into at most so many parts of results: multiples of
        `step`, of which a piece has `fewest` if it can, as it makes its copies anew.

        None of it depends on the number of threads.
        """
        maps, layout = self.maps, self.layout
        n, g, c, k, taps = maps.batch, maps.groups, maps.channels, maps.results, maps.kernel
        i, j = maps.out
        planes = math.prod(len(planes.origins) for planes in self.planes)
        tile = layout.full[1] * layout.lanes

        tiles_k = -(-k // step)
        block_k = most_k = step * min(tiles_k, max(1, 512 // step))
        most = max(tile, cuts.SUMS // self.itemsize // block_k // 2)  # taps of a piece
        least = 3 * tile
        block_c = max(1, min(c, most // taps, max(-(-least // taps), -(-c // blocks))))
        block_c = even(block_c, c)
        if (block_c * taps) % layout.lanes and block_c < c and taps < layout.lanes:
            whole = layout.lanes // math.gcd(layout.lanes, taps)
            block_c = min(c, -(-block_c // whole) * whole)
        block_i, block_j = i, j
        if self.copies:
            room = cuts.FIELD // self.itemsize // (block_c * planes)
            block_j = even(max(layout.lanes, self.most(1, room // self.read(0, 1))), j)
            block_i = 1 if block_j < j else even(self.most(0, room // self.read(1, j)), i)
        # small images together
        block_n = 1
        if (block_i, block_j) == (i, j) and i * j < _PIXELS:
            field = block_c * planes * self.read(0, i) * self.read(1, j)
            room = cuts.FIELD // self.itemsize // field if self.copies else n
            block_n = even(max(1, min(n, room, 4 * _PIXELS // (i * j))), n)
        # Where there are too few pieces for threads, first some results each, as long as they are worth the copies;
        # then some pixels each, whose sums are added in order.
        pieces = g * -(-c // block_c)
        parts = min(parts, -(-cuts.PIECES // pieces), max(1, k // fewest))
        block_k = step * min(most_k // step, -(-tiles_k // parts))
        pieces *= -(-k // block_k)
        splits = 1
        if pieces < cuts.PIECES and n * self.pixels * self.size >= _SPLITTING:
            wanted = max(1, min(-(-cuts.PIECES // pieces), 2**18 // self.size))
            if block_n == 1 and n * -(-i // block_i) * -(-j // block_j) < wanted:
                block_i = even(-(-i // -(-wanted // n)), i)
            splits = min(-(-n // block_n) * -(-i // block_i) * -(-j // block_j), wanted)
        return _Cut(block_n, block_i, block_j, block_c, block_k, pieces, splits)

    def cheapest(self, step: int, fewest: int) -> _Cut:
        """The cut that leaves the fewest threads without work, and of these the cheapest: many blocks of channels
        transpose the results as often, many parts of results read the source as often, few of both are more partial
        sums."""
        found = {self.cut_into(step, fewest, blocks, parts): None for blocks in _COUNTS for parts in _COUNTS}
        return min(found, key=lambda cut: (-min(cuts.PIECES, cut.pieces * cut.splits), self.cost(cut)))

    @abc.abstractmethod
    def cost(self, cut: _Cut) -> float:
        """In multiply-adds of a vector."""

    def described(self, cut: _Cut, tables: Tables) -> tuple[Array, dict[P, int]]:
        """Where the taps of a block of channels are in what is read, and what plans of both ways say."""
        maps, (rows, cols) = self.maps, self.planes
        field = field_of(cut.channels, self.read(0, cut.rows), self.read(1, cut.cols), self.itemsize)
        in_field, step = maps.offsets(self.phase), math.prod(maps.source)
        if self.copies:
            in_field, step = field_offsets(rows, cols, field), field[P.FIELD_CHANNEL]
        taps = maps.channels * maps.kernel
        return (np.arange(cut.channels)[:, None] * step + in_field).ravel(), {
            **maps.integers,
            P.ITEMS: cut.pieces * cut.splits,
            P.ROWS: maps.out[0], P.COLS: maps.out[1], P.TAPS_A: self.phase.rows.taps, P.TAPS_B: self.phase.cols.taps,
            P.WEIGHT_GROUP: maps.results * self.pixels, P.WEIGHT_RESULT: self.pixels,
            P.WEIGHT_CHANNEL: maps.groups * maps.results * self.pixels,
            P.OUT_IMAGE: self.size, P.OUT_GROUP: maps.results * taps, P.OUT_RESULT: taps,
            P.COPIES: self.copies, P.STEP_H: self.steps[0], P.STEP_W: self.steps[1], **field,
            P.BLOCK_IMAGES: cut.images, P.BLOCK_ROWS: cut.rows, P.BLOCK_COLS: cut.cols,
            P.BLOCK_CHANNELS: cut.channels, P.BLOCK_RESULTS: cut.results, P.SPLITS: cut.splits,
            **planes_tables(tables, rows, cols),
        }  # fmt: skip

    def field_size(self, cut: _Cut, integers: dict[P, int]) -> int:
        """Elements of a strip's field."""
        planes = integers[P.PLANES_H] * integers[P.PLANES_W]
        return self.copies * cut.images * planes * integers[P.FIELD_PLANE] + 2 * self.layout.lanes

    def cost_of_reading(self, cut: _Cut, each: float) -> float:
        """What the source costs all pieces, where a vector of it costs `each`."""
        maps, strips = self.maps, (cut.rows, cut.cols)
        extents = list(maps.source)
        if self.copies:
            extents = [
                -(-outputs // strip) * self.read(axis, strip) * len(self.planes[axis].origins)
                for axis, (outputs, strip) in enumerate(zip(maps.out, strips, strict=True))
            ]
        vectors: float = maps.batch * maps.groups * maps.channels * math.prod(extents) / self.layout.lanes
        return -(-maps.results // cut.results) * vectors * each

    def cost_of_adding(self, cut: _Cut) -> float:
        """What adding partial sums costs, which one thread does while others wait."""
        return (cut.splits > 1) * (_ADDING_ANY + cut.splits * self.size / self.layout.lanes * _ADDING)

    def cost_of_summing(self, cut: _Cut, most: int, pixel: float, panel: float) -> float:
        """What all pieces do for the pixels of a piece, of which each costs so much, and each panel of them."""
        maps = self.maps
        panels = max(1.0, self.pixels / most) / max(1, min(cut.images, most // self.pixels))
        blocks: int = maps.groups * -(-maps.channels // cut.channels)
        return maps.batch * blocks * (self.pixels * pixel + panels * panel)


class _ByTaps(_Gradient):
    """With a lane for each tap: planes erase the stride."""

    def __init__(self, geometry: Geometry, layout: Layout, itemsize: int) -> None:
        super().__init__(geometry, layout, itemsize, reading_large(geometry), (1, 1))
        self.cut = self.cheapest(layout.full[0], _FEWEST)

    def cost(self, cut: _Cut) -> float:
        """In multiply-adds of a vector."""
        rows = self.layout.full[0]
        vectors = -(-cut.channels * self.maps.kernel // self.layout.lanes)
        multiplied = -(-self.maps.results // rows) * rows * vectors
        gathered = -(-self.maps.results // cut.results) * vectors * _GATHERING
        reading = _READING if self.planes[1].hop <= 2 else _READING_APART
        summing = self.cost_of_summing(cut, _PIXELS, multiplied + gathered, multiplied * _SUMMING_TAPS)
        return summing + self.cost_of_adding(cut) + self.cost_of_reading(cut, reading)

    def plan(self) -> tuple[Plan, int]:
        """Its plan, and the number of partial sums."""
        cut, lanes, width = self.cut, self.layout.lanes, self.layout.full[1]
        tables = Tables()
        in_field, integers = self.described(cut, tables)
        # lanes beyond the last tap repeat it
        in_field = np.concatenate([in_field, np.repeat(in_field[-1], -len(in_field) % lanes)])
        pixels = in_small = np.arange(_PIXELS if cut.images == 1 else cut.images * self.pixels)
        if cut.images > 1:
            in_small = pixels // self.pixels * integers[P.WEIGHT_CHANNEL] + pixels % self.pixels
        integers |= {
            P.BLOCK_PIXELS: even(_PIXELS, cut.images * cut.rows * cut.cols),
            P.TAPS: tables.add(np.stack([0 * in_field, in_field], 1)),
            P.PANEL_TAPS: tables.add(np.stack([in_small, pixels * width * lanes], 1)),
        }
        parts = {
            P.START: lanes,
            P.SUMS: cut.results * (len(in_field) + width * lanes),
            P.PANEL: (_PIXELS * width + 1) * lanes,
            P.FIELD: self.field_size(cut, integers),
        }
        return plan_of("correlate_weight", self.itemsize, tables, integers, parts), cut.splits


class _ByResults(_Gradient):
    """With a lane for each result: the stride is a step, from each pixel that is read to the next.

    `clips`: each tap, or some that are neighbours, keeps to the outputs that it meets.
    """

    def __init__(self, geometry: Geometry, layout: Layout, itemsize: int, clips: bool) -> None:
        met = reading_large(geometry)
        lines = (replace(line, hop=1, outputs=(line.outputs - 1) * line.hop + 1) for line in (met.rows, met.cols))
        steps = met.rows.hop, met.cols.hop
        super().__init__(geometry, layout, itemsize, Phase(*lines), steps)
        self.clips = clips and self.copies
        self.cut = self.cut_into(*self._results())
        found, width = [everything(met)], met.cols.taps
        if self.clips:
            found = [bundles(met, self.maps.source, length) for length in {*range(1, min(layout.taps, width)), width}]
        if self._gains_by_runs(met):
            found += [in_runs(taps, layout.run) for taps in found]
        self.bundles = min(found, key=lambda taps: self._multiplied(taps, self.cut))
        if self.clips:
            aliases = math.prod(self.maps.source) * itemsize % _ALIASING == 0
            self.copies = aliases or any(bundle.reaches for bundle in self.bundles)
        self.cut = self.cheapest(*self._results())

    def _gains_by_runs(self, met: Phase) -> bool:
        """Whether neighbouring taps meet neighbouring pixels, and tiles of as many results gain by reading each for
        both: two vectors of them share what they read already."""
        results, layout = self.maps.results, self.layout
        alone, sharing = (Vectors.of(results, layout, shares) for shares in (False, True))
        are_neighbours = met.cols.hop == met.cols.step == 1
        return are_neighbours and layout.run > 1 and layout.beside(results) == 1 and alone != sharing

    def _results(self) -> tuple[int, int]:
        """Results that a piece has a multiple of, and the fewest that it should have."""
        # for a vector of a field there are so many multiply-adds of as many results as there are lanes
        lanes, beside = self.layout.lanes, self.layout.beside(self.maps.results)
        there_are = lanes * self.maps.kernel / math.prod(self.steps)
        return beside * lanes, lanes * max(beside, self.copies * math.ceil(_WORTH / there_are))

    def _multiplied(self, bundles: Collection[Bundle], cut: _Cut) -> float:
        """What bundles cost over all outputs, for a vector of results on average."""
        cost = 0.0
        for bundle in bundles:
            vectors = Vectors.of(self.maps.results, self.layout, bundle.run > 1)
            taps = cut.channels * bundle.taps
            tiles = -(-taps // (self.layout.taps // bundle.run * bundle.run))
            cost += bundle.outputs * tiles * vectors.cost(taps / tiles)
        return cost * (_MEETING if self.clips else 1)

    def cost(self, cut: _Cut) -> float:
        """In multiply-adds of a vector."""
        maps, lanes = self.maps, self.layout.lanes
        count, vectors = cut.channels * maps.kernel, -(-maps.results // lanes)
        multiplied = vectors * self._multiplied(self.bundles, cut) / self.pixels
        placed = self.size / maps.results * vectors * cut.splits * _PLACING + self.cost_of_adding(cut)
        summing = self.cost_of_summing(
            cut, _PANEL, multiplied + vectors * _TRANSPOSING, vectors * count * _SUMMING_RESULTS
        )
        looking = self.clips * cost_of_looking(self.size, maps.out_size) / lanes
        return summing + placed + self.cost_of_reading(cut, _COPYING_ONCE if self.copies else _READING_ONCE) + looking

    def plan(self) -> tuple[Plan, int]:
        """Its plan, and the number of partial sums."""
        cut, lanes, line = self.cut, self.layout.lanes, self.phase
        tables, described = Tables(), []
        in_field, integers = self.described(cut, tables)
        pairs = np.stack([np.arange(len(in_field)) * lanes, in_field], 1)
        pairs = pairs.reshape(cut.channels, line.rows.taps, line.cols.taps, 2)
        # where they are a part of a row, anywhere, a panel's pixels are counted from its first column
        is_part = cut.cols < self.maps.out[1] or cut.cols > _PANEL
        found: dict[tuple[int, int], int] = {}
        for bundle in self.bundles:
            cols = (0, min(cut.cols, _PANEL)) if is_part else bundle.cols
            if cols not in found:
                found[cols] = tables.add(
                    self._pixels(1 if is_part else min(cut.rows, _PANEL // cut.cols), cols, integers)
                )
            taps = tables.add(pairs[:, slice(*bundle.a), slice(*bundle.b)])
            described += [taps, bundle.taps, *bundle.rows, *bundle.cols, found[cols], cols[0], bundle.run]
        integers |= {
            P.BLOCK_PIXELS: _PANEL, P.CLIPS: self.clips,
            P.HALVES: self.layout.halves, P.PAIRS: self.layout.pairs, P.NEXT_PANEL: _PANEL * lanes,
            P.BUNDLES: len(self.bundles), P.BUNDLE_TABLE: tables.add(described),
        }  # fmt: skip
        square = lanes * lanes
        parts = {
            P.START: lanes,
            P.SUMS: -(-cut.results // lanes) * lanes * len(in_field) + square,
            P.PANEL: self.layout.beside(cut.results) * _PANEL * lanes,
            P.EXTRA: square,
            P.FIELD: self.field_size(cut, integers),
        }
        return plan_of("correlate_results_weight", self.itemsize, tables, integers, parts), cut.splits

    def _pixels(self, rows: int, cols: tuple[int, int], integers: dict[P, int]) -> Array:
        """Where the pixels of so many rows, from a column to before another, are in a panel and in what is read."""
        i, j = np.arange(rows)[:, None], np.arange(*cols)
        pitch = self.steps[0] * integers[P.FIELD_COLS if self.copies else P.SOURCE_WIDTH]
        return np.stack([(i * self.cut.cols + j) * self.layout.lanes, i * pitch + j * self.steps[1]], 2)


def gradient(
    geometry: Geometry, clips: bool, layout: Layout, itemsize: int, lanes: Collection[str]
) -> tuple[Plan, int]:
    """The plan of a weight's gradient in the cheapest of the ways `lanes`, and the number of partial sums.

    `clips`: what meets the padding may be left out, which a finite small map allows.
    """
    ways: list[_ByTaps | _ByResults] = []
    if "pixels" in lanes or "results" not in lanes:
        ways.append(_ByTaps(geometry, layout, itemsize))
    if "results" in lanes or "pixels" not in lanes:
        ways += [_ByResults(geometry, layout, itemsize, only_met) for only_met in {False, clips}]
    return min(ways, key=lambda way: way.cost(way.cut)).plan()
