"""This machine's primitives for the drivers of `fastconv.kernels`, by the names that `kernels.primitives` declares."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from numba.core import types

from fastconv.backends.numba.compiling import inline
from fastconv.backends.numba.llvm import Code, machine, make_word
from fastconv.backends.numba.padded_tile import pad_rows, total_of, transpose_of
from fastconv.backends.numba.pixel_lanes import multiply_of
from fastconv.backends.numba.simd import words
from fastconv.backends.numba.weight_grad_pixel_lanes import dots
from fastconv.kernels.abi import DOTS


@functools.cache
def primitives(size: int) -> Mapping[str, Any]:
    """All of them for elements of `size` bytes."""
    word, kind = words(size), machine().kind
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
        "weave": word.weave,
        "weave_odd": word.weave_odd,
        "transpose": transpose_of(size),
        "scatter": word.scatter,
        "prefetch_to_write": word.prefetch_to_write,
        "move": word.move,
        "pad_rows": pad_rows(size, lanes, 1, 1),
        "pad_rows_of_2": pad_rows(size, lanes, 2, 1),
        "pad_2_rows": pad_rows(size, lanes, 2, 2),
        "pad_4_rows": pad_rows(size, lanes, 4, 4),
        "multiply": multiply_of(size, lanes),
        "dots": dots(size, lanes),
        "total": total_of(size),
    }


def _floor_div(a, b):
    return a // b


def _ceil_div(a, b):
    return -(-a // b)


def _entry(size: int) -> Any:
    def emit(code: Code, table: Any, index: Any) -> Any:
        return code.builder.load(code.at(code.integers(table), index))

    return make_word(size, 1, "table index", emit, types.int64)
