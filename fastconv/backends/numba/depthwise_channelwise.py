"""Passes over channels that have a kernel each: a lane of the vectors for each channel, pixels one after the other.

    correlate_channels          out[n, c, i, j] = bias + sum over a, b of weight[c, a, b] * x
    correlate_channels_weight   out[c, a, b] = sum over n, i, j of small[n, c, i, j] * x

where x is the pixel of image n and channel c that output (i, j) meets at tap (a, b).

The second is the first with pixels and taps exchanged: the small map is its kernel. With lanes along the channels every
load is aligned, and neither the width of a map nor a stride leaves lanes empty; a square of lanes x lanes numbers is
transposed in registers on its way in and out. Long rows of taps are squares of a band matrix, whose taps on the
padding are left out: they need no zeros in the field.
"""

from __future__ import annotations

from typing import Any

import numba

from fastconv.backends.numba.compiling import inline
from fastconv.backends.numba.llvm import once_a_set
from fastconv.backends.numba.padded_tile import transpose_of
from fastconv.backends.numba.places import P
from fastconv.backends.numba.simd import integers, words


@once_a_set
def moves(size: int) -> Any:
    """Between maps (channels, h, w) and fields (h, w, lanes), and rows of sums."""
    word = words(size)
    lanes, load, store, clear = word.lanes, word.load, word.store, word.clear
    transpose, scatter = transpose_of(size), word.scatter

    @inline(size)
    def to_lanes(source, channel_pitch, valid, multiple, before, target, places, count, limit):
        """`count` pixels of `valid` channels, one after the other or, if `places` is the address of those, each to its
        own; further lanes are overwritten."""
        for v in range(0, count, lanes):
            furthest = source + ((valid - 1) * channel_pitch + v + lanes) * size
            if multiple == 1 and furthest <= limit:
                if places:
                    scatter(source + v * size, channel_pitch, valid, target, places + v * 8, min(lanes, count - v))
                else:
                    transpose(source + v * size, channel_pitch, valid, target + v * lanes * size, lanes,
                              min(lanes, count - v))  # fmt: skip
            else:
                for j in range(v, min(v + lanes, count)):
                    there = target + j * lanes * size
                    if places:
                        there = target + numba.carray(integers(places), (count,))[j] * size
                    clear(there)
                    for lane in range(valid):
                        at = source + ((before + lane) // multiple * channel_pitch + j) * size
                        store(load(at), there + lane * size)

    @inline(size)
    def place(plan, sums, out, valid, rows, cols):
        """A strip's sums, from lanes to maps."""
        out_result, out_row, out_col = plan[P.OUT_RESULT], plan[P.OUT_ROW], plan[P.OUT_COL]
        run, runs = cols, rows
        if out_col == 1 and out_row == cols:
            run, runs = rows * cols, 1
        for i in range(runs):
            at, to = sums + i * run * lanes * size, out + i * out_row * size
            j = 0
            if out_col == 1 and run >= lanes:
                while j < run:
                    v = min(j, run - lanes)  # the last ones once more
                    transpose(at + v * lanes * size, lanes, lanes, to + v * size, out_result, valid)
                    j += lanes
            while j < run:
                for lane in range(valid):
                    store(load(at + (j * lanes + lane) * size), to + (lane * out_result + j * out_col) * size)
                j += 1

    return to_lanes, None, None, None, place
