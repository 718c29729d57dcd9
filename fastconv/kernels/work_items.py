"""The images, groups, results, rows and columns that a work item computes."""

from fastconv.kernels.abi import HALF_VECTOR, ONE_VECTOR, TWO_VECTORS
from fastconv.kernels.arguments import Block, Extents
from fastconv.kernels.primitives import LANES, ceil_div


def work_item(extents: Extents, block: Block, item: int) -> tuple[int, int, int, int, int, int, int, int, int, int]:
    """An item's first image n, group g, result k0, row i0 and column j0; then its numbers of images, groups, results,
    rows and columns."""
    blocks_k = ceil_div(extents.results, block.results)
    strips_h, strips_w = ceil_div(extents.rows, block.rows), ceil_div(extents.cols, block.cols)
    k0 = item % blocks_k * block.results
    rest = item // blocks_k
    j0 = rest % strips_w * block.cols
    rest = rest // strips_w
    i0 = rest % strips_h * block.rows
    rest = rest // strips_h
    blocks_g = ceil_div(extents.groups, block.groups)
    g = rest % blocks_g * block.groups
    n = rest // blocks_g * block.images
    groups = min(block.groups, extents.groups - g)
    images, results = min(block.images, extents.images - n), min(block.results, extents.results - k0)
    rows, cols = min(block.rows, extents.rows - i0), min(block.cols, extents.cols - j0)
    return n, g, k0, i0, j0, images, groups, results, rows, cols


def weight_item(
    extents: Extents, block: Block, splits: int, item: int
) -> tuple[int, int, int, int, int, int, int, int]:
    """A weight gradient's item: its partial sum, group g, first result k0 and channel c0, its numbers of results and
    channels, and its first and end strip."""
    blocks_k, blocks_c = ceil_div(extents.results, block.results), ceil_div(extents.channels, block.channels)
    strips = ceil_div(extents.images, block.images) * ceil_div(extents.rows, block.rows)
    strips = strips * ceil_div(extents.cols, block.cols)
    k0 = item % blocks_k * block.results
    rest = item // blocks_k
    c0 = rest % blocks_c * block.channels
    rest = rest // blocks_c
    g, split = rest % extents.groups, rest // extents.groups
    results, channels = min(block.results, extents.results - k0), min(block.channels, extents.channels - c0)
    return split, g, k0, c0, results, channels, strips * split // splits, strips * (split + 1) // splits


def strip_of(extents: Extents, block: Block, number: int) -> tuple[int, int, int, int, int, int]:
    """The first image, row and column of strip `number`, and its numbers of images, rows and columns."""
    strips_h, strips_w = ceil_div(extents.rows, block.rows), ceil_div(extents.cols, block.cols)
    j0 = number % strips_w * block.cols
    i0 = number // strips_w % strips_h * block.rows
    n = number // (strips_w * strips_h) * block.images
    images = min(block.images, extents.images - n)
    return n, i0, j0, images, min(block.rows, extents.rows - i0), min(block.cols, extents.cols - j0)


def next_results(halves: int, pairs: int, results: int) -> tuple[int, int]:
    """The kind of micro-kernel for the next of `results` results in lanes, and how many of them it takes.

    Up to `halves` results take half a vector, from `pairs` on they take two vectors, others one vector. With 0 for
    `halves` or `pairs`, that kind is not used.
    """
    kind, count = ONE_VECTOR, LANES
    if results <= halves:
        kind = HALF_VECTOR
    elif pairs and results >= pairs:
        kind, count = TWO_VECTORS, 2 * LANES
    return kind, min(count, results)
