"""Pack taps: copy the source pixels that taps read into a panel, a row for each output pixel."""

from __future__ import annotations

from fastconv.kernels.primitives import LANES, SIZE, Address, Entries, entry, gather, load, store


def pixel_offset(pixel: int, run: int, runs: int, row: int, image: int) -> int:
    """The offset of a strip's pixel in what is read: `runs` runs of `run` pixels an image, `row` and `image` apart."""
    number = pixel // run
    return number // runs * image + number % runs * row + pixel - number * run


def pack_taps(
    tables: Entries, taps_table: int, base: Address, taps: int, panel: Address, pitch: int, first: int, last: int,
    run: int, runs: int, row: int, image: int, limit: Address, furthest: int,
) -> None:  # fmt: skip
    """Rows of `taps` taps, one for each pixel first <= pixel < last of a strip; rows are `pitch` apart.

    Nothing at `limit` or beyond is read; `furthest` is the largest offset of a tap.
    """
    # a vector of taps after the other: rows a power of two apart are in one set of a cache, which holds no more
    for t in range(0, taps, LANES):
        pixel = first
        while pixel < last:
            source = base + pixel_offset(pixel, run, runs, row, image) * SIZE
            target = panel + ((pixel - first) * pitch + t) * SIZE
            length = min(run - pixel % run, last - pixel, LANES)
            if source + (furthest + LANES) * SIZE <= limit:
                gather(source, tables + (taps_table + 2 * t) * 8, target, pitch, length)
            else:
                for lane in range(min(LANES, taps - t)):
                    read = source + entry(tables, taps_table + 2 * (t + lane) + 1) * SIZE
                    for i in range(length):
                        store(load(read + i * SIZE), target + (i * pitch + lane) * SIZE)
            pixel += length
