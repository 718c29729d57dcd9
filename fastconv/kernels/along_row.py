"""A row of sums of a depthwise kernel with a lane for each channel."""

from __future__ import annotations

from typing import NamedTuple

from fastconv.kernels.primitives import (
    BAND_LONG,
    BAND_SHORT,
    LANES,
    SIZE,
    Address,
    Entries,
    along,
    along_width,
    band,
    ceil_div,
    move,
)


class TapBand(NamedTuple):
    """Taps of a row that read neighbouring pixels, so that the row of sums is a band matrix times the row of pixels.

    taps        how many; 0: they do not, or are too few
    first, end  the tile's columns inside the source, counted from what the first tap of the first output reads
    """

    taps: int
    first: int
    end: int


def along_row(
    a: Address, b: Address, offsets: Entries, count: int, bands: TapBand, start: Address, start_step: int,
    sums: Address, step: int, cols: int,
) -> None:  # fmt: skip
    """Sum `count` taps, whose offsets in the packed weight a and in the tile b are pairs, for a row of `cols` outputs.

    Sums are `step` elements apart; they begin as the vectors at `start`, which are `start_step` apart.
    """
    j = 0
    while bands.taps and j < cols:
        is_long = cols - j > BAND_SHORT
        width = BAND_LONG if is_long else BAND_SHORT
        valid, end = min(width, cols - j), min(bands.taps + width - 1, bands.end - j)
        # pixels before the first, or behind the last where there is a zero, are linked to no sum
        first = bands.first - j if bands.first > j else end - ceil_div(max(0, end), width) * width
        begin, to = start + j * start_step * SIZE, sums + j * step * SIZE
        if first >= end:
            for v in range(valid):
                move(to + v * step * SIZE, begin + v * start_step * SIZE)
        else:
            band(is_long, a, b + j * LANES * SIZE, offsets, count // bands.taps, bands.taps, first, end, begin,
                 start_step, to, step, valid)  # fmt: skip
        j += width
    while j < cols:
        width = along_width(cols - j)
        along(width, a, b + j * LANES * SIZE, offsets, count, start + j * start_step * SIZE, start_step,
              sums + j * step * SIZE, step)  # fmt: skip
        j += width
