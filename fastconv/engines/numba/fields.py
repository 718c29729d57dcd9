"""Copies that the passes over matrices make: rows of elements, and the zero-padded field of a strip."""

from __future__ import annotations

import functools
from typing import Any

from fastconv.engines.numba.code import I64, Code, make_word
from fastconv.engines.numba.compiling import inline
from fastconv.engines.numba.places import P
from fastconv.engines.numba.vectors import words

#: Bytes, at least, after which rows are asked for: so far away are they when memory has to bring them.
_AHEAD = 16384


@functools.cache
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


def _fill_rows(size: int, lanes: int, hop: int, pairs: bool) -> Any:
    """fill_rows(from, ld_from, to, other, ld_to, rows, last, w, width, ahead): rows of a map into rows of a field.

    A row starts at column w of the map, of `width` columns, and has `last` elements and up to a vector. With `hop` 2 it
    takes every second element, and with `pairs` those between them are a row of `other`. Only the first and the last
    vector of a row meet the padding. What stands `ahead` is asked for: short rows are no stream that a processor would
    foresee.
    """

    def emit(
        code: Code, source: Any, ld_from: Any, target: Any, other: Any, ld_to: Any, rows: Any, last: Any, w: Any,
        width: Any, ahead: Any,
    ) -> None:  # fmt: skip
        b = code.builder
        source, targets = code.pointer(source), [code.pointer(target), code.pointer(other)][: 1 + pairs]

        def masks(column: Any) -> list[Any]:
            starts = [b.add(column, I64(half * lanes)) for half in range(hop)]
            return [code.between(b.neg(start), b.sub(width, start)) for start in starts]

        near, far = masks(w), masks(b.add(w, b.mul(last, I64(hop))))

        def turn(u: Any, _: list[Any]) -> list[Any]:
            row = code.at(source, b.mul(u, ld_from))

            def part(v: Any, masks: list[Any]) -> None:
                at = code.at(row, b.mul(v, I64(hop)))
                places = [code.at(at, I64(half * lanes)) for half in range(hop)]
                for place in places:
                    code.prefetch(code.at(place, ahead))
                found = [
                    code.read_some(place, masks[half]) if masks else code.read(place)
                    for half, place in enumerate(places)
                ]
                for odd, to in enumerate(targets):
                    value = found[0] if hop == 1 else code.lanes_of(found, list(range(odd, 2 * lanes, 2)))
                    code.write(value, code.at(to, b.add(b.mul(u, ld_to), v)))

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

    return make_word(size, lanes, "source ld_from target other ld_to rows last w width ahead", emit)


@functools.cache
def field_of(size: int) -> Any:
    """fill(plan, tables, source, field, n, images, channel, channels, i0, rows, j0, cols): a strip in a field."""
    word = words(size)
    lanes, load, store = word.lanes, word.load, word.store
    copy, _, zero = rows_of(size)
    fill_rows, fill_halved, fill_pairs = (
        _fill_rows(size, lanes, *kind) for kind in ((1, False), (2, False), (2, True))
    )
    far_away = _AHEAD // size

    @inline(size)
    def fill(plan, tables, source, field, n, images, channel, channels, i0, rows, j0, cols):
        height, width = plan[P.SOURCE_HEIGHT], plan[P.SOURCE_WIDTH]
        pitch, block = plan[P.FIELD_COLS], plan[P.FIELD_PLANE] * size
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
            is_usual = hop_w <= 2 and first <= lanes and end + (hop_w == 1) > last
            # the next plane's columns lie between this one's: both are made at once
            has_pair = False
            if is_usual and first < end and hop_w == 2 and b + 1 < planes_w:
                has_pair = tables[plan[P.ORIGINS_W] + b + 1] == tables[plan[P.ORIGINS_W] + b] + 1
            start = (n + number // planes) * plan[P.SOURCE_IMAGE] + channel + (h + top * hop_h) * width + w
            at, to, inside = source + start * size, field + number * block, bottom - top
            for _ in range(channels):
                row = to + top * pitch * size
                zero(to, top * pitch)
                if has_pair:
                    zero(to + block, top * pitch)
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
                        fill_rows(at, ld_from, row, row, pitch, inside, last, w, width, ahead)
                    elif has_pair:
                        fill_pairs(at, ld_from, row, row + block, pitch, inside, last, w, width, ahead)
                    else:
                        fill_halved(at, ld_from, row, row, pitch, inside, last, w, width, ahead)
                zero(to + bottom * pitch * size, (used_rows - bottom) * pitch)
                if has_pair:
                    zero(to + block + bottom * pitch * size, (used_rows - bottom) * pitch)
                at += channel_pitch * size
                to += plan[P.FIELD_CHANNEL] * size
            number += 2 if has_pair else 1

    return fill
