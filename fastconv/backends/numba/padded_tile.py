"""Copies of the source: channels of a zero-padded tile, and transposed squares of elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastconv.backends.numba.compiling import inline
from fastconv.backends.numba.llvm import I64, Code, make_word, once_a_set
from fastconv.backends.numba.simd import words


def pad_rows(size: int, lanes: int, hop: int, planes: int) -> Any:
    """`kernels.primitives.pad_rows` and the like: elements go to `hop` planes in turn, of which the first `planes` are
    written."""

    def emit(
        code: Code, source: Any, ld_source: Any, source_channel: Any, target: Any, plane: Any, ld_target: Any,
        target_channel: Any, channels: Any, top: Any, rows: Any, bottom: Any, last: Any, w: Any, width: Any,
        ahead: Any,
    ) -> None:  # fmt: skip
        b = code.builder
        source, target = code.pointer(source), code.pointer(target)
        planes_at = [b.mul(I64(number), plane) for number in range(planes)]

        def masks(column: Any) -> list[Any]:
            starts = [b.add(column, I64(part * lanes)) for part in range(hop)]
            return [code.between(b.neg(start), b.sub(width, start)) for start in starts]

        near, far = masks(w), masks(b.add(w, b.mul(last, I64(hop))))

        def loop(count: Any, body: Callable[[Any], None]) -> None:
            def turn(t: Any, _: list[Any]) -> list[Any]:
                body(t)
                return []

            with b.if_then(b.icmp_signed(">", count, I64(0))):
                code.loop(count, [], turn)

        def zeros(to: Any, number: Any) -> None:
            def clear(v: Any) -> None:
                for offset in planes_at:
                    code.write(code.zeros, code.at(to, b.add(offset, b.mul(v, I64(lanes)))))

            loop(b.sdiv(b.add(b.mul(number, ld_target), I64(lanes - 1)), I64(lanes)), clear)

        def part(read: Any, written: Any, v: Any, masks: list[Any]) -> None:
            at = code.at(read, b.mul(v, I64(hop)))
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
            for vector, offset in zip(found, planes_at, strict=False):
                code.write(vector, code.at(written, b.add(offset, v)))

        def row(read: Any, written: Any) -> None:
            part(read, written, I64(0), near)
            with b.if_then(b.icmp_signed(">", last, I64(0))):
                count = b.sub(b.sdiv(last, I64(lanes)), I64(1))
                loop(count, lambda t: part(read, written, b.mul(b.add(t, I64(1)), I64(lanes)), []))
                part(read, written, last, far)

        def channel(c: Any) -> None:
            read, written = code.at(source, b.mul(c, source_channel)), code.at(target, b.mul(c, target_channel))
            zeros(written, top)
            inside = code.at(written, b.mul(top, ld_target))
            loop(rows, lambda u: row(code.at(read, b.mul(u, ld_source)), code.at(inside, b.mul(u, ld_target))))
            zeros(code.at(inside, b.mul(rows, ld_target)), bottom)

        loop(channels, channel)

    arguments = "source ld_source source_channel target plane ld_target target_channel channels top rows bottom"
    return make_word(size, lanes, f"{arguments} last w width ahead", emit)


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
