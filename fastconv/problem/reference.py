"""The definition of the three contractions, which every test compares with. Slow on purpose: it reads as the formula.

    to_small    small[n, k, p, q] = sum over c, r, s of  weight[k, c, r, s] * large[n, c, h, w]
    to_large    large[n, c, h, w] = sum over k, r, s of  weight[k, c, r, s] * small[n, k, p, q]
    to_weight   weight[k, c, r, s] = sum over n, p, q of  small[n, k, p, q] * large[n, c, h, w]

with h = p * stride - pad + r * dilation and likewise w; the channels k and c run within one group, p and q over the
small map. Outside its extent the large map is zero, or what its padding mode says. Where it is read, these zeros are
multiplied like any other number, so an infinite weight makes a NaN there.
Arrays are (N, C, H, W) and so on, see `geometry`; `geometry.lifted()` brings any problem into this form.
"""

from __future__ import annotations

import itertools

import numpy as np

from fastconv.problem.arrays import Array
from fastconv.problem.axes import Axis
from fastconv.problem.geometry import Geometry
from fastconv.problem.padding import source_index


def to_small(geometry: Geometry, large: Array, weight: Array) -> Array:
    """The small map, from the large map and the weight."""
    large, weight = _grouped(large, geometry), _grouped_weight(weight, geometry)
    groups, per_group = weight.shape[:2]
    small = np.zeros((geometry.batch, groups, per_group, *_extents(geometry, "small")), large.dtype)
    for p, q, r, s in np.ndindex(*small.shape[3:], *weight.shape[3:]):
        h, w = _linked(geometry, (p, q), (r, s))
        small[..., p, q] += np.einsum("gkc,ngc->ngk", weight[..., r, s], _at(large, h, w))
    return _ungrouped(small)


def to_large(geometry: Geometry, small: Array, weight: Array) -> Array:
    """The large map, from the small map and the weight."""
    small, weight = _grouped(small, geometry), _grouped_weight(weight, geometry)
    groups, _, per_group = weight.shape[:3]
    large = np.zeros((geometry.batch, groups, per_group, *_extents(geometry, "large")), small.dtype)
    rows, cols = geometry.lifted().axes
    positions = (range(-axis.pad_before, axis.large + axis.pad_after) for axis in (rows, cols))
    for h, w, r, s in itertools.product(*positions, range(rows.taps), range(cols.taps)):
        p, p_rest = divmod(h + rows.pad_before - r * rows.dilation, rows.stride)
        q, q_rest = divmod(w + cols.pad_before - s * cols.dilation, cols.stride)
        to_h, to_w = _continued(geometry, rows, h), _continued(geometry, cols, w)
        is_linked = not p_rest and not q_rest and 0 <= p < rows.small and 0 <= q < cols.small
        if not is_linked or to_h is None or to_w is None:
            continue
        large[..., to_h, to_w] += np.einsum("gkc,ngk->ngc", weight[..., r, s], small[..., p, q])
    return _ungrouped(large)


def to_weight(geometry: Geometry, large: Array, small: Array) -> Array:
    """The weight, from both maps."""
    large, small = _grouped(large, geometry), _grouped(small, geometry)
    rows, cols = geometry.lifted().axes
    weight = np.zeros((geometry.groups, small.shape[2], large.shape[2], rows.taps, cols.taps), large.dtype)
    for p, q, r, s in np.ndindex(*small.shape[3:], rows.taps, cols.taps):
        h, w = _linked(geometry, (p, q), (r, s))
        weight[..., r, s] += np.einsum("ngk,ngc->gkc", small[..., p, q], _at(large, h, w))
    return weight.reshape(geometry.lifted().weight_shape)


def _linked(geometry: Geometry, pixel: tuple[int, int], tap: tuple[int, int]) -> tuple[int | None, int | None]:
    """(h, w) of the large map that (p, q) is linked to through (r, s); None where the large map is zero."""
    rows, cols = geometry.lifted().axes
    h = pixel[0] * rows.stride - rows.pad_before + tap[0] * rows.dilation
    w = pixel[1] * cols.stride - cols.pad_before + tap[1] * cols.dilation
    return _continued(geometry, rows, h), _continued(geometry, cols, w)


def _continued(geometry: Geometry, axis: Axis, h: int) -> int | None:
    return source_index(geometry.padding_mode, h, axis.large)


def _at(grid: Array, h: int | None, w: int | None) -> Array:
    """The pixel (h, w) of every image and channel, or zeros where the map has none."""
    if h is None or w is None:
        return np.zeros(grid.shape[:-2], grid.dtype)
    return grid[..., h, w]


def _extents(geometry: Geometry, which: str) -> tuple[int, ...]:
    return tuple(getattr(axis, which) for axis in geometry.lifted().axes)


def _grouped(grid: Array, geometry: Geometry) -> Array:
    """(N, C, H, W) as (N, G, C/G, H, W)."""
    n, c, *extents = grid.shape
    return grid.reshape(n, geometry.groups, c // geometry.groups, *extents)


def _grouped_weight(weight: Array, geometry: Geometry) -> Array:
    """(K, C/G, R, S) as (G, K/G, C/G, R, S)."""
    k, *rest = weight.shape
    return weight.reshape(geometry.groups, k // geometry.groups, *rest)


def _ungrouped(grid: Array) -> Array:
    n, g, c, *extents = grid.shape
    return grid.reshape(n, g * c, *extents)
