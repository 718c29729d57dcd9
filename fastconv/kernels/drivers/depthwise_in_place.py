"""Depthwise correlation of maps whose channels are neighbours, and its weight gradient.

    depthwise_in_place               out[n, k, i, j] = bias[k] + sum over r, s of weight[k, r, s] * x
    depthwise_in_place_weight_grad   out[k, r, s] = sum over n, i, j of small[n, k, i, j] * x

where x is the source pixel of image n and channel k that output (i, j) reads at tap (r, s). A vector has a lane for
each channel. It is loaded from and stored to the maps as they are: no pixel is copied, and taps on the padding are left
out. The last vector ends with the last channel, and shares channels with the one before if these are no whole vectors.
Such channels are written twice, so the epilogue follows when a work item has written all its sums of an image.
"""

from typing import NamedTuple

from fastconv.kernels.abi import CACHE_LINE
from fastconv.kernels.arguments import Out, Small, Source
from fastconv.kernels.chains import join_chain, waiting
from fastconv.kernels.copying import write_zeros
from fastconv.kernels.lanes import to_lanes
from fastconv.kernels.primitives import (
    LANES,
    LONG_COLS,
    SIZE,
    TALL_COLS,
    TALL_ROWS,
    Address,
    Entries,
    bias_at,
    ceil_div,
    load,
    prefetch_lines,
    rectangle,
    store,
    sum_window,
)
from fastconv.kernels.store import epilogue_of_pixels


class InPlacePhase(NamedTuple):
    """A phase of a depthwise correlation.

    rows, cols            its outputs
    first_row, first_col  the pixel of its first output
    taps                  rows of taps
    pad_h, pad_w          rows and columns of padding before what the first output reads
    number                the row of `abi.TAP_ROWS` with its columns of taps and their stride
    panel                 taps in the packed weight before its own
    """

    rows: int
    cols: int
    first_row: int
    first_col: int
    taps: int
    pad_h: int
    pad_w: int
    number: int
    panel: int


def in_place_phase_at(tables: Entries, start: int, number: int) -> InPlacePhase:
    """Row `number` of the table that starts at entry `start`."""
    raise NotImplementedError


class DepthwiseInPlace(NamedTuple):
    """Arguments of `drivers.depthwise_in_place`.

    results                channels
    rows                   rows of outputs of the longest phase; 1: register tiles have one row
    kernel                 taps of a channel in the weight
    block_images, block_rows, block_vectors   extents of a work item
    phases                 number of phases; `phases_table` has an `InPlacePhase` for each
    stride_h, stride_w     source pixels from one output of a phase to the next
    out_stride_h, out_stride_w   pixels of the output from one output of a phase to the next
    out_rows, out_cols     extents of the output
    prefetch               1: the source is prefetched: it exceeds the first-level cache, and an item has all channels
    order_table            for each tap of the weight its offset in the packed weight
    start_at, panel_at     workspace: the bias, the packed weight
    """

    items: int
    group: int
    workspace: int
    images: int
    results: int
    rows: int
    kernel: int
    source: Source
    out: Out
    block_images: int
    block_rows: int
    block_vectors: int
    phases: int
    phases_table: int
    stride_h: int
    stride_w: int
    out_stride_h: int
    out_stride_w: int
    out_rows: int
    out_cols: int
    prefetch: int
    order_table: int
    start_at: int
    panel_at: int


class DepthwiseInPlaceWeightGrad(NamedTuple):
    """Arguments of `drivers.depthwise_in_place_weight_grad`.

    images, channels      extents of both maps
    number                the row of `abi.WINDOWS`; taps: rows and columns of the kernel
    small_rows, small_cols   extents of the small map
    stride_h, stride_w    source pixels from one pixel of the small map to the next
    pad_h, pad_w          rows and columns of padding before the source
    out_split, splits     elements from one partial sum to the next, and how many there are
    block_rows            rows of the small map of a strip
    block_vectors         vectors of channels of a work item
    chain_pixels          pixels after which a chain ends, with a row
    prefetch              1: both maps are prefetched, likewise
    sums_at               workspace: the sums of each level of chains
    """

    items: int
    group: int
    workspace: int
    images: int
    channels: int
    number: int
    taps: int
    small_rows: int
    small_cols: int
    source: Source
    small: Small
    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    out_split: int
    splits: int
    block_rows: int
    block_vectors: int
    chain_pixels: int
    prefetch: int
    sums_at: int


def vector_start(channels: int, vector: int) -> int:
    """The first channel of a vector; the last one ends with the last channel."""
    return min(vector * LANES, channels - LANES)


def vectors_of_block(channels: int, block: int, number: int) -> int:
    """The vectors of block `number`, where each has `block` whole ones. What is left of the channels goes to the
    last."""
    whole = channels // LANES
    left = whole - number * block
    return block if left > block else left + (channels > whole * LANES)


def depthwise_in_place(
    plan: DepthwiseInPlace, tables: Entries, source: Address, weight: Address, bias: Address, out: Address,
    finish: Entries, space: Address, item: int,
) -> None:  # fmt: skip
    """One work item: some rows of some images, and some vectors of channels."""
    strips, blocks = ceil_div(plan.rows, plan.block_rows), ceil_div(plan.results // LANES, plan.block_vectors)
    i0 = item % strips * plan.block_rows
    rest = item // strips
    block, n0 = rest % blocks, rest // blocks * plan.block_images
    vectors = vectors_of_block(plan.results, plan.block_vectors, block)
    starts, panels, kernel = space + plan.start_at * SIZE, space + plan.panel_at * SIZE, plan.kernel
    end, weight_end = min(plan.rows, i0 + plan.block_rows), weight + plan.results * kernel * SIZE
    for v in range(vectors):
        k = vector_start(plan.results, block * plan.block_vectors + v)
        to_lanes(weight + k * kernel * SIZE, kernel, LANES, 1, 0, panels + v * kernel * LANES * SIZE,
                 tables + plan.order_table * 8, kernel, weight_end)  # fmt: skip
        for lane in range(LANES):
            store(bias_at(bias, k + lane), starts + (v * LANES + lane) * SIZE)
    is_long = plan.rows == 1
    height, width = TALL_ROWS, TALL_COLS
    if is_long:
        height, width = 1, LONG_COLS
    # a row of register tiles prefetches the source rows that the next one is the first to read
    one = in_place_phase_at(tables, plan.phases_table, 0)
    tiles, lines = ceil_div(one.cols, width) * vectors, 0
    if plan.prefetch:
        lines = ceil_div(height * plan.stride_h * plan.source.row * SIZE, tiles * CACHE_LINE)
    for n in range(n0, min(n0 + plan.block_images, plan.images)):
        of_image = source + n * plan.source.image * SIZE
        out_of_image = out + (plan.out.start + n * plan.out.image) * SIZE
        for i in range(i0, end, height):
            for number in range(plan.phases):
                phase = in_place_phase_at(tables, plan.phases_table, number)
                rows, h = min(end, phase.rows) - i, i * plan.stride_h - phase.pad_h
                first_row = max(0, 0 - h)
                end_row = min((height - 1) * plan.stride_h + phase.taps, plan.source.height - h)
                line = of_image + h * plan.source.row * SIZE
                to_line = out_of_image + (phase.first_row + i * plan.out_stride_h) * plan.out.row * SIZE
                ahead = line + ((height - 1) * plan.stride_h + phase.taps) * plan.source.row * SIZE
                cols = phase.cols
                if rows <= 0:
                    cols = 0
                for j in range(0, cols, width):
                    w = j * plan.stride_w - phase.pad_w
                    read = line + w * plan.source.col * SIZE
                    to = to_line + (phase.first_col + j * plan.out_stride_w) * plan.out.col * SIZE
                    for v in range(vectors):
                        if number == 0:
                            prefetch_lines(ahead, lines)
                            ahead += lines * CACHE_LINE
                        k = vector_start(plan.results, block * plan.block_vectors + v) * SIZE
                        rectangle(phase.number, is_long, panels + (v * kernel + phase.panel) * LANES * SIZE, read + k,
                                  plan.source.row, plan.source.col, plan.stride_h, phase.taps, first_row, end_row,
                                  0 - w, plan.source.width - w, starts + v * LANES * SIZE, to + k,
                                  plan.out_stride_h * plan.out.row, plan.out_stride_w * plan.out.col, rows,
                                  cols - j)  # fmt: skip
        k0, first = block * plan.block_vectors * LANES, i0 * plan.out_stride_h
        # the phases of a single row of outputs may write rows beyond its stride, which belong to the last strip
        after = plan.out_rows if end == plan.rows else end * plan.out_stride_h
        to, channels = out_of_image + (first * plan.out.row + k0) * SIZE, min(vectors * LANES, plan.results - k0)
        epilogue_of_pixels(finish, k0, plan.out, to, channels, after - first, plan.out_cols, 1)


def depthwise_in_place_weight_grad(
    plan: DepthwiseInPlaceWeightGrad, tables: Entries, source: Address, small: Address, bias: Address,
    out: Address, finish: Entries, space: Address, item: int,
) -> None:  # fmt: skip
    """One work item: a partial sum of some vectors of channels."""
    strips, blocks = ceil_div(plan.small_rows, plan.block_rows), ceil_div(plan.channels // LANES, plan.block_vectors)
    block, split, units = item % blocks, item // blocks, plan.images * strips
    vectors, kernel = vectors_of_block(plan.channels, plan.block_vectors, block), plan.taps * plan.taps
    sums, count = space + plan.sums_at * SIZE, vectors * kernel * LANES
    # a row of the small map prefetches the source rows that the next one is the first to read
    lines, small_lines = 0, 0
    if plan.prefetch:
        lines = ceil_div(plan.stride_h * plan.source.row * SIZE, vectors * CACHE_LINE)
        small_lines = ceil_div(plan.small.row * SIZE, vectors * CACHE_LINE)
    first_unit, end_unit = units * split // plan.splits, units * (split + 1) // plan.splits
    chain, summed = 0, 0
    for unit in range(first_unit, end_unit):
        n, p0 = unit // strips, unit % strips * plan.block_rows
        end = min(p0 + plan.block_rows, plan.small_rows)
        for p in range(p0, end):
            h = p * plan.stride_h - plan.pad_h
            read = source + (n * plan.source.image + h * plan.source.row - plan.pad_w * plan.source.col) * SIZE
            of_row = small + (n * plan.small.image + p * plan.small.row) * SIZE
            ahead, small_ahead = read + plan.taps * plan.source.row * SIZE, of_row + plan.small.row * SIZE
            to = sums + waiting(chain) * count * SIZE
            if summed == 0:
                write_zeros(to, count)
            for v in range(vectors):
                prefetch_lines(ahead + v * lines * CACHE_LINE, lines)
                prefetch_lines(small_ahead + v * small_lines * CACHE_LINE, small_lines)
                k = vector_start(plan.channels, block * plan.block_vectors + v) * SIZE
                sum_window(plan.number, of_row + k, plan.small.col, plan.small_cols, read + k, plan.source.row,
                           plan.source.col, max(0, 0 - h), plan.source.height - h, plan.pad_w,
                           plan.pad_w + plan.source.width, to + v * kernel * LANES * SIZE)  # fmt: skip
            summed += plan.small_cols
            is_last = unit + 1 == end_unit and p + 1 == end
            if summed >= plan.chain_pixels or is_last:
                join_chain(sums, count, count, chain, is_last)
                chain += 1
                summed = 0
    for v in range(vectors):
        k = vector_start(plan.channels, block * plan.block_vectors + v)
        for lane in range(LANES):
            to = out + (split * plan.out_split + (k + lane) * kernel) * SIZE
            for j in range(kernel):
                store(load(sums + ((v * kernel + j) * LANES + lane) * SIZE), to + j * SIZE)
