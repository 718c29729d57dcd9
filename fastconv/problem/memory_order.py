"""How a map lies in memory: the strides of its axes, in elements."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastconv.problem.arrays import Array
from fastconv.problem.geometry import Geometry


class MapStrides(NamedTuple):
    """The elements from one image, channel, row and column of a map to the next; they may be negative or 0."""

    image: int
    channel: int
    row: int
    col: int

    def size(self, shape: Sequence[int]) -> int:
        """The elements from the first one of a map of `shape` (N, C, H, W) to the end of the furthest one."""
        return 1 + sum((extent - 1) * max(0, stride) for extent, stride in zip(shape, self, strict=True))


class MemoryOrders(NamedTuple):
    """The strides of the two maps of a problem; None for a map in C order, (N, C, H, W)."""

    large: MapStrides | None = None
    small: MapStrides | None = None


#: Both maps are in C order.
C_ORDER = MemoryOrders()


def strides_in(geometry: Geometry, orders: MemoryOrders) -> tuple[MapStrides, MapStrides]:
    """The strides of the large and the small map of a lifted problem, whose orders these are."""
    large, small = geometry.large_shape, geometry.small_shape
    return orders.large or channels_first(large), orders.small or channels_first(small)


def standard(geometry: Geometry) -> MemoryOrders:
    """The orders of new maps in the data format of a problem, as maps of `Geometry.lifted`."""
    if not geometry.channels_last:
        return C_ORDER
    lifted = geometry.lifted()
    return MemoryOrders(channels_last(lifted.large_shape), channels_last(lifted.small_shape))


def channels_first(shape: Sequence[int]) -> MapStrides:
    """The strides of a map of `shape` (N, C, H, W) in C order."""
    _, channels, height, width = shape
    return MapStrides(channels * height * width, height * width, width, 1)


def channels_last(shape: Sequence[int]) -> MapStrides | None:
    """The strides of a map of `shape` (N, C, H, W) that lies as (N, H, W, C); None if C order is the same."""
    _, channels, height, width = shape
    return _unless_c_order(MapStrides(height * width * channels, 1, width * channels, channels), shape)


def strides_of(array: Array) -> MapStrides | None:
    """The strides of a map (N, C, H, W) whose elements are whole elements from each other; None for C order."""
    if array.flags.c_contiguous:
        return None
    strides = MapStrides(*(stride // array.itemsize for stride in array.strides))
    return _unless_c_order(strides, array.shape)


def empty_like(array: Array) -> Array:
    """A new array with the shape, dtype and strides of another, which `numpy.empty_like` does not keep."""
    reaches = [(extent - 1) * stride for extent, stride in zip(array.shape, array.strides, strict=True)]
    before = -sum(min(0, reach) for reach in reaches)
    room = np.empty(before + sum(max(0, reach) for reach in reaches) + array.itemsize, np.uint8)
    return np.ndarray(array.shape, array.dtype, room, before, array.strides)


def with_strides_of(like: Array, array: Array) -> Array:
    """`array` with the strides of another of its shape; copied only if it has other ones."""
    if strides_of(array) == strides_of(like):
        return array
    copy = empty_like(like)
    copy[...] = array
    return copy


def has_whole_strides(array: Array) -> bool:
    """Whether the elements of an array are whole elements from each other."""
    return all(stride % array.itemsize == 0 for stride in array.strides)


def _unless_c_order(strides: MapStrides, shape: Sequence[int]) -> MapStrides | None:
    """These strides, with those of C order on axes of length 1, which are never used; None if all are those."""
    c_order = channels_first(shape)
    used = MapStrides(*(c if extent == 1 else own for own, c, extent in zip(strides, c_order, shape, strict=True)))
    return None if used == c_order or math.prod(shape) == 0 else used
