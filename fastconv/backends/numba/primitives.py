"""This machine's primitives for the drivers of `fastconv.kernels`, by the names that `kernels.primitives` declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastconv.backends.numba import simd
from fastconv.backends.numba.bias_grad import sum_rows
from fastconv.backends.numba.channel_lanes import span
from fastconv.backends.numba.compiling import chosen, inline
from fastconv.backends.numba.depthwise_channelwise import along, along_square, along_width, band
from fastconv.backends.numba.depthwise_in_place import rectangle, sum_window
from fastconv.backends.numba.depthwise_rowwise import row_kernel, row_kernel_transposed, row_kernel_weight_grad
from fastconv.backends.numba.finish import finish_rows
from fastconv.backends.numba.llvm import ELEMENT, I64, Code, machine, make_operation, per_instruction_set
from fastconv.backends.numba.numba_internals import ir, types
from fastconv.backends.numba.pad_rows import pad_rows
from fastconv.backends.numba.pixel_lanes import multiply
from fastconv.backends.numba.spectra import spectra
from fastconv.backends.numba.transpose import gather, scatter, total, transpose
from fastconv.backends.numba.weight_grad import sum_taps
from fastconv.backends.numba.weight_grad_pixel_lanes import dots
from fastconv.backends.numba.winograd import transform_input, transform_output, transform_weight
from fastconv.kernels.abi import BANDS, CACHE_LINE, DOTS, RECTANGLES, SPAN, TAPS, TILES

_ZERO = {4: np.float32(0), 8: np.float64(0)}


@per_instruction_set
def primitives(size: int) -> Mapping[str, Any]:
    """All primitives for elements of `size` bytes, and the constants of this instruction set."""
    kind, lanes = machine().kind, machine().bytes // size
    return {
        "SIZE": size,
        "LANES": lanes,
        "FULL_ROWS": TILES[kind][0][0],
        "FULL_VECTORS": TILES[kind][0][1],
        "DOTS_RESULTS": DOTS[kind][0],
        "DOTS_TAPS": DOTS[kind][1],
        "MAX_SPAN": SPAN[kind],
        "MAX_TAPS": TAPS[kind],
        "BAND_LONG": BANDS[kind][0],
        "BAND_SHORT": BANDS[kind][1],
        "TALL_ROWS": RECTANGLES[kind][0][0],
        "TALL_COLS": RECTANGLES[kind][0][1],
        "LONG_COLS": RECTANGLES[kind][1][1],
        "floor_div": inline(size, types.int64)(_floor_div),
        "ceil_div": inline(size, types.int64)(_ceil_div),
        "entry": _entry(size),
        "load": simd.load(size),
        "store": simd.store(size),
        "splat": simd.splat(size, lanes),
        "clear": simd.clear(size, lanes),
        "move": simd.move(size, lanes),
        "move_lanes": simd.move_lanes(size, lanes),
        "store_alternate": _store_alternate(size, lanes),
        "prefetch_to_write": simd.prefetch_to_write(size),
        "prefetch_lines": _prefetch_lines(size),
        "bias_at": _bias_at(size),
        "load_runs": _by_run(size, lanes, "load_runs", _load_runs, "source, starts, offsets, valid, target, count"),
        "store_runs": _by_run(size, lanes, "store_runs", _store_runs, "source, offsets, valid, target, step, count"),
        "transpose": transpose(size, lanes),
        "scatter": scatter(size, lanes),
        "gather": gather(size, lanes),
        "total": total(size, lanes),
        "pad_rows": pad_rows(size, lanes, 1, 1),
        "pad_rows_of_2": pad_rows(size, lanes, 2, 1),
        "pad_2_rows": pad_rows(size, lanes, 2, 2),
        "pad_4_rows": pad_rows(size, lanes, 4, 4),
        "multiply": multiply(size, lanes),
        "span": span(size),
        "sum_taps": sum_taps(size),
        "dots": dots(size, lanes),
        "finish_rows": finish_rows(size, lanes),
        "along": along(size, lanes),
        "along_width": along_width(size),
        "along_square": along_square(size, lanes),
        "band": band(size, lanes),
        "rectangle": rectangle(size, lanes),
        "sum_window": sum_window(size, lanes),
        "row_kernel": row_kernel(size, lanes),
        "row_kernel_transposed": row_kernel_transposed(size, lanes),
        "row_kernel_weight_grad": row_kernel_weight_grad(size, lanes),
        "sum_rows": sum_rows(size, lanes),
        "transform_input": transform_input(size, lanes),
        "transform_weight": transform_weight(size, lanes),
        "transform_output": transform_output(size, lanes),
        **spectra(size, lanes),
    }


def _floor_div(a, b):
    return a // b


def _ceil_div(a, b):
    return -(-a // b)


def _entry(size: int) -> Any:
    def emit(code: Code, table: Any, index: Any) -> Any:
        return code.builder.load(code.at(code.integers(table), index))

    return make_operation(size, 1, "table index", emit, types.int64)


def _store_alternate(size: int, lanes: int) -> Any:
    """A vector at a time where masked stores are as fast as others, with AVX-512."""
    even = ir.Constant(ir.VectorType(ir.IntType(1), lanes), [(lane + 1) % 2 for lane in range(lanes)])

    def emit(code: Code, source: Any, target: Any, count: Any) -> None:
        b = code.builder
        source, target = code.pointer(source), code.pointer(target)

        def element(i: Any, _: list[Any]) -> list[Any]:
            b.store(b.load(code.at(source, i)), code.at(target, b.shl(i, I64(1))))
            return []

        def vector(t: Any, _: list[Any]) -> list[Any]:
            i = b.mul(t, I64(lanes))
            rest = b.sub(count, i)
            all_lanes = code.masked_load(code.at(source, i), code.lane_mask(I64(0), rest))
            for half in range(2):
                doubled = code.shuffle((all_lanes, code.zeros), [(half * lanes + lane) // 2 for lane in range(lanes)])
                valid = code.lane_mask(I64(0), b.sub(b.shl(rest, I64(1)), I64(half * lanes)))
                code.masked_store(
                    doubled, code.at(target, b.add(b.shl(i, I64(1)), I64(half * lanes))), b.and_(valid, even)
                )
            return []

        if lanes * size == 64:
            code.loop(b.sdiv(b.add(count, I64(lanes - 1)), I64(lanes)), [], vector)
        else:
            code.loop(count, [], element)

    return make_operation(size, lanes, "source target count", emit)


def _prefetch_lines(size: int) -> Any:
    prefetch = make_operation(size, 1, "line", lambda code, line: code.prefetch(code.pointer(line), far=True))

    @inline(size)
    def prefetch_lines(source, count):
        for line in range(count):
            prefetch(source + line * CACHE_LINE)

    return prefetch_lines


def _bias_at(size: int) -> Any:
    load, zero = simd.load(size), _ZERO[size]

    @inline(size, ELEMENT[size])
    def bias_at(bias, number):
        return load(bias + number * size) if bias else zero

    return bias_at


def _by_run(size: int, lanes: int, name: str, make: Callable[[int, int, int], Any], arguments: str) -> Any:
    """A primitive whose first argument is the length of its runs: a power of two, `lanes` at most."""
    lengths = (2**e for e in range(lanes.bit_length()))
    return chosen(size, name, {length: make(size, lanes, length) for length in lengths}, arguments)


def _load_runs(size: int, lanes: int, run: int) -> Any:
    move, clear, entry, vector = simd.move(size, run), simd.clear(size, lanes), _entry(size), lanes * size

    @inline(size, variant=run)
    def load_runs(source, starts, offsets, valid, target, count):
        for i in range(count):
            clear(target)
            start = source + entry(starts, i) * size
            for lane in range(0, valid, run):
                move(target + lane * size, start + entry(offsets, lane) * size)
            target += vector

    return load_runs


def _store_runs(size: int, lanes: int, run: int) -> Any:
    move, entry, vector = simd.move(size, run), _entry(size), lanes * size

    @inline(size, variant=run)
    def store_runs(source, offsets, valid, target, step, count):
        for _ in range(count):
            for lane in range(0, valid, run):
                move(target + entry(offsets, lane) * size, source + lane * size)
            source += vector
            target += step * size

    return store_runs
