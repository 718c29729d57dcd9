"""What an engine is: three passes over plain arrays.

An engine knows no stride, no dilation, no padding and no "same". Above it, geometry has become *windows*: a view

    windows[n, g, c, r, s, p, q]  =  the source pixel that tap (r, s) meets at output pixel (p, q)

of image n, group g and channel c within the group. It is a strided view of one block of a zero-padded map, so its
elements share memory: it is read, never written. Blocks come in a size that a copy of the windows, `columns`, takes a
few MiB, whatever the problem's size.

Every pass adds to `out`, which already holds the bias or zeros, so that a sum may arrive in several blocks. Arrays
have one native floating, integer or complex dtype, are aligned, and have any strides.

A package brings its own engine by an object with these attributes, returned by a loader that is registered with
`fastconv.register_backend` or named by an entry point of the group `fastconv.backends`.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from fastconv.ground.arrays import Array


@runtime_checkable
class Engine(Protocol):
    """The contract. `g` group, `k` output channel and `c` input channel within the group."""

    def unsupported(self, dtype: np.dtype[Any]) -> str | None:
        """Why this engine cannot compute in `dtype`; None if it can. float32 and float64 must be supported."""

    def correlate(self, windows: Array, weight: Array, out: Array) -> None:
        """out[n, g, k, p, q] += sum over c, r, s of weight[g, k, c, r, s] * windows[n, g, c, r, s, p, q]"""

    def correlate_weight(self, windows: Array, small: Array, out: Array) -> None:
        """out[g, k, c, r, s] += sum over n, p, q of small[n, g, k, p, q] * windows[n, g, c, r, s, p, q]"""

    def sum_pixels(self, grid: Array, out: Array) -> None:
        """out[c] += sum over n, h, w of grid[n, c, h, w]"""


#: The names of the passes, which a loaded engine is checked to have.
PASSES = ("unsupported", "correlate", "correlate_weight", "sum_pixels")
