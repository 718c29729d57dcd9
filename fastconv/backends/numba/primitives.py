"""This machine's primitives for the drivers of `fastconv.kernels`, by the names that `kernels.primitives` declares."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from numba.core import types

from fastconv.backends.numba.channel_lanes import span
from fastconv.backends.numba.compiling import chosen, inline
from fastconv.backends.numba.llvm import Code, machine, make_word
from fastconv.backends.numba.padded_tile import pad_rows, total_of, transpose_of
from fastconv.backends.numba.simd import move_of, words
from fastconv.backends.numba.weight_grad_pixel_lanes import dots
from fastconv.kernels.abi import DOTS, SPAN


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
        "LONGEST_SPAN": SPAN[kind],
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
        "load_runs": _of_runs(size, "load_runs", _load_runs, "source, starts, offsets, valid, target, count"),
        "store_runs": _of_runs(size, "store_runs", _store_runs, "source, offsets, valid, target, step, count"),
        "prefetch_to_write": word.prefetch_to_write,
        "move": word.move,
        "pad_rows": pad_rows(size, lanes, 1, 1),
        "pad_rows_of_2": pad_rows(size, lanes, 2, 1),
        "pad_2_rows": pad_rows(size, lanes, 2, 2),
        "pad_4_rows": pad_rows(size, lanes, 4, 4),
        "span": span(size),
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


def _of_runs(size: int, name: str, make: Callable[[int, int], Any], arguments: str) -> Any:
    """A primitive that takes the length of runs first: one for each power of two that a vector has room for."""
    runs = (2**e for e in range(words(size).lanes.bit_length()))
    return chosen(size, name, {run: make(size, run) for run in runs}, arguments)


def _load_runs(size: int, run: int) -> Any:
    word, move, entry = words(size), move_of(size, run), _entry(size)
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
    move, entry, vector = move_of(size, run), _entry(size), words(size).lanes * size

    @inline(size)
    def store_runs(source, offsets, valid, target, step, count):
        for _ in range(count):
            for lane in range(0, valid, run):
                move(target + entry(offsets, lane) * size, source + lane * size)
            source += vector
            target += step * size

    return store_runs
