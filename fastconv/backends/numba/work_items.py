"""Where a piece of work lies, for the passes over matrices."""

from __future__ import annotations

from typing import Any

from numba.core import types

from fastconv.backends.numba.compiling import inline
from fastconv.backends.numba.llvm import once_a_set
from fastconv.backends.numba.places import P


@once_a_set
def piece_of(size: int) -> Any:
    """where(plan, item): which images, results and pixels a piece of work has."""

    @inline(size, types.UniTuple(types.int64, 9))
    def where(plan, item):
        """So many images from n on of group g, results from k0 on, rows from i0 on and columns from j0 on."""
        parts = -(-plan[P.RESULTS] // plan[P.BLOCK_RESULTS])
        strips_h = -(-plan[P.ROWS] // plan[P.BLOCK_ROWS])
        strips_w = -(-plan[P.COLS] // plan[P.BLOCK_COLS])
        k0 = item % parts * plan[P.BLOCK_RESULTS]
        rest = item // parts
        j0 = rest % strips_w * plan[P.BLOCK_COLS]
        rest //= strips_w
        i0 = rest % strips_h * plan[P.BLOCK_ROWS]
        rest //= strips_h
        g = rest % plan[P.GROUPS]
        n = rest // plan[P.GROUPS] * plan[P.BLOCK_IMAGES]
        images = min(plan[P.BLOCK_IMAGES], plan[P.IMAGES] - n)
        results = min(plan[P.BLOCK_RESULTS], plan[P.RESULTS] - k0)
        rows = min(plan[P.BLOCK_ROWS], plan[P.ROWS] - i0)
        cols = min(plan[P.BLOCK_COLS], plan[P.COLS] - j0)
        return n, g, k0, i0, j0, images, results, rows, cols

    return where


@once_a_set
def shares_of(size: int) -> Any:
    """share(plan, item): which sums of a weight's gradient a piece has; strip(plan, number): the pixels of a strip."""

    @inline(size, types.UniTuple(types.int64, 8))
    def share(plan, item):
        """Partial sum `split` of group g, results from k0 and channels from c0 on; the first strip and behind the last.

        So many results and so many channels come before these.
        """
        parts_k = -(-plan[P.RESULTS] // plan[P.BLOCK_RESULTS])
        parts_c = -(-plan[P.CHANNELS] // plan[P.BLOCK_CHANNELS])
        strips = -(-plan[P.ROWS] // plan[P.BLOCK_ROWS]) * -(-plan[P.COLS] // plan[P.BLOCK_COLS])
        strips *= -(-plan[P.IMAGES] // plan[P.BLOCK_IMAGES])
        k0 = item % parts_k * plan[P.BLOCK_RESULTS]
        rest = item // parts_k
        c0 = rest % parts_c * plan[P.BLOCK_CHANNELS]
        rest //= parts_c
        g, split = rest % plan[P.GROUPS], rest // plan[P.GROUPS]
        results = min(plan[P.BLOCK_RESULTS], plan[P.RESULTS] - k0)
        channels = min(plan[P.BLOCK_CHANNELS], plan[P.CHANNELS] - c0)
        first, end = strips * split // plan[P.SPLITS], strips * (split + 1) // plan[P.SPLITS]
        return split, g, k0, c0, results, channels, first, end

    @inline(size, types.UniTuple(types.int64, 6))
    def strip(plan, number):
        """The first image, row and column, and how many there are."""
        strips_h = -(-plan[P.ROWS] // plan[P.BLOCK_ROWS])
        strips_w = -(-plan[P.COLS] // plan[P.BLOCK_COLS])
        j0 = number % strips_w * plan[P.BLOCK_COLS]
        i0 = number // strips_w % strips_h * plan[P.BLOCK_ROWS]
        n = number // (strips_w * strips_h) * plan[P.BLOCK_IMAGES]
        images = min(plan[P.BLOCK_IMAGES], plan[P.IMAGES] - n)
        return n, i0, j0, images, min(plan[P.BLOCK_ROWS], plan[P.ROWS] - i0), min(plan[P.BLOCK_COLS], plan[P.COLS] - j0)

    return share, strip
