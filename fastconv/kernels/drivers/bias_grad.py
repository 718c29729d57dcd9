"""The bias gradient: the sum of a map over images and pixels.

    out[c] = sum over n, h, w of grid[n, c, h, w]

It is bound by memory. `sum_rows` sums the columns of matrices whose rows are images, or segments of one image's map. A
matrix, called a block, has at most BLOCK_ROWS + 1 rows, and the sums of blocks are added pairwise. Of m blocks, the
error of a partial sum is at most about

    (BLOCK_ROWS + log2(m) + 2 * SUM_VECTORS + LANES) * eps * sum of |grid|

with at most 48 + log2(m), where NumPy's pairwise summation has 19 + log2(m) for m blocks of 128 numbers. Partial sums,
of which there are at most 32, are added one after the other.
"""

from typing import NamedTuple

from fastconv.kernels.abi import BLOCK_ROWS, SUM_VECTORS
from fastconv.kernels.copying import copy_row
from fastconv.kernels.primitives import LANES, SIZE, Address, Entries, ceil_div, sum_rows, transpose


class BiasGrad(NamedTuple):
    """Arguments of `drivers.bias_grad`.

    images, channels, pixels    extents of the map
    block_channels    channels of a work item, at most
    splits            partial sums
    along             1: the rows of a block are segments of one image's map; 0: they are images
    blocks            blocks of a channel, which partial sums share: see `sum_block`
    blocks_at, sums_at, square_at    workspace: sums of blocks; of channels; a square of lanes x lanes
    """

    items: int
    group: int
    workspace: int
    images: int
    channels: int
    pixels: int
    block_channels: int
    splits: int
    along: int
    blocks: int
    blocks_at: int
    sums_at: int
    square_at: int


def sum_block(plan: BiasGrad, source: Address, columns: int, number: int, sums: Address) -> None:
    """Sum block `number` of `columns` columns, whose rows are images or, if `along`, segments of an image's map."""
    most = SUM_VECTORS * LANES
    image = plan.channels * plan.pixels
    if plan.along:
        blocks = ceil_div(plan.pixels, BLOCK_ROWS * most)
        first = number % blocks * BLOCK_ROWS * most
        rest = min(BLOCK_ROWS * most, plan.pixels - first)
        rows = rest // most
        start = source + (number // blocks * image + first) * SIZE
        sum_rows(start, most, rows, most, 1, sums)
        rest -= rows * most
        if rest > 0:
            sum_rows(start + rows * most * SIZE, most, 1, rest, 0, sums)
    else:
        first = number * BLOCK_ROWS
        sum_rows(source + first * image * SIZE, image, min(BLOCK_ROWS, plan.images - first), columns, 1, sums)


def sum_blocks(plan: BiasGrad, source: Address, columns: int, begin: int, finish: int, sums: Address) -> None:
    """Sum blocks begin <= number < finish pairwise; `sums` has space for one sum of each level."""
    pitch = SUM_VECTORS * LANES * SIZE
    top = sums
    for number in range(begin, finish):
        sum_block(plan, source, columns, number, top)
        done = number - begin + 1
        while done % 2 == 0:  # two sums of the same number of blocks
            top -= pitch
            sum_rows(top + pitch, 0, 1, columns, 0, top)
            done = done // 2
        top += pitch
    top -= pitch
    while top > sums:
        top -= pitch
        sum_rows(top + pitch, 0, 1, columns, 0, top)


def bias_grad(
    plan: BiasGrad, tables: Entries, source: Address, small: Address, bias: Address, out: Address,
    finish: Entries, space: Address, item: int,
) -> None:  # fmt: skip
    """One work item: some channels, over all blocks of its partial sum.

    A map of at most LANES pixels has a column for each pixel of each channel. A larger map is summed to one vector. The
    vectors of sums are then transposed, so that the columns are channels.
    """
    most = SUM_VECTORS * LANES
    blocks, sums = space + plan.blocks_at * SIZE, space + plan.sums_at * SIZE
    square = space + plan.square_at * SIZE
    parts = ceil_div(plan.channels, plan.block_channels)
    c0, split = item % parts * plan.block_channels, item // parts
    channels = min(plan.block_channels, plan.channels - c0)
    begin, finish = plan.blocks * split // plan.splits, plan.blocks * (split + 1) // plan.splits
    source += c0 * plan.pixels * SIZE
    out += (split * plan.channels + c0) * SIZE

    if plan.pixels > LANES:
        left = LANES
        step = plan.pixels if plan.along else most
        for c in range(channels):
            for first in range(0, plan.pixels, step):
                columns = min(most, plan.pixels - first)
                sum_blocks(plan, source + (c * plan.pixels + first) * SIZE, columns, begin, finish, blocks)
                sum_rows(blocks, LANES, ceil_div(columns, LANES), LANES, first == 0, sums + c * LANES * SIZE)
    else:
        left = plan.pixels
        for first in range(0, channels * plan.pixels, most):
            columns = min(most, channels * plan.pixels - first)
            sum_blocks(plan, source + first * SIZE, columns, begin, finish, blocks)
            sum_rows(blocks, 0, 1, columns, 1, sums + first * SIZE)
    if left > 1:
        for c in range(0, channels, LANES):
            transpose(sums + c * left * SIZE, left, min(LANES, channels - c), square, LANES, left)
            sum_rows(square, LANES, left, LANES, 1, sums + c * SIZE)
    copy_row(out, sums, channels, 0)
