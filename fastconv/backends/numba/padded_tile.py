"""Copies that the passes over matrices make: rows of elements, and the zero-padded field of a strip."""

from __future__ import annotations

from typing import Any

from fastconv.backends.numba.compiling import inline
from fastconv.backends.numba.llvm import I64, Code, make_word, once_a_set
from fastconv.backends.numba.simd import words


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
