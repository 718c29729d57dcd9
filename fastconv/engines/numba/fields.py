"""Copies that the passes over matrices make: rows of elements, and the zero-padded field of a strip."""

from __future__ import annotations

import functools
from typing import Any

from fastconv.engines.numba.compiling import inline
from fastconv.engines.numba.vectors import words
from fastconv.engines.plans import Place as P


@functools.cache
def rows_of(size: int) -> Any:
    """row(to, from, count, slack): copies `count` elements, up to a vector more where `slack` allows it."""
    word = words(size)
    lanes, move, load, store, clear = word.lanes, word.move, word.load, word.store, word.clear

    @inline(size)
    def copy(target, source, count, may_exceed):
        whole = count if may_exceed else count - lanes + 1
        i = 0
        while i < whole:
            move(target + i * size, source + i * size)
            i += lanes
        if i < count and not may_exceed:
            if count >= lanes:
                move(target + (count - lanes) * size, source + (count - lanes) * size)
            else:
                for rest in range(i, count):
                    store(load(source + rest * size), target + rest * size)

    @inline(size)
    def zero(target, count):
        for i in range(0, count, lanes):
            clear(target + i * size)

    return copy, zero


@functools.cache
def field_of(size: int) -> Any:
    """fill(plan, tables, source, limit, field, n, images, channel, channels, i0, rows): a strip in a field."""
    word = words(size)
    lanes, load, store, halve, move, clear = word.lanes, word.load, word.store, word.halve, word.move, word.clear
    prefetch = word.prefetch
    copy, zero = rows_of(size)

    @inline(size)
    def fill(plan, tables, source, field, n, images, channel, channels, i0, rows, j0, cols):
        height, width = plan[P.SOURCE_HEIGHT], plan[P.SOURCE_WIDTH]
        pitch = plan[P.FIELD_COLS]
        plane = plan[P.FIELD_ROWS] * pitch
        hop_h, hop_w = plan[P.HOP_H], plan[P.HOP_W]
        planes_h, planes_w = plan[P.PLANES_H], plan[P.PLANES_W]
        used_rows = rows + plan[P.FIELD_ROWS] - plan[P.BLOCK_ROWS]
        used_cols = cols + pitch - plan[P.BLOCK_COLS]
        limit = source + plan[P.SOURCE_SIZE] * size
        for image in range(images):
            target = field + image * plan[P.BLOCK_CHANNELS] * planes_h * planes_w * plane * size
            for c in range(channels):
                start = source + ((n + image) * plan[P.SOURCE_IMAGE] + channel + c * plan[P.SOURCE_CHANNEL]) * size
                for a in range(planes_h):
                    for b in range(planes_w):
                        origin = tables[plan[P.ORIGINS_W] + b] + j0 * hop_w
                        first = min(used_cols, max(0, -(origin // hop_w)))
                        end = max(first, min(used_cols, (width - 1 - origin) // hop_w + 1))
                        h = tables[plan[P.ORIGINS_H] + a] + i0 * hop_h
                        length = end - first
                        # whether a vector more than a row's may be read at its last row
                        most = start + (min(height - 1, h + (used_rows - 1) * hop_h) * width + origin) * size
                        may_exceed = most + ((end - 1) * hop_w + lanes + 1) * size <= limit
                        is_short = hop_w == 1 and may_exceed and used_cols <= 2 * lanes and first <= lanes
                        for u in range(used_rows):
                            row = target + u * pitch * size
                            at = start + (h * width + origin + first * hop_w) * size
                            # short rows are no stream that a processor would foresee
                            prefetch(at + plan[P.SOURCE_CHANNEL] * size)
                            prefetch(at + (plan[P.SOURCE_CHANNEL] + 16) * size)
                            if h < 0 or h >= height or length == 0:
                                zero(row, used_cols)
                            elif is_short:
                                # what is written too far is written over: by the row's end, or by the next row
                                clear(row)
                                move(row + first * size, at)
                                if length > lanes:
                                    move(row + (first + lanes) * size, at + lanes * size)
                                clear(row + end * size)
                            else:
                                zero(row, first)
                                if hop_w == 1:
                                    copy(row + first * size, at, length, may_exceed)
                                else:
                                    v = 0
                                    if hop_w == 2:
                                        # up to a vector more is written, over which the rest comes
                                        most_v = min(length, (limit - at) // (2 * size) - lanes + 1)
                                        while v < most_v:
                                            halve(row + (first + v) * size, at + 2 * v * size)
                                            v += lanes
                                    while v < length:
                                        store(load(at + v * hop_w * size), row + (first + v) * size)
                                        v += 1
                                zero(row + end * size, used_cols - end)
                            h += hop_h
                        target += plane * size

    return fill
