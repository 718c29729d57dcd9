"""Passes over channels that have a kernel each: a lane of the vectors for each channel, pixels one after the other.

    correlate_channels          out[n, c, i, j] = bias + sum over a, b of weight[c, a, b] * x
    correlate_channels_weight   out[c, a, b] = sum over n, i, j of small[n, c, i, j] * x

where x is the pixel of image n and channel c that output (i, j) meets at tap (a, b).

The second is the first with pixels and taps exchanged: the small map is its kernel. With lanes along the channels every
load is aligned, and neither the width of a map nor a stride leaves lanes empty; a square of lanes x lanes numbers is
transposed in registers on its way in and out. Long rows of taps are squares of a band matrix, whose taps on the
padding are left out: they need no zeros in the field.
"""

from __future__ import annotations

from typing import Any

import numba

from fastconv.backends.numba.compiling import all_plans, inline
from fastconv.backends.numba.llvm import once_a_set
from fastconv.backends.numba.padded_tile import transpose_of
from fastconv.backends.numba.places import P
from fastconv.backends.numba.simd import integers, words


@once_a_set
def moves(size: int) -> Any:
    """Between maps (channels, h, w) and fields (h, w, lanes), and rows of sums."""
    word = words(size)
    lanes, load, store, move, clear = word.lanes, word.load, word.store, word.move, word.clear
    transpose, scatter = transpose_of(size), word.scatter
    longest = max(width for height, width in word.along if height == 1)
    tile, seven, five, three, one = (word.along[1, width] for width in (longest, 7, 5, 3, 1))
    (long_width, long_band), (short_width, short_band) = word.bands

    @inline(size)
    def to_lanes(source, channel_pitch, valid, multiple, before, target, places, count, limit):
        """`count` pixels of `valid` channels, one after the other or, if `places` is the address of those, each to its
        own; further lanes are overwritten."""
        for v in range(0, count, lanes):
            furthest = source + ((valid - 1) * channel_pitch + v + lanes) * size
            if multiple == 1 and furthest <= limit:
                if places:
                    scatter(source + v * size, channel_pitch, valid, target, places + v * 8, min(lanes, count - v))
                else:
                    transpose(source + v * size, channel_pitch, valid, target + v * lanes * size, lanes,
                              min(lanes, count - v))  # fmt: skip
            else:
                for j in range(v, min(v + lanes, count)):
                    there = target + j * lanes * size
                    if places:
                        there = target + numba.carray(integers(places), (count,))[j] * size
                    clear(there)
                    for lane in range(valid):
                        at = source + ((before + lane) // multiple * channel_pitch + j) * size
                        store(load(at), there + lane * size)

    @inline(size)
    def clear_around(plan, tables, field, i0, used):
        """The zeros around the pixels of a strip's field."""
        cols, planes_w = plan[P.FIELD_COLS], plan[P.PLANES_W]
        for a in range(plan[P.PLANES_H]):
            for u in range(used):
                h = tables[plan[P.ORIGINS_H] + a] + i0 + u * plan[P.HOP_H]
                inside = h >= 0 and h < plan[P.SOURCE_HEIGHT]
                if not inside and plan[P.CLIPS]:
                    continue  # nobody reads it
                for b in range(planes_w):
                    first, end = tables[plan[P.INSIDE_W] + 2 * b], tables[plan[P.INSIDE_W] + 2 * b + 1]
                    to = field + ((a * planes_w + b) * plan[P.FIELD_ROWS] + u) * cols * lanes * size
                    for v in range(first if inside else 0):
                        clear(to + v * lanes * size)
                    for v in range(end if inside else 0, cols):
                        clear(to + v * lanes * size)

    @inline(size)
    def fill(plan, tables, source, field, start, valid, before, i0, used):
        """The pixels of a strip in its field."""
        width, height = plan[P.SOURCE_WIDTH], plan[P.SOURCE_HEIGHT]
        limit = source + plan[P.SOURCE_SIZE] * size
        for layer in range(plan[P.LAYERS]):
            described = plan[P.LAYER_TABLE] + 4 * layer
            origin, step, places = tables[described] + i0, tables[described + 1], tables[described + 3]
            rows = tables[described + 2] - (plan[P.FIELD_ROWS] - used) * (plan[P.HOP_H] // step)
            first, end = -(-max(0, -origin) // step), min(rows, -(-max(0, height - origin) // step))
            run = end - first if step == 1 else 1  # rows that follow each other are as good as one
            for u in range(first, end, max(1, run)):
                to_lanes(source + (start + (origin + u * step) * width) * size, plan[P.SOURCE_CHANNEL], valid,
                         plan[P.MULTIPLE], before, field, tables.ctypes.data + (places + u * width) * 8, run * width,
                         limit)  # fmt: skip

    @inline(size)
    def along(a, b, tables, taps, count, band, start, start_step, sums, step, cols):
        """A row of `cols` sums, which begin as what stands at `start`; `taps` and `band` are where tables start."""
        offsets = tables.ctypes.data + taps * 8
        neighbours, inside, outside = tables[band], tables[band + 1], tables[band + 2]
        rows = count // max(1, neighbours)
        j = 0
        while neighbours and j < cols:
            width = long_width if cols - j > short_width else short_width
            end = min(neighbours + width - 1, outside - j)
            # what is read before the first pixel, or behind the last where there is a zero, is linked to no sum
            first = inside - j if inside > j else end - -(-max(0, end) // width) * width
            at, begin, to = b + j * lanes * size, start + j * start_step * size, sums + j * step * size
            valid = min(width, cols - j)
            if first >= end:
                for v in range(valid):
                    move(to + v * step * size, begin + v * start_step * size)
            elif width == long_width:
                long_band(a, at, offsets, rows, neighbours, first, end, begin, start_step, to, step, valid)
            else:
                short_band(a, at, offsets, rows, neighbours, first, end, begin, start_step, to, step, valid)
            j += width
        while cols - j >= longest:
            tile(a, b + j * lanes * size, 0, offsets, count, start + j * start_step * size, 0, start_step,
                 sums + j * step * size, 0, step)  # fmt: skip
            j += longest
        if cols - j >= 7:
            seven(a, b + j * lanes * size, 0, offsets, count, start + j * start_step * size, 0, start_step,
                  sums + j * step * size, 0, step)  # fmt: skip
            j += 7
        if cols - j >= 5:
            five(a, b + j * lanes * size, 0, offsets, count, start + j * start_step * size, 0, start_step,
                 sums + j * step * size, 0, step)  # fmt: skip
            j += 5
        if cols - j >= 3:
            three(a, b + j * lanes * size, 0, offsets, count, start + j * start_step * size, 0, start_step,
                  sums + j * step * size, 0, step)  # fmt: skip
            j += 3
        while j < cols:
            one(a, b + j * lanes * size, 0, offsets, count, start + j * start_step * size, 0, start_step,
                sums + j * step * size, 0, step)  # fmt: skip
            j += 1

    @inline(size)
    def place(plan, sums, out, valid, rows, cols):
        """A strip's sums, from lanes to maps."""
        out_result, out_row, out_col = plan[P.OUT_RESULT], plan[P.OUT_ROW], plan[P.OUT_COL]
        run, runs = cols, rows
        if out_col == 1 and out_row == cols:
            run, runs = rows * cols, 1
        for i in range(runs):
            at, to = sums + i * run * lanes * size, out + i * out_row * size
            j = 0
            if out_col == 1 and run >= lanes:
                while j < run:
                    v = min(j, run - lanes)  # the last ones once more
                    transpose(at + v * lanes * size, lanes, lanes, to + v * size, out_result, valid)
                    j += lanes
            while j < run:
                for lane in range(valid):
                    store(load(at + (j * lanes + lane) * size), to + (lane * out_result + j * out_col) * size)
                j += 1

    return to_lanes, clear_around, fill, along, place


@once_a_set
def correlate_channels(size: int) -> Any:
    """The pass `correlate_channels` for elements of `size` bytes."""
    word = words(size)
    lanes, nothing, load, store = word.lanes, word.zero, word.load, word.store
    move = word.move
    to_lanes, clear_around, fill, along, place = moves(size)

    @inline(size)
    def piece(plan, tables, source, weight, bias, out, space, item):
        rows_all = plan[P.ROWS]
        results, sums_rows, sums_cols = plan[P.RESULTS], plan[P.SUMS_ROWS], plan[P.SUMS_COLS]
        kernel = plan[P.WEIGHT_RESULT]
        strips = -(-rows_all // plan[P.BLOCK_ROWS])
        blocks = -(-results // lanes)
        field, factors = space + plan[P.FIELD] * size, space + plan[P.PANEL] * size
        start, sums = space + plan[P.START] * size, space + plan[P.SUMS] * size
        multiple, apart_h, apart_w = plan[P.MULTIPLE], plan[P.APART_H], plan[P.APART_W]
        i0 = item % strips * plan[P.BLOCK_ROWS]
        rest = item // strips
        k0 = rest % blocks * lanes
        n0 = rest // blocks * plan[P.BLOCK_IMAGES]
        rows = min(plan[P.BLOCK_ROWS], rows_all - i0)
        valid = min(lanes, results - k0)
        at = weight + k0 * kernel * size
        to_lanes(at, kernel, valid, 1, 0, factors, 0, kernel, weight + results * kernel * size)
        used = rows + plan[P.FIELD_ROWS] - plan[P.BLOCK_ROWS]
        for lane in range(lanes):
            store(load(bias + (k0 + lane) * size) if bias and lane < valid else nothing, start + lane * size)
        written = min(rows * apart_h, sums_rows - i0 * apart_h)
        out += (plan[P.OUT_START] + k0 * plan[P.OUT_RESULT] + i0 * apart_h * plan[P.OUT_ROW]) * size
        clear_around(plan, tables, field, i0 * plan[P.HOP_H], used)
        for n in range(n0, min(n0 + plan[P.BLOCK_IMAGES], plan[P.IMAGES])):
            at = n * plan[P.SOURCE_IMAGE] + k0 // multiple * plan[P.SOURCE_CHANNEL]
            fill(plan, tables, source, field, at, valid, k0 % multiple, i0 * plan[P.HOP_H], used)
            if plan[P.GAPS]:
                for j in range(written * sums_cols):
                    move(sums + j * lanes * size, start)
            for phase in range(plan[P.PHASES]):
                described = plan[P.PHASE_TABLE] + 10 * phase
                of_phase, cols = min(rows, tables[described] - i0), tables[described + 1]
                to = sums + (tables[described + 2] * sums_cols + tables[described + 3]) * lanes * size
                for i in range(of_phase):
                    first, end = 0, tables[described + 5]
                    if plan[P.CLIPS]:
                        first = tables[tables[described + 6] + 2 * (i0 + i)]
                        end = tables[tables[described + 6] + 2 * (i0 + i) + 1]
                    row = field + i * plan[P.FIELD_COLS] * lanes * size
                    line = to + i * apart_h * sums_cols * lanes * size
                    if first < end:
                        along(factors, row, tables, tables[described + 4] + 2 * first, end - first, described + 7,
                              start, 0, line, apart_w * lanes, cols)  # fmt: skip
                    else:
                        for j in range(cols):
                            move(line + j * apart_w * lanes * size, start)
            place(plan, sums, out + n * plan[P.OUT_IMAGE] * size, valid, written, sums_cols)

    return all_plans("correlate_channels", size, piece)


@once_a_set
def correlate_channels_weight(size: int) -> Any:
    """The pass `correlate_channels_weight` for elements of `size` bytes."""
    word = words(size)
    lanes, load, store, clear = word.lanes, word.load, word.store, word.clear
    square = word.along[3, 3]
    to_lanes, clear_around, fill, along, _ = moves(size)

    @inline(size)
    def piece(plan, tables, source, small, _, out, space, item):
        # the outputs are the kernel's taps, ROWS x COLS, and the taps are the small map's pixels, TAPS_A x TAPS_B
        rows, cols = plan[P.ROWS], plan[P.COLS]
        taps_a, taps_b, channels = plan[P.TAPS_A], plan[P.TAPS_B], plan[P.CHANNELS]
        strips = -(-taps_a // plan[P.BLOCK_PIXELS])
        units = plan[P.IMAGES] * strips
        blocks = -(-channels // lanes)
        field, factors = space + plan[P.FIELD] * size, space + plan[P.PANEL] * size
        sums = space + plan[P.SUMS] * size
        limit = small + plan[P.SMALL_SIZE] * size
        c0 = item % blocks * lanes
        split = item // blocks
        valid = min(lanes, channels - c0)
        for j in range(rows * cols):
            clear(sums + j * lanes * size)
        first_unit = units * split // plan[P.SPLITS]
        for unit in range(first_unit, units * (split + 1) // plan[P.SPLITS]):
            n = unit // strips
            p0 = unit % strips * plan[P.BLOCK_PIXELS]
            count = min(plan[P.BLOCK_PIXELS], taps_a - p0)
            at = small + (n * plan[P.WEIGHT_CHANNEL] + c0 * plan[P.WEIGHT_RESULT] + p0 * taps_b) * size
            to_lanes(at, plan[P.WEIGHT_RESULT], valid, 1, 0, factors, 0, count * taps_b, limit)
            start, i0 = n * plan[P.SOURCE_IMAGE] + c0 * plan[P.SOURCE_CHANNEL], p0 * plan[P.BLOCK_ROWS]
            if strips > 1 or unit == first_unit:
                clear_around(plan, tables, field, i0, plan[P.FIELD_ROWS])
            fill(plan, tables, source, field, start, valid, 0, i0, plan[P.FIELD_ROWS])
            if rows == 3 and cols == 3:
                offsets = tables.ctypes.data + plan[P.TAPS] * 8
                square(factors, field, plan[P.FIELD_COLS] * lanes, offsets, count * taps_b, sums, 3 * lanes, lanes,
                       sums, 3 * lanes, lanes)  # fmt: skip
                continue
            for i in range(rows):
                first, end = 0, count * taps_b
                if plan[P.CLIPS]:
                    first = max(first, tables[plan[P.CLIP_ROWS] + 2 * i] - p0 * taps_b)
                    end = min(end, tables[plan[P.CLIP_ROWS] + 2 * i + 1] - p0 * taps_b)
                if first < end:
                    row = field + i * plan[P.FIELD_COLS] * lanes * size
                    line = sums + i * cols * lanes * size
                    along(factors, row, tables, plan[P.TAPS] + 2 * first, end - first, plan[P.BAND], line, lanes, line,
                          lanes, cols)  # fmt: skip
        for lane in range(valid):
            to = out + (split * plan[P.OUT_IMAGE] + (c0 + lane) * rows * cols) * size
            for j in range(rows * cols):
                store(load(sums + (j * lanes + lane) * size), to + j * size)

    return all_plans("correlate_channels_weight", size, piece)
