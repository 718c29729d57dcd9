"""The micro-kernel with a lane for each result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastconv.backends.numba.compiling import chosen, inline
from fastconv.backends.numba.llvm import I64, Code, machine, make_operation, per_instruction_set
from fastconv.backends.numba.simd import LINE, prefetch_ahead
from fastconv.kernels.abi import HALF_VECTOR, ONE_VECTOR, SPAN, TWO_VECTORS

#: About how many taps ahead pixels are prefetched: the distance is rounded to whole register tiles.
_TAPS_AHEAD = 128

_ARGUMENTS = (
    "a next_a b ld_b offsets count start next_start step sums next_sums ld_sums prefetch ahead fetched fetches "
    "fetch_count"
)


@per_instruction_set
def span_tile(size: int, lanes: int, vectors: int, width: int) -> Any:
    """The micro-kernel `span` of `kernels.primitives` for one kind and width.

    Half a vector of results is one vector of half as many `lanes`.
    """

    def emit(
        code: Code, a: Any, next_a: Any, b: Any, ld_b: Any, offsets: Any, count: Any, start: Any, next_start: Any,
        step: Any, sums: Any, next_sums: Any, ld_sums: Any, prefetch: Any, ahead: Any, fetched: Any, fetches: Any,
        fetch_count: Any,
    ) -> None:  # fmt: skip
        build = code.builder
        a, b, offsets = code.pointer(a), code.pointer(b), code.integers(offsets)
        start, sums = code.pointer(start), code.pointer(sums)
        fetched, fetches = code.pointer(fetched), code.integers(fetches)

        def pointers(base: Any, next_base: Any, step: Any) -> list[Any]:
            return [
                code.at(base, build.add(build.mul(next_base, I64(v)), build.mul(step, I64(j))))
                for j in range(width)
                for v in range(vectors)
            ]

        def entry(t: Any, which: int) -> Any:
            """Entries of the table of taps: 0 and 1 are the offsets of tap t in a and b, 2 and 3 those of tap t + 1."""
            return build.load(code.at(offsets, build.add(build.shl(t, I64(1)), I64(which))))

        def pixels_from(base: Any) -> Callable[[int], Any]:
            """A function that loads the next pixel. Four pixels are addressed from one pointer, so few registers hold
            addresses."""
            at = base

            def pixel(column: int) -> Any:
                nonlocal at
                if column and column % 4 == 0:
                    at = code.opaque(code.at(at, build.mul(ld_b, I64(4))))
                return code.broadcast(build.load(code.at(at, build.mul(ld_b, I64(column % 4)))))

            return pixel

        def one(t: Any, accumulators: list[Any]) -> list[Any]:
            first, pixel, results = code.at(a, entry(t, 0)), pixels_from(code.at(b, entry(t, 1))), []
            factors = [code.read(code.at(first, build.mul(next_a, I64(v)))) for v in range(vectors)]
            for j in range(width):
                x = pixel(j)
                waiting = accumulators[j * vectors : (j + 1) * vectors]
                results += [code.fma(factor, x, sum_) for factor, sum_ in zip(factors, waiting, strict=True)]
                code.barrier()  # pixels that are loaded early would need more registers than there are
            return results

        def one_prefetching(t: Any, accumulators: list[Any]) -> list[Any]:
            with build.if_then(build.icmp_signed("!=", prefetch, I64(0))):
                offset = entry(t, 1)
                with build.if_else(build.icmp_signed("==", ld_b, I64(1))) as (are_neighbours, have_pitch):
                    with are_neighbours:
                        prefetch_ahead(code, code.at(b, offset), width)
                    with have_pitch:
                        # each tap another pixel of a later tile, as the taps of a cache line of channels need each
                        # line once
                        pixel = build.add(later, build.and_(offset, I64(line - 1)))
                        for j in range(0, width, line):
                            moved = build.mul(build.add(pixel, I64(j)), ld_b)
                            code.prefetch(code.at(b, build.add(offset, moved)), far=True)
            with build.if_then(build.icmp_signed("!=", ahead, I64(0))):
                first = code.at(a, build.add(entry(t, 0), ahead))
                for v in range(vectors):
                    code.prefetch(code.at(first, build.mul(next_a, I64(v))))
            with build.if_then(build.icmp_signed("<", t, fetch_count)):
                code.prefetch(code.at(fetched, build.load(code.at(fetches, t))))
            return one(t, accumulators)

        def two(t: Any, accumulators: list[Any]) -> list[Any]:
            pixel = pixels_from(code.at(b, entry(t, 1)))
            pixels = [pixel(column) for column in range(width + 1)]
            for offset, read in ((entry(t, 0), pixels), (entry(t, 2), pixels[1:])):
                factor = code.read(code.at(a, offset))
                accumulators = [code.fma(factor, x, sum_) for x, sum_ in zip(read, accumulators, strict=False)]
            return accumulators

        line = LINE // size
        tiles = build.add(I64(1), build.udiv(I64(_TAPS_AHEAD), count))
        later = build.mul(I64(width), tiles)
        started = [code.read(pointer) for pointer in pointers(start, next_start, step)]
        if vectors == 1 and machine().has_pairs:
            # taps that read neighbouring pixels share those, as two vectors of results do
            results = code.branch(
                code.are_neighbours(offsets, I64(0), count, ld_b),
                lambda: code.loop_in_pairs(offsets, count, started, one, two, ld_b),
                lambda: code.loop(count, started, one_prefetching),
            )
        else:
            results = code.loop(count, started, one_prefetching)
        for result, pointer in zip(results, pointers(sums, next_sums, ld_sums), strict=True):
            code.write(result, pointer)

    return make_operation(size, lanes, _ARGUMENTS, emit)


@per_instruction_set
def span(size: int) -> Any:
    """The primitive `span` of `kernels.primitives`."""
    layout, most = machine().layout(size), SPAN[machine().kind]
    kinds = [(ONE_VECTOR, layout.lanes, 1)]
    if layout.halves:
        kinds.append((HALF_VECTOR, layout.lanes // 2, 1))
    if layout.pairs:
        kinds.append((TWO_VECTORS, layout.lanes, 2))
    tiles = {
        kind * most + width - 1: span_tile(size, lanes, vectors, width)
        for kind, lanes, vectors in kinds
        for width in range(1, most + 1)
    }
    tile = chosen(size, "span_tile", tiles, ", ".join(_ARGUMENTS.split()))

    @inline(size)
    def of_kind(
        kind, width, a, next_a, b, ld_b, offsets, count, start, next_start, step, sums, next_sums, ld_sums, prefetch,
        ahead, fetched, fetches, fetch_count,
    ):  # fmt: skip
        tile(kind * most + width - 1, a, next_a, b, ld_b, offsets, count, start, next_start, step, sums, next_sums,
             ld_sums, prefetch, ahead, fetched, fetches, fetch_count)  # fmt: skip

    return of_kind
