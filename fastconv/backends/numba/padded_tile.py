"""Copies that the passes over matrices make: rows of elements, and the zero-padded field of a strip."""

from __future__ import annotations

from typing import Any

from fastconv.backends.numba.compiling import inline
from fastconv.backends.numba.llvm import I64, Code, make_word, once_a_set
from fastconv.backends.numba.places import P
from fastconv.backends.numba.simd import words

#: Bytes, at least, after which rows are asked for: so far away are they when memory has to bring them.
_AHEAD = 16384


@once_a_set
def rows_of(size: int) -> Any:
    """copy(to, from, count, may_exceed), repeat(to, value, count) and zero(to, count): `count` elements of a row.

    The first, if it may, and the last write up to a vector more.
    """
    word = words(size)
    lanes, move, load, store, clear, splat = word.lanes, word.move, word.load, word.store, word.clear, word.splat

    @inline(size)
    def copy(target, source, count, may_exceed):
        whole = count if may_exceed else count - lanes + 1
        i = 0
        while i < whole:
            move(target + i * size, source + i * size)
            i += lanes
        if i < count and not may_exceed:
            if count >= lanes:
                move(target + (count - lanes) * size, source + (count - lanes) * size)
            else:
                for rest in range(i, count):
                    store(load(source + rest * size), target + rest * size)

    @inline(size)
    def repeat(target, value, count):
        for i in range(0, count - lanes + 1, lanes):
            splat(value, target + i * size)
        for i in range(count // lanes * lanes, count):
            store(value, target + i * size)

    @inline(size)
    def zero(target, count):
        for i in range(0, count, lanes):
            clear(target + i * size)

    return copy, repeat, zero


def pad_rows(size: int, lanes: int, hop: int, planes: int) -> Any:
    """fill_rows(from, ld_from, to, block, ld_to, rows, last, w, width, ahead): rows of a map into rows of a field.

    A row starts at column w of the map, of `width` columns, whose elements go to `hop` planes in turn; the first
    `planes` of them, which lie `block` apart, get a row of `last` elements and up to a vector. Only the first and the
    last vector of a row meet the padding. What stands `ahead` is asked for: short rows are no stream that a processor
    would foresee.
    """

    def emit(
        code: Code, source: Any, ld_from: Any, target: Any, block: Any, ld_to: Any, rows: Any, last: Any, w: Any,
        width: Any, ahead: Any,
    ) -> None:  # fmt: skip
        b = code.builder
        source, target = code.pointer(source), code.pointer(target)

        def masks(column: Any) -> list[Any]:
            starts = [b.add(column, I64(part * lanes)) for part in range(hop)]
            return [code.between(b.neg(start), b.sub(width, start)) for start in starts]

        near, far = masks(w), masks(b.add(w, b.mul(last, I64(hop))))

        def turn(u: Any, _: list[Any]) -> list[Any]:
            row = code.at(source, b.mul(u, ld_from))

            def part(v: Any, masks: list[Any]) -> None:
                at = code.at(row, b.mul(v, I64(hop)))
                places = [code.at(at, I64(number * lanes)) for number in range(hop)]
                for place in places:
                    code.prefetch(code.at(place, ahead))
                found = [
                    code.read_some(place, masks[number]) if masks else code.read(place)
                    for number, place in enumerate(places)
                ]
                # every second lane, and of those again
                for _ in range(hop.bit_length() - 1):
                    found = [
                        code.lanes_of(pair, list(range(odd, 2 * lanes, 2)))
                        for odd in range(2)
                        for pair in zip(found[::2], found[1::2], strict=True)
                    ]
                for plane in range(planes):
                    to = b.add(b.mul(I64(plane), block), b.add(b.mul(u, ld_to), v))
                    code.write(found[plane], code.at(target, to))

            def middle(t: Any, _: list[Any]) -> list[Any]:
                part(b.mul(b.add(t, I64(1)), I64(lanes)), [])
                return []

            part(I64(0), near)
            with b.if_then(b.icmp_signed(">", last, I64(0))):
                count = b.sub(b.sdiv(last, I64(lanes)), I64(1))
                with b.if_then(b.icmp_signed(">", count, I64(0))):
                    code.loop(count, [], middle)
                part(last, far)
            return []

        code.loop(rows, [], turn)

    return make_word(size, lanes, "source ld_from target block ld_to rows last w width ahead", emit)


@once_a_set
def transpose_of(size: int) -> Any:
    """transpose(from, ld_from, valid, to, ld_to, count), of which `vectors` has both lengths."""
    word = words(size)
    half, transpose, transpose_half = word.lanes // 2, word.transpose, word.transpose_half

    @inline(size)
    def either(source, ld_source, valid, target, ld_target, count):
        """The first `count` columns of a square of lanes x lanes elements, of which the first `valid` rows exist."""
        if count > half:
            transpose(source, ld_source, valid, target, ld_target, count)
        else:
            transpose_half(source, ld_source, valid, target, ld_target, count)

    return either


@once_a_set
def _added(size: int, lanes: int) -> Any:
    """added(from, to, count): the first `count` elements of the sum of `lanes` vectors."""

    def emit(code: Code, source: Any, target: Any, count: Any) -> None:
        source = code.pointer(source)
        total = code.read(source)
        for lane in range(1, lanes):
            total = code.builder.fadd(total, code.read(code.at(source, I64(lane * lanes))))
        code.write_some(total, code.pointer(target), code.between(I64(0), count))

    return make_word(size, lanes, "source target count", emit)


@once_a_set
def total_of(size: int) -> Any:
    """total(from, square, to, count): the sum over the lanes of each of so many vectors, of which the first `count` are
    wanted: one vector of many."""
    lanes = words(size).lanes
    transpose, added = transpose_of(size), _added(size, lanes)

    @inline(size)
    def total(sums, square, target, count):
        transpose(sums, lanes, lanes, square, lanes, lanes)
        added(square, target, count)

    return total


@once_a_set
def field_of(size: int) -> Any:
    """fill(plan, tables, source, field, n, images, channel, channels, i0, rows, j0, cols): a strip in a field."""
    word = words(size)
    lanes, load, store = word.lanes, word.load, word.store
    copy, _, zero = rows_of(size)
    fill_rows, fill_halved, fill_pairs, fill_fours = (
        pad_rows(size, lanes, *kind) for kind in ((1, 1), (2, 1), (2, 2), (4, 4))
    )
    far_away = _AHEAD // size

    @inline(size)
    def fill(plan, tables, source, field, n, images, channel, channels, i0, rows, j0, cols):
        height, width = plan[P.SOURCE_HEIGHT], plan[P.SOURCE_WIDTH]
        pitch, block = plan[P.FIELD_COLS], plan[P.FIELD_PLANE]
        hop_h, hop_w, planes_w = plan[P.HOP_H], plan[P.HOP_W], plan[P.PLANES_W]
        planes, ld_from = plan[P.PLANES_H] * planes_w, hop_h * width
        channel_pitch = plan[P.SOURCE_CHANNEL]
        ahead = -(-far_away // channel_pitch) * channel_pitch
        used_rows = rows + plan[P.FIELD_ROWS] - plan[P.BLOCK_ROWS]
        used_cols = cols + pitch - plan[P.BLOCK_COLS]
        last = (used_cols - 1) // lanes * lanes
        number = 0
        while number < images * planes:
            a, b = number % planes // planes_w, number % planes_w
            # the rows and columns inside the map, and where the first ones are
            h = tables[plan[P.ORIGINS_H] + a] + i0 * hop_h
            w = tables[plan[P.ORIGINS_W] + b] + j0 * hop_w
            top, first = min(used_rows, max(0, -(h // hop_h))), min(used_cols, max(0, -(w // hop_w)))
            bottom = max(top, min(used_rows, (height - 1 - h) // hop_h + 1))
            end = max(first, min(used_cols, (width - 1 - w) // hop_w + 1))
            if first == end:
                bottom = top
            # the columns of the next planes lie between this one's: all are made at once
            has_all, origin = first < end and b + hop_w <= planes_w, plan[P.ORIGINS_W] + b
            if has_all:
                has_all = tables[origin + hop_w - 1] == tables[origin] + hop_w - 1
            is_usual = hop_w <= 2 or (hop_w == 4 and has_all)
            is_usual = is_usual and first <= lanes and end + (hop_w == 1) > last
            made = hop_w if is_usual and has_all else 1
            start = (n + number // planes) * plan[P.SOURCE_IMAGE] + channel + (h + top * hop_h) * width + w
            at, to, inside = source + start * size, field + number * block * size, bottom - top
            for _ in range(channels):
                row = to + top * pitch * size
                for plane in range(made):
                    zero(to + plane * block * size, top * pitch)
                if inside > 0:
                    if not is_usual:
                        for u in range(inside):
                            line, goal = at + u * ld_from * size, row + u * pitch * size
                            zero(goal, first)
                            if hop_w == 1:
                                copy(goal + first * size, line + first * size, end - first, False)
                            else:
                                for v in range(first, end):
                                    store(load(line + v * hop_w * size), goal + v * size)
                            zero(goal + end * size, used_cols - end)
                    elif hop_w == 1:
                        fill_rows(at, ld_from, row, block, pitch, inside, last, w, width, ahead)
                    elif made == 1:
                        fill_halved(at, ld_from, row, block, pitch, inside, last, w, width, ahead)
                    elif made == 2:
                        fill_pairs(at, ld_from, row, block, pitch, inside, last, w, width, ahead)
                    else:
                        fill_fours(at, ld_from, row, block, pitch, inside, last, w, width, ahead)
                for plane in range(made):
                    zero(to + (plane * block + bottom * pitch) * size, (used_rows - bottom) * pitch)
                at += channel_pitch * size
                to += plan[P.FIELD_CHANNEL] * size
            number += made

    return fill
