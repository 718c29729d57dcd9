"""A pass over matrices with a lane of the vectors for each result.

    correlate_results     out[n, g, k, i, j] = bias + sum over c, a, b of weight[g, k, c, a, b] * x

the correlation of `dense`, bit for bit. There the source is copied where its pixels do not fill vectors, and the weight
is read as it is; here the weight is transposed, and pixels are read one at a time, from wherever they are. That is
cheaper where a weight meets many pixels for its size: few channels, groups, rows that no vector fits. The phases of a
transposed convolution read one field, and their sums lie as they are written; or lanes are results of all of them.
"""

from __future__ import annotations

import functools
from typing import Any

from fastconv.engines.numba.code import I64, Code, machine, make_word
from fastconv.engines.numba.compiling import all_plans, chosen, inline
from fastconv.engines.numba.dense import place_of
from fastconv.engines.numba.depthwise import moves
from fastconv.engines.numba.fields import field_of, transpose_of
from fastconv.engines.numba.pieces import piece_of
from fastconv.engines.numba.places import P
from fastconv.engines.numba.vectors import move_of, words
from fastconv.engines.plans import SPAN


@functools.cache
def _span(size: int, lanes: int, width: int) -> Any:
    """The micro-kernel with a lane for each result: `width` pixels of a row,

        sums[j] = start[j] + sum over t of a[offsets[2 * t]] * b[offsets[2 * t + 1] + j]

    with 0 <= t < count, j < width. Each element of `a`, `sums` and `start` is a vector, or the first `lanes` of one,
    that of `b` a number.
    """

    def emit(
        code: Code, a: Any, b: Any, offsets: Any, count: Any, start: Any, step: Any, sums: Any, ld_sums: Any
    ) -> None:
        build = code.builder
        a, b, offsets = code.pointer(a), code.pointer(b), code.integers(offsets)
        start, sums = code.pointer(start), code.pointer(sums)

        def turn(t: Any, accumulators: list[Any]) -> list[Any]:
            pair = build.shl(t, I64(1))
            factor = code.read(code.at(a, build.load(code.at(offsets, pair))))
            base = code.at(b, build.load(code.at(offsets, build.add(pair, I64(1)))))
            pixels = [code.spread(build.load(code.at(base, I64(j)))) for j in range(width)]
            return [code.fma(factor, x, sum_) for x, sum_ in zip(pixels, accumulators, strict=True)]

        started = [code.read(code.at(start, build.mul(step, I64(j)))) for j in range(width)]
        for j, result in enumerate(code.loop(count, started, turn)):
            code.write(result, code.at(sums, build.mul(ld_sums, I64(j))))

    return make_word(size, lanes, "a b offsets count start step sums ld_sums", emit)


@functools.cache
def correlate_results(size: int) -> Any:
    """The pass `correlate_results` for elements of `size` bytes."""
    word = words(size)
    lanes, nothing, load, store, move = word.lanes, word.zero, word.load, word.store, word.move
    clear, prefetch_to_write = word.clear, word.prefetch_to_write
    most, halves = SPAN[machine().kind], machine().halves
    span = chosen(
        size,
        (_span(size, part, width + 1) for part in (lanes, lanes // 2)[: 1 + halves] for width in range(most)),
        "a, b, offsets, count, start, step, sums, ld_sums",
    )
    (to_lanes, _, _, place_lanes), transpose = moves(size), transpose_of(size)
    where, place = piece_of(size), place_of(size)
    fill = field_of(size)

    @inline(size)
    def pack(plan, weight, at, valid, count, panel):
        """The weight of `count` channels, a row of lanes each tap; `valid` results from `at` on exist."""
        result, channel = plan[P.WEIGHT_RESULT], plan[P.WEIGHT_CHANNEL]
        kernel, limit = min(result, channel), weight + plan[P.GROUPS] * plan[P.WEIGHT_GROUP] * size
        if channel == kernel:  # a result's channels lie one after the other
            to_lanes(at, result, valid, 1, 0, panel, count * kernel, limit)
        else:
            for _ in range(count):
                if result == 1 and at + lanes * size <= limit:
                    move(panel, at)
                else:
                    to_lanes(at, result, valid, 1, 0, panel, kernel, limit)
                at += channel * size
                panel += kernel * lanes * size

    one, two, four, eight, sixteen = (move_of(size, number) for number in (1, 2, 4, 8, 16))

    @inline(size)
    def move_run(run, to, at):
        """So many elements, a divisor of the lanes."""
        if run == 16:
            sixteen(to, at)
        elif run == 8:
            eight(to, at)
        elif run == 4:
            four(to, at)
        elif run == 2:
            two(to, at)
        else:
            one(to, at)

    @inline(size)
    def pack_merged(plan, tables, weight, at_lanes, valid, count, panel):
        """The same where lanes are results of all phases: a table from `at_lanes` on says where each has its weight."""
        taps, run = plan[P.TAPS_A] * plan[P.TAPS_B], plan[P.MERGES]
        for c in range(count):
            for tap in range(taps):
                at = weight + (c * plan[P.WEIGHT_CHANNEL] + tables[plan[P.TAP_TABLE] + tap]) * size
                to = panel + (c * taps + tap) * lanes * size
                clear(to)
                for lane in range(0, valid, run):
                    move_run(run, to + lane * size, at + tables[at_lanes + 3 * lane] * size)

    @inline(size)
    def place_merged(plan, tables, at_lanes, valid, sums, out, images, rows, cols):
        """And their sums, to where each belongs."""
        run = plan[P.MERGES]
        for line in range(images * rows):
            to = out + (line // rows * plan[P.OUT_IMAGE] + line % rows * plan[P.OUT_ROW]) * size
            for col in range(cols):
                at = sums + (line * cols + col) * lanes * size
                for lane in range(0, valid, run):
                    move_run(run, to + tables[at_lanes + 3 * lane + 1] * size, at + lane * size)
                to += plan[P.OUT_COL] * size

    @inline(size)
    def piece(plan, tables, source, weight, bias, out, space, item):
        channels, phases = plan[P.CHANNELS], plan[P.PHASES]
        n, g, k0, i0, j0, images, results, rows_read, cols_read = where(plan, item)
        copies = plan[P.COPIES] != 0
        field, panel = space + plan[P.FIELD] * size, space + plan[P.PANEL] * size
        starts, sums = space + plan[P.START] * size, space + plan[P.SUMS] * size
        maps = space + plan[P.EXTRA] * size
        # what it reads, and the sums of an image: as many as are written
        run_pitch, image_pitch = plan[P.SOURCE_WIDTH], plan[P.SOURCE_IMAGE]
        if copies:
            run_pitch, image_pitch = plan[P.FIELD_COLS], plan[P.PLANES_H] * plan[P.PLANES_W] * plan[P.FIELD_PLANE]
        apart_h, apart_w = plan[P.APART_H], plan[P.APART_W]
        ld = apart_w * lanes
        rows = min(rows_read * apart_h, plan[P.SUMS_ROWS] - i0 * apart_h)
        cols = min(cols_read * apart_w, plan[P.SUMS_COLS] - j0 * apart_w)
        pixels = images * rows * cols
        pitch = -(-pixels // lanes) * lanes
        out += (plan[P.OUT_START] + n * plan[P.OUT_IMAGE] + g * plan[P.OUT_GROUP]) * size
        merges = plan[P.MERGES] != 0
        out += (i0 * apart_h * plan[P.OUT_ROW] + j0 * apart_w * plan[P.OUT_COL]) * size
        if not merges:
            out += k0 * plan[P.OUT_RESULT] * size

        for c0 in range(0, channels, plan[P.BLOCK_CHANNELS]):
            count_c = min(plan[P.BLOCK_CHANNELS], channels - c0)
            channel = g * plan[P.SOURCE_GROUP] + c0 * plan[P.SOURCE_CHANNEL]
            is_last = c0 + count_c == channels
            if copies:
                fill(plan, tables, source, field, n, images, channel, count_c, i0, rows_read, j0, cols_read)
                base = field
            else:
                base = source + (n * image_pitch + channel + i0 * run_pitch + j0) * size
            for k in range(0, results, lanes):
                valid = min(lanes, results - k)
                half = most if halves and valid <= lanes // 2 else 0
                block, there = sums + k * pixels * size, out + k * plan[P.OUT_RESULT] * size
                at = g * plan[P.WEIGHT_GROUP] + (k0 + k) * plan[P.WEIGHT_RESULT] + c0 * plan[P.WEIGHT_CHANNEL]
                at_lanes = plan[P.LANE_TABLE] + 3 * (k0 + k)
                if merges:
                    of_block = weight + (g * plan[P.WEIGHT_GROUP] + c0 * plan[P.WEIGHT_CHANNEL]) * size
                    pack_merged(plan, tables, of_block, at_lanes, valid, count_c, panel)
                else:
                    pack(plan, weight, weight + at * size, valid, count_c, panel)
                for lane in range(lanes):
                    start = nothing
                    if bias and lane < valid:
                        result = g * plan[P.RESULTS] + k0 + k + lane
                        if merges:
                            result = g * plan[P.MULTIPLE] + tables[at_lanes + 3 * lane + 2]
                        start = load(bias + result * size)
                    store(start, starts + lane * size)
                if c0 == 0 and plan[P.GAPS]:
                    for pixel in range(pixels):
                        move(block + pixel * lanes * size, starts)
                for phase in range(phases):
                    described = plan[P.PHASE_TABLE] + 5 * phase
                    run, runs = min(cols_read, tables[described + 1] - j0), min(rows_read, tables[described] - i0)
                    if phases == 1 and run_pitch == run:  # rows are read, and summed, one behind the other
                        run, runs = run * runs, 1
                    spans, col = -(-run // most), tables[described + 3]
                    for line in range(images * max(0, runs)):
                        image, row = line // runs, tables[described + 2] + line % runs * apart_h
                        b = base + (image * image_pitch + line % runs * run_pitch) * size
                        to = block + ((image * rows + row) * cols + col) * lanes * size
                        goal = there + (image * plan[P.OUT_IMAGE] + row * plan[P.OUT_ROW] + col) * size
                        j, met = 0, tables[described + 4]  # the taps of a span
                        if plan[P.CLIPS]:
                            met += 2 * (i0 + line % runs) * spans
                        for number in range(spans):
                            end = run * (number + 1) // spans
                            if is_last and not merges:
                                # where these sums go will have come by the time that they are whole
                                in_row = j * apart_w * plan[P.OUT_COL]
                                for lane in range(valid):
                                    prefetch_to_write(goal + (in_row + lane * plan[P.OUT_RESULT]) * size)
                            sum_ = to + j * ld * size
                            offsets, count = tables.ctypes.data + tables[met] * 8, count_c * tables[met + 1]
                            if c0:
                                span(half + end - j - 1, panel, b + j * size, offsets, count, sum_, ld, sum_, ld)
                            else:
                                span(half + end - j - 1, panel, b + j * size, offsets, count, starts, 0, sum_, ld)
                            j = end
                            if plan[P.CLIPS]:
                                met += 2
                if not is_last:
                    continue

                # the last channels' sums are whole
                if merges:
                    place_merged(plan, tables, at_lanes, valid, block, out, images, rows, cols)
                elif plan[P.OUT_COL] == 1 and rows * cols >= lanes:
                    for image in range(images):
                        place_lanes(plan, block + image * rows * cols * lanes * size,
                                    there + image * plan[P.OUT_IMAGE] * size, valid, rows, cols)  # fmt: skip
                else:
                    for pixel in range(0, pixels, lanes):
                        transpose(block + pixel * lanes * size, lanes, lanes, maps + pixel * size, pitch, valid)
                    for lane in range(valid):
                        place(plan, i0, load(starts + lane * size), maps + lane * pitch * size, cols,
                              there + lane * plan[P.OUT_RESULT] * size, rows, cols, images, False, 0)  # fmt: skip

    return all_plans("correlate_results", size, piece)
