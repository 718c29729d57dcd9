"""How a correlation is cut into pieces of work for engines that multiply tiles: the cheapest way by a model."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from fastconv.backends.contract import Layout, Plan
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


def even(most: int, extent: int) -> int:
    """The length that cuts `extent` into the fewest pieces of at most `most` (at least 1), as equal as can be."""
    pieces = -(-extent // max(1, min(most, extent)))
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
        return sum(vectors * max(each * count, least) for vectors, each, least in self.kinds) / self.number


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


class Way(NamedTuple):
    """A way to compute: what it costs, as that of a `Cut`, and what makes its plans."""

    excess: int
    cost: float
    plans: Callable[[], list[Plan]]


def _all(
    layout: Layout, itemsize: int, extents: tuple[int, ...], taps: int, reach: tuple[int, int], planes: int,
    block_c: int, copies: bool, shared: int, is_whole: bool, is_summed_there: bool, fetching: float, threads: int,
) -> Iterator[Cut]:  # fmt: skip
    """The ways to cut a correlation of `extents` (n, g, c, k, i, j), whose channels come in blocks of `block_c`.

    The cost is that of the thread with the most pieces. It counts what the tiles multiply, pixels and results that
    nobody wants included, the copies, of which phases have a `shared` one, and the weight, which each piece reads anew.
    `is_summed_there`: where a line of
    sums is a line of the output, whole tiles are summed in it, and need no copy.
    `fetching`: the cost of an element of the weight when it is read for the first time.
    """
    n, g, c, k, i, j = extents
    lanes, blocks, planes = layout.lanes, -(-c // block_c), planes * block_c
    slowness = (*_SLOWNESS[:2], _ONE_ROW) if copies and layout.pipes > 1 else _SLOWNESS
    for tile, (height, width) in enumerate(layout.tiles):
        tiles_k = -(-k // height)
        for pixels in (FLAT, PACKED, BY_ROWS):
            if pixels != PACKED and not copies and not (is_whole and pixels == FLAT):
                continue  # only a field has something to read beside its rows
            for images, rows, cols in _strips(n, i, j, lanes, pixels == PACKED):
                field = planes * images * (rows + reach[0]) * (cols + reach[1])
                pitch = (cols + reach[1]) if copies and pixels == FLAT else cols
                if pixels == BY_ROWS and tile and -(-cols // lanes) % width:
                    continue  # its tiles would reach into the next row's sums
                is_line = is_summed_there
                if pixels == BY_ROWS:
                    vectors = rows * _vectors(cols, lanes, width, tile)
                    room = rows * -(-cols // lanes) + width
                    placed = vectors - is_line * rows * (cols // lanes // width * width)
                else:
                    count = images * rows * pitch - (pitch - cols)
                    vectors = _vectors(count, lanes, width, tile)
                    room = -(-count // lanes) + width
                    is_line &= images == 1 and pitch == cols
                    placed = vectors - is_line * (count // lanes // width * width)
                strips = -(-n // images) * g * -(-i // rows) * -(-j // cols)
                for parts in range(1, min(tiles_k, 16) + 1):
                    results = -(-tiles_k // parts)
                    sums = results * height * room * lanes
                    excess = max(0, copies * field * itemsize - FIELD) + max(0, sums * itemsize - SUMS)
                    multiplied = taps * c * vectors * results * height * slowness[tile]
                    moved = (
                        taps * c * vectors * _PACKING * (pixels == PACKED)
                        + copies * c * field / planes / lanes * 4 / shared
                    )
                    put = (_PLACING if is_line else _PLACING_ALL) * results * height * placed
                    summed = _SUMMING * blocks * results * height * vectors
                    one = multiplied + summed + moved + taps * c * results * height * fetching + put + _STARTING
                    pieces = strips * -(-tiles_k // results)
                    # pieces of the last round keep some threads waiting
                    yield Cut(
                        excess, one * -(-pieces // threads), images, rows, cols, results * height, pixels, tile, sums
                    )


def _all_by_results(
    layout: Layout, itemsize: int, extents: tuple[int, ...], phases: tuple[tuple[int, int], ...],
    apart: tuple[int, int], reach: tuple[int, int], planes: int, block_c: int, copies: bool, is_line: bool,
    shares: bool, packing: float, placing: float, threads: int,
) -> Iterator[Cut]:  # fmt: skip
    """The same where tiles have a lane for each result, for `phases` (taps, columns) whose sums are so far `apart`.

    `is_line`: a strip of whole rows is read as one line; `shares`: as `Vectors.of`. For as many results as a register
    has lanes, transposing the weight costs `packing`, and a vector of their sums costs `placing` until it is where it
    belongs.
    """
    n, g, c, k, i, j = extents
    lanes, blocks, tiles_k, planes = layout.lanes, -(-c // block_c), -(-k // layout.lanes), planes * block_c
    parts = (*range(1, min(tiles_k, 16) + 1), *(2**e for e in range(5, tiles_k.bit_length())))
    # vectors of results of a piece: what those of the largest piece cost
    counts = {-(-tiles_k // part) for part in parts}
    vectors_of = {
        results: Vectors.of(min(k, results * lanes), layout, shares) for results in sorted(counts, reverse=True)
    }
    for images, rows, cols in _strips(n, i, j, lanes, True):
        field = planes * images * (rows + reach[0]) * (cols + reach[1])
        pixels = images * rows * cols * math.prod(apart)
        called, multiplied = 0.0, dict.fromkeys(vectors_of.values(), 0.0)
        for taps, most in phases:
            run, runs = (rows * cols, images) if is_line and cols == j else (min(cols, most), images * rows)
            spans = -(-run // layout.span)
            for vectors in multiplied:
                multiplied[vectors] += taps * c * runs * spans * vectors.cost(run / spans)
            called += blocks * runs * (spans * _CALLING + 2 * run)
        moved = copies * c * field / block_c / lanes * _FILLING
        strips = -(-n // images) * g * -(-i // rows) * -(-j // cols)
        for results, vectors in vectors_of.items():
            sums = results * lanes * -(-pixels // lanes) * lanes
            excess = max(0, copies * field * itemsize - FIELD) + max(0, sums * itemsize - SUMS)
            one = results * (multiplied[vectors] + called + pixels * placing + packing) + moved
            pieces = strips * -(-tiles_k // results)
            cost = (one + _STARTING) * -(-pieces // threads)
            yield Cut(excess, cost, images, rows, cols, results * lanes, PACKED, 0, sums)


@functools.lru_cache(maxsize=1024)
def best(by_results: bool, *problem: Any) -> Cut:
    """The cheapest way to cut, with a lane for each result or for each pixel.

    The phases of a transposed convolution ask for the same a thousand times.
    """
    return min((_all_by_results if by_results else _all)(*problem), key=lambda cut: cut[:2])


def _vectors(pixels: int, lanes: int, width: int, tile: int) -> float:
    """The vectors of a line, and what one costs more that is alone in its tile."""
    vectors = -(-pixels // lanes)
    return -(-vectors // width) * width if tile else vectors + (_NARROW - 1) * (vectors % width == 1)


def strip_rows(phases: Sequence[Phase], lanes: int) -> int:
    """The most rows of outputs of a strip that is not whole images."""
    return _strip_rows(max(phase.cols.outputs for phase in phases), lanes)


def _strip_rows(cols: int, lanes: int) -> int:
    return max(1, _STRIP * lanes // cols)


def _strips(n: int, i: int, j: int, lanes: int, is_packed: bool) -> Iterator[tuple[int, int, int]]:
    """(images, rows, columns) of a strip: parts of a row where rows are long, some rows, or some images."""
    if j > 64 * lanes:
        for cols in sorted({even(v * lanes, j) for v in (24, 48, 64)}):
            yield 1, 1, -(-cols // lanes) * lanes
        return
    for rows in sorted({even(r, i) for r in range(1, min(i, _strip_rows(j, lanes)) + 1)}):
        yield 1, rows, j
    if is_packed:
        for images in sorted({even(m, n) for m in range(2, n + 1) if m * i * j <= _STRIP * lanes}):
            yield images, i, j
