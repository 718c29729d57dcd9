"""Store: write finished sums to the output, whatever its strides, and the epilogue: what happens to sums there.

The sums of every pass that makes a map go through the epilogue, each once: in the output, after a work item has written
all sums of a result, while they are in the cache. The exception are interleaved phases, which write some sums twice:
these are finished before they are written. Runs that do not write all of the output by such passes have no epilogue
(`planner.steps.finishing_run`); then a plan finishes the whole output afterwards (`dispatch.finish`).
"""

from fastconv.kernels.arguments import Finish, Out
from fastconv.kernels.copying import copy_row
from fastconv.kernels.lanes import copy_lanes, from_lanes
from fastconv.kernels.pack_weight import LanePacking
from fastconv.kernels.primitives import (
    LANES,
    SIZE,
    Address,
    Element,
    Entries,
    ceil_div,
    entry,
    finish_rows,
    load,
    move,
    move_lanes,
    splat,
    store,
    store_alternate,
    store_runs,
    transpose,
)


def write_value(target: Address, value: Element, count: int) -> None:
    """Write `value` to `count` elements."""
    for i in range(0, count - LANES + 1, LANES):
        splat(value, target + i * SIZE)
    for i in range(count // LANES * LANES, count):
        store(value, target + i * SIZE)


def finish_at(tables: Entries, start: int, number: int) -> Finish:
    """Row `number` of the table that starts at entry `start`."""
    raise NotImplementedError


def epilogue(finish: Entries, channel: int, sums: Address, rows: int, ld: int, cols: int, step: int) -> None:
    """Finish `rows` x `cols` sums of a channel of the output, which are in the output.

    `ld` and `step` are the strides from one row and column to the next. `finish` is the address of a `Finish`; 0 if
    nothing is to be done.
    """
    if finish:
        how = finish_at(finish, 0, 0)
        run, runs = cols, rows
        if step == 1 and ld == cols:
            run, runs = rows * cols, 1
        finish_rows(how.activation, how.slopes + channel * SIZE, 0, sums, sums + how.residual if how.residual else 0,
                    runs, ld, run, step)  # fmt: skip


def epilogue_of_pixels(
    finish: Entries, channel: int, out: Out, target: Address, results: int, rows: int, cols: int, images: int
) -> None:
    """Finish `results` sums of each pixel, which are neighbours in the output, from `channel` on."""
    if finish:
        how = finish_at(finish, 0, 0)
        for line in range(images * rows):
            to = target + (line // rows * out.image + line % rows * out.row) * SIZE
            finish_rows(how.activation, how.slopes + channel * SIZE, 1, to, to + how.residual if how.residual else 0,
                        cols, out.col, results, 1)  # fmt: skip


def epilogue_of_runs(
    finish: Entries, packing: LanePacking, tables: Entries, channel: int, k: int, valid: int, sums: Address,
    target: Address, step: int, cols: int, residual: Address,
) -> None:  # fmt: skip
    """Finish `cols` vectors of sums whose lanes are runs, the `valid` results from k on, of a group whose first channel
    is `channel`. They will be written to `target`; `step` is the stride from one column to the next there. `residual`
    is workspace for as many vectors."""
    how = finish_at(finish, 0, 0)
    added = residual if how.residual else 0
    if how.residual:
        for j in range(cols):
            for lane in range(valid):
                at = target + how.residual + (j * step + entry(tables, packing.out_table + k + lane)) * SIZE
                store(load(at), residual + (j * LANES + lane) * SIZE)
    if how.slopes:  # each result has its own
        for lane in range(valid):
            result = entry(tables, packing.bias_table + k + lane)
            finish_rows(how.activation, how.slopes + (channel + result) * SIZE, 0, sums + lane * SIZE,
                        added + lane * SIZE if added else 0, 1, 0, cols, LANES)  # fmt: skip
    else:
        finish_rows(how.activation, sums, 0, sums, added, 1, 0, cols * LANES, 1)


def store_result(
    out: Out, all_rows: int, i0: int, gap: Element, sums: Address, pitch: int, target: Address, rows: int, cols: int,
    images: int, by_rows: int, done: int, finish: Entries, channel: int,
) -> None:  # fmt: skip
    """Write one result's pixels from row i0 of `all_rows` on; `pitch` is the stride from one row of sums to the next.

    The first `done` pixels of a line were summed in the output and need no copy. `gap` is the value of the pixels that
    no plan computes; `channel` is the result's number in the output. A driver calls this once for each result of a work
    item, after the last block of channels, whether sums have to be copied or not.
    """
    for image in range(images):
        to, source = target + image * out.image * SIZE, sums + image * rows * pitch * SIZE
        filled = 0
        if out.fill_gaps:
            filled = (out.result if i0 + rows == all_rows else (i0 + rows) * out.row) - i0 * out.row
            write_value(to, gap, filled)
        if out.col == 1 and pitch == cols and not by_rows and (out.row == cols or rows == 1):
            copy_row(to + done * SIZE, source + done * SIZE, rows * cols - done, 0)
        elif out.col == 1:
            for i in range(rows):
                copy_row(to + (i * out.row + done) * SIZE, source + (i * pitch + done) * SIZE, cols - done, 0)
        elif out.col == 2:
            for i in range(rows):
                store_alternate(source + i * pitch * SIZE, to + i * out.row * SIZE, cols)
        else:
            for i in range(rows):
                for j in range(cols):
                    store(load(source + (i * pitch + j) * SIZE), to + (i * out.row + j * out.col) * SIZE)
        if filled:
            epilogue(finish, channel, to, 1, 0, filled, 1)
        else:
            epilogue(finish, channel, to, rows, out.row, cols, out.col)


def store_lanes(
    out: Out, packing: LanePacking, tables: Entries, all_rows: int, i0: int, g: int, k: int, valid: int,
    starts: Address, sums: Address, maps: Address, target: Address, rows: int, cols: int, images: int, finish: Entries,
) -> None:  # fmt: skip
    """Write vectors of sums of a strip from row i0 of `all_rows` on; the lanes are `valid` results of group g from k
    on.

    `starts` has the bias of each lane. `maps` is workspace for the sums of a vector of results.
    """
    channel = g * packing.biases
    if packing.run:
        offsets = tables + (packing.out_table + k) * 8
        for line in range(images * rows):
            to = target + (line // rows * out.image + line % rows * out.row) * SIZE
            of_line = sums + line * cols * LANES * SIZE
            if finish:
                epilogue_of_runs(finish, packing, tables, channel, k, valid, of_line, to, out.col, cols, maps)
            store_runs(packing.run, of_line, offsets, valid, to, out.col, cols)
        return
    target += k * out.result * SIZE
    channel += k
    if out.col == 1 and rows * cols >= LANES and not out.conflict:
        for image in range(images):
            to = target + image * out.image * SIZE
            from_lanes(out, sums + image * rows * cols * LANES * SIZE, to, valid, rows, cols)
            for lane in range(valid):
                epilogue(finish, channel + lane, to + lane * out.result * SIZE, rows, out.row, cols, 1)
        return
    # one result's pixels at a time; an odd number of vectors as pitch avoids conflicts in the first-level cache
    pixels = images * rows * cols
    pitch = (ceil_div(pixels, LANES) // 2 * 2 + 1) * LANES
    for pixel in range(0, pixels, LANES):
        transpose(sums + pixel * LANES * SIZE, LANES, LANES, maps + pixel * SIZE, pitch, valid)
    for lane in range(valid):
        store_result(out, all_rows, i0, load(starts + lane * SIZE), maps + lane * pitch * SIZE, cols,
                     target + lane * out.result * SIZE, rows, cols, images, 0, 0, finish, channel + lane)  # fmt: skip


def store_channels(
    out: Out, sums: Address, groups: int, results: int, target: Address, rows: int, cols: int, images: int,
    finish: Entries, channel: int,
) -> None:  # fmt: skip
    """Write vectors of sums of `results` results of each group, all of which are neighbours in the output, one pixel
    after the other, and finish them; `channel` is the number of the first result in the output.

    Pixel by pixel, as pixels with many channels share few sets of a cache: writing one vector of every pixel, then the
    next, would evict lines before they are full.
    """
    pixels, vectors, whole = images * rows * cols, ceil_div(results, LANES), results // LANES * LANES
    for line in range(images * rows):
        for j in range(cols):
            to = target + (line // rows * out.image + line % rows * out.row + j * out.col) * SIZE
            source = sums + (line * cols + j) * LANES * SIZE
            for _ in range(groups):
                for k in range(0, whole, LANES):
                    move(to + k * SIZE, source + k * pixels * SIZE)
                if whole < results:
                    move_lanes(to + whole * SIZE, source + whole * pixels * SIZE, results - whole)
                to += results * SIZE
                source += vectors * LANES * pixels * SIZE
    epilogue_of_pixels(finish, channel, out, target, groups * results, rows, cols, images)


def store_pixels(
    out: Out, sums: Address, ld_sums: int, pitch: int, target: Address, results: int, rows: int, cols: int, images: int,
    square: Address, finish: Entries, channel: int,
) -> None:  # fmt: skip
    """Write maps of sums to an output whose results are neighbours, by transposing squares of LANES results and pixels,
    and finish them; `channel` is the number of the first result in the output.

    `ld_sums` and `pitch` are the strides from one result and row of sums to the next. Up to a vector is read beyond the
    sums of a result. `square` is workspace for a square.
    """
    run, runs = cols, rows
    if pitch == cols and (rows == 1 or out.row == cols * out.col):
        run, runs = rows * cols, 1
    for line in range(images * runs):
        source = sums + (line // runs * rows + line % runs) * pitch * SIZE
        to = target + (line // runs * out.image + line % runs * out.row) * SIZE
        for j in range(0, run, LANES):
            count = min(LANES, run - j)
            for k in range(0, results, LANES):
                valid, read, written = min(LANES, results - k), source + (k * ld_sums + j) * SIZE, to + k * SIZE
                if valid == LANES:
                    transpose(read, ld_sums, LANES, written, out.col, count)
                else:
                    transpose(read, ld_sums, valid, square, LANES, count)
                    copy_lanes(square, LANES, valid, written, out.col, count)
            to += LANES * out.col * SIZE
    epilogue_of_pixels(finish, channel, out, target, results, rows, cols, images)
