"""Convert maps (channel, pixel) to vectors with a lane for each channel (pixel, lane), and back."""

from fastconv.kernels.arguments import Out, Small
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


def pack_results(
    small: Small, source: Address, valid: int, target: Address, rows: int, cols: int, limit: Address
) -> None:
    """Write `rows` x `cols` pixels of a small map as vectors, of which the first `valid` lanes are results."""
    run, runs = cols, rows
    if small.row == cols * small.col:
        run, runs = rows * cols, 1
    for i in range(runs):
        read, to = source + i * small.row * SIZE, target + i * run * LANES * SIZE
        if small.result == 1:
            copy_lanes(read, small.col, valid, to, LANES, run)
        elif small.col == 1:
            to_lanes(read, small.result, valid, 1, 0, to, 0, run, limit)
        else:
            for j in range(run):
                for lane in range(valid):
                    store(load(read + (j * small.col + lane * small.result) * SIZE), to + (j * LANES + lane) * SIZE)


def scatter_pixels(
    source: Address, col: int, lanes: int, target: Address, ld_target: int, offsets: Entries, count: int
) -> None:
    """Copy `count` pixels of `lanes` channels, which are neighbours; `col` is the stride from one pixel to the next.

    The vectors of pixel j are written to offset offsets[j], each `ld_target` behind the one before. Lanes beyond the
    last channel are zeros.
    """
    whole = lanes // LANES * LANES
    for j in range(count):
        read, to = source + j * col * SIZE, target + entry(offsets, j) * SIZE
        for k in range(0, whole, LANES):
            move(to, read + k * SIZE)
            to += ld_target * SIZE
        if whole < lanes:
            clear(to)
            move_lanes(to, read + whole * SIZE, lanes - whole)


def gather_lanes(
    source: Address, channel: int, col: int, valid: int, multiple: int, skipped: int, target: Address, offsets: Entries,
    count: int,
) -> None:  # fmt: skip
    """As `to_lanes`, with offsets and any stride `col` from one pixel to the next, an element at a time."""
    for j in range(count):
        read, to = source + j * col * SIZE, target + entry(offsets, j) * SIZE
        clear(to)
        left = multiple - skipped  # lanes that still share this channel; dividing would take longer than copying
        for lane in range(valid):
            store(load(read), to + lane * SIZE)
            left -= 1
            if left == 0:
                read += channel * SIZE
                left = multiple


def from_lanes(out: Out, sums: Address, target: Address, valid: int, rows: int, cols: int) -> None:
    """Write vectors of sums of `rows` x `cols` pixels to the maps of `valid` channels."""
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
