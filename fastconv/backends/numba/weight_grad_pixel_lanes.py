"""The micro-kernel of the weight gradient with a lane for each pixel."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from fastconv.backends.numba.llvm import I64, Code, machine, make_operation, per_instruction_set
from fastconv.kernels.abi import DOTS


@per_instruction_set
def dots(size: int, lanes: int) -> Any:
    """See `kernels.primitives.dots`."""
    return dots_tile(size, lanes, *DOTS[machine().kind])


@per_instruction_set
def dots_tile(size: int, lanes: int, height: int, width: int) -> Any:
    """The micro-kernel `dots` for a tile of `height` results times `width` taps."""
    tile = list(itertools.product(range(height), range(width)))

    def emit(
        code: Code, a: Any, ld_a: Any, pitch_a: Any, valid: Any, b: Any, pitch_b: Any, offsets: Any, taps: Any,
        runs: Any, run: Any, is_start: Any, sums: Any, ld_sums: Any,
    ) -> None:  # fmt: skip
        build = code.builder
        a, b, sums, offsets = code.pointer(a), code.pointer(b), code.pointer(sums), code.integers(offsets)

        def existing(number: int, count: Any) -> Any:
            last = build.sub(count, I64(1))
            return build.select(build.icmp_signed("<", I64(number), last), I64(number), last)

        results, columns = [existing(m, valid) for m in range(height)], [existing(v, taps) for v in range(width)]
        rows = [code.at(a, build.mul(m, ld_a)) for m in results]
        at = [code.at(b, build.load(code.at(offsets, build.add(build.shl(v, I64(1)), I64(1))))) for v in columns]
        pointers = [
            code.at(sums, build.add(build.mul(results[m], ld_sums), build.mul(columns[v], I64(lanes)))) for m, v in tile
        ]
        whole, rest = build.sdiv(run, I64(lanes)), build.srem(run, I64(lanes))
        mask = code.lane_mask(I64(0), rest)

        def along_runs(_: Any, carried: list[Any]) -> list[Any]:
            carried, of_rows, of_taps = carried[: len(tile)], carried[-width - height : -width], carried[-width:]

            def added(p: Any, carried: list[Any], read: Callable[[Any], Any]) -> list[Any]:
                """The sums plus the products of the vectors that start at pixel p."""
                factors, pixels = ([read(code.at(start, p)) for start in starts] for starts in (of_rows, of_taps))
                return [code.fma(factors[m], pixels[v], sum_) for (m, v), sum_ in zip(tile, carried, strict=True)]

            def one(number: Any, carried: list[Any]) -> list[Any]:
                code.no_unroll()  # two iterations at a time need more registers than there are
                return added(build.mul(number, I64(lanes)), carried, code.read)

            carried = code.branch(
                build.icmp_signed(">", whole, I64(0)), lambda: code.loop(whole, carried, one), lambda: carried
            )
            carried = code.branch(
                build.icmp_signed(">", rest, I64(0)),
                lambda: added(build.sub(run, rest), carried, lambda pointer: code.masked_load(pointer, mask)),
                lambda: carried,
            )
            following = [code.at(row, pitch_a) for row in of_rows] + [code.at(pointer, pitch_b) for pointer in of_taps]
            return [*carried, *following]

        started = code.branch(
            build.icmp_signed("!=", is_start, I64(0)),
            lambda: [code.zeros] * len(tile),
            lambda: [code.read(pointer) for pointer in pointers],
        )
        sums = code.loop(runs, [*started, *rows, *at], along_runs)[: len(tile)]
        for (m, v), pointer, result in zip(tile, pointers, sums, strict=True):
            exists = build.and_(build.icmp_signed("<", I64(m), valid), build.icmp_signed("<", I64(v), taps))
            with build.if_then(exists, likely=True):
                code.write(result, pointer)

    arguments = "a ld_a pitch_a valid b pitch_b offsets taps runs run is_start sums ld_sums"
    return make_operation(size, lanes, arguments, emit)
