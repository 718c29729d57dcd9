"""Convolutions that are products of matrices: the small map has one pixel, and the kernel is as large as the large map.

The maps are matrices (N, K) and (N, J) then, with J = C R S, and the weight is one (K, J), which in small batches has
the most numbers. Each of the three contractions is another one of a convolution with a 1x1 kernel, whose large map is
the weight (1, K, 1, J), whose small map is the large one (1, N, 1, J), and whose weight is the small map (N, K, 1, 1).
There the weight's rows, if they are long, are read in whole vectors as they are.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

from fastconv.backends.contract import Layout
from fastconv.planner import cost_model
from fastconv.problem.axes import Axis
from fastconv.problem.geometry import Geometry

#: Which contraction of the other convolution each one is.
ROLES: dict[str, Literal["small", "large", "weight"]] = {"small": "weight", "large": "small", "weight": "large"}


def applies(geometry: Geometry, target: str, layout: Layout) -> bool:
    """Whether a contraction is a product of matrices, and is quicker as one.

    For maps that does not depend on the number of images: each has the same bits in any batch.
    """
    if geometry.groups > 1 or not all(_is_one(axis) for axis in geometry.axes):
        return False
    return target != "weight" or (geometry.batch <= cost_model.nominal(layout).few_images and is_long(geometry, layout))


def _is_one(axis: Axis) -> bool:
    """Whether the small map has one position, whose taps are those of the large one, in order."""
    return (
        axis.small == 1 and axis.large == axis.taps and axis.pad_before == 0 and (axis.dilation == 1 or axis.taps == 1)
    )


def is_long(geometry: Geometry, layout: Layout) -> bool:
    """Whether the sums of a map of one pixel have a chain of multiply-adds in each lane."""
    return _row(geometry) >= cost_model.nominal(layout).long_row * layout.lanes


def _row(geometry: Geometry) -> int:
    """J, the numbers of an image of the large map."""
    return geometry.large_channels * math.prod(axis.taps for axis in geometry.axes)


def turned(geometry: Geometry) -> Geometry:
    """The other convolution."""
    row = _row(geometry)
    axes = tuple(Axis(extent, extent, taps=1, stride=1, dilation=1, pad_before=0, pad_after=0) for extent in (1, row))
    return replace(
        geometry, batch=1, batched=True, large_channels=geometry.small_channels, small_channels=geometry.batch,
        groups=1, axes=axes, is_transposed=False,
    )  # fmt: skip
