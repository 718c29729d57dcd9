"""The blocking of a correlation for tile engines: the cheapest one by a cost model."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from fastconv.backends.contract import Layout
from fastconv.kernels.abi import BY_ROWS, FLAT, PACKED
from fastconv.planner.cost_model import CostModel
from fastconv.problem.subpixel import Phase

#: A candidate is skipped if a lower bound of its cost exceeds the best cost by this factor, more than by rounding.
_SURELY = 1 + 1e-9


def even(most: int, extent: int) -> int:
    """Block size that divides `extent` into the fewest blocks of at most `most` (at least 1), as equal as can be."""
    if most >= extent:
        return extent
    pieces = -(-extent // max(1, most))
    return -(-extent // pieces)


class Vectors(NamedTuple):
    """The vectors that some results fill, with a lane for each, and what their register tiles cost.

    number   how many vectors there are
    kinds    for tiles of two vectors, of one, and of half a one, as far as there are any: the number of vectors in
             such tiles, the cost of a multiply-add, and the least cost of a tile
    """

    number: int
    kinds: tuple[tuple[int, float, float], ...]

    @classmethod
    def of(cls, results: int, layout: Layout, shares: bool, model: CostModel) -> Vectors:
        """The vectors of `results` results; `shares`: neighbouring taps share what they read."""
        number, latency = -(-results // layout.lanes), model.latency
        paired = 0
        if layout.pairs:
            paired, left = divmod(results, 2 * layout.lanes)
            paired += left >= layout.pairs
        alone = number - 2 * paired
        last = results - (number - 1) * layout.lanes
        halves = int(alone > 0 and last <= layout.halves)
        one = model.single_result_vector_sharing if shares else model.single_result_vector
        half = model.half_vector_sharing if shares else model.half_vector
        kinds = (2 * paired, 1, latency / 2), (alone - halves, one, latency), (halves, half, latency)
        return cls(number, tuple(kind for kind in kinds if kind[0]))

    def cost(self, count: float) -> float:
        """Average cost of a vector, in multiply-adds of one, in register tiles with `count` sums for each vector."""
        cost = 0.0
        for vectors, each, least in self.kinds:
            cost += vectors * max(each * count, least)
        return cost / self.number


class Cut(NamedTuple):
    """The blocking of a correlation, and its cost in multiply-adds of a vector.

    `pixels` is the pixel order (`abi.FLAT`), `tile` the number of the register tile, `sums` the elements of a work
    item's sums. With channel lanes there is only one pixel order and one tile.
    """

    excess: int  # bytes of workspace beyond the limit
    cost: float
    images: int
    rows: int
    cols: int
    results: int
    pixels: int
    tile: int
    sums: int


def _best_by_pixels(
    layout: Layout, itemsize: int, extents: tuple[int, ...], taps: int, reach: tuple[int, int], planes: int,
    block_c: int, copies: bool, shared: int, is_whole: bool, is_summed_there: bool, fetching: float, threads: int,
    model: CostModel,
) -> Cut:  # fmt: skip
    """The cheapest blocking with pixel lanes of a correlation of `extents` (n, g, c, k, i, j), with blocks of `block_c`
    channels.

    The cost is that of the thread with the most work items: the multiply-adds of the register tiles, wasted lanes and
    rows included; the copies, where `shared` phases use one padded tile; and the weight, which each work item reads
    anew. `is_summed_there`: if a line of sums is a line of the output, full register tiles add to the output itself and
    need no copy. `fetching`: the cost of reading an element of the weight for the first time.

    A candidate is skipped if a lower bound of its cost, as if threads shared the work items equally, exceeds the best.
    """
    n, g, c, k, i, j = extents
    lanes, blocks, planes = layout.lanes, -(-c // block_c), planes * block_c
    most_tile, most_sums, load_sums, start_item = (
        model.padded_tile_bytes,
        model.sums_bytes,
        model.load_sums,
        model.start_item,
    )
    scale = model.pixel_lanes_padded if copies else model.pixel_lanes_in_place
    slowness = (*model.tile_multiply_add[:2], model.one_row_padded) if copies else model.tile_multiply_add
    strips_of = _strips(n, i, j, lanes, model.row_parts, model.strip_vectors)
    is_long = strips_of[0][2] < j
    # of each kind of strip: how many there are, what copying one costs, and the elements of its padded tile
    counted = []
    for images, rows, cols in strips_of:
        field = planes * images * (rows + reach[0]) * (cols + reach[1])
        copying = copies * c * field / planes / lanes * model.copy_vector / shared
        counted.append((-(-n // images) * g * -(-i // rows) * -(-j // cols), copying, field))
    least_moved = min(strips * (copying + start_item) for strips, copying, _ in counted)
    best: tuple[Any, ...] = (math.inf, math.inf)
    for tile, (height, width) in enumerate(layout.tiles):
        tiles_k = -(-k // height)
        counts = _tiles_of_pieces(tiles_k)
        for pixels in (FLAT, PACKED, BY_ROWS):
            if pixels != PACKED and not copies and not (is_whole and pixels == FLAT):
                continue  # only a padded tile has room to read behind its rows
            multiplying = tiles_k * height * (taps * c * slowness[tile] + load_sums * blocks)
            packing = taps * c * model.pack_vector * (pixels == PACKED)
            row = -(-j // lanes) if pixels == BY_ROWS and not is_long else j / lanes
            all_strips = n * g * i * row * (multiplying + packing)
            if best[0] == 0 and scale * (all_strips + least_moved) / threads > best[1] * _SURELY:
                continue
            # the longest strips first: they are usually the cheapest, so that more candidates are skipped
            for number in range(len(strips_of) - 1, -1, -1):
                images, rows, cols = strips_of[number]
                strips, copying, field = counted[number]
                if images > 1 and pixels != PACKED:
                    continue
                least = scale * (all_strips + strips * (copying + start_item)) / threads
                if best[0] == 0 and least > best[1] * _SURELY:
                    continue
                pitch = (cols + reach[1]) if copies and pixels == FLAT else cols
                count = images * rows * pitch - (pitch - cols)
                if pixels != BY_ROWS:
                    vectors = _vectors(count, lanes, width, tile, model)
                elif tile and -(-cols // lanes) % width:
                    continue  # its register tiles would write into the next row's sums
                else:
                    vectors = rows * _vectors(cols, lanes, width, tile, model)
                moved = taps * c * vectors * model.pack_vector * (pixels == PACKED) + copying
                least = scale * strips * (vectors * multiplying + moved + start_item) / threads
                if best[0] == 0 and least > best[1] * _SURELY:
                    continue
                is_line = is_summed_there
                if pixels == BY_ROWS:
                    room = rows * -(-cols // lanes) + width
                    placed = vectors - is_line * rows * (cols // lanes // width * width)
                else:
                    room = -(-count // lanes) + width
                    is_line &= images == 1 and pitch == cols
                    placed = vectors - is_line * (count // lanes // width * width)
                placing = model.store_rest if is_line else model.store_sums
                of_field = max(0, copies * field * itemsize - most_tile)
                # the least cost of all results: for the register tiles of all strips, and for the copies of a work item
                of_result = taps * c * (vectors * slowness[tile] + fetching) + load_sums * blocks * vectors
                of_tiles = scale * strips * tiles_k * height * (of_result + placing * placed) / threads
                of_copies = scale * strips * (moved + start_item) / threads
                for results in counts:
                    parts = -(-tiles_k // results)
                    if best[0] == 0 and of_tiles + parts * of_copies > best[1] * _SURELY:
                        break  # fewer results are more work items
                    sums = results * height * room * lanes
                    excess = of_field + max(0, sums * itemsize - most_sums)
                    multiplied = taps * c * vectors * results * height * slowness[tile]
                    put = placing * results * height * placed
                    summed = load_sums * blocks * results * height * vectors
                    one = multiplied + summed + moved + taps * c * results * height * fetching + put + start_item
                    pieces = strips * parts
                    # some threads are idle while others do the last work items
                    cost = scale * one * -(-pieces // threads)
                    found = excess, cost, tile, pixels, number, -results
                    if found < best:
                        best = found
                        cut = Cut(excess, cost, images, rows, cols, results * height, pixels, tile, sums)
    return cut


def _best_by_results(
    layout: Layout, itemsize: int, extents: tuple[int, ...], phases: tuple[tuple[int, int], ...],
    apart: tuple[int, int], reach: tuple[int, int], planes: int, block_c: int, copies: bool, is_line: bool,
    shares: bool, packing: float, placing: float, threads: int, model: CostModel,
) -> Cut:  # fmt: skip
    """The same with channel lanes, for `phases` (taps, columns) whose sums are interleaved with the strides `apart`.

    `is_line`: a strip of whole rows is read as one line; `shares`: as `Vectors.of`. For a vector of results, packing
    the weight costs `packing`, and storing a vector of sums costs `placing`.
    """
    n, g, c, k, i, j = extents
    most_tile, most_sums, start_item = model.padded_tile_bytes, model.sums_bytes, model.start_item
    scale = model.channel_lanes_padded if copies else model.channel_lanes_in_place
    lanes, blocks, tiles_k, planes = layout.lanes, -(-c // block_c), -(-k // layout.lanes), planes * block_c
    counts, kinds, numbers = _vectors_of_pieces(k, layout, shares, model)
    cheapest = min(each for vectors in kinds for _, each, _ in vectors.kinds)
    # the least cost of all strips for their pixels, and the cost of each besides that and its copy
    of_rows = sum(min(j, most) * (taps * c * cheapest + blocks * model.call_pixel) for taps, most in phases)
    all_strips = tiles_k * n * g * i * (of_rows + j * math.prod(apart) * placing)
    starting = tiles_k * packing + start_item
    best: tuple[Any, ...] = (math.inf, math.inf)
    strips_of = _strips(n, i, j, lanes, model.row_parts, model.strip_vectors)
    for number in range(len(strips_of) - 1, -1, -1):
        images, rows, cols = strips_of[number]
        strips = -(-n // images) * g * -(-i // rows) * -(-j // cols)
        field = planes * images * (rows + reach[0]) * (cols + reach[1])
        moved = copies * c * field / block_c / lanes * model.pad_vector
        if best[0] == 0 and scale * (all_strips + strips * (moved + starting)) / threads > best[1] * _SURELY:
            continue
        pixels = images * rows * cols * math.prod(apart)
        called, summed = 0.0, []
        for taps, most in phases:
            run, runs = (rows * cols, images) if is_line and cols == j else (min(cols, most), images * rows)
            spans = -(-run // layout.span)
            called += blocks * runs * (spans * model.call + run * model.call_pixel)
            summed.append((taps * c * runs * spans, run / spans))
        multiplied = [sum([sums * vectors.cost(count) for sums, count in summed]) for vectors in kinds]
        of_field = max(0, copies * field * itemsize - most_tile)
        for results, kind in zip(counts, numbers, strict=True):
            sums = results * lanes * -(-pixels // lanes) * lanes
            excess = of_field + max(0, sums * itemsize - most_sums)
            one = results * (multiplied[kind] + called + pixels * placing + packing) + moved
            pieces = strips * -(-tiles_k // results)
            cost = scale * (one + start_item) * -(-pieces // threads)
            found = excess, cost, number, -results
            if found < best:
                best = found
                cut = Cut(excess, cost, images, rows, cols, results * lanes, PACKED, 0, sums)
    return cut


@functools.lru_cache(512)
def _vectors_of_pieces(
    k: int, layout: Layout, shares: bool, model: CostModel
) -> tuple[list[int], list[Vectors], list[int]]:
    """Vectors of results that a work item may have, the most first; their kinds; the number of the kind of each."""
    tiles_k = -(-k // layout.lanes)
    parts = (*range(1, min(tiles_k, 16) + 1), *(2**e for e in range(5, tiles_k.bit_length())))
    counts = sorted({-(-tiles_k // part) for part in parts}, reverse=True)
    vectors_of = [Vectors.of(min(k, results * layout.lanes), layout, shares, model) for results in counts]
    kinds = list(dict.fromkeys(vectors_of))
    return counts, kinds, [kinds.index(vectors) for vectors in vectors_of]


@functools.lru_cache(512)
def _tiles_of_pieces(tiles_k: int) -> list[int]:
    """Register tiles of results that a work item may have, the most first."""
    return list(dict.fromkeys(-(-tiles_k // parts) for parts in range(1, min(tiles_k, 16) + 1)))


@functools.lru_cache(maxsize=1024)
def best(by_results: bool, *problem: Any) -> Cut:
    """The cheapest blocking, with channel lanes (`by_results`) or with pixel lanes.

    Cached, as the phases of a transposed convolution may ask for the same a thousand times.
    """
    return (_best_by_results if by_results else _best_by_pixels)(*problem)


def _vectors(pixels: int, lanes: int, width: int, tile: int, model: CostModel) -> float:
    """The vectors of a line of pixels; a vector that is alone in its register tile counts for more."""
    vectors = -(-pixels // lanes)
    return -(-vectors // width) * width if tile else vectors + (model.single_pixel_vector - 1) * (vectors % width == 1)


def strip_rows(phases: Sequence[Phase], lanes: int, model: CostModel) -> int:
    """The most rows of outputs of a strip that is not whole images."""
    return _strip_rows(max(phase.cols.outputs for phase in phases), lanes, model.strip_vectors)


def _strip_rows(cols: int, lanes: int, most: int) -> int:
    return max(1, most * lanes // cols)


@functools.lru_cache(512)
def _strips(n: int, i: int, j: int, lanes: int, parts: tuple[int, ...], most: int) -> list[tuple[int, int, int]]:
    """The strips (images, rows, columns) of at most `most` vectors to try: a part of a row if rows are long, else some
    rows, or some images."""
    if j > parts[-1] * lanes:
        lengths = sorted({even(v * lanes, j) for v in parts})
        return [(1, 1, -(-cols // lanes) * lanes) for cols in lengths]
    some_rows = _even_lengths(1, min(i, _strip_rows(j, lanes, most)), i)
    some_images = _even_lengths(2, min(n, most * lanes // (i * j)), n)
    return [*((1, rows, j) for rows in some_rows), *((images, i, j) for images in some_images)]


def _even_lengths(least: int, most: int, extent: int) -> list[int]:
    """The lengths from `least` to `most` that `even` can give for `extent`, in rising order."""
    found: list[int] = []
    while most >= least:
        pieces = -(-extent // most)
        found.append(-(-extent // pieces))
        most = found[-1] - 1
    return found[::-1]
