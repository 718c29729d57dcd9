"""This machine's primitives for the drivers of `fastconv.kernels`, by the names that `kernels.primitives` declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastconv.backends.numba.bias_grad import sum_rows
from fastconv.backends.numba.channel_lanes import span
from fastconv.backends.numba.compiling import chosen, inline
from fastconv.backends.numba.depthwise_rowwise import row_kernel, row_kernel_transposed, row_kernel_weight_grad
from fastconv.backends.numba.llvm import ELEMENT, Code, machine, make_operation, once_a_set
from fastconv.backends.numba.numba_internals import types
from fastconv.backends.numba.padded_tile import pad_rows, total_of, transpose_of
from fastconv.backends.numba.pixel_lanes import multiply_of
from fastconv.backends.numba.simd import move_of, operations
from fastconv.backends.numba.weight_grad import sum_taps
from fastconv.backends.numba.weight_grad_pixel_lanes import dots
from fastconv.kernels.abi import ALONG, DOTS, SPAN, TAPS, TILES


@once_a_set
def primitives(size: int) -> Mapping[str, Any]:
    """All of them for elements of `size` bytes."""
    word, kind = operations(size), machine().kind
    lanes = word.lanes
    return {
        "SIZE": size,
        "LANES": lanes,
        "DOTS_RESULTS": DOTS[kind][0],
        "DOTS_TAPS": DOTS[kind][1],
        "floor_div": inline(size, types.int64)(_floor_div),
        "ceil_div": inline(size, types.int64)(_ceil_div),
        "entry": _entry(size),
        "load": word.load,
        "store": word.store,
        "splat": word.splat,
        "clear": word.clear,
        "transpose": transpose_of(size),
        "scatter": word.scatter,
        "load_runs": _of_runs(size, "load_runs", _load_runs, "source, starts, offsets, valid, target, count"),
        "store_runs": _of_runs(size, "store_runs", _store_runs, "source, offsets, valid, target, step, count"),
        "prefetch_to_write": word.prefetch_to_write,
        "move": word.move,
        "pad_rows": pad_rows(size, lanes, 1, 1),
        "pad_rows_of_2": pad_rows(size, lanes, 2, 1),
        "pad_2_rows": pad_rows(size, lanes, 2, 2),
        "pad_4_rows": pad_rows(size, lanes, 4, 4),
        "FULL_ROWS": TILES[kind][0][0],
        "FULL_VECTORS": TILES[kind][0][1],
        "MAX_TAPS": TAPS[kind],
        "BAND_LONG": word.bands[0][0],
        "BAND_SHORT": word.bands[1][0],
        "bias_at": _bias_at(size),
        "along": _along(size),
        "along_width": _along_width(size),
        "along_square": _along_square(size),
        "band": _band(size),
        "row_kernel": row_kernel(size, lanes),
        "row_kernel_transposed": row_kernel_transposed(size, lanes),
        "row_kernel_weight_grad": row_kernel_weight_grad(size, lanes),
        "MAX_SPAN": SPAN[kind],
        "span": span(size),
        "multiply": multiply_of(size, lanes),
        "dots": dots(size, lanes),
        "gather": word.gather,
        "sum_rows": sum_rows(size, lanes),
        "sum_taps": sum_taps(size),
        "total": total_of(size),
    }


def _floor_div(a, b):
    return a // b


def _ceil_div(a, b):
    return -(-a // b)


def _entry(size: int) -> Any:
    def emit(code: Code, table: Any, index: Any) -> Any:
        return code.builder.load(code.at(code.integers(table), index))

    return make_operation(size, 1, "table index", emit, types.int64)


def _bias_at(size: int) -> Any:
    word = operations(size)
    load, nothing = word.load, word.zero

    @inline(size, ELEMENT[size])
    def bias_at(bias, number):
        return load(bias + number * size) if bias else nothing

    return bias_at


def _along(size: int) -> Any:
    kernels = {width: kernel for (height, width), kernel in operations(size).along.items() if height == 1}
    arguments = "a, b, row, offsets, count, start, ld_start, start_step, sums, ld_sums, step"
    of_width = chosen(size, "along", kernels, arguments)

    @inline(size)
    def along(width, a, b, offsets, count, start, start_step, sums, step):
        of_width(width, a, b, 0, offsets, count, start, 0, start_step, sums, 0, step)

    return along


def _along_width(size: int) -> Any:
    widths = np.array(ALONG[machine().kind])

    @inline(size, types.int64)
    def along_width(pixels):
        which = 0
        while widths[which] > pixels:
            which += 1
        return widths[which]

    return along_width


def _along_square(size: int) -> Any:
    square = operations(size).along[3, 3]

    @inline(size)
    def along_square(a, b, row, offsets, count, sums, ld_sums, step):
        square(a, b, row, offsets, count, sums, ld_sums, step, sums, ld_sums, step)

    return along_square


def _band(size: int) -> Any:
    (_, long), (_, short) = operations(size).bands

    @inline(size)
    def band(is_long, a, b, offsets, rows, taps, first, end, start, start_step, sums, step, valid):
        if is_long:
            long(a, b, offsets, rows, taps, first, end, start, start_step, sums, step, valid)
        else:
            short(a, b, offsets, rows, taps, first, end, start, start_step, sums, step, valid)

    return band


def _of_runs(size: int, name: str, make: Callable[[int, int], Any], arguments: str) -> Any:
    """A primitive that takes the length of runs first: one for each power of two that a vector has room for."""
    runs = (2**e for e in range(operations(size).lanes.bit_length()))
    return chosen(size, name, {run: make(size, run) for run in runs}, arguments)


def _load_runs(size: int, run: int) -> Any:
    word, move, entry = operations(size), move_of(size, run), _entry(size)
    clear, vector = word.clear, word.lanes * size

    @inline(size)
    def load_runs(source, starts, offsets, valid, target, count):
        for i in range(count):
            clear(target)
            vector_at = source + entry(starts, i) * size
            for lane in range(0, valid, run):
                move(target + lane * size, vector_at + entry(offsets, lane) * size)
            target += vector

    return load_runs


def _store_runs(size: int, run: int) -> Any:
    move, entry, vector = move_of(size, run), _entry(size), operations(size).lanes * size

    @inline(size)
    def store_runs(source, offsets, valid, target, step, count):
        for _ in range(count):
            for lane in range(0, valid, run):
                move(target + entry(offsets, lane) * size, source + lane * size)
            source += vector
            target += step * size

    return store_runs
