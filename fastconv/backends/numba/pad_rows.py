"""The primitive that copies rows of a map into rows of a padded tile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastconv.backends.numba.llvm import I64, Code, make_operation


def pad_rows(size: int, lanes: int, stride: int, planes: int) -> Any:
    """The primitive that splits rows into `stride` planes and writes the first `planes` of them, zero-padded.

    For stride 1 that is `pad_rows`, for (2, 1) `pad_rows_of_2`, for (2, 2) `pad_2_rows`, for (4, 4) `pad_4_rows`.
    """

    def emit(
        code: Code, source: Any, ld_source: Any, source_channel: Any, target: Any, plane: Any, ld_target: Any,
        target_channel: Any, channels: Any, top: Any, rows: Any, bottom: Any, last: Any, w: Any, width: Any,
        ahead: Any,
    ) -> None:  # fmt: skip
        b = code.builder
        source, target = code.pointer(source), code.pointer(target)
        plane_offsets = [b.mul(I64(number), plane) for number in range(planes)]

        def masks(column: Any) -> list[Any]:
            starts = [b.add(column, I64(i * lanes)) for i in range(stride)]
            return [code.lane_mask(b.neg(start), b.sub(width, start)) for start in starts]

        head, tail = masks(w), masks(b.add(w, b.mul(last, I64(stride))))

        def loop(count: Any, body: Callable[[Any], None]) -> None:
            def step(t: Any, _: list[Any]) -> list[Any]:
                body(t)
                return []

            with b.if_then(b.icmp_signed(">", count, I64(0))):
                code.loop(count, [], step)

        def zeros(to: Any, number: Any) -> None:
            def clear(v: Any) -> None:
                for offset in plane_offsets:
                    code.write(code.zeros, code.at(to, b.add(offset, b.mul(v, I64(lanes)))))

            loop(b.sdiv(b.add(b.mul(number, ld_target), I64(lanes - 1)), I64(lanes)), clear)

        def split(read: Any, written: Any, v: Any, masks: list[Any]) -> None:
            at = code.at(read, b.mul(v, I64(stride)))
            pointers = [code.at(at, I64(number * lanes)) for number in range(stride)]
            for pointer in pointers:
                code.prefetch(code.at(pointer, ahead))
            found = [
                code.masked_load(pointer, masks[number]) if masks else code.read(pointer)
                for number, pointer in enumerate(pointers)
            ]
            # even and odd lanes; for stride 4, twice
            for _ in range(stride.bit_length() - 1):
                found = [
                    code.shuffle(pair, list(range(odd, 2 * lanes, 2)))
                    for odd in range(2)
                    for pair in zip(found[::2], found[1::2], strict=True)
                ]
            for vector, offset in zip(found, plane_offsets, strict=False):
                code.write(vector, code.at(written, b.add(offset, v)))

        def row(read: Any, written: Any) -> None:
            split(read, written, I64(0), head)
            with b.if_then(b.icmp_signed(">", last, I64(0))):
                count = b.sub(b.sdiv(last, I64(lanes)), I64(1))
                loop(count, lambda t: split(read, written, b.mul(b.add(t, I64(1)), I64(lanes)), []))
                split(read, written, last, tail)

        def channel(c: Any) -> None:
            read, written = code.at(source, b.mul(c, source_channel)), code.at(target, b.mul(c, target_channel))
            zeros(written, top)
            inside = code.at(written, b.mul(top, ld_target))
            loop(rows, lambda u: row(code.at(read, b.mul(u, ld_source)), code.at(inside, b.mul(u, ld_target))))
            zeros(code.at(inside, b.mul(rows, ld_target)), bottom)

        loop(channels, channel)

    arguments = "source ld_source source_channel target plane ld_target target_channel channels top rows bottom"
    return make_operation(size, lanes, f"{arguments} last w width ahead", emit)
