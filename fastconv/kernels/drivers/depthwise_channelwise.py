"""Depthwise correlation with a vector lane for each channel, and its weight gradient.

    depthwise_channelwise               out[n, k, i, j] = bias[k] + sum over r, s of weight[k, r, s] * x
    depthwise_channelwise_weight_grad   out[k, r, s] = sum over n, i, j of small[n, k, i, j] * x

where x is the source pixel of image n and channel k / multiple that output (i, j) reads at tap (r, s). The second is
the first with pixels and taps exchanged: the small map is its kernel. No width of a map and no stride leaves lanes
empty. Maps are converted to channel lanes and back by transposing squares of LANES x LANES elements in registers. Long
rows of taps are band matrices, whose taps that read padding are skipped.
"""

from typing import NamedTuple

from fastconv.kernels.along_row import TapBand, along_row
from fastconv.kernels.arguments import Out, Small, Source
from fastconv.kernels.chains import join_chain, waiting
from fastconv.kernels.copying import write_zeros
from fastconv.kernels.lane_tile import LaneTile, clear_padding, pack_lane_tile, tap_range_at
from fastconv.kernels.lanes import from_lanes, pack_results, to_lanes
from fastconv.kernels.primitives import (
    LANES,
    SIZE,
    Address,
    Entries,
    along_square,
    bias_at,
    ceil_div,
    load,
    move,
    store,
)
from fastconv.kernels.store import epilogue, epilogue_of_pixels, store_channels


class DepthwisePhase(NamedTuple):
    """A phase of a depthwise correlation.

    rows, cols            its outputs
    first_row, first_col  the position of its first sum in those of all phases
    taps_table            a pair for each tap: its offset in the packed weight and in the tile
    taps                  how many there are
    ranges_table          for each row of outputs the `TapRange` that reads inside the source
    band                  1: its rows of taps are band matrices
    """

    rows: int
    cols: int
    first_row: int
    first_col: int
    taps_table: int
    taps: int
    ranges_table: int
    band: TapBand


def depthwise_phase_at(tables: Entries, start: int, number: int) -> DepthwisePhase:
    """Row `number` of the table that starts at entry `start`."""
    raise NotImplementedError


class DepthwiseChannelwise(NamedTuple):
    """Arguments of `drivers.depthwise_channelwise`.

    results       channels of the output, `multiple` for each channel of the source
    rows          rows of outputs of the longest phase; sums_rows, sums_cols: outputs of all phases
    kernel        taps of a channel in the weight
    block_images, block_rows, block_results   extents of a work item
    phases        number of phases; `phases_table` has a `DepthwisePhase` for each
    out_stride_h, out_stride_w  from one output of a phase to the next in those of all phases
    gaps          1: some outputs belong to no phase and get the bias
    start_at, panel_at, sums_at, tile_at    workspace: the bias, the packed weight, the sums, the tile
    """

    items: int
    group: int
    workspace: int
    images: int
    results: int
    multiple: int
    rows: int
    sums_rows: int
    sums_cols: int
    kernel: int
    source: Source
    out: Out
    tile: LaneTile
    block_images: int
    block_rows: int
    block_results: int
    phases: int
    phases_table: int
    out_stride_h: int
    out_stride_w: int
    gaps: int
    start_at: int
    panel_at: int
    sums_at: int
    tile_at: int


class DepthwiseChannelwiseWeightGrad(NamedTuple):
    """Arguments of `drivers.depthwise_channelwise_weight_grad`.

    images, channels      extents of the batch
    rows, cols            taps of the kernel, which are the outputs
    small_rows, small_cols  extents of the small map, whose pixels are the taps
    out_split             stride from one partial sum to the next; `splits` is their number
    block_rows            rows of the small map that are packed at a time
    block_pixels          pixels of these that are summed at a time
    chain_pixels          pixels after which a chain of multiply-adds ends, see `kernels.chains`; it ends behind a block
    stride_h              source rows from one row of the small map to the next
    taps_table            a pair for each pixel of a block: its offset in the packed small map and in the tile
    ranges_table          for each row of the kernel the `TapRange` of pixels that read inside the source
    band                  1: rows of the small map are band matrices
    panel_at, sums_at, tile_at    workspace: the packed small map, the sums of chains, the tile
    """

    items: int
    group: int
    workspace: int
    images: int
    channels: int
    rows: int
    cols: int
    small_rows: int
    small_cols: int
    source: Source
    small: Small
    out_split: int
    splits: int
    tile: LaneTile
    block_rows: int
    block_pixels: int
    chain_pixels: int
    stride_h: int
    taps_table: int
    ranges_table: int
    band: TapBand
    panel_at: int
    sums_at: int
    tile_at: int


def depthwise_channelwise(
    plan: DepthwiseChannelwise, tables: Entries, source: Address, weight: Address, bias: Address, out: Address,
    finish: Entries, space: Address, item: int,
) -> None:  # fmt: skip
    """One work item: some rows of some images, and some vectors of channels."""
    strips, blocks = ceil_div(plan.rows, plan.block_rows), ceil_div(plan.results, plan.block_results)
    i0 = item % strips * plan.block_rows
    rest = item // strips
    k0, n0 = rest % blocks * plan.block_results, rest // blocks * plan.block_images
    rows, results = min(plan.block_rows, plan.rows - i0), min(plan.block_results, plan.results - k0)
    tile, kernel = plan.tile, plan.kernel
    # with channels last, one whole vector of channels is accumulated in the output itself
    is_direct, row_pitch, pitch = (
        plan.out.pixelwise and plan.block_results == LANES and results == LANES,
        plan.sums_cols * LANES,
        LANES,
    )
    if is_direct:
        row_pitch, pitch = plan.out.row, plan.out.col
    padded, panels = space + plan.tile_at * SIZE, space + plan.panel_at * SIZE
    starts, all_sums = space + plan.start_at * SIZE, space + plan.sums_at * SIZE
    used_rows, first_row = tile.rows - plan.block_rows + rows, i0 * tile.stride_h
    written = min(rows * plan.out_stride_h, plan.sums_rows - i0 * plan.out_stride_h)
    pixels = written * plan.sums_cols
    weight_end = weight + plan.results * kernel * SIZE
    for k in range(0, results, LANES):
        valid = min(LANES, results - k)
        to_lanes(weight + (k0 + k) * kernel * SIZE, kernel, valid, 1, 0, panels + k * kernel * SIZE, 0, kernel,
                 weight_end)  # fmt: skip
        for lane in range(LANES):
            store(bias_at(bias if lane < valid else 0, k0 + k + lane), starts + (k + lane) * SIZE)
        clear_padding(tile, tables, padded + k // LANES * tile.size * SIZE, plan.source.height, first_row, used_rows)
    out += (plan.out.start + k0 * plan.out.result + i0 * plan.out_stride_h * plan.out.row) * SIZE
    for n in range(n0, min(n0 + plan.block_images, plan.images)):
        channel = n * plan.source.image + k0 // plan.multiple * plan.source.channel
        target = out + n * plan.out.image * SIZE
        pack_lane_tile(plan.source, tile, tables, source, padded, channel, results, plan.multiple, k0 % plan.multiple,
                       first_row, used_rows)  # fmt: skip
        for k in range(0, results, LANES):
            panel, start, sums = panels + k * kernel * SIZE, starts + k * SIZE, all_sums + k * pixels * SIZE
            packed = padded + k // LANES * tile.size * SIZE
            if is_direct:
                sums = target
            if plan.gaps:
                for i in range(written):
                    for j in range(plan.sums_cols):
                        move(sums + (i * row_pitch + j * pitch) * SIZE, start)
            for number in range(plan.phases):
                phase = depthwise_phase_at(tables, plan.phases_table, number)
                to, step = (
                    sums + (phase.first_row * row_pitch + phase.first_col * pitch) * SIZE,
                    plan.out_stride_w * pitch,
                )
                for i in range(min(rows, phase.rows - i0)):
                    first, end = 0, phase.taps
                    if tile.skip_padding:
                        inside = tap_range_at(tables, phase.ranges_table, i0 + i)
                        first, end = inside.first, inside.end
                    row = to + i * plan.out_stride_h * row_pitch * SIZE
                    if first < end:
                        along_row(panel, packed + i * tile.cols * LANES * SIZE,
                                  tables + (phase.taps_table + 2 * first) * 8, end - first, phase.band, start, 0, row,
                                  step, phase.cols)  # fmt: skip
                    else:
                        for j in range(phase.cols):
                            move(row + j * step * SIZE, start)
            if not plan.out.pixelwise:
                valid = min(LANES, results - k)
                from_lanes(plan.out, sums, target + k * plan.out.result * SIZE, valid, written, plan.sums_cols)
                for lane in range(valid):
                    epilogue(finish, k0 + k + lane, target + (k + lane) * plan.out.result * SIZE, written, plan.out.row,
                             plan.sums_cols, plan.out.col)  # fmt: skip
        if is_direct:
            epilogue_of_pixels(finish, k0, plan.out, target, results, written, plan.sums_cols, 1)
        elif plan.out.pixelwise:
            store_channels(plan.out, all_sums, 1, results, target, written, plan.sums_cols, 1, finish, k0)


def depthwise_channelwise_weight_grad(
    plan: DepthwiseChannelwiseWeightGrad, tables: Entries, source: Address, small: Address, bias: Address,
    out: Address, finish: Entries, space: Address, item: int,
) -> None:  # fmt: skip
    """One work item: a partial sum of as many channels as there are lanes."""
    tile, small_cols = plan.tile, plan.small_cols
    strips, blocks = ceil_div(plan.small_rows, plan.block_rows), ceil_div(plan.channels, LANES)
    units = plan.images * strips
    c0, split = item % blocks * LANES, item // blocks
    valid = min(LANES, plan.channels - c0)
    padded, panel, sums = space + plan.tile_at * SIZE, space + plan.panel_at * SIZE, space + plan.sums_at * SIZE
    limit = small + plan.small.size * SIZE
    first_unit, end_unit = units * split // plan.splits, units * (split + 1) // plan.splits
    offsets, kernel = tables + plan.taps_table * 8, plan.rows * plan.cols
    chain, summed = 0, 0
    for unit in range(first_unit, end_unit):
        n, p0 = unit // strips, unit % strips * plan.block_rows
        rows, first_row = min(plan.block_rows, plan.small_rows - p0), p0 * plan.stride_h
        count = rows * small_cols
        read = small + (n * plan.small.image + c0 * plan.small.result + p0 * plan.small.row) * SIZE
        pack_results(plan.small, read, valid, panel, rows, small_cols, limit)
        if strips > 1 or unit == first_unit:
            clear_padding(tile, tables, padded, plan.source.height, first_row, tile.rows)
        channel = n * plan.source.image + c0 * plan.source.channel
        pack_lane_tile(plan.source, tile, tables, source, padded, channel, valid, 1, 0, first_row, tile.rows)
        for begin in range(0, count, plan.block_pixels):
            last = min(begin + plan.block_pixels, count)
            to = sums + waiting(chain) * kernel * LANES * SIZE
            if summed == 0:
                write_zeros(to, kernel * LANES)
            if plan.rows == 3 and plan.cols == 3:
                along_square(panel, padded, tile.cols * LANES, offsets + 16 * begin, last - begin, to, 3 * LANES, LANES)
            else:
                for i in range(plan.rows):
                    first, end = begin, last
                    if tile.skip_padding:
                        inside = tap_range_at(tables, plan.ranges_table, i)
                        first = max(begin, inside.first - p0 * small_cols)
                        end = min(last, inside.end - p0 * small_cols)
                    if first < end:
                        row = to + i * plan.cols * LANES * SIZE
                        along_row(panel, padded + i * tile.cols * LANES * SIZE, offsets + 16 * first, end - first,
                                  plan.band, row, LANES, row, LANES, plan.cols)  # fmt: skip
            summed += last - begin
            is_last = unit + 1 == end_unit and last == count
            if summed >= plan.chain_pixels or is_last:
                join_chain(sums, kernel * LANES, kernel * LANES, chain, is_last)
                chain += 1
                summed = 0
    for lane in range(valid):
        to = out + (split * plan.out_split + (c0 + lane) * kernel) * SIZE
        for j in range(kernel):
            store(load(sums + (j * LANES + lane) * SIZE), to + j * SIZE)
