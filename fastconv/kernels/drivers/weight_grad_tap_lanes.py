"""The weight gradient with a vector lane for each tap: the source pixels that taps read are transposed.

    out[g, k, c, r, s] = sum over n, p, q of small[n, g, k, p, q] * x

where x is the source pixel of image n and channel c of group g that output (p, q) reads at tap (r, s). A row of the
register tile is a result k, its vectors are taps, and its sum runs over pixels. Each element is one chain of
multiply-adds in the order of the definition, or several if it is long (`kernels.chains`).
"""

from typing import NamedTuple

from fastconv.kernels.arguments import Block, Extents, PaddedTile, Small, Source, WeightOut
from fastconv.kernels.chains import Chains, end_chain, start_chain
from fastconv.kernels.copying import copy_row
from fastconv.kernels.pack_panel import furthest_tap
from fastconv.kernels.pack_source import pack_source
from fastconv.kernels.pack_taps import copy_taps, pack_taps
from fastconv.kernels.primitives import (
    FULL_ROWS,
    FULL_VECTORS,
    LANES,
    SIZE,
    Address,
    Entries,
    ceil_div,
    clear,
    multiply,
)
from fastconv.kernels.work_items import strip_of, weight_item


class WeightGradTapLanes(NamedTuple):
    """Arguments of `drivers.weight_grad_tap_lanes`.

    taps          taps of the kernel (r, s)
    splits        partial sums
    padded        1: the source is read through a padded tile; 0: directly
    pitch, row_pitch    elements between what neighbouring outputs of a row, and of a column, read. Unless `pitch` is
                  1, the taps of a pixel are neighbours
    block_pixels  pixels that are summed at a time
    all_pixels    1: the table of pixels has those of a strip; 0: those of a panel
    chains        how sums are divided; a chain ends behind a block of pixels
    taps_table    for each tap (c, r, s) of a block, rounded up to whole vectors, a pair: 0 and its offset in the source
    pixels_table  for each pixel of a strip or panel a pair: its offset in the small map and in the panel
    tile_at, panel_at, sums_at, zeros_at, chains_at    workspace: the padded tile, the panel of taps, the sums, a vector
                  of zeros, the sums of chains
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
    pitch: int
    row_pitch: int
    block_pixels: int
    all_pixels: int
    chains: Chains
    taps_table: int
    pixels_table: int
    tile_at: int
    panel_at: int
    sums_at: int
    zeros_at: int
    chains_at: int


def weight_grad_tap_lanes(
    plan: WeightGradTapLanes, tables: Entries, source: Address, small: Address, bias: Address, out: Address,
    finish: Entries, space: Address, item: int,
) -> None:  # fmt: skip
    """One work item: some results and channels of a group, over all strips of pixels of its partial sum."""
    extents, block, tile = plan.extents, plan.block, plan.tile
    split, g, k0, c0, results, channels, first_strip, end_strip = weight_item(extents, block, plan.splits, item)
    ld_small, ld_out = plan.small.result, plan.out.result
    padded, panel, sums = space + plan.tile_at * SIZE, space + plan.panel_at * SIZE, space + plan.sums_at * SIZE
    zeros, chains_at = space + plan.zeros_at * SIZE, space + plan.chains_at * SIZE
    clear(zeros)
    pitch_b, row_pitch, image_pitch = plan.pitch, plan.row_pitch, plan.source.image
    limit = source + plan.source.size * SIZE
    if plan.padded:
        image_pitch = tile.planes_h * tile.planes_w * tile.plane
        limit = panel + plan.workspace * SIZE  # memory after a padded tile may be read
    count = channels * plan.taps
    vectors, pitch = ceil_div(count, LANES), FULL_VECTORS * LANES
    ld = vectors * LANES
    channel = g * plan.source.group + c0 * plan.source.channel
    # the table also has entries for lanes without a tap, which must not be read at the end of the source
    furthest = furthest_tap(tables + plan.taps_table * 8, 0, ld)

    # whole register tiles are accumulated in the chain's sums: results k < whole, taps t < direct
    out += (split * plan.out.split + g * plan.out.group + k0 * ld_out + c0 * plan.taps) * SIZE
    whole, direct = results // FULL_ROWS * FULL_ROWS, count // LANES
    if direct < vectors:
        direct = direct // FULL_VECTORS * FULL_VECTORS
    direct = direct * LANES
    chain, summed = 0, 0

    for number in range(first_strip, end_strip):
        n, i0, j0, images, rows, cols = strip_of(extents, block, number)
        if plan.padded:
            used_rows, used_cols = tile.rows - block.rows + rows, tile.cols - block.cols + cols
            pack_source(plan.source, tile, tables, source, padded, n, images, channel, channels, i0, used_rows, j0,
                        used_cols)  # fmt: skip
            base = padded
        else:
            base = source + (n * plan.source.image + channel + i0 * row_pitch + j0 * pitch_b) * SIZE
        a0 = small + (n * plan.small.image + g * plan.small.group + k0 * ld_small) * SIZE
        a0 += (i0 * plan.small.row + j0 * plan.small.col) * SIZE
        pixels = images * rows * cols
        run, runs = cols, rows
        if row_pitch == cols * pitch_b:
            run, runs = rows * cols, 1
        for first in range(0, pixels, plan.block_pixels):
            # the table has the offsets of all pixels of a strip, or of those of a panel
            offsets, moved_a, moved_b = tables + plan.pixels_table * 8, first * plan.small.col, 0
            if plan.all_pixels:
                offsets, moved_a, moved_b = tables + (plan.pixels_table + 2 * first) * 8, 0, first * pitch
            last = min(first + plan.block_pixels, pixels)
            chain_out, ld_chain = start_chain(plan.chains, chains_at, out, ld_out, count, chain)
            for v in range(0, vectors, FULL_VECTORS):
                most, t = min(FULL_VECTORS, vectors - v), v * LANES
                end = t + most * LANES
                if pitch_b == 1:
                    pack_taps(tables, plan.taps_table + 2 * t, base, min(end, count) - t, panel, pitch, first, last,
                              run, runs, row_pitch, image_pitch, limit, furthest)  # fmt: skip
                else:
                    copy_taps(base + t * SIZE, min(end, count) - t, panel, pitch, first, last, run, runs, pitch_b,
                              row_pitch, image_pitch)  # fmt: skip
                for k in range(0, results, FULL_ROWS):
                    to, ld_to = sums + (k * ld + t) * SIZE, ld
                    if end <= direct and k < whole:
                        to, ld_to = chain_out + (k * ld_chain + t) * SIZE, ld_chain
                    start, ld_start, step = to, ld_to, LANES
                    if summed == 0:
                        start, ld_start, step = zeros, 0, 0
                    multiply(most, a0 + (k * ld_small + moved_a) * SIZE, ld_small, results - k,
                                     panel - moved_b * SIZE, offsets, last - first, start, ld_start, step, to,
                                     ld_to)  # fmt: skip
            summed += last - first
            is_last = number == end_strip - 1 and last == pixels
            if summed >= plan.chains.length or is_last:
                for k in range(results):
                    done = direct if k < whole else 0
                    copy_row(chain_out + (k * ld_chain + done) * SIZE, sums + (k * ld + done) * SIZE, count - done, 0)
                end_chain(plan.chains, chains_at, out, ld_out, results, count, chain, is_last)
                chain += 1
                summed = 0
