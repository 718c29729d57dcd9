"""A row of sums of a depthwise kernel with a lane for each channel."""

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
    """A row of taps that read neighbouring pixels, so that a row of sums is a band matrix times a row of pixels.

    taps        how many; 0: they are not neighbours, or are too few for `band`
    first, end  the tile's columns inside the source, counted from the column that the first output reads at the first
                tap
    """

    taps: int
    first: int
    end: int


def along_row(
    a: Address, b: Address, offsets: Entries, count: int, bands: TapBand, start: Address, start_step: int,
    sums: Address, step: int, cols: int,
) -> None:  # fmt: skip
    """Sum `count` taps for a row of `cols` outputs.

    `offsets` has for each tap its offset in the packed weight `a` and in the tile `b`. `step` is the stride from one
    output's sums to the next; they begin as the vectors at `start`, whose stride is `start_step`.
    """
    j = 0
    while bands.taps and j < cols:
        is_long = cols - j > BAND_SHORT
        width = BAND_LONG if is_long else BAND_SHORT
        valid, end = min(width, cols - j), min(bands.taps + width - 1, bands.end - j)
        # Whole squares of `width` pixels are read. The excess is before the first pixel that a tap reads, or zeros
        # after the end.
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
