"""Depthwise correlations of small kernels with vectors along the rows of a map, and their weight gradient.

    depthwise_rowwise               out[n, k, i, j] = bias[k] + sum over r, s of weight[k, r, s] * x
    depthwise_rowwise_transposed    the same where the stride of 2 is the output's
    depthwise_rowwise_weight_grad   out[k, r, s] = sum over n, i, j of small[n, k, i, j] * x

where x is the source pixel of image n and channel k / multiple that output (i, j) reads at tap (r, s). Micro-kernels
go down a column of vectors. Each reads a row of the source once for all output rows that it is linked to, whose
unfinished sums stay in registers; for the weight gradient, a vector of sums for each tap stays there. Maps are read and
written as they are: lanes outside a map are masked.
"""

from typing import NamedTuple

from fastconv.kernels.arguments import Out, Small, Source
from fastconv.kernels.chains import join_chain, waiting
from fastconv.kernels.copying import write_zeros
from fastconv.kernels.primitives import (
    LANES,
    SIZE,
    Address,
    Entries,
    bias_at,
    ceil_div,
    floor_div,
    load,
    row_kernel,
    row_kernel_transposed,
    row_kernel_weight_grad,
    store,
    total,
)
from fastconv.kernels.store import epilogue


class DepthwiseRowwise(NamedTuple):
    """Arguments of `drivers.depthwise_rowwise`.

    images, results     images, and channels of the output, `multiple` for each channel of the source
    rows, cols          outputs
    number              which of `abi.ROW_KERNELS`
    kernel              taps of a channel
    flip                1: the kernel's taps are reversed
    stride_h, stride_w  source positions from one output to the next
    first_h, first_w    the source position that the first output reads at the first tap
    ahead               how many rows of the source ahead to prefetch
    block_rows, block_results   extents of a work item
    panel_at            workspace: the reversed kernel
    """

    items: int
    group: int
    workspace: int
    images: int
    results: int
    multiple: int
    rows: int
    cols: int
    number: int
    kernel: int
    flip: int
    stride_h: int
    stride_w: int
    first_h: int
    first_w: int
    ahead: int
    source: Source
    out: Out
    block_rows: int
    block_results: int
    panel_at: int


class DepthwiseRowwiseTransposed(NamedTuple):
    """Arguments of `drivers.depthwise_rowwise_transposed`, whose stride is 2.

    images, results images and channels
    rows, cols      outputs
    number          which of `abi.ROW_KERNELS_TRANSPOSED`
    kernel          taps of a channel
    half_pad_h, half_pad_w   the pad divided by 2, rounded down
    ahead           how many rows of the source ahead to prefetch
    block_rows, block_results   extents of a work item
    """

    items: int
    group: int
    workspace: int
    images: int
    results: int
    rows: int
    cols: int
    number: int
    kernel: int
    half_pad_h: int
    half_pad_w: int
    ahead: int
    source: Source
    out: Out
    block_rows: int
    block_results: int


class DepthwiseRowwiseWeightGrad(NamedTuple):
    """Arguments of `drivers.depthwise_rowwise_weight_grad`.

    images, results     images and channels
    rows, cols          extents of the small map
    number              which of `abi.ROW_KERNELS_WEIGHT_GRAD`
    kernel              taps of a channel
    stride_w            source columns from one column of the small map to the next
    first_h, first_w    the source position that the small map's first pixel reads at the first tap
    ahead               how many rows of the source ahead to prefetch
    block_results       channels of a work item
    chain_images, chain_cols    images and columns of a chain of multiply-adds, see `kernels.chains`
    sums_at, square_at  workspace: sums of chains with a lane for each pixel, a square of vectors
    """

    items: int
    group: int
    workspace: int
    images: int
    results: int
    rows: int
    cols: int
    number: int
    kernel: int
    stride_w: int
    first_h: int
    first_w: int
    ahead: int
    source: Source
    small: Small
    block_results: int
    chain_images: int
    chain_cols: int
    sums_at: int
    square_at: int


def depthwise_rowwise(
    plan: DepthwiseRowwise, tables: Entries, source: Address, weight: Address, bias: Address, out: Address,
    finish: Entries, space: Address, item: int,
) -> None:  # fmt: skip
    """One work item: a strip of rows of some channels of an image."""
    strips, blocks = ceil_div(plan.rows, plan.block_rows), ceil_div(plan.results, plan.block_results)
    i0 = item % strips * plan.block_rows
    rest = item // strips
    k0, n = rest % blocks * plan.block_results, rest // blocks
    rows, cols, kernel = min(plan.block_rows, plan.rows - i0), plan.cols, plan.kernel
    height, width, ld_out, number = plan.source.height, plan.source.width, plan.out.row, plan.number
    h, w = plan.first_h + i0 * plan.stride_h, plan.first_w
    # the last vector of a row ends with the row
    vectors, last = ceil_div(cols, LANES), cols - LANES
    # A row may write beyond its end, as the next rows overwrite that; the last rows write `cols` elements only.
    whole = rows if cols >= LANES else max(0, floor_div(rows * cols - LANES, cols) + 1)
    for k in range(k0, min(k0 + plan.block_results, plan.results)):
        channel = k if plan.multiple == 1 else k // plan.multiple  # a division takes as long as a row
        plane = source + (n * plan.source.image + channel * plan.source.channel) * SIZE
        taps = weight + k * kernel * SIZE
        if plan.flip:
            flipped = space + plan.panel_at * SIZE
            for t in range(kernel):
                store(load(taps + (kernel - 1 - t) * SIZE), flipped + t * SIZE)
            taps = flipped
        to = out + (n * plan.out.image + k * plan.out.result + i0 * plan.out.row) * SIZE
        row_kernel(number, bias_at(bias, k), taps, plane, height, width, plan.ahead, h, w, to, ld_out, rows, whole,
                   cols)  # fmt: skip
        for v in range(1, vectors):
            j = min(v * LANES, last)
            row_kernel(number, bias_at(bias, k), taps, plane, height, width, plan.ahead, h, w + j * plan.stride_w,
                       to + j * SIZE, ld_out, rows, whole, cols)  # fmt: skip
        epilogue(finish, k, to, rows, plan.out.row, cols, 1)


def depthwise_rowwise_transposed(
    plan: DepthwiseRowwiseTransposed, tables: Entries, source: Address, weight: Address, bias: Address, out: Address,
    finish: Entries, space: Address, item: int,
) -> None:  # fmt: skip
    """One work item: a strip of rows of some channels of an image."""
    strips, blocks = ceil_div(plan.rows, plan.block_rows), ceil_div(plan.results, plan.block_results)
    i0 = item % strips * plan.block_rows
    rest = item // strips
    k0, n, end_row = rest % blocks * plan.block_results, rest // blocks, min(i0 + plan.block_rows, plan.rows)
    for k in range(k0, min(k0 + plan.block_results, plan.results)):
        plane = source + (n * plan.source.image + k * plan.source.channel) * SIZE
        to = out + (n * plan.out.image + k * plan.out.result) * SIZE
        for j in range(0, plan.cols, 2 * LANES):
            row_kernel_transposed(plan.number, bias_at(bias, k), weight + k * plan.kernel * SIZE, plane,
                                  plan.source.height, plan.source.width, plan.ahead, plan.half_pad_h, plan.half_pad_w,
                                  j, to, plan.cols, i0, end_row)  # fmt: skip
        epilogue(finish, k, to + i0 * plan.out.row * SIZE, end_row - i0, plan.out.row, plan.cols, 1)


def depthwise_rowwise_weight_grad(
    plan: DepthwiseRowwiseWeightGrad, tables: Entries, source: Address, small: Address, bias: Address, out: Address,
    finish: Entries, space: Address, item: int,
) -> None:  # fmt: skip
    """One work item: some channels of all images."""
    cols, kernel = plan.cols, plan.kernel
    k0 = item * plan.block_results
    end = min(k0 + plan.block_results, plan.results)
    sums, square = space + plan.sums_at * SIZE, space + plan.square_at * SIZE
    of_channel = ceil_div(kernel, LANES) * LANES * LANES  # whole squares, for `total`
    count, chain = (end - k0) * of_channel, 0
    for first in range(0, plan.images, plan.chain_images):
        last = min(first + plan.chain_images, plan.images)
        for begin in range(0, cols, plan.chain_cols):
            stop = min(begin + plan.chain_cols, cols)
            to = sums + waiting(chain) * count * SIZE
            write_zeros(to, count)
            # channels are adjacent in memory, images are not
            for n in range(first, last):
                plane = source + (n * plan.source.image + k0 * plan.source.channel) * SIZE
                factors = small + (n * plan.small.image + k0 * plan.small.result) * SIZE
                for at in range(to, to + count * SIZE, of_channel * SIZE):
                    for j in range(begin, stop, LANES):
                        row_kernel_weight_grad(plan.number, plane, plan.source.height, plan.source.width, plan.ahead,
                                               plan.first_h, plan.first_w + j * plan.stride_w, factors + j * SIZE, cols,
                                               plan.rows, cols - j, at)  # fmt: skip
                    plane += plan.source.channel * SIZE
                    factors += plan.small.result * SIZE
            join_chain(sums, count, count, chain, last == plan.images and stop == cols)
            chain += 1
    for k in range(k0, end):
        for t in range(0, kernel, LANES):
            total(sums + ((k - k0) * of_channel + t * LANES) * SIZE, square, out + (k * kernel + t) * SIZE, kernel - t)
