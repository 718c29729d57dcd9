"""The micro-kernel with a lane for each pixel."""

from __future__ import annotations

from typing import Any

from fastconv.backends.numba.compiling import chosen
from fastconv.backends.numba.llvm import I64, Code, machine, make_operation, per_instruction_set
from fastconv.backends.numba.simd import prefetch_ahead
from fastconv.kernels.abi import FEW_ROWS_TILE, ONE_ROW_TILE, PREFETCHING, TILES

_ARGUMENTS = "a, ld_a, valid, b, offsets, count, start, ld_start, step, sums, ld_sums"


@per_instruction_set
def multiply(size: int, lanes: int) -> Any:
    """See `kernels.primitives.multiply`."""
    full, few, one = TILES[machine().kind]
    kernels = {
        full[1]: multiply_tile(size, lanes, *full),
        FEW_ROWS_TILE: multiply_tile(size, lanes, *few),
        ONE_ROW_TILE: multiply_tile(size, lanes, *one),
        full[1] + PREFETCHING: multiply_tile(size, lanes, *full, True),
        FEW_ROWS_TILE + PREFETCHING: multiply_tile(size, lanes, *few, True),
        **{vectors: multiply_tile(size, lanes, full[0], vectors) for vectors in range(1, full[1])},
    }
    return chosen(size, "multiply", kernels, _ARGUMENTS)


@per_instruction_set
def multiply_tile(size: int, lanes: int, height: int, width: int, prefetch: bool = False) -> Any:
    """The micro-kernel `multiply` of `kernels.primitives` for a tile of `height` rows times `width` vectors."""

    def emit(
        code: Code, a: Any, ld_a: Any, valid: Any, b: Any, offsets: Any, count: Any, start: Any, ld_start: Any,
        step: Any, sums: Any, ld_sums: Any,
    ) -> None:  # fmt: skip
        build = code.builder
        a, b, offsets = code.pointer(a), code.pointer(b), code.integers(offsets)
        last = build.sub(valid, I64(1))
        rows = [
            code.at(a, build.mul(build.select(build.icmp_signed("<", I64(m), last), I64(m), last), ld_a))
            for m in range(height)
        ]

        def pointers(address: Any, ld: Any, step: Any) -> list[Any]:
            base = code.pointer(address)
            return [
                code.at(base, build.add(build.mul(ld, I64(m)), build.mul(step, I64(v))))
                for m in range(height)
                for v in range(width)
            ]

        def tap(t: Any, accumulators: list[Any]) -> list[Any]:
            pair = build.shl(t, I64(1))
            in_a = build.load(code.at(offsets, pair))
            base = code.at(b, build.load(code.at(offsets, build.add(pair, I64(1)))))
            if prefetch:
                prefetch_ahead(code, base, width * lanes)
            vectors = [code.read(code.at(base, I64(v * lanes))) for v in range(width)]
            results = []
            for m in range(height):
                factor = code.broadcast(build.load(code.at(rows[m], in_a)))
                results += [code.fma(factor, vectors[v], accumulators[m * width + v]) for v in range(width)]
            return results

        started = [code.read(pointer) for pointer in pointers(start, ld_start, step)]
        for result, pointer in zip(code.loop(count, started, tap), pointers(sums, ld_sums, I64(lanes)), strict=True):
            code.write(result, pointer)

    return make_operation(size, lanes, "a ld_a valid b offsets count start ld_start step sums ld_sums", emit)
