"""The kernel overlap-add, for window engines: it writes the large map, and is made for long strides.

Each pixel of the small map gives a patch of the large one: the product of the small map's pixels and the weight has all
patches, and those that overlap are added (overlap-add, col2im). There is one addition for each part of a patch that
is a stride long, along runs of neighbouring pixels; phases would be as many as the stride has positions.

A block is some images, groups, pixels of the small map, channels and rows of a patch. Memory beyond input and output is
one block's. No zero is multiplied, as no pixel beside the small map is read.
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fastconv.backends.contract import Engine, Run
from fastconv.planner import im2col, window_costs
from fastconv.planner.blocking import even_block
from fastconv.planner.request import Proposal, Request
from fastconv.planner.steps import InitializedRun, MakeCount
from fastconv.problem.arrays import Array
from fastconv.problem.axes import Axis
from fastconv.problem.geometry import Geometry


def propose(request: Request) -> Proposal:
    """How it computes the large map, and the cost besides that of the matrix products."""
    geometry, (rows, cols), costs = request.geometry, request.geometry.axes, window_costs.WINDOW_COSTS
    results = geometry.large_channels // geometry.groups
    pixels = geometry.batch * geometry.groups * rows.small * cols.small
    added: float = results * rows.taps * cols.taps * (costs.add + costs.add_run / (_stride_parts(cols)[0].stop))
    return Proposal(0, costs.calls * len(_stride_parts(rows)) * len(_stride_parts(cols)) + pixels * added)


def prepare(engine: Engine, request: Request, proposal: Proposal, make_count: MakeCount) -> Run:
    """The contraction as a function of arrays; no zero is multiplied, so it takes any weight."""

    def add(small: Array, weight: Array, bias: Array | None, large: Array) -> None:
        to_large(engine, request.geometry, small, weight, large)

    return InitializedRun(add)


def to_large(engine: Engine, geometry: Geometry, small: Array, weight: Array, large: Array) -> None:
    """Add to `large` (N, C, H, W) the transposed convolution of `small` (N, K, P, Q) with `weight` (K, C/G, R, S)."""
    g = geometry.groups
    small, large = im2col.grouped(small, 1, g), im2col.grouped(large, 1, g)
    weight = im2col.grouped(weight, 0, g)
    lengths = _BlockLengths.of(geometry)
    for groups, channels, rows, cols in lengths.patches(geometry):
        of_patch = weight[groups, :, channels, rows, cols]
        k, c, r, s = of_patch.shape[1:]
        # the weight is what is read, (1, g, k, 1, 1, c * r, s), and the pixels are its results
        read = of_patch.reshape(1, -1, k, 1, 1, c * r, s)
        for images, down, across in lengths.pixels(geometry):
            pixels = small[images, groups, :, down, across].transpose(1, 0, 3, 4, 2)
            patches = np.zeros((*pixels.shape[:4], c, r, s), large.dtype)
            lines = math.prod(pixels.shape[1:4])
            engine.correlate(read, pixels.reshape(-1, lines, k, 1, 1), patches.reshape(1, -1, lines, c * r, s))
            _add(geometry, patches, large[images, groups, channels], (down, across), (rows, cols))


def workspace(request: Request, proposal: Proposal) -> int:
    """Bytes, at most, of a block: its patches twice, its pixels, and its part of the weight."""
    geometry = request.geometry
    lengths, k = _BlockLengths.of(geometry), geometry.small_channels // geometry.groups
    pixels = lengths.images * lengths.down * lengths.across
    patch = lengths.channels * lengths.rows * lengths.cols
    return request.itemsize * lengths.groups * (2 * pixels * patch + pixels * k + patch * k)


class _BlockLengths(NamedTuple):
    """The lengths of a block: groups, channels, rows and columns of a patch, images, rows and columns of pixels."""

    groups: int
    channels: int
    rows: int
    cols: int
    images: int
    down: int
    across: int

    @classmethod
    def of(cls, geometry: Geometry) -> "_BlockLengths":
        """First as much of a patch as leaves space for `height` pixels, whole rows and channels if it can; then as many
        pixels as fit; then groups. The patches of a block, and its part of the weight, have at most
        `matrix` elements."""
        g, (rows, cols) = geometry.groups, geometry.axes
        c, k = geometry.large_channels // g, geometry.small_channels // g
        number = geometry.batch * rows.small * cols.small
        costs = window_costs.WINDOW_COSTS
        most = max(1, costs.matrix // max(k, min(costs.height, number)))
        s = even_block(most, cols.taps)
        r = even_block(most // cols.taps, rows.taps)
        channels = even_block(most // (rows.taps * cols.taps), c)
        patch = channels * r * s
        most_pixels = costs.matrix // max(patch, k)
        across = even_block(most_pixels, cols.small)
        down = even_block(most_pixels // across, rows.small)
        images = even_block(most_pixels // (across * down), geometry.batch)
        groups = even_block(costs.matrix // max(patch * max(k, across * down * images), 1), g)
        return cls(groups, channels, r, s, images, down, across)

    def patches(self, geometry: Geometry) -> Iterator[tuple[slice, ...]]:
        """Groups, channels, rows and columns of a patch, of each block."""
        rows, cols = geometry.axes
        extents = geometry.groups, geometry.large_channels // geometry.groups, rows.taps, cols.taps
        return _blocks(extents, (self.groups, self.channels, self.rows, self.cols))

    def pixels(self, geometry: Geometry) -> Iterator[tuple[slice, ...]]:
        """Images, rows and columns of the small map, of each block."""
        rows, cols = geometry.axes
        return _blocks((geometry.batch, rows.small, cols.small), (self.images, self.down, self.across))


def _blocks(extents: tuple[int, ...], lengths: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    return itertools.product(*itertools.starmap(im2col.slices_of, zip(extents, lengths, strict=True)))


def _add(
    geometry: Geometry, patches: Array, large: Array, pixels: tuple[slice, slice], taps: tuple[slice, slice]
) -> None:
    """Add patches (g, n, p, q, c, r, s) of `pixels`, with these `taps`, where they belong in a map (n, g, c, h, w)."""
    rows, cols = (list(_linked_slices(*of)) for of in zip(geometry.axes, pixels, taps, strict=True))
    of_image, of_group, of_channel, of_row, of_col = large.strides
    (height, width) = geometry.axes
    for (p, r, h), (q, s, w) in itertools.product(rows, cols):
        part = patches[:, :, p, q, :, r, s]
        strides = (
            of_group, of_image, height.stride * of_row, width.stride * of_col, of_channel, height.dilation * of_row,
            width.dilation * of_col,
        )  # fmt: skip
        target = np.lib.stride_tricks.as_strided(large[..., h:, w:], part.shape, strides)
        target += part


def _stride_parts(axis: Axis) -> list[slice]:
    """The taps in parts no longer than the stride, so that one part of neighbouring pixels does not overlap."""
    return im2col.slices_of(axis.taps, (axis.stride - 1) // axis.dilation + 1 if axis.small > 1 else axis.taps)


def _linked_slices(axis: Axis, pixels: slice, taps: slice) -> Iterator[tuple[slice, slice, int]]:
    """The pixels and taps of a block that are linked to positions inside the large map: slices of the block, which link
    no position twice, and the position of its first pixel and first tap.

    All taps of a part are inside the map, except perhaps for the first and the last pixel that it links.
    """
    for part in _stride_parts(axis):
        start, end = max(part.start, taps.start), min(part.stop, taps.stop)
        if start >= end:
            continue
        first = -((start * axis.dilation - axis.pad_before) // axis.stride)
        last = (axis.large - 1 + axis.pad_before - (end - 1) * axis.dilation) // axis.stride + 1
        ends = sorted(min(max(p, pixels.start), pixels.stop) for p in (0, first - 1, first, last, last + 1, axis.small))
        for p, next_p in itertools.pairwise(ends):
            at = p * axis.stride - axis.pad_before
            r = max(start, -(at // axis.dilation))
            next_r = min(end, (axis.large - 1 - at) // axis.dilation + 1)
            if p < next_p and r < next_r:
                yield (
                    slice(p - pixels.start, next_p - pixels.start),
                    slice(r - taps.start, next_r - taps.start),
                    at + r * axis.dilation,
                )
