"""The NumPy engine: im2col. The windows of a block are copied into columns, which BLAS multiplies by the weight.

With the columns in the order (group, tap, pixel of all images of the block), each group is one matrix product, whose
inner loops go over pixels in memory order. Windows that are a matrix already, as for a 1x1 kernel on one image, are not
copied. Source: im2col, K. Chellapilla, S. Puri, P. Simard, High Performance Convolutional Neural
Networks for Document Processing, 2006; here block by block.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.problem.arrays import Array
from fastconv.problem.process import product


class NumpyEngine:
    """A window engine, see `backends.contract.Engine`. Its threads are those of NumPy's BLAS library."""

    def unsupported(self, dtype: np.dtype[Any]) -> str | None:
        """None, as NumPy computes in every numeric dtype."""
        return None

    def correlate(self, windows: Array, weight: Array, out: Array) -> None:
        """Weight (g, k, c * r * s) times columns (g, c * r * s, n * p * q)."""
        n, g, k, p, q = out.shape
        sums = product(weight.reshape(g, k, -1), _columns(windows))
        out += sums.reshape(g, k, n, p, q).transpose(2, 0, 1, 3, 4)

    def correlate_weight(self, windows: Array, small: Array, out: Array) -> None:
        """Small map (g, k, n * p * q) times the columns' transpose (g, n * p * q, c * r * s)."""
        g, k = out.shape[:2]
        pixels = small.transpose(1, 2, 0, 3, 4).reshape(g, k, -1)
        out += product(pixels, _columns(windows).swapaxes(1, 2)).reshape(out.shape)

    def sum_pixels(self, grid: Array, out: Array) -> None:
        """The sum of each image first, over one contiguous row of pixels, as NumPy sums that pairwise."""
        n, c, h, w = grid.shape
        out += np.ascontiguousarray(grid).reshape(n, c, h * w).sum(axis=2, dtype=out.dtype).sum(axis=0, dtype=out.dtype)


def _columns(windows: Array) -> Array:
    """(n, g, c, r, s, p, q) as the matrices (g, c * r * s, n * p * q)."""
    n, g, c, r, s, p, q = windows.shape
    columns = windows.transpose(1, 2, 3, 4, 0, 5, 6).reshape(g, c * r * s, n * p * q)
    # BLAS does not take a view of a flipped or broadcast map, and NumPy's own loops are slow
    *_, down, right = columns.strides
    return columns if right == columns.itemsize and down >= right * columns.shape[2] else columns.copy()
