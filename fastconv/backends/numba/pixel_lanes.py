"""A pass over matrices: the correlation of groups of several channels.

    correlate     out[n, g, k, i, j] = bias + sum over c, a, b of weight[g, k, c, a, b] * x

where x is the pixel of image n and channel c of group g that output (i, j) meets at tap (a, b).

A row of the tile is a result k, its vectors are pixels and its sum runs over taps (c, a, b). Each element is one chain
of multiply-adds in the order of the definition, wherever the blocks are cut: results do not depend on blocks, threads,
or the other images of a batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.backends.numba.compiling import all_plans, inline
from fastconv.backends.numba.llvm import machine, once_a_set
from fastconv.backends.numba.padded_tile import field_of, rows_of
from fastconv.backends.numba.places import P
from fastconv.backends.numba.simd import words
from fastconv.backends.numba.work_items import piece_of
from fastconv.kernels.abi import BY_ROWS, PACKED, TILES


@once_a_set
def place_of(size: int) -> Any:
    """place(...): a piece's sums, from the workspace to where they belong."""
    word = words(size)
    lanes, load, store = word.lanes, word.load, word.store
    weave, weave_odd = word.weave, word.weave_odd
    copy, repeat, zero = rows_of(size)

    @inline(size)
    def place(plan, i0, empty, sums, pitch, out, rows, cols, images, by_rows, solid):
        """One result's pixels from row i0 on, from the workspace to where they belong; the first `solid` of a line are
        there. `empty` is what pixels hold that nobody writes."""
        out_row, out_col = plan[P.OUT_ROW], plan[P.OUT_COL]
        for image in range(images):
            start = out + image * plan[P.OUT_IMAGE] * size
            at = sums + image * rows * pitch * size
            if plan[P.FILLS]:
                end = plan[P.OUT_RESULT] if i0 + rows == plan[P.ROWS] else (i0 + rows) * out_row
                repeat(start, empty, end - i0 * out_row)
            if out_col == 1 and pitch == cols and not by_rows and (out_row == cols or rows == 1):
                copy(start + solid * size, at + solid * size, rows * cols - solid, False)
            elif out_col == 1:
                for i in range(rows):
                    copy(start + (i * out_row + solid) * size, at + (i * pitch + solid) * size, cols - solid, False)
            elif plan[P.WEAVES] and cols > lanes:
                # nothing is touched before a row's first pixel of this plan, or behind its last; what the next plan
                # will write between them is cleared first, as reading it from memory would take long
                for i in range(rows):
                    for j in range(0, cols - lanes, lanes):
                        to = start + (i * out_row + 2 * j) * size
                        if plan[P.WEAVES] == 1:
                            zero(to, 2 * lanes)
                        weave(to, at + (i * pitch + j) * size)
                # the rows' ends, once what they overlap has left the processor's buffers
                for i in range(rows):
                    to = start + (i * out_row + 2 * (cols - lanes) - 1) * size
                    if plan[P.WEAVES] == 1:
                        zero(to, 2 * lanes)
                    weave_odd(to, at + (i * pitch + cols - lanes) * size)
            else:
                for i in range(rows):
                    for j in range(cols):
                        store(load(at + (i * pitch + j) * size), start + (i * out_row + j * out_col) * size)

    return place


@once_a_set
def correlate(size: int) -> Any:
    """The pass `correlate` for elements of `size` bytes."""
    word = words(size)
    lanes, nothing, load, splat, move = word.lanes, word.zero, word.load, word.splat, word.move
    full, asking, narrow, two = word.multiply, word.multiply_asking, word.multiply_narrow, word.multiply_two
    few, few_asking, one = word.multiply_few, word.multiply_few_asking, word.multiply_one
    prefetch_to_write = word.prefetch_to_write
    heights, widths = np.array(TILES[machine().kind]).T.copy()
    copy, _, _ = rows_of(size)
    where, place = piece_of(size), place_of(size)
    fill = field_of(size)

    @inline(size)
    def pack(
        tables, taps, source, count, panel, pitch, first, last, run, runs, run_pitch, image_pitch, limit, furthest
    ):
        """The pixels first <= pixel < last at every tap."""
        pixel = first
        while pixel < last:
            which = pixel // run
            start = pixel - which * run
            length = min(run - start, last - pixel)
            at = source + ((which // runs) * image_pitch + (which % runs) * run_pitch + start) * size
            target = panel + (pixel - first) * size
            # a vector more than the run is read where there is room; the next run, or the next tap, is written over it
            if at + (furthest + length + lanes) * size > limit:
                for t in range(count):
                    copy(target + t * pitch * size, at + tables[taps + 2 * t + 1] * size, length, False)
            elif length <= lanes:
                for t in range(count):
                    move(target + t * pitch * size, at + tables[taps + 2 * t + 1] * size)
            elif length <= 2 * lanes:
                for t in range(count):
                    move(target + t * pitch * size, at + tables[taps + 2 * t + 1] * size)
                    move(target + (t * pitch + lanes) * size, at + (tables[taps + 2 * t + 1] + lanes) * size)
            else:
                for t in range(count):
                    copy(target + t * pitch * size, at + tables[taps + 2 * t + 1] * size, length, True)
            pixel += length

    @inline(size)
    def piece(plan, tables, source, weight, bias, out, space, item):
        channels, results, taps = plan[P.CHANNELS], plan[P.RESULTS], plan[P.TAPS_A] * plan[P.TAPS_B]
        n, g, k0, i0, j0, images, count_k, rows, cols = where(plan, item)

        kind, ld_a = plan[P.TILE], plan[P.WEIGHT_RESULT]
        height, width = heights[kind], widths[kind]
        panel_pitch = (width + 1) * lanes
        field, panel = space + plan[P.FIELD] * size, space + plan[P.PANEL] * size
        sums, starts = space + plan[P.SUMS] * size, space + plan[P.START] * size
        copies, packs, by_rows = plan[P.COPIES] != 0, plan[P.PIXELS] == PACKED, plan[P.PIXELS] == BY_ROWS
        asks = plan[P.ASKS] != 0 and not copies
        run_pitch = plan[P.FIELD_COLS] if copies else plan[P.SOURCE_WIDTH]
        image_pitch = plan[P.SOURCE_IMAGE]
        limit = source + plan[P.SOURCE_SIZE] * size
        if copies:
            image_pitch = plan[P.PLANES_H] * plan[P.PLANES_W] * plan[P.FIELD_PLANE]
            limit = panel + plan[P.WORKSPACE] * size  # a field goes on behind its end
        # the sums' pixels: packed, with the field's columns between two rows, or each row in vectors of its own
        sums_pitch = cols if packs else -(-cols // lanes) * lanes if by_rows else run_pitch
        pixels = images * rows * sums_pitch - (sums_pitch - cols)
        lines, line = (rows, sums_pitch) if by_rows else (1, pixels)
        vectors = -(-line // lanes)
        if kind:
            vectors = -(-vectors // width) * width
        ld = (-(-pixels // lanes) + width) * lanes
        run, runs = cols, rows
        if run_pitch == cols:
            run, runs = rows * cols, 1

        out += (plan[P.OUT_START] + n * plan[P.OUT_IMAGE] + g * plan[P.OUT_GROUP]) * size
        out += (i0 * plan[P.OUT_ROW] + j0 * plan[P.OUT_COL] + k0 * plan[P.OUT_RESULT]) * size
        # where a line of sums is a line of the output, tiles that are full on both sides are summed in it
        ld_out = plan[P.OUT_RESULT]
        solid = 0
        # a sum that comes in many parts is read and written many times, which the output's long strides make slow
        if plan[P.OUT_COL] == 1 and channels <= 2 * plan[P.BLOCK_CHANNELS]:
            if by_rows:
                solid = cols
            elif images == 1 and sums_pitch == cols and (plan[P.OUT_ROW] == cols or rows == 1):
                solid = pixels
        solid = solid // lanes
        solid = solid // width * width if kind or solid < vectors else solid
        solid *= lanes
        whole_k = count_k // height * height

        for k in range(-(-count_k // height) * height):
            splat(
                load(bias + (g * results + k0 + k) * size) if bias and k < count_k else nothing,
                starts + k * lanes * size,
            )
        for c0 in range(0, channels, plan[P.BLOCK_CHANNELS]):
            count_c = min(plan[P.BLOCK_CHANNELS], channels - c0)
            channel = g * plan[P.SOURCE_GROUP] + c0 * plan[P.SOURCE_CHANNEL]
            if copies:
                if plan[P.COPIES] == 1:
                    fill(plan, tables, source, field, n, images, channel, count_c, i0, rows, j0, cols)
                base = field
            else:
                base = source + (n * image_pitch + channel + i0 * run_pitch + j0) * size
            count = count_c * taps
            furthest = 0
            for t in range(count - taps, count):
                furthest = max(furthest, tables[plan[P.TAPS] + 2 * t + 1])
            a = weight + (g * plan[P.WEIGHT_GROUP] + k0 * ld_a + c0 * plan[P.WEIGHT_CHANNEL]) * size
            for i in range(lines):
                v = 0
                while v < vectors:
                    most, pixel = min(width, vectors - v), v * lanes
                    v += most
                    x, offsets = base + (i * run_pitch + pixel) * size, tables.ctypes.data + plan[P.TAPS] * 8
                    # the last pixels of a source, beyond which nothing may be read, are packed too
                    if packs or (not copies and v * lanes > line):
                        last = min(v * lanes, pixels)
                        pack(tables, plan[P.TAPS], base, count, panel, panel_pitch, pixel, last, run, runs,
                             run_pitch, image_pitch, limit, furthest)  # fmt: skip
                        x, offsets = panel, tables.ctypes.data + plan[P.PANEL_TAPS] * 8
                    for k in range(0, count_k, height):
                        row, valid = a + k * ld_a * size, count_k - k
                        to, ld_to = sums + (k * ld + i * line + pixel) * size, ld
                        if v * lanes <= solid and k < whole_k:
                            to, ld_to = out + (k * ld_out + i * plan[P.OUT_ROW] + pixel) * size, ld_out
                            # the sums will go there when they are whole; by then it will have come, or if memory
                            # brings it by the time that the next tile's are, which may be the next piece's
                            if not c0:
                                for m in range(height):
                                    for at in range(0, most * lanes, lanes):
                                        prefetch_to_write(to + (m * ld_out + asks * most * lanes + at) * size)
                        start, ld_start, step = starts + k * lanes * size, lanes, 0
                        if c0:
                            start, ld_start, step = to, ld_to, lanes
                        is_first = not k and x != panel
                        if kind == 1 and asks and is_first:
                            few_asking(row, ld_a, valid, x, offsets, count, start, ld_start, step, to, ld_to)
                        elif kind == 1:
                            few(row, ld_a, valid, x, offsets, count, start, ld_start, step, to, ld_to)
                        elif kind == 2:
                            one(row, ld_a, valid, x, offsets, count, start, ld_start, step, to, ld_to)
                        elif most == width and asks and is_first:
                            asking(row, ld_a, valid, x, offsets, count, start, ld_start, step, to, ld_to)
                        elif most == width:
                            full(row, ld_a, valid, x, offsets, count, start, ld_start, step, to, ld_to)
                        elif most == 2:
                            two(row, ld_a, valid, x, offsets, count, start, ld_start, step, to, ld_to)
                        else:
                            narrow(row, ld_a, valid, x, offsets, count, start, ld_start, step, to, ld_to)
        for k in range(count_k):
            done = solid if k < whole_k else 0
            place(plan, i0, load(starts + k * lanes * size), sums + k * ld * size, sums_pitch, out + k * ld_out * size,
                  rows, cols, images, by_rows, done)  # fmt: skip

    return all_plans("correlate", size, piece)
