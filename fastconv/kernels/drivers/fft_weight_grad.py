"""The weight gradient as products of spectra, with a vector lane for each result.

The maps are cut into tiles: `length` x `length` pixels of the large map, and `outputs_h` x `outputs_w` pixels of the
small map, padded with zeros to the same size. Each pair of tiles is correlated. For each frequency, complex matrices
are multiplied, and the products of all tiles t added:

    sums[p, c, k] += sum over t of conj(small[p, t, k]) * large[p, t, c]

A work item computes its strips of tiles one after the other. At the end of a chain the sums are transformed back into
taps and stored. The order of the points is that of `drivers.fft_tiles`.
"""

from typing import NamedTuple

from fastconv.kernels.arguments import Block, Extents, Source, WeightOut
from fastconv.kernels.chains import Chains, end_chain, start_chain
from fastconv.kernels.drivers.fft_tiles import (
    restore_columns,
    restore_row,
    transform_columns,
    transform_row,
    transform_tiles,
)
from fastconv.kernels.drivers.weight_grad_channel_lanes import store_taps
from fastconv.kernels.drivers.winograd import Plane, pack_lanes, plane_at
from fastconv.kernels.primitives import LANES, SIZE, Address, Entries, ceil_div, clear, move
from fastconv.kernels.spectra import MAX_COMPLEX_SPAN, complex_span
from fastconv.kernels.work_items import strip_of, weight_item


class FftWeightGrad(NamedTuple):
    """Arguments of `fft_weight_grad`.

    small          the small map, whose channels are results
    number, length, points    as of `FftTiles`
    taps_h, taps_w, outputs_h, outputs_w    taps of the kernel, and pixels of a tile of the small map
    large_table, small_table    the `Plane` that is the large map, and the one that is the small map
    splits         partial sums
    pitch          elements from one tile of the large map to the next
    chains         how sums are divided; `length` counts tiles, and a chain ends behind a strip
    tiles_table    for each tile of a strip a pair: its offset in the spectra of the small and the large map
    line_at, tile_line_at, rows_at, large_at, small_at, sums_at, zeros_at, taps_at, square_at, chains_at    workspace: a
                   row of pixels; that of one tile; the spectra of the rows of a tile; the spectra of both maps; the
                   sums; zeros; the taps of a channel; a square of lanes; the sums of chains
    """

    items: int
    group: int
    workspace: int
    extents: Extents
    source: Source
    small: Source
    out: WeightOut
    block: Block
    number: int
    length: int
    points: int
    taps_h: int
    taps_w: int
    outputs_h: int
    outputs_w: int
    large_table: int
    small_table: int
    splits: int
    pitch: int
    chains: Chains
    tiles_table: int
    line_at: int
    tile_line_at: int
    rows_at: int
    large_at: int
    small_at: int
    sums_at: int
    zeros_at: int
    taps_at: int
    square_at: int
    chains_at: int


def transform_small(
    plan: FftWeightGrad, plane: Plane, at: Address, valid: int, i0: int, j0: int, tiles: int, space: Address,
    values: Address, ld: int, limit: Address,
) -> None:  # fmt: skip
    """The spectra of a row of tiles of the small map, of `valid` results, the first of which is at (i0, j0)."""
    line, of_tile, rows = (
        space + plan.line_at * SIZE,
        space + plan.tile_line_at * SIZE,
        space + plan.rows_at * SIZE,
    )
    length, width = plan.length, plan.outputs_w
    for t in range(tiles):
        for i in range(plan.outputs_h):
            pack_lanes(plan.small, plane, 1, 1, at, valid, line, i0 + i, 1, j0 + t * width, width, 0, limit)
            for j in range(width):
                move(of_tile + j * LANES * SIZE, line + j * LANES * SIZE)
            transform_row(plan.number, length, i, of_tile, rows, 2 * LANES)
        transform_columns(plan.number, length, rows, 2 * LANES, values + t * 2 * LANES * SIZE, ld)


def fft_weight_grad(
    plan: FftWeightGrad, tables: Entries, source: Address, small: Address, bias: Address, out: Address,
    finish: Entries, space: Address, item: int,
) -> None:  # fmt: skip
    """One work item: some results and channels of a group, over all strips of tiles of its partial sum."""
    extents, block, length, number, points = plan.extents, plan.block, plan.length, plan.number, plan.points
    split, g, k0, c0, results, channels, first_strip, end_strip = weight_item(extents, block, plan.splits, item)
    taps, height, width = plan.taps_h * plan.taps_w, plan.outputs_h, plan.outputs_w
    count, ld_out = channels * taps, plan.out.result
    large_plane, small_plane = plane_at(tables, plan.large_table, 0), plane_at(tables, plan.small_table, 0)
    line, large_tiles = space + plan.line_at * SIZE, space + plan.large_at * SIZE
    small_tiles, sums, zeros = space + plan.small_at * SIZE, space + plan.sums_at * SIZE, space + plan.zeros_at * SIZE
    taps_of, square, chains_at = (
        space + plan.taps_at * SIZE,
        space + plan.square_at * SIZE,
        space + plan.chains_at * SIZE,
    )
    large_limit, small_limit = source + plan.source.size * SIZE, small + plan.small.size * SIZE
    out += (split * plan.out.split + g * plan.out.group + k0 * ld_out + c0 * taps) * SIZE
    ld_sums = (2 * channels + 1) * LANES
    of_vector = points * ld_sums
    clear(zeros)
    clear(zeros + LANES * SIZE)
    for j in range(length):
        clear(space + (plan.tile_line_at + j * LANES) * SIZE)
    for p in range(2 * points):  # the rows below a tile of the small map stay zeros
        clear(space + (plan.rows_at + p * LANES) * SIZE)
    chain, summed = 0, 0
    for strip in range(first_strip, end_strip):
        n, i0, j0, images, rows, cols = strip_of(extents, block, strip)
        tiles_h, tiles_w = ceil_div(rows, height), ceil_div(cols, width)
        tiles = images * tiles_h * tiles_w
        # strides are odd numbers of cache lines: the points of a tile start in different sets of a cache
        ld_large, ld_small = tiles * plan.pitch + LANES, (2 * tiles + 1) * LANES
        for row in range(images * tiles_h):
            image, i = row // tiles_h, i0 + row % tiles_h * height
            for c in range(0, channels, LANES):
                channel = (n + image) * plan.source.image + g * plan.source.group + (c0 + c) * plan.source.channel
                transform_tiles(plan.source, large_plane, 1, 1, source + channel * SIZE, min(LANES, channels - c),
                                i - large_plane.pad_h, j0 - large_plane.pad_w, number, length, tiles_w, width, line, 0,
                                large_tiles + (row * tiles_w * plan.pitch + 2 * c) * SIZE, plan.pitch, ld_large,
                                large_limit)  # fmt: skip
            for k in range(0, results, LANES):
                channel = (n + image) * plan.small.image + g * plan.small.group + (k0 + k) * plan.small.channel
                target = small_tiles + (k // LANES * points * ld_small + row * tiles_w * 2 * LANES) * SIZE
                transform_small(plan, small_plane, small + channel * SIZE, min(LANES, results - k), i, j0, tiles_w,
                                space, target, ld_small, small_limit)  # fmt: skip
        is_start, is_last = summed == 0, strip == end_strip - 1
        summed += tiles
        for k in range(0, results, LANES):
            for p in range(points):
                at = small_tiles + (k // LANES * points + p) * ld_small * SIZE
                for c in range(0, channels, LANES):
                    beside = min(LANES, channels - c)
                    spans = ceil_div(beside, MAX_COMPLEX_SPAN)
                    for s in range(spans):
                        first, end = beside * s // spans, beside * (s + 1) // spans
                        to = sums + (k // LANES * of_vector + p * ld_sums + (c + first) * 2 * LANES) * SIZE
                        start, step = to, 2 * LANES
                        if is_start:
                            start, step = zeros, 0
                        complex_span(end - first, at, large_tiles + (p * ld_large + 2 * c + first) * SIZE, 1,
                                     tables + plan.tiles_table * 8, tiles, start, step, to, 2 * LANES)  # fmt: skip
        if is_last or summed >= plan.chains.length:
            chain_out, ld_chain = start_chain(plan.chains, chains_at, out, ld_out, count, chain)
            for k in range(0, results, LANES):
                for c in range(channels):
                    spectrum = sums + (k // LANES * of_vector + c * 2 * LANES) * SIZE
                    restore_columns(number, length, spectrum, ld_sums)
                    for r in range(plan.taps_h):
                        restore_row(number, length, r, spectrum, ld_sums, zeros, line)
                        for s in range(plan.taps_w):
                            move(taps_of + (r * plan.taps_w + s) * LANES * SIZE, line + s * LANES * SIZE)
                    store_taps(taps_of, chain_out + (k * ld_chain + c * taps) * SIZE, ld_chain, min(LANES, results - k),
                               taps, square)  # fmt: skip
            end_chain(plan.chains, chains_at, out, ld_out, results, count, chain, is_last)
            chain += 1
            summed = 0
