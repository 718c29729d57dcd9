"""Passes over matrices: the weight's gradient for groups of several channels.

    correlate_weight, correlate_results_weight     out[g, k, c, a, b] = sum over n, i, j of small[n, g, k, i, j] * x

where x is the pixel of image n and channel c of group g that output (i, j) meets at tap (a, b).

In the first a row of the tile is a result k, its vectors are taps, for which the source's pixels are transposed; in the
second a row is a tap, whose pixels are read one at a time, from wherever they are, and its vectors are results, for
which the small map's are. Both run over pixels, and give the same bits: each element is one chain of multiply-adds in
the order of the definition, or as many as the plan says.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np

from fastconv.backends.numba.channel_lanes import vectors_of
from fastconv.backends.numba.compiling import all_plans, inline
from fastconv.backends.numba.depthwise_channelwise import moves
from fastconv.backends.numba.llvm import I64, Code, machine, make_word
from fastconv.backends.numba.padded_tile import field_of, rows_of, transpose_of
from fastconv.backends.numba.pixel_lanes import multiply_tile
from fastconv.backends.numba.places import P
from fastconv.backends.numba.simd import words
from fastconv.backends.numba.work_items import shares_of
from fastconv.kernels.abi import TAPS, TILES


@functools.cache
def correlate_weight(size: int) -> Any:
    """The pass `correlate_weight` for elements of `size` bytes."""
    word = words(size)
    lanes, load, store, gather = word.lanes, word.load, word.store, word.gather
    height, width = TILES[machine().kind][0]
    full, two, narrow = (multiply_tile(size, lanes, height, vectors) for vectors in (width, 2, 1))
    copy, _, zero = rows_of(size)
    share, strip = shares_of(size)
    fill = field_of(size)
    pitch = width * lanes

    @inline(size)
    def pack(tables, offsets, source, taps, panel, first, last, run, runs, run_pitch, image_pitch, limit, furthest):
        """Rows of `taps` taps, one row for each pixel first <= pixel < last."""
        # a vector of taps after the other: rows a power of two apart are in one set of a cache, which holds no more
        for t in range(0, taps, lanes):
            pixel = first
            while pixel < last:
                which = pixel // run
                start = pixel - which * run
                length = min(run - start, last - pixel, lanes)
                at = source + ((which // runs) * image_pitch + (which % runs) * run_pitch + start) * size
                target = panel + (pixel - first) * pitch * size
                if at + (furthest + lanes) * size <= limit:
                    gather(at, tables.ctypes.data + (offsets + 2 * t) * 8, target + t * size, pitch, length)
                else:
                    for lane in range(min(lanes, taps - t)):
                        for i in range(length):
                            store(
                                load(at + (tables[offsets + 2 * (t + lane) + 1] + i) * size),
                                target + (i * pitch + t + lane) * size,
                            )
                pixel += length

    @inline(size)
    def piece(plan, tables, source, small, _, out, space, item):
        split, g, k0, c0, count_k, count_c, begin, finish = share(plan, item)
        taps, block_n = plan[P.TAPS_A] * plan[P.TAPS_B], plan[P.BLOCK_IMAGES]
        ld_a = plan[P.WEIGHT_RESULT]
        copies = plan[P.COPIES] != 0
        field, panel, sums = space + plan[P.FIELD] * size, space + plan[P.PANEL] * size, space + plan[P.SUMS] * size
        run_pitch = plan[P.FIELD_COLS] if copies else plan[P.SOURCE_WIDTH]
        limit, image_pitch = source + plan[P.SOURCE_SIZE] * size, plan[P.SOURCE_IMAGE]
        if copies:
            limit = panel + plan[P.WORKSPACE] * size
            image_pitch = plan[P.PLANES_H] * plan[P.PLANES_W] * plan[P.FIELD_PLANE]
        offsets = plan[P.TAPS]
        pixel_offsets = tables.ctypes.data + plan[P.PANEL_TAPS] * 8
        count = count_c * taps
        vectors = -(-count // lanes)
        ld = vectors * lanes
        zeros = space + plan[P.START] * size
        zero(zeros, lanes)
        out += (split * plan[P.OUT_IMAGE] + g * plan[P.OUT_GROUP] + k0 * plan[P.OUT_RESULT] + c0 * taps) * size
        # tiles that are full on both sides are summed in the output
        ld_out = plan[P.OUT_RESULT]
        solid = count // lanes
        solid = solid // width * width if solid < vectors else solid
        solid *= lanes
        whole_k = count_k // height * height
        is_first = True
        channel = g * plan[P.SOURCE_GROUP] + c0 * plan[P.SOURCE_CHANNEL]
        # the table goes on for lanes that no tap has; where the source ends they must not be read
        furthest = 0
        for t in range(ld):
            furthest = max(furthest, tables[offsets + 2 * t + 1])
        for number in range(begin, finish):
            n, i0, j0, count_n, rows, cols = strip(plan, number)
            if copies:
                fill(plan, tables, source, field, n, count_n, channel, count_c, i0, rows, j0, cols)
                base = field
            else:
                base = source + (n * plan[P.SOURCE_IMAGE] + channel + i0 * run_pitch + j0) * size
            a = (
                small
                + (n * plan[P.WEIGHT_CHANNEL] + g * plan[P.WEIGHT_GROUP] + k0 * ld_a + i0 * plan[P.COLS] + j0) * size
            )
            pixels = count_n * rows * cols
            run, runs = (rows * cols, 1) if run_pitch == cols else (cols, rows)
            for first in range(0, pixels, plan[P.BLOCK_PIXELS]):
                # the offsets of several images' pixels are all in the table; of one image's they start anew
                moved_a, moved_b = (first, 0) if block_n == 1 else (0, first * pitch)
                at_offsets = pixel_offsets if block_n == 1 else pixel_offsets + 16 * first
                last = min(first + plan[P.BLOCK_PIXELS], pixels)
                v = 0
                while v < vectors:
                    most, t = min(width, vectors - v), v * lanes
                    v += most
                    pack(tables, offsets + 2 * t, base, min(v * lanes, count) - t, panel, first, last, run, runs,
                         run_pitch, image_pitch, limit, furthest)  # fmt: skip
                    for k in range(0, count_k, height):
                        row, valid = a + (k * ld_a + moved_a) * size, count_k - k
                        to, ld_to = sums + (k * ld + t) * size, ld
                        if v * lanes <= solid and k < whole_k:
                            to, ld_to = out + (k * ld_out + t) * size, ld_out
                        start, ld_start, step = zeros, 0, 0
                        if not is_first:
                            start, ld_start, step = to, ld_to, lanes
                        x, length = panel - moved_b * size, last - first
                        if most == width:
                            full(row, ld_a, valid, x, at_offsets, length, start, ld_start, step, to, ld_to)
                        elif most == 2:
                            two(row, ld_a, valid, x, at_offsets, length, start, ld_start, step, to, ld_to)
                        else:
                            narrow(row, ld_a, valid, x, at_offsets, length, start, ld_start, step, to, ld_to)
                is_first = False
        for k in range(count_k):
            done = solid if k < whole_k else 0
            copy(out + (k * ld_out + done) * size, sums + (k * ld + done) * size, count - done, False)

    return all_plans("correlate_weight", size, piece)


_ARGUMENTS = "a next_a image_a b image_b offsets images pixels count start step sums next_sums"


@functools.cache
def _taps(size: int, lanes: int, vectors: int, shape: tuple[int, int]) -> Any:
    """The micro-kernel of the weight's gradient with a lane for each result, `shape` (taps of a run, runs),

        sums[offsets[2 * t]] = start[step * offsets[2 * t]] + sum over n, p of
            a[n * image_a + pixels[2 * p]] * b[n * image_b + pixels[2 * p + 1] + offsets[2 * t + 1]]

    with 0 <= n < images, 0 <= p < count, t < all taps. Each element of `a`, `sums` and `start` is a vector, or the
    first `lanes` of one, or two of them, the second `next_...` behind the first; that of `b` is a number. The taps of a
    run are neighbours: of two pixels that are neighbours too, each number that they read is read once for both.
    """
    run, runs = shape
    width = run * runs

    def emit(
        code: Code, a: Any, next_a: Any, image_a: Any, b: Any, image_b: Any, offsets: Any, images: Any, pixels: Any,
        count: Any, start: Any, step: Any, sums: Any, next_sums: Any,
    ) -> None:  # fmt: skip
        build = code.builder
        a, b, offsets, pixels = code.pointer(a), code.pointer(b), code.integers(offsets), code.integers(pixels)
        start, sums = code.pointer(start), code.pointer(sums)
        at = [code.at(b, build.load(code.at(offsets, I64(2 * r * run + 1)))) for r in range(runs)]
        places = [build.load(code.at(offsets, I64(2 * t))) for t in range(width)]
        starts = [code.at(start, build.mul(step, build.mul(next_sums, I64(v)))) for v in range(vectors)]
        ends = [code.at(sums, build.mul(next_sums, I64(v))) for v in range(vectors)]

        def of(p: Any, what: int) -> Any:
            """What the table says: 0, where pixel p is in the panel; 1, in what is read; 2 and 3, where the next is."""
            return build.load(code.at(pixels, build.add(build.shl(p, I64(1)), I64(what))))

        def along_images(n: Any, carried: list[Any]) -> list[Any]:
            of_image, in_b = code.at(a, build.mul(n, image_a)), build.mul(n, image_b)

            def read(p: Any, number: int) -> list[list[Any]]:
                """The numbers from pixel p on that each run meets."""
                pixel = build.add(in_b, of(p, 1))
                return [
                    [code.spread(build.load(code.at(code.at(place, pixel), I64(i)))) for i in range(number)]
                    for place in at
                ]

            def one(p: Any, carried: list[Any]) -> list[Any]:
                first = code.at(of_image, of(p, 0))
                factors = [code.read(code.at(first, build.mul(next_a, I64(v)))) for v in range(vectors)]
                if vectors > 1:
                    code.once()  # two turns at a time want more registers than there are
                products = itertools.product(itertools.chain(*read(p, run)), factors)
                return [code.fma(factor, x, sum_) for (x, factor), sum_ in zip(products, carried, strict=True)]

            def two(p: Any, carried: list[Any]) -> list[Any]:
                met = read(p, run + 1)
                for i in range(2):
                    factor = code.read(code.at(of_image, of(p, 2 * i)))
                    terms = itertools.chain(*(of_run[i : i + run] for of_run in met))
                    carried = [code.fma(factor, x, sum_) for x, sum_ in zip(terms, carried, strict=True)]
                return carried

            return code.by_twos(pixels, count, carried, one, two) if run > 1 else code.loop(count, carried, one)

        started = [code.read(code.at(base, build.mul(step, place))) for place in places for base in starts]
        goals = [code.at(base, place) for place in places for base in ends]
        for goal, result in zip(goals, code.loop(images, started, along_images), strict=True):
            code.write(result, goal)

    return make_word(size, lanes, _ARGUMENTS, emit)


@functools.cache
def correlate_results_weight(size: int) -> Any:
    """The pass `correlate_results_weight` for elements of `size` bytes."""
    word = words(size)
    lanes, clear, prefetch_to_write = word.lanes, word.clear, word.prefetch_to_write
    widest = TAPS[machine().kind]
    shapes = [(run, runs + 1) for run in range(1, machine().run + 1) for runs in range(widest // run)]
    taps_of, following = vectors_of(size, "taps", _taps, shapes, shapes[:widest], _ARGUMENTS)
    #: The number of the first of each run, among those for as many results.
    first_of = np.array([0, *np.cumsum([widest // run for run in range(1, machine().run)])], np.int64)
    (to_lanes, _, _, _, _), transpose = moves(size), transpose_of(size)
    share, strip = shares_of(size)
    copy, _, _ = rows_of(size)
    fill = field_of(size)

    @inline(size)
    def put(sums, out, ld_out, results, taps, square):
        """Whole sums of so many results and taps, in vectors of results, to where they belong."""
        for k in range(0, results, lanes):
            valid = min(lanes, results - k)
            for t in range(0, taps, lanes):
                block, to, count = (
                    sums + (k * taps + t * lanes) * size,
                    out + (k * ld_out + t) * size,
                    min(lanes, taps - t),
                )
                if count == lanes:
                    transpose(block, lanes, lanes, to, ld_out, valid)
                else:
                    transpose(block, lanes, lanes, square, lanes, valid)
                    for lane in range(valid):
                        copy(to + lane * ld_out * size, square + lane * lanes * size, count, False)

    @inline(size)
    def piece(plan, tables, source, small, _, out, space, item):
        split, g, k0, c0, results, channels, begin, finish = share(plan, item)
        copies = plan[P.COPIES] != 0
        channel, most = g * plan[P.SOURCE_GROUP] + c0 * plan[P.SOURCE_CHANNEL], plan[P.BLOCK_PIXELS]
        taps = plan[P.TAPS_A] * plan[P.TAPS_B]
        count = channels * taps
        ld_small, ld_image = plan[P.WEIGHT_RESULT], plan[P.WEIGHT_CHANNEL]
        limit = small + plan[P.IMAGES] * ld_image * size
        run_pitch, image_pitch = plan[P.SOURCE_WIDTH], plan[P.SOURCE_IMAGE]
        if copies:
            run_pitch, image_pitch = plan[P.FIELD_COLS], plan[P.PLANES_H] * plan[P.PLANES_W] * plan[P.FIELD_PLANE]
        hop_h, hop = plan[P.STEP_H], plan[P.STEP_W]
        run_pitch *= hop_h
        field, panel = space + plan[P.FIELD] * size, space + plan[P.PANEL] * size
        sums, zeros, square = space + plan[P.SUMS] * size, space + plan[P.START] * size, space + plan[P.EXTRA] * size
        ld_out = plan[P.OUT_RESULT]
        out += (split * plan[P.OUT_IMAGE] + g * plan[P.OUT_GROUP] + k0 * ld_out + c0 * taps) * size
        clear(zeros)

        for number in range(begin, finish):
            n0, i0, j0, count_n, count_i, count_j = strip(plan, number)
            if copies:
                read_i = plan[P.BLOCK_ROWS] - (plan[P.BLOCK_ROWS] - count_i) * hop_h
                read_j = plan[P.BLOCK_COLS] - (plan[P.BLOCK_COLS] - count_j) * hop
                fill(plan, tables, source, field, n0, count_n, channel, channels, i0 * hop_h, read_i, j0 * hop, read_j)
                base = field
            else:
                base = source + (n0 * plan[P.SOURCE_IMAGE] + channel + i0 * run_pitch + j0 * hop) * size
            start = small + (n0 * ld_image + g * plan[P.WEIGHT_GROUP] + k0 * ld_small + i0 * plan[P.COLS] + j0) * size
            # a panel is some images, some rows of one, or a part of a row
            run, runs = count_j, count_i
            block_n, block_i = max(1, most // (run * runs)), max(1, most // run)
            parts = -(-run // most)
            block_j = -(-run // parts)
            for n in range(0, count_n, block_n):
                images = min(block_n, count_n - n)
                for i in range(0, runs, block_i):
                    rows = min(block_i, runs - i)
                    for j in range(0, run, block_j):
                        cols = min(block_j, run - j)
                        is_start = number == begin and n == 0 and i == 0 and j == 0
                        is_last = number == finish - 1 and n + images == count_n
                        is_last = is_last and i + rows == runs and j + cols == run
                        x = base + (n * image_pitch + i * run_pitch + j * hop) * size
                        # one vector of results, or two that share what is read of the source
                        k = 0
                        while k < results:
                            kind, count_k = following(plan, results - k)
                            end_k = k + count_k
                            sum_, there = sums + k * count * size, out + k * ld_out * size
                            for of in range(k, end_k, lanes):
                                at = start + (n * ld_image + of * ld_small + i * run + j) * size
                                of_panel = panel + (of > k) * plan[P.NEXT_PANEL] * size
                                for m in range(images):
                                    place = of_panel + m * rows * cols * lanes * size
                                    to_lanes(at + m * ld_image * size, ld_small, min(lanes, end_k - of), 1, 0, place,
                                             0, rows * cols, limit)  # fmt: skip
                            passed = 0
                            for bundle in range(plan[P.BUNDLES]):
                                described = plan[P.BUNDLE_TABLE] + 9 * bundle
                                offsets, bundled = tables[described], channels * tables[described + 1]
                                # the outputs of the panel that its taps meet
                                top = max(0, tables[described + 2] - i0 - i)
                                left = max(0, tables[described + 4] - j0 - j)
                                met_i = min(rows, tables[described + 3] - i0 - i) - top
                                met_j = min(cols, tables[described + 5] - j0 - j) - left
                                first = tables[described + 6] + 2 * (top * met_j + left - tables[described + 7])
                                is_met = met_i > 0 and met_j > 0
                                run_of_taps = tables[described + 8]
                                runs_of_taps = bundled // run_of_taps
                                chunks, t = -(-runs_of_taps // (widest // run_of_taps)), 0
                                number_of = kind + first_of[run_of_taps - 1] - 1
                                for chunk in range(chunks):
                                    end = runs_of_taps * (chunk + 1) // chunks * run_of_taps
                                    if is_last:
                                        # where these sums go will have come by the time that they are whole
                                        for lane in range(end_k - k):
                                            prefetch_to_write(there + (lane * ld_out + passed) * size)
                                    if is_met:
                                        taps_of(
                                            number_of + (end - t) // run_of_taps, panel, plan[P.NEXT_PANEL],
                                            rows * cols * lanes, x, image_pitch,
                                            tables.ctypes.data + (offsets + 2 * t) * 8, images,
                                            tables.ctypes.data + first * 8, met_i * met_j,
                                            zeros if is_start else sum_, 0 if is_start else 1, sum_, lanes * count,
                                        )  # fmt: skip
                                    elif is_start:
                                        for tap in range(t, end):
                                            for of in range(0, end_k - k, lanes):
                                                clear(sum_ + (of * count + tables[offsets + 2 * tap]) * size)
                                    passed += end - t
                                    t = end
                            if is_last:
                                put(sum_, there, ld_out, end_k - k, count, square)
                            k = end_k

    return all_plans("correlate_results_weight", size, piece)
