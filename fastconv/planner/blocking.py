"""The blocking of a correlation for tile engines: the cheapest one by a cost model."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from fastconv.backends.contract import Layout
from fastconv.kernels.abi import BY_ROWS, FLAT, PACKED
from fastconv.planner.cost_model import CostModel
from fastconv.problem.subpixel import Phase

#: A candidate is skipped if a lower bound of its cost exceeds the best cost by this factor, more than by rounding.
_ROUNDING = 1 + 1e-9


def even_block(most: int, extent: int) -> int:
    """Block size that divides `extent` into the fewest blocks of at most `most` (at least 1), as equal as can be."""
    if most >= extent:
        return extent
    blocks = -(-extent // max(1, most))
    return -(-extent // blocks)


class Vectors(NamedTuple):
    """The vectors that some results fill, with a lane for each, and what their register tiles cost.

    number   how many vectors there are
    kinds    for tiles of two vectors, of one, and of half a one, as far as there are any: the number of vectors in
             such tiles, the cost of a multiply-add, and the least cost of a tile
    """

    number: int
    kinds: tuple[tuple[int, float, float], ...]

    @classmethod
    def of(cls, results: int, layout: Layout, shares: bool, model: CostModel) -> "Vectors":
        """The vectors of `results` results; `shares`: neighbouring taps share what they read."""
        number, latency = -(-results // layout.lanes), model.latency
        paired = 0
        if layout.pairs:
            paired, left = divmod(results, 2 * layout.lanes)
            paired += left >= layout.pairs
        alone = number - 2 * paired
        last = results - (number - 1) * layout.lanes
        halves = int(alone > 0 and last <= layout.halves)
        single = model.single_result_vector_sharing if shares else model.single_result_vector
        half = model.half_vector_sharing if shares else model.half_vector
        kinds = (2 * paired, 1, latency / 2), (alone - halves, single, latency), (halves, half, latency)
        return cls(number, tuple(kind for kind in kinds if kind[0]))

    def cost(self, count: float) -> float:
        """Average cost of a vector, in multiply-adds of one, in register tiles with `count` sums for each vector."""
        cost = 0.0
        for vectors, each, least in self.kinds:
            cost += vectors * max(each * count, least)
        return cost / self.number


class Blocking(NamedTuple):
    """The blocking of a correlation, and its cost in multiply-adds of a vector.

    `pixel_order` is one of `abi.FLAT`, `PACKED` and `BY_ROWS`, `register_tile` a number in `Layout.tiles`, `sums` the
    elements of a work item's sums. With channel lanes there is only one pixel order and one tile.
    """

    excess: int  # bytes of workspace beyond the limit
    cost: float
    images: int
    rows: int
    cols: int
    results: int
    pixel_order: int
    register_tile: int
    sums: int


def _cheapest_with_pixel_lanes(
    layout: Layout, itemsize: int, extents: tuple[int, ...], taps: int, halo: tuple[int, int], planes: int,
    block_c: int, is_padded: bool, shared: int, is_whole: bool, sums_in_output: bool, fetching: float, copying: float,
    threads: int, model: CostModel,
) -> Blocking:  # fmt: skip
    """The cheapest blocking with pixel lanes of a correlation of `extents` (n, g, c, k, i, j), with blocks of `block_c`
    channels.

    The cost is that of the thread with the most work items: the multiply-adds of the register tiles, wasted lanes and
    rows included; the copies, where `shared` phases use one padded tile; and the weight, which each work item reads
    anew. `sums_in_output`: if a line of sums is a line of the output, full register tiles add to the output itself and
    need no copy. `fetching`: the cost of reading an element of the weight for the first time; `copying`: that of
    copying a vector of the source into a padded tile.

    A candidate is skipped if a lower bound of its cost, as if threads shared the work items equally, exceeds the best.
    """
    n, g, c, k, i, j = extents
    lanes, blocks, planes = layout.lanes, -(-c // block_c), planes * block_c
    most_tile_bytes, most_sums_bytes = model.padded_tile_bytes, model.sums_bytes
    load_sums, start_item = model.load_sums, model.start_item
    scale = model.pixel_lanes_padded if is_padded else model.pixel_lanes_in_place
    slowness = (*model.tile_multiply_add[:2], model.one_row_padded) if is_padded else model.tile_multiply_add
    strips_of = _strips(n, i, j, lanes, model.row_parts, model.strip_vectors)
    is_long = strips_of[0][2] < j
    # of each kind of strip: how many there are, what copying one costs, and the elements of its padded tile
    counted = []
    for images, rows, cols in strips_of:
        tile_elements = planes * images * (rows + halo[0]) * (cols + halo[1])
        filling = is_padded * c * tile_elements / planes / lanes * copying / shared
        counted.append((-(-n // images) * g * -(-i // rows) * -(-j // cols), filling, tile_elements))
    least_moved = min(strips * (filling + start_item) for strips, filling, _ in counted)
    best: tuple[Any, ...] = (math.inf, math.inf)
    for tile, (height, width) in enumerate(layout.tiles):
        tiles_k = -(-k // height)
        counts = _tiles_of_items(tiles_k)
        for order in (FLAT, PACKED, BY_ROWS):
            if order != PACKED and not is_padded and not (is_whole and order == FLAT):
                continue  # only a padded tile has space to read behind its rows
            multiplying = tiles_k * height * (taps * c * slowness[tile] + load_sums * blocks)
            packing = taps * c * model.pack_vector * (order == PACKED)
            row = -(-j // lanes) if order == BY_ROWS and not is_long else j / lanes
            all_strips = n * g * i * row * (multiplying + packing)
            if best[0] == 0 and scale * (all_strips + least_moved) / threads > best[1] * _ROUNDING:
                continue
            # the longest strips first: they are usually the cheapest, so that more candidates are skipped
            for number in range(len(strips_of) - 1, -1, -1):
                images, rows, cols = strips_of[number]
                strips, filling, tile_elements = counted[number]
                if images > 1 and order != PACKED:
                    continue
                least = scale * (all_strips + strips * (filling + start_item)) / threads
                if best[0] == 0 and least > best[1] * _ROUNDING:
                    continue
                pitch = (cols + halo[1]) if is_padded and order == FLAT else cols
                count = images * rows * pitch - (pitch - cols)
                if order != BY_ROWS:
                    vectors = _vectors(count, lanes, width, tile, model)
                elif tile and -(-cols // lanes) % width:
                    continue  # its register tiles would write into the next row's sums
                else:
                    vectors = rows * _vectors(cols, lanes, width, tile, model)
                moved = taps * c * vectors * model.pack_vector * (order == PACKED) + filling
                least = scale * strips * (vectors * multiplying + moved + start_item) / threads
                if best[0] == 0 and least > best[1] * _ROUNDING:
                    continue
                is_line = sums_in_output
                if order == BY_ROWS:
                    sums_vectors = rows * -(-cols // lanes) + width
                    stored = vectors - is_line * rows * (cols // lanes // width * width)
                else:
                    sums_vectors = -(-count // lanes) + width
                    is_line &= images == 1 and pitch == cols
                    stored = vectors - is_line * (count // lanes // width * width)
                storing = model.store_rest if is_line else model.store_sums
                tile_excess = max(0, is_padded * tile_elements * itemsize - most_tile_bytes)
                # the least cost of all results: for the register tiles of all strips, and for the copies of a work item
                of_result = taps * c * (vectors * slowness[tile] + fetching) + load_sums * blocks * vectors
                of_tiles = scale * strips * tiles_k * height * (of_result + storing * stored) / threads
                of_copies = scale * strips * (moved + start_item) / threads
                for results in counts:
                    parts = -(-tiles_k // results)
                    if best[0] == 0 and of_tiles + parts * of_copies > best[1] * _ROUNDING:
                        break  # fewer results are more work items
                    sums = results * height * sums_vectors * lanes
                    excess = tile_excess + max(0, sums * itemsize - most_sums_bytes)
                    multiplied = taps * c * vectors * results * height * slowness[tile]
                    storing_all = storing * results * height * stored
                    summed = load_sums * blocks * results * height * vectors
                    fetched = taps * c * results * height * fetching
                    item_cost = multiplied + summed + moved + fetched + storing_all + start_item
                    items = strips * parts
                    # some threads are idle while others do the last work items
                    cost = scale * item_cost * -(-items // threads)
                    found = excess, cost, tile, order, number, -results
                    if found < best:
                        best = found
                        chosen = Blocking(excess, cost, images, rows, cols, results * height, order, tile, sums)
    return chosen


def _cheapest_with_channel_lanes(
    layout: Layout, itemsize: int, extents: tuple[int, ...], phases: tuple[tuple[int, int], ...],
    out_stride: tuple[int, int], halo: tuple[int, int], planes: int, block_c: int, is_padded: bool, is_line: bool,
    shares: bool, packing: float, storing: float, copying: float, threads: int, model: CostModel,
) -> Blocking:  # fmt: skip
    """The same with channel lanes, for `phases` (taps, columns) whose sums have the strides `out_stride`.

    `is_line`: a strip of whole rows is read as one line; `shares`: as `Vectors.of`. For a vector of results, packing
    the weight costs `packing`, and storing a vector of sums costs `storing`. `copying`: as with pixel lanes.
    """
    n, g, c, k, i, j = extents
    most_tile_bytes, most_sums_bytes, start_item = model.padded_tile_bytes, model.sums_bytes, model.start_item
    scale = model.channel_lanes_padded if is_padded else model.channel_lanes_in_place
    lanes, blocks, tiles_k, planes = layout.lanes, -(-c // block_c), -(-k // layout.lanes), planes * block_c
    counts, kinds, numbers = _vectors_of_items(k, layout, shares, model)
    cheapest = min(each for vectors in kinds for _, each, _ in vectors.kinds)
    # the least cost of all strips for their pixels, and the cost of each besides that and its copy
    of_rows = sum(min(j, most) * (taps * c * cheapest + blocks * model.call_pixel) for taps, most in phases)
    all_strips = tiles_k * n * g * i * (of_rows + j * math.prod(out_stride) * storing)
    starting = tiles_k * packing + start_item
    best: tuple[Any, ...] = (math.inf, math.inf)
    strips_of = _strips(n, i, j, lanes, model.row_parts, model.strip_vectors)
    for number in range(len(strips_of) - 1, -1, -1):
        images, rows, cols = strips_of[number]
        strips = -(-n // images) * g * -(-i // rows) * -(-j // cols)
        tile_elements = planes * images * (rows + halo[0]) * (cols + halo[1])
        moved = is_padded * c * tile_elements / block_c / lanes * copying
        if best[0] == 0 and scale * (all_strips + strips * (moved + starting)) / threads > best[1] * _ROUNDING:
            continue
        pixels = images * rows * cols * math.prod(out_stride)
        called, summed = 0.0, []
        for taps, most in phases:
            run, runs = (rows * cols, images) if is_line and cols == j else (min(cols, most), images * rows)
            spans = -(-run // layout.span)
            called += blocks * runs * (spans * model.call + run * model.call_pixel)
            summed.append((taps * c * runs * spans, run / spans))
        multiplied = [sum([sums * vectors.cost(count) for sums, count in summed]) for vectors in kinds]
        tile_excess = max(0, is_padded * tile_elements * itemsize - most_tile_bytes)
        for results, kind in zip(counts, numbers, strict=True):
            sums = results * lanes * -(-pixels // lanes) * lanes
            excess = tile_excess + max(0, sums * itemsize - most_sums_bytes)
            item_cost = results * (multiplied[kind] + called + pixels * storing + packing) + moved
            items = strips * -(-tiles_k // results)
            cost = scale * (item_cost + start_item) * -(-items // threads)
            found = excess, cost, number, -results
            if found < best:
                best = found
                chosen = Blocking(excess, cost, images, rows, cols, results * lanes, PACKED, 0, sums)
    return chosen


@functools.lru_cache(512)
def _vectors_of_items(
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
def _tiles_of_items(tiles_k: int) -> list[int]:
    """Register tiles of results that a work item may have, the most first."""
    return list(dict.fromkeys(-(-tiles_k // parts) for parts in range(1, min(tiles_k, 16) + 1)))


@functools.lru_cache(maxsize=1024)
def cheapest_blocking(channel_lanes: bool, *problem: Any) -> Blocking:
    """The cheapest blocking, with channel lanes (`channel_lanes`) or with pixel lanes.

    Cached, as the phases of a transposed convolution may need the same a thousand times.
    """
    return (_cheapest_with_channel_lanes if channel_lanes else _cheapest_with_pixel_lanes)(*problem)


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
        lengths = sorted({even_block(v * lanes, j) for v in parts})
        return [(1, 1, -(-cols // lanes) * lanes) for cols in lengths]
    some_rows = _even_lengths(1, min(i, _strip_rows(j, lanes, most)), i)
    some_images = _even_lengths(2, min(n, most * lanes // (i * j)), n)
    return [*((1, rows, j) for rows in some_rows), *((images, i, j) for images in some_images)]


def _even_lengths(least: int, most: int, extent: int) -> list[int]:
    """The lengths from `least` to `most` that `even_block` can give for `extent`, in rising order."""
    found: list[int] = []
    while most >= least:
        blocks = -(-extent // most)
        found.append(-(-extent // blocks))
        most = found[-1] - 1
    return found[::-1]
