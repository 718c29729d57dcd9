"""Pack a panel: for each tap a row of the pixels that it reads."""

from typing import NamedTuple

from fastconv.kernels.copying import copy_row
from fastconv.kernels.primitives import LANES, SIZE, Address, Entries, move


class Tap(NamedTuple):
    """A row of a table of taps: the tap's offset in the weight, and in the source or padded tile."""

    weight: int
    source: int


def tap_at(tables: Entries, start: int, number: int) -> Tap:
    """Row `number` of the table that starts at entry `start`."""
    raise NotImplementedError


def furthest_tap(taps: Entries, first: int, end: int) -> int:
    """The largest source offset of taps first <= t < end."""
    furthest = 0
    for t in range(first, end):
        tap = tap_at(taps, 0, t)
        furthest = max(furthest, tap.source)
    return furthest


def pack_panel(
    base: Address, taps: Entries, count: int, furthest: int, limit: Address, run: int, runs: int, row: int, image: int,
    panel: Address, pitch: int, first: int, last: int,
) -> None:  # fmt: skip
    """Copy the pixels first <= pixel < last of a strip for each of `count` taps, a row of the panel for each tap.

    An image has `runs` runs of `run` neighbouring pixels. `row`, `image` and `pitch` are the strides from one run,
    image and row of the panel to the next. `furthest` is the largest source offset of a tap. Nothing at `limit` or
    beyond is read.
    """
    pixel = first
    while pixel < last:
        number = pixel // run
        start = pixel - number * run
        length = min(run - start, last - pixel)
        source = base + (number // runs * image + number % runs * row + start) * SIZE
        target = panel + (pixel - first) * SIZE
        # Up to a vector more than the run is copied if it may be read. The next run or row overwrites it.
        if source + (furthest + length + LANES) * SIZE > limit:
            for t in range(count):
                tap = tap_at(taps, 0, t)
                copy_row(target + t * pitch * SIZE, source + tap.source * SIZE, length, 0)
        elif length <= LANES:
            for t in range(count):
                tap = tap_at(taps, 0, t)
                move(target + t * pitch * SIZE, source + tap.source * SIZE)
        elif length <= 2 * LANES:
            for t in range(count):
                tap = tap_at(taps, 0, t)
                move(target + t * pitch * SIZE, source + tap.source * SIZE)
                move(target + (t * pitch + LANES) * SIZE, source + (tap.source + LANES) * SIZE)
        else:
            for t in range(count):
                tap = tap_at(taps, 0, t)
                copy_row(target + t * pitch * SIZE, source + tap.source * SIZE, length, 1)
        pixel += length
