"""The weight gradient with a vector lane for each result k: the small map is transposed, the source is not.

    out[g, k, c, r, s] = sum over n, p, q of small[n, g, k, p, q] * x

where x is the source pixel of image n and channel c of group g that output (p, q) reads at tap (r, s). A row of the
register tile is a tap, whose source pixels are read one at a time, and its vectors are results. Tap groups can be
restricted to the outputs that read inside the source, so that padding is not multiplied. Each element is one chain of
multiply-adds in the order of the definition, or several if it is long (`kernels.chains`).
"""

from typing import NamedTuple

from fastconv.kernels.arguments import Block, Extents, PaddedTile, Small, Source, WeightOut
from fastconv.kernels.chains import Chains, end_chain, start_chain
from fastconv.kernels.copying import copy_row
from fastconv.kernels.lanes import pack_results
from fastconv.kernels.pack_source import pack_source
from fastconv.kernels.primitives import (
    LANES,
    MAX_TAPS,
    SIZE,
    Address,
    Entries,
    ceil_div,
    clear,
    entry,
    prefetch_to_write,
    sum_taps,
    transpose,
)
from fastconv.kernels.work_items import next_results, strip_of, weight_item


class TapGroup(NamedTuple):
    """Taps that are summed over the same outputs, a row of `WeightGradChannelLanes.tap_groups_table`.

    taps_table   a pair for each tap (c, r, s) of the group: its offset in the sums and in the source or padded tile
    taps         how many of a channel
    first_row, end_row, first_col, end_col    the outputs for which they read inside the source
    pixels_table a pair for each pixel of a panel: its offset in the panel and in the source or padded tile
    panel_col    the first column of the panel in that table
    run          how many neighbouring taps share the pixels that they read
    """

    taps_table: int
    taps: int
    first_row: int
    end_row: int
    first_col: int
    end_col: int
    pixels_table: int
    panel_col: int
    run: int


def tap_group_at(tables: Entries, start: int, number: int) -> TapGroup:
    """Row `number` of the table that starts at entry `start`."""
    raise NotImplementedError


class WeightGradChannelLanes(NamedTuple):
    """Arguments of `drivers.weight_grad_channel_lanes`.

    taps            taps of the kernel (r, s)
    splits          partial sums
    padded          1: the source is read through a padded tile; 0: directly
    block_pixels    pixels of a panel
    chains          how sums are divided; a chain ends behind a panel
    step_h, step_w  source positions from one output to the next
    halves, pairs   arguments of `next_results`
    next_panel      elements from the panel of one vector of results to that of the next
    tap_groups      how many there are; `tap_groups_table` has a `TapGroup` for each
    tile_at, panel_at, sums_at, zeros_at, square_at, chains_at    workspace
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
    step_h: int
    step_w: int
    halves: int
    pairs: int
    next_panel: int
    tap_groups: int
    tap_groups_table: int
    tile_at: int
    panel_at: int
    sums_at: int
    zeros_at: int
    square_at: int
    chains_at: int


def store_taps(sums: Address, out: Address, ld_out: int, results: int, taps: int, square: Address) -> None:
    """Write sums of `results` x `taps`, which are vectors of results, to the output."""
    for k in range(0, results, LANES):
        valid = min(LANES, results - k)
        for t in range(0, taps, LANES):
            source, to = sums + (k * taps + t * LANES) * SIZE, out + (k * ld_out + t) * SIZE
            count = min(LANES, taps - t)
            if count == LANES:
                transpose(source, LANES, LANES, to, ld_out, valid)
            else:
                transpose(source, LANES, LANES, square, LANES, valid)
                for lane in range(valid):
                    copy_row(to + lane * ld_out * SIZE, square + lane * LANES * SIZE, count, 0)


def weight_grad_channel_lanes(
    plan: WeightGradChannelLanes, tables: Entries, source: Address, small: Address, bias: Address, out: Address,
    finish: Entries, space: Address, item: int,
) -> None:  # fmt: skip
    """One work item: some results and channels of a group, over all strips of pixels of its partial sum."""
    extents, block, tile = plan.extents, plan.block, plan.tile
    split, g, k0, c0, results, channels, first_strip, end_strip = weight_item(extents, block, plan.splits, item)
    most, count = plan.block_pixels, channels * plan.taps
    ld_small, small_image, ld_out = plan.small.result, plan.small.image, plan.out.result
    channel = g * plan.source.group + c0 * plan.source.channel
    limit = small + plan.small.size * SIZE
    row_pitch, image_pitch, pitch = plan.source.row * plan.step_h, plan.source.image, plan.source.col * plan.step_w
    if plan.padded:
        pitch, row_pitch = tile.pixel * plan.step_w, tile.cols * tile.pixel * plan.step_h
        image_pitch = tile.planes_h * tile.planes_w * tile.plane
    padded, panel, sums = space + plan.tile_at * SIZE, space + plan.panel_at * SIZE, space + plan.sums_at * SIZE
    zeros, square = space + plan.zeros_at * SIZE, space + plan.square_at * SIZE
    out += (split * plan.out.split + g * plan.out.group + k0 * ld_out + c0 * plan.taps) * SIZE
    chains_at = space + plan.chains_at * SIZE
    chain, summed = 0, 0
    clear(zeros)

    for number in range(first_strip, end_strip):
        n0, i0, j0, strip_images, runs, run = strip_of(extents, block, number)
        if plan.padded:
            used_rows, used_cols = (
                tile.rows - (block.rows - runs) * plan.step_h,
                tile.cols - (block.cols - run) * plan.step_w,
            )
            pack_source(plan.source, tile, tables, source, padded, n0, strip_images, channel, channels,
                        i0 * plan.step_h, used_rows, j0 * plan.step_w, used_cols)  # fmt: skip
            base = padded
        else:
            base = source + (n0 * plan.source.image + channel + i0 * row_pitch + j0 * pitch) * SIZE
        a0 = small + (n0 * small_image + g * plan.small.group + k0 * ld_small) * SIZE
        a0 += (i0 * plan.small.row + j0 * plan.small.col) * SIZE
        # a panel is several images, several rows of one, or some pixels of a row
        block_n, block_i = max(1, most // (run * runs)), max(1, most // run)
        block_j = ceil_div(run, ceil_div(run, most))
        for n in range(0, strip_images, block_n):
            images = min(block_n, strip_images - n)
            for i in range(0, runs, block_i):
                rows = min(block_i, runs - i)
                for j in range(0, run, block_j):
                    cols = min(block_j, run - j)
                    is_start, pixels_after = summed == 0, summed + images * rows * cols
                    is_last = number == end_strip - 1 and n + images == strip_images
                    is_last = is_last and i + rows == runs and j + cols == run
                    is_end = is_last or pixels_after >= plan.chains.length
                    chain_out, ld_chain = start_chain(plan.chains, chains_at, out, ld_out, count, chain)
                    x = base + (n * image_pitch + i * row_pitch + j * pitch) * SIZE
                    # one vector of results, or two that share the source pixels that are loaded
                    k = 0
                    while k < results:
                        kind, count_k = next_results(plan.halves, plan.pairs, results - k)
                        sum_k, out_k = sums + k * count * SIZE, chain_out + k * ld_chain * SIZE
                        for of in range(0, count_k, LANES):
                            valid = min(LANES, count_k - of)
                            for m in range(images):
                                a = a0 + ((n + m) * small_image + (k + of) * ld_small) * SIZE
                                a += (i * plan.small.row + j * plan.small.col) * SIZE
                                to = panel + ((of > 0) * plan.next_panel + m * rows * cols * LANES) * SIZE
                                pack_results(plan.small, a, valid, to, rows, cols, limit)
                        passed = 0
                        for group_number in range(plan.tap_groups):
                            group = tap_group_at(tables, plan.tap_groups_table, group_number)
                            # the outputs of the panel for which its taps read inside the source
                            top, left = max(0, group.first_row - i0 - i), max(0, group.first_col - j0 - j)
                            read_i = min(rows, group.end_row - i0 - i) - top
                            read_j = min(cols, group.end_col - j0 - j) - left
                            is_read = read_i > 0 and read_j > 0
                            pixels = tables + (group.pixels_table + 2 * (top * read_j + left - group.panel_col)) * 8
                            taps = channels * group.taps
                            groups = taps // group.run
                            chunks, t = ceil_div(groups, MAX_TAPS // group.run), 0
                            for chunk in range(chunks):
                                end = groups * (chunk + 1) // chunks * group.run
                                offsets = group.taps_table + 2 * t
                                if is_end:
                                    # these sums' cache lines are in the cache when the sums are finished
                                    for lane in range(count_k):
                                        prefetch_to_write(out_k + (lane * ld_chain + passed) * SIZE)
                                if is_read:
                                    start, step = sum_k, 1
                                    if is_start:
                                        start, step = zeros, 0
                                    sum_taps(kind, group.run, (end - t) // group.run, panel, plan.next_panel,
                                             rows * cols * LANES, x, image_pitch, tables + offsets * 8, images, pixels,
                                             read_i * read_j, start, step, sum_k, LANES * count)  # fmt: skip
                                elif is_start:
                                    for tap in range(end - t):
                                        for of in range(0, count_k, LANES):
                                            clear(sum_k + (of * count + entry(tables, offsets + 2 * tap)) * SIZE)
                                passed += end - t
                                t = end
                        if is_end:
                            store_taps(sum_k, out_k, ld_chain, count_k, count, square)
                        k += count_k
                    summed = pixels_after
                    if is_end:
                        end_chain(plan.chains, chains_at, out, ld_out, results, count, chain, is_last)
                        chain += 1
                        summed = 0
