"""The primitive that copies rows of a map into rows of a padded tile."""

from __future__ import annotations

from typing import Any

from fastconv.backends.numba.llvm import I64, Code, make_operation


def pad_rows(size: int, lanes: int, stride: int, planes: int) -> Any:
    """The primitive that splits rows into `stride` planes and writes the first `planes` of them, zero-padded.

    For stride 1 that is `pad_rows`, for (2, 1) `pad_rows_of_2`, for (2, 2) `pad_2_rows`, for (4, 4) `pad_4_rows`.
    """

    def emit(
        code: Code, source: Any, ld_source: Any, target: Any, plane_size: Any, ld_target: Any, rows: Any, last: Any,
        w: Any, width: Any, ahead: Any,
    ) -> None:  # fmt: skip
        b = code.builder
        source, target = code.pointer(source), code.pointer(target)

        def masks(column: Any) -> list[Any]:
            starts = [b.add(column, I64(i * lanes)) for i in range(stride)]
            return [code.lane_mask(b.neg(start), b.sub(width, start)) for start in starts]

        head, tail = masks(w), masks(b.add(w, b.mul(last, I64(stride))))

        def row(u: Any, _: list[Any]) -> list[Any]:
            start = code.at(source, b.mul(u, ld_source))

            def split(v: Any, masks: list[Any]) -> None:
                at = code.at(start, b.mul(v, I64(stride)))
                pointers = [code.at(at, I64(i * lanes)) for i in range(stride)]
                for pointer in pointers:
                    code.prefetch(code.at(pointer, ahead))
                found = [
                    code.masked_load(pointer, masks[i]) if masks else code.read(pointer)
                    for i, pointer in enumerate(pointers)
                ]
                # even and odd lanes; for stride 4, twice
                for _ in range(stride.bit_length() - 1):
                    found = [
                        code.shuffle(pair, list(range(odd, 2 * lanes, 2)))
                        for odd in range(2)
                        for pair in zip(found[::2], found[1::2], strict=True)
                    ]
                for plane in range(planes):
                    to = b.add(b.mul(I64(plane), plane_size), b.add(b.mul(u, ld_target), v))
                    code.write(found[plane], code.at(target, to))

            def middle(t: Any, _: list[Any]) -> list[Any]:
                split(b.mul(b.add(t, I64(1)), I64(lanes)), [])
                return []

            split(I64(0), head)
            with b.if_then(b.icmp_signed(">", last, I64(0))):
                count = b.sub(b.sdiv(last, I64(lanes)), I64(1))
                with b.if_then(b.icmp_signed(">", count, I64(0))):
                    code.loop(count, [], middle)
                split(last, tail)
            return []

        code.loop(rows, [], row)

    return make_operation(size, lanes, "source ld_source target plane_size ld_target rows last w width ahead", emit)
