"""The weight gradient of Winograd's convolution, with a vector lane for each result.

The taps are a tile of the large map correlated with the tile of the small map at the same pixels. Every element p of
the transformed tiles is a matrix product of its own, summed over the tiles t:

    sums[p, c, k] += sum over t of small[p, t, k] * large[p, t, c]

A work item computes its strips of tiles one after the other. At the end of a chain the sums are transformed back into
taps and stored.
"""

from typing import NamedTuple

from fastconv.kernels.arguments import Block, Extents, Source, WeightOut
from fastconv.kernels.chains import Chains, end_chain, start_chain
from fastconv.kernels.drivers.weight_grad_channel_lanes import store_taps
from fastconv.kernels.drivers.winograd import pack_lanes, plane_at
from fastconv.kernels.primitives import (
    LANES,
    MAX_SPAN,
    SIZE,
    Address,
    Entries,
    ceil_div,
    clear,
    span,
    transform_input,
    transform_output,
    transform_weight,
)
from fastconv.kernels.work_items import next_results, strip_of, weight_item


class WinogradWeightGrad(NamedTuple):
    """Arguments of `winograd_weight_grad`.

    small          the small map, whose channels are results
    number         row of `abi.WINOGRAD`, whose outputs are the taps of the kernel
    taps_h, taps_w, tile_h, tile_w    taps of the kernel, and pixels of a tile of the small map
    large_table, small_table    the `Plane` that is the large map, and the one that is the small map
    splits         partial sums
    pitch          elements from one transformed tile of the large map to the next
    chains         how sums are divided; `length` counts tiles, and a chain ends behind a strip
    halves, pairs  arguments of `next_results`
    tiles_table    for each tile of a strip a pair: its offset in the transformed tiles of the small and the large map
    pixels_table   for each pixel of a tile of the small map its offset in the packed map
    tile_at, large_at, small_at, sums_at, zeros_at, taps_at, square_at, chains_at    workspace: the packed pixels of a
                   vector of channels; the transformed tiles of both maps; the sums; zeros; the taps of the results; a
                   square of lanes; the sums of chains
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
    taps_h: int
    taps_w: int
    tile_h: int
    tile_w: int
    large_table: int
    small_table: int
    splits: int
    pitch: int
    chains: Chains
    halves: int
    pairs: int
    tiles_table: int
    pixels_table: int
    tile_at: int
    large_at: int
    small_at: int
    sums_at: int
    zeros_at: int
    taps_at: int
    square_at: int
    chains_at: int


def winograd_weight_grad(
    plan: WinogradWeightGrad, tables: Entries, source: Address, small: Address, bias: Address, out: Address,
    finish: Entries, space: Address, item: int,
) -> None:  # fmt: skip
    """One work item: some results and channels of a group, over all strips of tiles of its partial sum."""
    extents, block, side_h, side_w = plan.extents, plan.block, plan.tile_h, plan.tile_w
    split, g, k0, c0, results, channels, first_strip, end_strip = weight_item(extents, block, plan.splits, item)
    halo_h, halo_w, taps = plan.taps_h - 1, plan.taps_w - 1, plan.taps_h * plan.taps_w
    points, count, ld_out = (side_h + halo_h) * (side_w + halo_w), channels * taps, plan.out.result
    large_plane, small_plane = plane_at(tables, plan.large_table, 0), plane_at(tables, plan.small_table, 0)
    packed, large_tiles = space + plan.tile_at * SIZE, space + plan.large_at * SIZE
    small_tiles, sums, zeros = space + plan.small_at * SIZE, space + plan.sums_at * SIZE, space + plan.zeros_at * SIZE
    taps_of, square, chains_at = (
        space + plan.taps_at * SIZE,
        space + plan.square_at * SIZE,
        space + plan.chains_at * SIZE,
    )
    large_limit, small_limit = source + plan.source.size * SIZE, small + plan.small.size * SIZE
    out += (split * plan.out.split + g * plan.out.group + k0 * ld_out + c0 * taps) * SIZE
    # `pixels_table` has offsets for one width, so every strip is packed with that width
    width, ld_sums = ceil_div(block.cols, side_w) * side_w, (channels // 2 * 2 + 1) * LANES
    of_vector = points * ld_sums
    clear(zeros)
    chain, summed = 0, 0
    for number in range(first_strip, end_strip):
        n, i0, j0, images, rows, cols = strip_of(extents, block, number)
        tiles_h, tiles_w = ceil_div(rows, side_h), ceil_div(cols, side_w)
        of_image = tiles_h * tiles_w
        tiles, height = images * of_image, tiles_h * side_h
        # strides are odd numbers of cache lines: the elements of a tile start in different sets of a cache
        ld_large, ld_small = (tiles // 2 * 2 + 1) * plan.pitch, (tiles // 2 * 2 + 1) * LANES
        for image in range(images):
            for c in range(0, channels, LANES):
                channel = (n + image) * plan.source.image + g * plan.source.group + (c0 + c) * plan.source.channel
                pack_lanes(plan.source, large_plane, 1, 1, source + channel * SIZE, min(LANES, channels - c), packed,
                           i0 - large_plane.pad_h, height + halo_h, j0 - large_plane.pad_w, width + halo_w, 0,
                           large_limit)  # fmt: skip
                for t in range(of_image):
                    corner = t // tiles_w * side_h * (width + halo_w) + t % tiles_w * side_w
                    transform_input(plan.number, packed + corner * LANES * SIZE, (width + halo_w) * LANES,
                                    large_tiles + ((image * of_image + t) * plan.pitch + c) * SIZE,
                                    ld_large)  # fmt: skip
            for k in range(0, results, LANES):
                channel = (n + image) * plan.small.image + g * plan.small.group + (k0 + k) * plan.small.channel
                pack_lanes(plan.small, small_plane, 1, 1, small + channel * SIZE, min(LANES, results - k), packed, i0,
                           height, j0, width, 0, small_limit)  # fmt: skip
                target = small_tiles + (k // LANES * points * ld_small + image * of_image * LANES) * SIZE
                for t in range(of_image):
                    corner = t // tiles_w * side_h * width + t % tiles_w * side_w
                    transform_weight(plan.number, packed + corner * LANES * SIZE, tables + plan.pixels_table * 8,
                                     target + t * LANES * SIZE, ld_small)  # fmt: skip
        is_start, is_last = summed == 0, number == end_strip - 1
        summed += tiles
        k = 0
        while k < results:
            kind, count_k = next_results(plan.halves, plan.pairs, results - k)
            for p in range(points):
                spans = ceil_div(channels, MAX_SPAN)
                for s in range(spans):
                    first, end = channels * s // spans, channels * (s + 1) // spans
                    to = sums + (k // LANES * of_vector + p * ld_sums + first * LANES) * SIZE
                    start, next_start, step = to, of_vector, LANES
                    if is_start:
                        start, next_start, step = zeros, 0, 0
                    span(kind, end - first, small_tiles + (k // LANES * points + p) * ld_small * SIZE,
                         points * ld_small, large_tiles + (p * ld_large + first) * SIZE, 1,
                         tables + plan.tiles_table * 8, tiles, start, next_start, step, to, of_vector, LANES, 0, 0, 0,
                         0, 0)  # fmt: skip
            k += count_k
        if is_last or summed >= plan.chains.length:
            chain_out, ld_chain = start_chain(plan.chains, chains_at, out, ld_out, count, chain)
            for of in range(0, results, LANES):
                for c in range(channels):
                    transform_output(plan.number, sums + (of // LANES * of_vector + c * LANES) * SIZE, ld_sums,
                                     zeros, taps_of + c * taps * LANES * SIZE, plan.taps_w * LANES, LANES, plan.taps_h,
                                     plan.taps_w)  # fmt: skip
                store_taps(taps_of, chain_out + of * ld_chain * SIZE, ld_chain, min(LANES, results - of), count, square)
            end_chain(plan.chains, chains_at, out, ld_out, results, count, chain, is_last)
            chain += 1
            summed = 0
