"""The micro-kernel of the bias gradient."""

from __future__ import annotations

import functools
from typing import Any

from fastconv.backends.numba.llvm import I64, Code, make_operation
from fastconv.kernels.abi import SUM_VECTORS


@functools.cache
def sum_rows(size: int, lanes: int) -> Any:
    """See `kernels.primitives.sum_rows`."""

    def emit(code: Code, source: Any, ld: Any, rows: Any, count: Any, is_start: Any, target: Any) -> None:
        build = code.builder
        source, target = code.pointer(source), code.pointer(target)

        def sums(vectors: int, is_whole: bool) -> None:
            mask = code.lane_mask(I64(0), build.sub(count, I64((vectors - 1) * lanes)))
            pointers = [code.at(target, I64(v * lanes)) for v in range(vectors)]

            def row(r: Any, sums: list[Any]) -> list[Any]:
                start = code.at(source, build.mul(r, ld))
                at = [code.at(start, I64(v * lanes)) for v in range(vectors)]
                last = code.read(at[-1]) if is_whole else code.masked_load(at[-1], mask)
                read = [*map(code.read, at[:-1]), last]
                return [build.fadd(sum_, value) for sum_, value in zip(sums, read, strict=True)]

            started = code.branch(
                build.icmp_signed("!=", is_start, I64(0)),
                lambda: [code.zeros] * vectors,
                lambda: [code.read(pointer) for pointer in pointers],
            )
            results = code.branch(
                build.icmp_signed(">", rows, I64(0)), lambda: code.loop(rows, started, row), lambda: started
            )
            for result, pointer in zip(results, pointers, strict=True):
                code.write(result, pointer)

        with build.if_else(build.icmp_signed("==", count, I64(SUM_VECTORS * lanes)), likely=True) as (whole, partial):
            with whole:
                sums(SUM_VECTORS, True)
            with partial:
                number = build.sdiv(build.add(count, I64(lanes - 1)), I64(lanes))
                for vectors in range(1, SUM_VECTORS + 1):
                    with build.if_then(build.icmp_signed("==", number, I64(vectors))):
                        sums(vectors, False)

    return make_operation(size, lanes, "source ld rows count is_start target", emit)
