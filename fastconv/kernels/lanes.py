"""Convert maps (channel, pixel) to vectors with a lane for each channel (pixel, lane), and back."""

from fastconv.kernels.arguments import Out
from fastconv.kernels.primitives import (
    LANES,
    SIZE,
    Address,
    Entries,
    clear,
    entry,
    load,
    move,
    move_lanes,
    scatter,
    store,
    transpose,
)


def to_lanes(
    source: Address, channel: int, valid: int, multiple: int, skipped: int, target: Address, offsets: Entries,
    count: int, limit: Address,
) -> None:  # fmt: skip
    """Write `count` pixels of channels as vectors, of which the first `valid` lanes are channels.

    `channel` is the stride from one channel to the next. Vectors follow each other or, if `offsets` is not 0, pixel j
    is written to offset offsets[j]. Lanes beyond `valid` are undefined. `multiple` lanes share a channel, and the first
    channel's first `skipped` lanes are left out. Nothing at `limit` or beyond is read.
    """
    for v in range(0, count, LANES):
        if multiple == 1 and source + ((valid - 1) * channel + v + LANES) * SIZE <= limit:
            if offsets:
                scatter(source + v * SIZE, channel, valid, target, offsets + v * 8, min(LANES, count - v))
            else:
                transpose(source + v * SIZE, channel, valid, target + v * LANES * SIZE, LANES, min(LANES, count - v))
        else:
            for j in range(v, min(v + LANES, count)):
                to = target + j * LANES * SIZE
                if offsets:
                    to = target + entry(offsets, j) * SIZE
                clear(to)
                for lane in range(valid):
                    store(load(source + ((skipped + lane) // multiple * channel + j) * SIZE), to + lane * SIZE)


def copy_lanes(source: Address, ld_source: int, valid: int, target: Address, ld_target: int, count: int) -> None:
    """Copy the first `valid` lanes of each of `count` vectors."""
    if valid == LANES:
        for j in range(count):
            move(target + j * ld_target * SIZE, source + j * ld_source * SIZE)
    else:
        for j in range(count):
            move_lanes(target + j * ld_target * SIZE, source + j * ld_source * SIZE, valid)


def gather_lanes(
    source: Address, channel: int, col: int, valid: int, multiple: int, skipped: int, target: Address, offsets: Entries,
    count: int,
) -> None:  # fmt: skip
    """As `to_lanes`, with offsets and any stride `col` from one pixel to the next."""
    for j in range(count):
        read, to = source + j * col * SIZE, target + entry(offsets, j) * SIZE
        if channel == 1 and multiple == 1 and valid == LANES:
            move(to, read)
        else:
            clear(to)
            if channel == 1 and multiple == 1:
                move_lanes(to, read, valid)
            else:
                for lane in range(valid):
                    store(load(read + (skipped + lane) // multiple * channel * SIZE), to + lane * SIZE)


def from_lanes(out: Out, sums: Address, target: Address, valid: int, rows: int, cols: int) -> None:
    """Write vectors of sums of `rows` x `cols` pixels to the maps of `valid` channels."""
    if out.result == 1:
        for i in range(rows):
            copy_lanes(sums + i * cols * LANES * SIZE, LANES, valid, target + i * out.row * SIZE, out.col, cols)
        return
    run, runs = cols, rows
    if out.col == 1 and out.row == cols:
        run, runs = rows * cols, 1
    for i in range(runs):
        source, to = sums + i * run * LANES * SIZE, target + i * out.row * SIZE
        j = 0
        if out.col == 1 and run >= LANES:
            while j < run:
                v = min(j, run - LANES)  # the last square overlaps its predecessor
                transpose(source + v * LANES * SIZE, LANES, LANES, to + v * SIZE, out.result, valid)
                j += LANES
        while j < run:
            for lane in range(valid):
                store(load(source + (j * LANES + lane) * SIZE), to + (lane * out.result + j * out.col) * SIZE)
            j += 1
