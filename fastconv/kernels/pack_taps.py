"""Pack taps: for each output pixel a row of the pixels that its taps read."""

from fastconv.kernels.primitives import LANES, SIZE, Address, Entries, entry, gather, load, move, move_lanes, store


def pixel_offset(pixel: int, run: int, runs: int, row: int, image: int) -> int:
    """The offset of a strip's pixel in the source or padded tile, see `pack_panel.pack_panel` for the arguments."""
    number = pixel // run
    return number // runs * image + number % runs * row + pixel - number * run


def pack_taps(
    tables: Entries, taps_table: int, base: Address, taps: int, panel: Address, pitch: int, first: int, last: int,
    run: int, runs: int, row: int, image: int, limit: Address, furthest: int,
) -> None:  # fmt: skip
    """Write rows of `taps` taps, one for each pixel first <= pixel < last of a strip.

    `pitch` is the stride from one row to the next, `furthest` the largest offset of a tap. Nothing at `limit` or beyond
    is read.
    """
    # One vector of taps at a time for all pixels: source rows with a power of two as stride share a set of the cache,
    # which does not hold those of more taps.
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


def copy_taps(
    base: Address, taps: int, panel: Address, pitch: int, first: int, last: int, run: int, runs: int, col: int,
    row: int, image: int,
) -> None:  # fmt: skip
    """As `pack_taps` for taps that are neighbours; `col` is the stride from one pixel of a run to the next."""
    whole = taps // LANES * LANES
    pixel = first
    while pixel < last:
        number = pixel // run
        start = pixel - number * run
        length = min(run - start, last - pixel)
        source = base + (number // runs * image + number % runs * row + start * col) * SIZE
        target = panel + (pixel - first) * pitch * SIZE
        for _ in range(length):
            for t in range(0, whole, LANES):
                move(target + t * SIZE, source + t * SIZE)
            if whole < taps:
                move_lanes(target + whole * SIZE, source + whole * SIZE, taps - whole)
            source += col * SIZE
            target += pitch * SIZE
        pixel += length
