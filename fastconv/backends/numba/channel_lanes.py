"""A pass over matrices with a lane of the vectors for each result.

    correlate_results     out[n, g, k, i, j] = bias + sum over c, a, b of weight[g, k, c, a, b] * x

the correlation of `dense`, bit for bit. There the source is copied where its pixels do not fill vectors, and the weight
is read as it is; here the weight is transposed, and pixels are read one at a time, from wherever they are. That is
cheaper where a weight meets many pixels for its size: few channels, groups, rows that no vector fits. The phases of a
transposed convolution read one field, and their sums lie as they are written; or lanes are results of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numba.core import types

from fastconv.backends.numba.compiling import all_plans, chosen, inline
from fastconv.backends.numba.depthwise_channelwise import moves
from fastconv.backends.numba.llvm import I64, Code, machine, make_word, once_a_set
from fastconv.backends.numba.padded_tile import field_of, transpose_of
from fastconv.backends.numba.pixel_lanes import place_of
from fastconv.backends.numba.places import P
from fastconv.backends.numba.simd import ask_ahead, move_of, words
from fastconv.backends.numba.work_items import piece_of
from fastconv.kernels.abi import SPAN

_ARGUMENTS = "a next_a b offsets count start next_start step sums next_sums ld_sums asks"


@once_a_set
def _span(size: int, lanes: int, vectors: int, width: int) -> Any:
    """The micro-kernel with a lane for each result: `width` pixels of a row,

        sums[j] = start[j] + sum over t of a[offsets[2 * t]] * b[offsets[2 * t + 1] + j]

    with 0 <= t < count, j < width. Each element of `a`, `sums` and `start` is a vector, or the first `lanes` of one,
    or two of them, the second `next_...` behind the first; that of `b` is a number. If it `asks`, it says early what
    the next ones will read.
    """

    def emit(
        code: Code, a: Any, next_a: Any, b: Any, offsets: Any, count: Any, start: Any, next_start: Any, step: Any,
        sums: Any, next_sums: Any, ld_sums: Any, asks: Any,
    ) -> None:  # fmt: skip
        build = code.builder
        a, b, offsets = code.pointer(a), code.pointer(b), code.integers(offsets)
        start, sums = code.pointer(start), code.pointer(sums)

        def places(base: Any, next_base: Any, step: Any) -> list[Any]:
            return [
                code.at(base, build.add(build.mul(next_base, I64(v)), build.mul(step, I64(j))))
                for j in range(width)
                for v in range(vectors)
            ]

        def of(t: Any, what: int) -> Any:
            """What the table says: 0, where tap t has its factor; 1, its first pixel; 2 and 3, those of the next."""
            return build.load(code.at(offsets, build.add(build.shl(t, I64(1)), I64(what))))

        def pixel(base: Any, column: int) -> Any:
            return code.spread(build.load(code.at(base, I64(column))))

        def one(t: Any, accumulators: list[Any]) -> list[Any]:
            first, base, results = code.at(a, of(t, 0)), code.at(b, of(t, 1)), []
            factors = [code.read(code.at(first, build.mul(next_a, I64(v)))) for v in range(vectors)]
            for j in range(width):
                x = pixel(base, j)
                met = accumulators[j * vectors : (j + 1) * vectors]
                results += [code.fma(factor, x, sum_) for factor, sum_ in zip(factors, met, strict=True)]
                code.in_order()  # pixels that are read early would need more registers than there are
            return results

        def one_asking(t: Any, accumulators: list[Any]) -> list[Any]:
            with build.if_then(build.icmp_signed("!=", asks, I64(0))):
                ask_ahead(code, code.at(b, of(t, 1)), width)
            return one(t, accumulators)

        def two(t: Any, accumulators: list[Any]) -> list[Any]:
            base = code.at(b, of(t, 1))
            found = [pixel(base, column) for column in range(width + 1)]
            for factor, met in ((of(t, 0), found), (of(t, 2), found[1:])):
                weights = code.read(code.at(a, factor))
                accumulators = [code.fma(weights, x, sum_) for x, sum_ in zip(met, accumulators, strict=False)]
            return accumulators

        started = [code.read(place) for place in places(start, next_start, step)]
        if vectors == 1 and machine().has_pairs:
            # taps that meet neighbouring pixels share those, as two vectors of results do
            results = code.choose(
                code.are_neighbours(offsets, I64(0), count),
                lambda: code.by_twos(offsets, count, started, one, two),
                lambda: code.loop(count, started, one_asking),
            )
        else:
            results = code.loop(count, started, one_asking)
        for result, place in zip(results, places(sums, next_sums, ld_sums), strict=True):
            code.write(result, place)

    return make_word(size, lanes, _ARGUMENTS, emit)


def vectors_of(
    size: int, name: str, micro_kernel: Callable[..., Any], shapes: Sequence[Any], of_two: Sequence[Any], arguments: str
) -> tuple[Any, Any]:
    """The micro-kernels (size, lanes, vectors, shape) for a vector of results, or half a one, in each of `shapes`, and
    for two in each shape `of_two`, as far as this processor wants them.

    Returns what calls one of them by its number and arguments; and a function of a plan and how many results are left,
    which returns the first number of those for the next results, and how many results these are.
    """
    layout = machine().layout(size)
    lanes, after = layout.lanes, len(shapes)
    assert not (layout.halves and layout.pairs)  # so that either is the second kind
    kinds = [(lanes, 1, shapes)]
    if layout.halves:
        kinds.append((lanes // 2, 1, shapes))
    if layout.pairs:
        kinds.append((lanes, 2, of_two))
    kernels = [micro_kernel(size, part, vectors, shape) for part, vectors, each in kinds for shape in each]

    @inline(size, types.UniTuple(types.int64, 2))
    def following(plan, results):
        if results <= plan[P.HALVES]:
            return after, results
        if plan[P.PAIRS] and results >= plan[P.PAIRS]:
            return after, min(2 * lanes, results)
        return 0, min(lanes, results)

    return chosen(size, name, dict(enumerate(kernels)), ", ".join(arguments.split())), following


def _merged(size: int, run: int) -> tuple[Any, Any]:
    """What packs the weight where lanes are results of all phases, of which `run` lie side by side, and what places
    their sums; a table from `at_lanes` on says where each lane has its weight and belongs."""
    word, move = words(size), move_of(size, run)
    lanes, clear = word.lanes, word.clear

    @inline(size)
    def pack(plan, tables, weight, at_lanes, valid, count, panel):
        """The weight of `count` channels, a row of lanes each tap."""
        taps = plan[P.TAPS_A] * plan[P.TAPS_B]
        for c in range(count):
            for tap in range(taps):
                at = weight + (c * plan[P.WEIGHT_CHANNEL] + tables[plan[P.TAP_TABLE] + tap]) * size
                to = panel + (c * taps + tap) * lanes * size
                clear(to)
                for lane in range(0, valid, run):
                    move(to + lane * size, at + tables[at_lanes + 3 * lane] * size)

    @inline(size)
    def place(plan, tables, at_lanes, valid, sums, out, images, rows, cols):
        """A vector of sums of each pixel."""
        for line in range(images * rows):
            to = out + (line // rows * plan[P.OUT_IMAGE] + line % rows * plan[P.OUT_ROW]) * size
            for col in range(cols):
                at = sums + (line * cols + col) * lanes * size
                for lane in range(0, valid, run):
                    move(to + tables[at_lanes + 3 * lane + 1] * size, at + lane * size)
                to += plan[P.OUT_COL] * size

    return pack, place


@once_a_set
def correlate_results(size: int) -> Any:
    """The pass `correlate_results` for elements of `size` bytes."""
    word = words(size)
    lanes, nothing, load, store, move = word.lanes, word.zero, word.load, word.store, word.move
    prefetch_to_write = word.prefetch_to_write
    most = SPAN[machine().kind]
    span, following = vectors_of(size, "span", _span, range(1, most + 1), range(1, most + 1), _ARGUMENTS)
    (to_lanes, _, _, _, place_lanes), transpose = moves(size), transpose_of(size)
    where, place = piece_of(size), place_of(size)
    fill = field_of(size)

    @inline(size)
    def pack(plan, weight, at, valid, count, panel):
        """The weight of `count` channels, a row of lanes each tap; `valid` results from `at` on exist."""
        result, channel = plan[P.WEIGHT_RESULT], plan[P.WEIGHT_CHANNEL]
        kernel, limit = min(result, channel), weight + plan[P.GROUPS] * plan[P.WEIGHT_GROUP] * size
        if channel == kernel:  # a result's channels lie one after the other
            to_lanes(at, result, valid, 1, 0, panel, 0, count * kernel, limit)
        else:
            for _ in range(count):
                if result == 1 and at + lanes * size <= limit:
                    move(panel, at)
                else:
                    to_lanes(at, result, valid, 1, 0, panel, 0, kernel, limit)
                at += channel * size
                panel += kernel * lanes * size

    merged = {2**e: _merged(size, 2**e) for e in range(lanes.bit_length())}
    pack_merged = chosen(
        size, "pack_merged", {run: pack for run, (pack, _) in merged.items()},
        "plan, tables, weight, at_lanes, valid, count, panel",
    )  # fmt: skip
    place_merged = chosen(
        size, "place_merged", {run: place for run, (_, place) in merged.items()},
        "plan, tables, at_lanes, valid, sums, out, images, rows, cols",
    )  # fmt: skip

    @inline(size)
    def put(plan, tables, sums, starts, maps, k, valid, out, there, i0, images, rows, cols):
        """Whole sums of a vector of results, to where they belong."""
        pixels = images * rows * cols
        pitch = (-(-pixels // lanes) | 1) * lanes
        if plan[P.MERGES]:
            place_merged(plan[P.MERGES], plan, tables, plan[P.LANE_TABLE] + 3 * k, valid, sums, out, images, rows, cols)
        elif plan[P.OUT_COL] == 1 and rows * cols >= lanes and not plan[P.ALIASES]:
            # a square of pixels and results at a time; not where its lines would not stay in a cache
            for image in range(images):
                place_lanes(plan, sums + image * rows * cols * lanes * size, there + image * plan[P.OUT_IMAGE] * size,
                            valid, rows, cols)  # fmt: skip
        else:
            for pixel in range(0, pixels, lanes):
                transpose(sums + pixel * lanes * size, lanes, lanes, maps + pixel * size, pitch, valid)
            for lane in range(valid):
                place(plan, i0, load(starts + lane * size), maps + lane * pitch * size, cols,
                      there + lane * plan[P.OUT_RESULT] * size, rows, cols, images, False, 0)  # fmt: skip

    @inline(size)
    def piece(plan, tables, source, weight, bias, out, space, item):
        channels, phases = plan[P.CHANNELS], plan[P.PHASES]
        n, g, k0, i0, j0, images, results, rows_read, cols_read = where(plan, item)
        copies = plan[P.COPIES] != 0
        asks = plan[P.ASKS] != 0 and not copies
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
            # one vector of results, or two that share what is read of the pixels
            k = 0
            while k < results:
                kind, count_k = following(plan, results - k)
                end_k = k + count_k
                block, there = sums + k * pixels * size, out + k * plan[P.OUT_RESULT] * size
                for first in range(k, end_k, lanes):
                    valid, of_start = min(lanes, end_k - first), starts + (first - k) * size
                    of_panel = panel + (first > k) * plan[P.NEXT_PANEL] * size
                    at = g * plan[P.WEIGHT_GROUP] + (k0 + first) * plan[P.WEIGHT_RESULT] + c0 * plan[P.WEIGHT_CHANNEL]
                    at_lanes = plan[P.LANE_TABLE] + 3 * (k0 + first)
                    if merges:
                        of_block = weight + (g * plan[P.WEIGHT_GROUP] + c0 * plan[P.WEIGHT_CHANNEL]) * size
                        pack_merged(plan[P.MERGES], plan, tables, of_block, at_lanes, valid, count_c, of_panel)
                    else:
                        pack(plan, weight, weight + at * size, valid, count_c, of_panel)
                    for lane in range(lanes):
                        start = nothing
                        if bias and lane < valid:
                            result = g * plan[P.RESULTS] + k0 + first + lane
                            if merges:
                                result = g * plan[P.MULTIPLE] + tables[at_lanes + 3 * lane + 2]
                            start = load(bias + result * size)
                        store(start, of_start + lane * size)
                    if c0 == 0 and plan[P.GAPS]:
                        for pixel in range(pixels):
                            move(sums + (first * pixels + pixel * lanes) * size, of_start)
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
                            if is_last and not merges and not plan[P.ALIASES]:
                                # where these sums go will have come by the time that they are whole; some of it only,
                                # if it is all in few sets of a cache
                                in_row = j * apart_w * plan[P.OUT_COL]
                                for lane in range(end_k - k):
                                    prefetch_to_write(goal + (in_row + lane * plan[P.OUT_RESULT]) * size)
                            sum_ = to + j * ld * size
                            offsets, count = tables.ctypes.data + tables[met] * 8, count_c * tables[met + 1]
                            start_, next_start, step = starts, lanes, 0
                            if c0:
                                start_, next_start, step = sum_, lanes * pixels, ld
                            is_first = k == 0 and phase == 0
                            span(kind + end - j - 1, panel, plan[P.NEXT_PANEL], b + j * size, offsets, count,
                                 start_, next_start, step, sum_, lanes * pixels, ld, asks and is_first)  # fmt: skip
                            j = end
                            if plan[P.CLIPS]:
                                met += 2
                if is_last:
                    for first in range(k, end_k, lanes):
                        put(plan, tables, sums + first * pixels * size, starts + (first - k) * size, maps, k0 + first,
                            min(lanes, end_k - first), out, out + first * plan[P.OUT_RESULT] * size, i0, images, rows,
                            cols)  # fmt: skip
                k = end_k

    return all_plans("correlate_results", size, piece)
