"""The padding modes as index arithmetic: padding a map, and the adjoint, for gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.problem.arrays import Array
from fastconv.problem.parameters import PaddingMode, Pads


def source_index(mode: PaddingMode, position: int, extent: int) -> int | None:
    """The position inside an axis of `extent` whose value the padded axis has at `position`; None for a zero.

    >>> [source_index("reflect", i, 4) for i in (-2, -1, 0, 3, 4)]
    [2, 1, 0, 3, 2]
    """
    if mode == "zeros":
        return position if 0 <= position < extent else None
    if mode == "replicate":
        return min(max(position, 0), extent - 1)
    if mode == "circular":
        return position % extent
    return position if 0 <= position < extent else -position if position < 0 else 2 * (extent - 1) - position


def extend(large: Array, pads: Pads, mode: PaddingMode, extended: Array) -> None:
    """Write `large` (..., H, W), padded by `pads` in any mode but zeros, into `extended`."""
    extents = large.shape[-len(pads) :]
    interior: Any = (slice(before, before + extent) for (before, _), extent in zip(pads, extents, strict=True))
    extended[(..., *interior)] = large
    # one axis after the other: the corners are copies of what the axes before have padded
    for axis, ((before, after), extent) in enumerate(zip(pads, extents, strict=True), -len(pads)):
        along = np.moveaxis(extended, axis, 0)
        inside = along[before : before + extent]
        for position in (*range(-before, 0), *range(extent, extent + after)):
            along[before + position] = inside[source_index(mode, position, extent)]


def fold(extended: Array, pads: Pads, mode: PaddingMode) -> Array:
    """The adjoint of `extend`: adds each padding pixel to the pixel that it is a copy of.

    Writes into `extended`, and returns a view of it without the padding.
    """
    for axis, (before, after) in zip(range(-len(pads), 0), pads, strict=True):
        extended = np.moveaxis(extended, axis, 0)
        extent = len(extended) - before - after
        inside = extended[before : before + extent]
        for position in (*range(-before, 0), *range(extent, extent + after)):
            inside[source_index(mode, position, extent)] += extended[before + position]
        extended = np.moveaxis(inside, 0, axis)
    return extended
