"""The weight gradient with a vector lane for each pixel: only the sums are transposed.

    out[g, k, c, r, s] = sum over n, p, q of small[n, g, k, p, q] * x

where x is the source pixel of image n and channel c of group g that output (p, q) reads at tap (r, s). Each lane of a
sum is a chain of multiply-adds of its own, or several if it is long (`kernels.chains`); the lanes are added at its end.
"""

from typing import NamedTuple

from fastconv.kernels.arguments import Block, Extents, PaddedTile, Small, Source, WeightOut
from fastconv.kernels.chains import Chains, end_chain, start_chain
from fastconv.kernels.pack_source import pack_source
from fastconv.kernels.primitives import DOTS_RESULTS, DOTS_TAPS, LANES, SIZE, Address, Entries, ceil_div, dots, total
from fastconv.kernels.work_items import strip_of, weight_item


class WeightGradPixelLanes(NamedTuple):
    """Arguments of `drivers.weight_grad_pixel_lanes`.

    taps           taps of the kernel (r, s)
    splits         partial sums
    padded         1: the source is read through a padded tile; 0: directly
    block_pixels   pixels that are summed at a time
    chains         how sums are divided; a chain ends behind a block of pixels
    taps_table     for each tap (c, r, s) of a block a pair: 0 and its offset in the source or padded tile
    tile_at, sums_at, square_at, chains_at    workspace: the padded tile; the sums; a square of lanes x lanes; the sums
                   of chains
    """

    items: int
    group: int
    workspace: int
    extents: Extents
    source: Source
    small: Small
    out: WeightOut
    tile: PaddedTile
    block: Block
    taps: int
    splits: int
    padded: int
    block_pixels: int
    chains: Chains
    taps_table: int
    tile_at: int
    sums_at: int
    square_at: int
    chains_at: int


def weight_grad_pixel_lanes(
    plan: WeightGradPixelLanes, tables: Entries, source: Address, small: Address, bias: Address, out: Address,
    finish: Entries, space: Address, item: int,
) -> None:  # fmt: skip
    """One work item: some results and channels of a group, over all strips of pixels of its partial sum."""
    extents, block, tile = plan.extents, plan.block, plan.tile
    split, g, k0, c0, results, channels, first_strip, end_strip = weight_item(extents, block, plan.splits, item)
    count = channels * plan.taps
    channel = g * plan.source.group + c0 * plan.source.channel
    offsets = tables + plan.taps_table * 8
    row_pitch, image_pitch = plan.source.width, plan.source.image
    if plan.padded:
        row_pitch, image_pitch = tile.cols, tile.planes_h * tile.planes_w * tile.plane
    padded, sums, square = space + plan.tile_at * SIZE, space + plan.sums_at * SIZE, space + plan.square_at * SIZE
    ld_sums = ceil_div(count, LANES) * LANES * LANES  # whole squares, for `total`
    ld_out, chains_at = plan.out.result, space + plan.chains_at * SIZE
    out += (split * plan.out.split + g * plan.out.group + k0 * ld_out + c0 * plan.taps) * SIZE
    chain, summed = 0, 0

    for number in range(first_strip, end_strip):
        n0, i0, j0, images, rows, cols = strip_of(extents, block, number)
        if plan.padded:
            used_rows, used_cols = tile.rows - block.rows + rows, tile.cols - block.cols + cols
            pack_source(plan.source, tile, tables, source, padded, n0, images, channel, channels, i0, used_rows, j0,
                        used_cols)  # fmt: skip
            base = padded
        else:
            base = source + (n0 * plan.source.image + channel + i0 * row_pitch + j0) * SIZE
        start = small + (n0 * plan.small.image + g * plan.small.group + k0 * plan.small.result) * SIZE
        start += (i0 * extents.cols + j0) * SIZE
        # A run is a row, or all rows of a strip whose rows follow each other in the source. In a padded tile it is
        # always a row, so that a pixel's lane does not depend on the blocking.
        run, runs = cols, rows
        if not plan.padded and row_pitch == cols:
            run, runs = rows * cols, 1
        block_i = max(1, plan.block_pixels // run)
        for n in range(images):
            for i in range(0, runs, block_i):
                for j in range(0, run, plan.block_pixels):
                    a = start + (n * plan.small.image + i * extents.cols + j) * SIZE
                    x = base + (n * image_pitch + i * row_pitch + j) * SIZE
                    block_rows, block_cols = min(block_i, runs - i), min(plan.block_pixels, run - j)
                    for t in range(0, count, DOTS_TAPS):
                        for k in range(0, results, DOTS_RESULTS):
                            dots(a + k * plan.small.result * SIZE, plan.small.result, extents.cols, results - k, x,
                                 row_pitch, offsets + 16 * t, count - t, block_rows, block_cols, summed == 0,
                                 sums + (k * ld_sums + t * LANES) * SIZE, ld_sums)  # fmt: skip
                    summed += block_rows * ceil_div(block_cols, LANES)
                    is_last = number == end_strip - 1 and n + 1 == images
                    is_last = is_last and i + block_rows == runs and j + block_cols == run
                    if summed >= plan.chains.length or is_last:
                        to, ld = start_chain(plan.chains, chains_at, out, ld_out, count, chain)
                        for k in range(results):
                            for t in range(0, count, LANES):
                                total(sums + (k * ld_sums + t * LANES) * SIZE, square, to + (k * ld + t) * SIZE,
                                      count - t)  # fmt: skip
                        end_chain(plan.chains, chains_at, out, ld_out, results, count, chain, is_last)
                        chain += 1
                        summed = 0
