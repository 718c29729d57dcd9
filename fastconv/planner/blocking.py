"""How a correlation is cut into pieces of work for engines that multiply tiles: the cheapest way by a model."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from fastconv.backends.contract import Layout
from fastconv.kernels.abi import BY_ROWS, FLAT, PACKED
from fastconv.problem.subpixel import Phase

#: Bytes, at most, of the parts of a thread's workspace; a single row of taps may take more.
FIELD, SUMS = 2**19, 3 * 2**18
#: Pieces of a weight's gradient, about. Not the number of threads: sums are formed alike whoever forms them.
PIECES = 8
#: The cost of moving a vector of one tap into a panel, in multiply-adds of a vector.
_PACKING = 6.0
#: The cost of a vector of a field, in the same unit: memory brings it.
_FILLING = 10.0
#: What a multiply-add of half a vector takes, of that of a whole one, where a processor takes two steps for that: as
#: much is loaded for it. And what one takes, where it does not, in a tile of a single vector of results, which waits
#: for its loads. With True, where taps that are neighbours share them.
_HALF, _ALONE = {False: 0.62, True: 0.55}, {False: 1.25, True: 1.03}
#: What a multiply-add costs in each of the tiles; that of one row waits for its loads, of which each has one, as does
#: one vector of many rows. Where two are started at once it waits for as long, which are more of them; not where the
#: source is read as it is: memory is quicker with its long runs.
_SLOWNESS, _ONE_ROW = (1.03, 1.03, 1.75), 2.8
_NARROW = 1.6
#: The fewest multiply-adds at once that hide the latency of one, for each that is started in a turn; and what calling a
#: span costs beside its multiply-adds.
_LEAST, _CALLING = 4.5, 15
#: The cost of loading and storing a vector of a tile's sums, with its part of the call.
_SUMMING = 5.0
#: That of placing a vector of sums behind others that were summed in the output, and where none was: all of a piece go
#: there at once then.
_PLACING, _PLACING_ALL = 4.0, 7.0
#: Vectors of outputs of a strip, at most, unless a row is longer.
_STRIP = 96
#: What a piece of work costs beside its tiles, in the same unit.
_STARTING = 3000
#: How much more than the best one a bound from below must be so that rounding cannot have made it so.
_SURELY = 1 + 1e-9


def even(most: int, extent: int) -> int:
    """The length that cuts `extent` into the fewest pieces of at most `most` (at least 1), as equal as can be."""
    if most >= extent:
        return extent
    pieces = -(-extent // max(1, most))
    return -(-extent // pieces)


class Vectors(NamedTuple):
    """The vectors of so many results, and what their tiles cost.

    number   how many there are
    kinds    for those of two vectors, of one, and of half a one, if there are any: how many vectors they have, what a
             multiply-add takes, and a tile at least
    """

    number: int
    kinds: tuple[tuple[int, float, float], ...]

    @classmethod
    def of(cls, results: int, layout: Layout, shares: bool) -> Vectors:
        """Those of tiles with a lane for each result; `shares`: taps that are neighbours share what they read."""
        number, latency = -(-results // layout.lanes), _LEAST * layout.pipes
        paired = 0
        if layout.pairs:
            paired, left = divmod(results, 2 * layout.lanes)
            paired += left >= layout.pairs
        alone = number - 2 * paired
        last = results - (number - 1) * layout.lanes
        halves = int(alone > 0 and last <= layout.halves)
        waiting = _ALONE[shares] if layout.pipes > 1 else 1
        kinds = (2 * paired, 1, latency / 2), (alone - halves, waiting, latency), (halves, _HALF[shares], latency)
        return cls(number, tuple(kind for kind in kinds if kind[0]))

    def cost(self, count: float) -> float:
        """What a vector costs on average in tiles of `count` sums for each, in multiply-adds of a vector."""
        cost = 0.0
        for vectors, each, least in self.kinds:
            cost += vectors * max(each * count, least)
        return cost / self.number


class Cut(NamedTuple):
    """How a correlation is cut into pieces of work, and what that costs, in multiply-adds of a vector.

    Where a tile has a lane for each result, there is but one way how pixels may lie, and one tile.
    """

    excess: int  # bytes of workspace beyond what there should be
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
) -> Cut:  # fmt: skip
    """The cheapest way to cut a correlation of `extents` (n, g, c, k, i, j), whose channels come in blocks of
    `block_c`.

    The cost is that of the thread with the most pieces. It counts what the tiles multiply, pixels and results that
    nobody wants included, the copies, of which phases have a `shared` one, and the weight, which each piece reads anew.
    `is_summed_there`: where a line of sums is a line of the output, whole tiles are summed in it, and need no copy.
    `fetching`: the cost of an element of the weight when it is read for the first time.

    Whatever cannot be cheaper than the best one so far, whose pieces would have to be shared equally among threads, is
    left out.
    """
    n, g, c, k, i, j = extents
    lanes, blocks, planes = layout.lanes, -(-c // block_c), planes * block_c
    slowness = (*_SLOWNESS[:2], _ONE_ROW) if copies and layout.pipes > 1 else _SLOWNESS
    strips_of = _strips(n, i, j, lanes)
    is_long = strips_of[0][2] < j
    # of each kind of strip: how many there are, what copying one costs, and the elements of its field
    counted = []
    for images, rows, cols in strips_of:
        field = planes * images * (rows + reach[0]) * (cols + reach[1])
        copying = copies * c * field / planes / lanes * 4 / shared
        counted.append((-(-n // images) * g * -(-i // rows) * -(-j // cols), copying, field))
    least_moved = min(strips * (copying + _STARTING) for strips, copying, _ in counted)
    best: tuple[Any, ...] = (math.inf, math.inf)
    for tile, (height, width) in enumerate(layout.tiles):
        tiles_k = -(-k // height)
        counts = _tiles_of_pieces(tiles_k)
        for pixels in (FLAT, PACKED, BY_ROWS):
            if pixels != PACKED and not copies and not (is_whole and pixels == FLAT):
                continue  # only a field has something to read beside its rows
            multiplying = tiles_k * height * (taps * c * slowness[tile] + _SUMMING * blocks)
            packing = taps * c * _PACKING * (pixels == PACKED)
            row = -(-j // lanes) if pixels == BY_ROWS and not is_long else j / lanes
            all_strips = n * g * i * row * (multiplying + packing)
            if best[0] == 0 and (all_strips + least_moved) / threads > best[1] * _SURELY:
                continue
            # the longest strips are the cheapest as a rule; of equal ones the first counts
            for number in range(len(strips_of) - 1, -1, -1):
                images, rows, cols = strips_of[number]
                strips, copying, field = counted[number]
                if images > 1 and pixels != PACKED:
                    continue
                if best[0] == 0 and (all_strips + strips * (copying + _STARTING)) / threads > best[1] * _SURELY:
                    continue
                pitch = (cols + reach[1]) if copies and pixels == FLAT else cols
                count = images * rows * pitch - (pitch - cols)
                if pixels != BY_ROWS:
                    vectors = _vectors(count, lanes, width, tile)
                elif tile and -(-cols // lanes) % width:
                    continue  # its tiles would reach into the next row's sums
                else:
                    vectors = rows * _vectors(cols, lanes, width, tile)
                moved = taps * c * vectors * _PACKING * (pixels == PACKED) + copying
                least = strips * (vectors * multiplying + moved + _STARTING) / threads
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
                placing = _PLACING if is_line else _PLACING_ALL
                of_field = max(0, copies * field * itemsize - FIELD)
                # what all results cost at least for the tiles of all strips, and for the copies of each work item
                of_result = taps * c * (vectors * slowness[tile] + fetching) + _SUMMING * blocks * vectors
                of_tiles = strips * tiles_k * height * (of_result + placing * placed) / threads
                of_copies = strips * (moved + _STARTING) / threads
                for results in counts:
                    parts = -(-tiles_k // results)
                    if best[0] == 0 and of_tiles + parts * of_copies > best[1] * _SURELY:
                        break  # fewer results are more work items
                    sums = results * height * room * lanes
                    excess = of_field + max(0, sums * itemsize - SUMS)
                    multiplied = taps * c * vectors * results * height * slowness[tile]
                    put = placing * results * height * placed
                    summed = _SUMMING * blocks * results * height * vectors
                    one = multiplied + summed + moved + taps * c * results * height * fetching + put + _STARTING
                    pieces = strips * parts
                    # pieces of the last round keep some threads waiting
                    cost = one * -(-pieces // threads)
                    found = excess, cost, tile, pixels, number, -results
                    if found < best:
                        best = found
                        cut = Cut(excess, cost, images, rows, cols, results * height, pixels, tile, sums)
    return cut


def _best_by_results(
    layout: Layout, itemsize: int, extents: tuple[int, ...], phases: tuple[tuple[int, int], ...],
    apart: tuple[int, int], reach: tuple[int, int], planes: int, block_c: int, copies: bool, is_line: bool,
    shares: bool, packing: float, placing: float, threads: int,
) -> Cut:  # fmt: skip
    """The same where tiles have a lane for each result, for `phases` (taps, columns) whose sums are so far `apart`.

    `is_line`: a strip of whole rows is read as one line; `shares`: as `Vectors.of`. For as many results as a register
    has lanes, transposing the weight costs `packing`, and a vector of their sums costs `placing` until it is where it
    belongs.
    """
    n, g, c, k, i, j = extents
    lanes, blocks, tiles_k, planes = layout.lanes, -(-c // block_c), -(-k // layout.lanes), planes * block_c
    counts, kinds, numbers = _vectors_of_pieces(k, layout, shares)
    cheapest = min(each for vectors in kinds for _, each, _ in vectors.kinds)
    # what all strips cost at least for their pixels, and each beside that and its copy
    of_rows = sum(min(j, most) * (taps * c * cheapest + 2 * blocks) for taps, most in phases)
    all_strips = tiles_k * n * g * i * (of_rows + j * math.prod(apart) * placing)
    starting = tiles_k * packing + _STARTING
    best: tuple[Any, ...] = (math.inf, math.inf)
    strips_of = _strips(n, i, j, lanes)
    for number in range(len(strips_of) - 1, -1, -1):
        images, rows, cols = strips_of[number]
        strips = -(-n // images) * g * -(-i // rows) * -(-j // cols)
        field = planes * images * (rows + reach[0]) * (cols + reach[1])
        moved = copies * c * field / block_c / lanes * _FILLING
        if best[0] == 0 and (all_strips + strips * (moved + starting)) / threads > best[1] * _SURELY:
            continue
        pixels = images * rows * cols * math.prod(apart)
        called, summed = 0.0, []
        for taps, most in phases:
            run, runs = (rows * cols, images) if is_line and cols == j else (min(cols, most), images * rows)
            spans = -(-run // layout.span)
            called += blocks * runs * (spans * _CALLING + 2 * run)
            summed.append((taps * c * runs * spans, run / spans))
        multiplied = [sum([sums * vectors.cost(count) for sums, count in summed]) for vectors in kinds]
        of_field = max(0, copies * field * itemsize - FIELD)
        for results, kind in zip(counts, numbers, strict=True):
            sums = results * lanes * -(-pixels // lanes) * lanes
            excess = of_field + max(0, sums * itemsize - SUMS)
            one = results * (multiplied[kind] + called + pixels * placing + packing) + moved
            pieces = strips * -(-tiles_k // results)
            cost = (one + _STARTING) * -(-pieces // threads)
            found = excess, cost, number, -results
            if found < best:
                best = found
                cut = Cut(excess, cost, images, rows, cols, results * lanes, PACKED, 0, sums)
    return cut


@functools.lru_cache(512)
def _vectors_of_pieces(k: int, layout: Layout, shares: bool) -> tuple[list[int], list[Vectors], list[int]]:
    """Vectors of results that a piece may have, the most first; the kinds of them; the number of the kind of each."""
    tiles_k = -(-k // layout.lanes)
    parts = (*range(1, min(tiles_k, 16) + 1), *(2**e for e in range(5, tiles_k.bit_length())))
    counts = sorted({-(-tiles_k // part) for part in parts}, reverse=True)
    vectors_of = [Vectors.of(min(k, results * layout.lanes), layout, shares) for results in counts]
    kinds = list(dict.fromkeys(vectors_of))
    return counts, kinds, [kinds.index(vectors) for vectors in vectors_of]


@functools.lru_cache(512)
def _tiles_of_pieces(tiles_k: int) -> list[int]:
    """Tiles of results that a piece may have, the most first."""
    return list(dict.fromkeys(-(-tiles_k // parts) for parts in range(1, min(tiles_k, 16) + 1)))


@functools.lru_cache(maxsize=1024)
def best(by_results: bool, *problem: Any) -> Cut:
    """The cheapest way to cut, with a lane for each result or for each pixel.

    The phases of a transposed convolution ask for the same a thousand times.
    """
    return (_best_by_results if by_results else _best_by_pixels)(*problem)


def _vectors(pixels: int, lanes: int, width: int, tile: int) -> float:
    """The vectors of a line, and what one costs more that is alone in its tile."""
    vectors = -(-pixels // lanes)
    return -(-vectors // width) * width if tile else vectors + (_NARROW - 1) * (vectors % width == 1)


def strip_rows(phases: Sequence[Phase], lanes: int) -> int:
    """The most rows of outputs of a strip that is not whole images."""
    return _strip_rows(max(phase.cols.outputs for phase in phases), lanes)


def _strip_rows(cols: int, lanes: int) -> int:
    return max(1, _STRIP * lanes // cols)


@functools.lru_cache(512)
def _strips(n: int, i: int, j: int, lanes: int) -> list[tuple[int, int, int]]:
    """(images, rows, columns) of a strip: parts of a row where rows are long, some rows, or some images."""
    if j > 64 * lanes:
        lengths = sorted({even(v * lanes, j) for v in (24, 48, 64)})
        return [(1, 1, -(-cols // lanes) * lanes) for cols in lengths]
    some_rows = _even_lengths(1, min(i, _strip_rows(j, lanes)), i)
    some_images = _even_lengths(2, min(n, _STRIP * lanes // (i * j)), n)
    return [*((1, rows, j) for rows in some_rows), *((images, i, j) for images in some_images)]


def _even_lengths(least: int, most: int, extent: int) -> list[int]:
    """The lengths that `even` gives for all of at least `least` and at most `most`, in rising order."""
    found: list[int] = []
    while most >= least:
        pieces = -(-extent // most)
        found.append(-(-extent // pieces))
        most = found[-1] - 1
    return found[::-1]
