"""Which part of a problem a work item is."""

from __future__ import annotations

from fastconv.kernels.abi import HALF_VECTOR, ONE_VECTOR, TWO_VECTORS
from fastconv.kernels.arguments import Block, Extents
from fastconv.kernels.primitives import LANES, ceil_div


def work_item(extents: Extents, block: Block, item: int) -> tuple[int, int, int, int, int, int, int, int, int]:
    """The item's first image n, its group g, first result k0, row i0 and column j0; then how many images, results, rows
    and columns it has."""
    parts_k = ceil_div(extents.results, block.results)
    strips_h, strips_w = ceil_div(extents.rows, block.rows), ceil_div(extents.cols, block.cols)
    k0 = item % parts_k * block.results
    rest = item // parts_k
    j0 = rest % strips_w * block.cols
    rest = rest // strips_w
    i0 = rest % strips_h * block.rows
    rest = rest // strips_h
    g = rest % extents.groups
    n = rest // extents.groups * block.images
    images, results = min(block.images, extents.images - n), min(block.results, extents.results - k0)
    rows, cols = min(block.rows, extents.rows - i0), min(block.cols, extents.cols - j0)
    return n, g, k0, i0, j0, images, results, rows, cols


def weight_item(
    extents: Extents, block: Block, splits: int, item: int
) -> tuple[int, int, int, int, int, int, int, int]:
    """Of a weight gradient: the item's partial sum, group g, first result k0 and channel c0, how many results and
    channels it has, and its strips, from the first to before the last."""
    parts_k, parts_c = ceil_div(extents.results, block.results), ceil_div(extents.channels, block.channels)
    strips = ceil_div(extents.images, block.images) * ceil_div(extents.rows, block.rows)
    strips = strips * ceil_div(extents.cols, block.cols)
    k0 = item % parts_k * block.results
    rest = item // parts_k
    c0 = rest % parts_c * block.channels
    rest = rest // parts_c
    g, split = rest % extents.groups, rest // extents.groups
    results, channels = min(block.results, extents.results - k0), min(block.channels, extents.channels - c0)
    return split, g, k0, c0, results, channels, strips * split // splits, strips * (split + 1) // splits


def strip_of(extents: Extents, block: Block, number: int) -> tuple[int, int, int, int, int, int]:
    """The first image, row and column of a strip of outputs, and how many there are of each."""
    strips_h, strips_w = ceil_div(extents.rows, block.rows), ceil_div(extents.cols, block.cols)
    j0 = number % strips_w * block.cols
    i0 = number // strips_w % strips_h * block.rows
    n = number // (strips_w * strips_h) * block.images
    images = min(block.images, extents.images - n)
    return n, i0, j0, images, min(block.rows, extents.rows - i0), min(block.cols, extents.cols - j0)


def next_results(halves: int, pairs: int, results: int) -> tuple[int, int]:
    """Which micro-kernel takes the next of `results` results in lanes, and how many of them.

    It is one for half a vector where at most `halves` are left, one for two vectors from `pairs` on, or else one for a
    vector; 0 for either means that it is not used.
    """
    kind, count = ONE_VECTOR, LANES
    if results <= halves:
        kind = HALF_VECTOR
    elif pairs and results >= pairs:
        kind, count = TWO_VECTORS, 2 * LANES
    return kind, min(count, results)
