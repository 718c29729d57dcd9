"""Convolutions that are products of matrices: the small map has one pixel, and the kernel is as large as the large map.

The maps are matrices (N, K) and (N, J) then, with J = C R S, and the weight is one (K, J), which in small batches has
the most numbers. Each of the three contractions is another one of a convolution with a 1x1 kernel, whose large map is
the weight (1, K, 1, J), whose small map is the large one (1, N, 1, J), and whose weight is the small map (N, K, 1, 1).
There the weight's rows, if they are long, are read in whole vectors as they are.
"""

from __future__ import annotations

import math

from fastconv.planner.request import Contraction, Request
from fastconv.problem.axes import Axis
from fastconv.problem.geometry import Geometry

#: For each contraction, the contraction of the other convolution that computes it.
OTHER_TARGET: dict[Contraction, Contraction] = {"small": "weight", "large": "small", "weight": "large"}


def applies(request: Request) -> str | None:
    """Why a contraction is no product of matrices, or is not quicker as one.

    For maps that does not depend on the number of images: each has the same bits in any batch.
    """
    geometry = request.geometry
    if request.stands_for:
        return "it is a product of matrices already"
    if geometry.groups > 1 or not all(_is_one(axis) for axis in geometry.axes):
        return "the small map is not a single pixel of one group with a kernel of the large map's size"
    if request.target != "weight":
        return None
    few = request.model.few_images
    if geometry.batch <= few and has_long_rows(_row(geometry), request):
        return None
    return f"a weight's gradient gains from it only with long rows and at most {few} images"


def _is_one(axis: Axis) -> bool:
    """Whether the small map has one position, whose taps are those of the large one, in order."""
    return (
        axis.small == 1 and axis.large == axis.taps and axis.pad_before == 0 and (axis.dilation == 1 or axis.taps == 1)
    )


def has_long_rows(row: int, request: Request) -> bool:
    """Whether rows are so long that it pays to sum in lanes and to add these in the end."""
    return row >= request.model.long_row * request.tiles.lanes


def _row(geometry: Geometry) -> int:
    """J, the numbers of an image of the large map."""
    return geometry.large_channels * math.prod(axis.taps for axis in geometry.axes)


def other_convolution(geometry: Geometry) -> Geometry:
    """The other convolution, with a 1x1 kernel, that computes the same matrix products."""
    row = _row(geometry)
    axes = tuple(Axis(extent, extent, taps=1, stride=1, dilation=1, pad_before=0, pad_after=0) for extent in (1, row))
    return geometry._replace(
        batch=1, batched=True, large_channels=geometry.small_channels, small_channels=geometry.batch, groups=1,
        axes=axes, is_transposed=False,
    )  # fmt: skip
