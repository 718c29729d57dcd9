"""The micro-kernels with a lane for each result: those of convolution, and what chooses among several."""

from __future__ import annotations

from typing import Any

from fastconv.backends.numba.compiling import chosen, inline
from fastconv.backends.numba.llvm import I64, Code, machine, make_operation, once_a_set
from fastconv.backends.numba.simd import ask_ahead
from fastconv.kernels.abi import HALF_VECTOR, ONE_VECTOR, SPAN, TWO_VECTORS

_ARGUMENTS = "a next_a b offsets count start next_start step sums next_sums ld_sums asks"


@once_a_set
def _span(size: int, lanes: int, vectors: int, width: int) -> Any:
    """The micro-kernel `span` of `kernels.primitives` for the first `lanes` of a vector, or for so many vectors."""

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

    return make_operation(size, lanes, _ARGUMENTS, emit)


@once_a_set
def span(size: int) -> Any:
    """The primitive `span` of `kernels.primitives`."""
    layout, most = machine().layout(size), SPAN[machine().kind]
    kinds = [(ONE_VECTOR, layout.lanes, 1)]
    if layout.halves:
        kinds.append((HALF_VECTOR, layout.lanes // 2, 1))
    if layout.pairs:
        kinds.append((TWO_VECTORS, layout.lanes, 2))
    tiles = {
        kind * most + width - 1: _span(size, lanes, vectors, width)
        for kind, lanes, vectors in kinds
        for width in range(1, most + 1)
    }
    tile = chosen(size, "span_tile", tiles, ", ".join(_ARGUMENTS.split()))

    @inline(size)
    def of_kind(kind, width, a, next_a, b, offsets, count, start, next_start, step, sums, next_sums, ld_sums, prefetch):
        tile(kind * most + width - 1, a, next_a, b, offsets, count, start, next_start, step, sums, next_sums, ld_sums,
             prefetch)  # fmt: skip

    return of_kind
