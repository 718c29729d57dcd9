"""Convolution as products of spectra, with a vector lane for each channel or result, and the transform of its weight.

The output is cut into tiles of `outputs_h` x `outputs_w` pixels. Each reads `length` x `length` pixels of the source
(overlap-save). For each frequency, complex matrices are multiplied:

    products[p, t, k] = sum over c of conj(weight[k, p, c]) * values[p, t, c]

for the points p of a spectrum, the tiles t and the results k; the channels c are added in order. A work item packs rows
of pixels with a lane for each channel and transforms them, then the columns of each tile. It multiplies, transforms the
products back, adds the bias and stores.

A row of n real pixels has the frequencies f = 0, ..., n / 2, the first and the last of which are real. So columns 0
and n / 2 of a tile are real too, and have n / 2 + 1 points each; the others have n. The points of column 0 come first,
those of column n / 2 last. Until a real column is transformed, each of its points holds two neighbouring rows.

In every image, tiles begin at multiples of `outputs_h` and `outputs_w`. So bits depend neither on the block sizes nor
on the other images. The transforms are those of `kernels.fourier`.
"""

from typing import NamedTuple

from fastconv.kernels.arguments import Block, Extents, Out, Source, Weight
from fastconv.kernels.drivers.channel_lanes import read_bias
from fastconv.kernels.drivers.winograd import PANEL, Plane, pack_lanes, plane_at
from fastconv.kernels.pack_weight import LanePacking, pack_weight
from fastconv.kernels.primitives import LANES, SIZE, Address, Entries, ceil_div, clear, entry, move
from fastconv.kernels.spectra import (
    MAX_COMPLEX_SPAN,
    complex_span,
    forward,
    inverse,
    real_forward,
    real_inverse,
    real_output,
)
from fastconv.kernels.store import store_channels, store_lanes
from fastconv.kernels.work_items import work_item


class FftTiles(NamedTuple):
    """Arguments of `fft_tiles`.

    number         entry of `abi.FOURIER`
    length         pixels of a side of a tile that are read
    points         points of a spectrum
    outputs_h, outputs_w    pixels of a tile that are written
    weight_start   where the transformed weight starts
    ld_weight      elements of a panel of the transformed weight, of PANEL channels, from one point to the next
    planes         planes of the source whose products are added, see `planes_table` for each
    step_h, step_w source positions from one row or column of a plane to the next
    pitch          elements from one tile to the next in `values`
    next_result    elements from the products of one vector of results to those of the next; 0: they are made and stored
                   one after the other
    channels_table for each channel of a block a pair: its offset in the transformed weight and in `values`
    line_at, source_line_at, values_at, starts_at, products_at, sums_at, maps_at    workspace: a row of pixels; a row of
                   the source; the spectra; zeros, then the bias; the products; the sums of all results, if these are
                   neighbours in the output; the sums of one vector of results as maps
    """

    items: int
    group: int
    workspace: int
    extents: Extents
    source: Source
    out: Out
    block: Block
    packing: LanePacking
    number: int
    length: int
    points: int
    outputs_h: int
    outputs_w: int
    weight_start: int
    ld_weight: int
    planes: int
    planes_table: int
    step_h: int
    step_w: int
    pitch: int
    next_result: int
    channels_table: int
    line_at: int
    source_line_at: int
    values_at: int
    starts_at: int
    products_at: int
    sums_at: int
    maps_at: int


class FftWeight(NamedTuple):
    """Arguments of `fft_weight`.

    groups, results, channels   extents of the weight; channels and results are those of a group
    number, length, points, ld_weight    as of `FftTiles`
    out_start     where the transformed weight starts
    block         channels of a work item
    planes        planes of the source, each with taps of its own
    taps_h, taps_w    taps of a plane
    taps_table    for each tap of a plane, plane by plane, its offset in the packed weight
    panel_at, line_at, values_at    workspace: the packed weight; a row of taps; the spectra of rows
    """

    items: int
    group: int
    workspace: int
    groups: int
    results: int
    channels: int
    weight: Weight
    packing: LanePacking
    number: int
    length: int
    points: int
    ld_weight: int
    out_start: int
    block: int
    planes: int
    taps_h: int
    taps_w: int
    taps_table: int
    panel_at: int
    line_at: int
    values_at: int


def transform_row(number: int, length: int, row: int, line: Address, values: Address, ld: int) -> None:
    """The spectrum of row `row` of a tile, whose points are `ld` elements from each other."""
    half = length // 2
    first, last = values + row // 2 * ld * SIZE, (half + 1 + (half - 1) * length) * ld * SIZE
    part = row % 2 * LANES * SIZE
    real_forward(number, line, 2 * LANES, first + part, first + last + part,
                 values + (half + 1 - length + row) * ld * SIZE, length * ld)  # fmt: skip


def transform_columns(number: int, length: int, values: Address, ld: int, to: Address, ld_to: int) -> None:
    """The spectra of the columns of a tile; they may be written where they are read."""
    half = length // 2
    last = half + 1 + (half - 1) * length
    for column in range(2):
        source, target = values + column * last * ld * SIZE, to + column * last * ld_to * SIZE
        end = target + half * ld_to * SIZE
        real_forward(number, source, ld, target, end, target, ld_to)
        clear(target + LANES * SIZE)
        clear(end + LANES * SIZE)
    for column in range(half - 1):
        at = half + 1 + column * length
        forward(number, values + at * ld * SIZE, ld, to + at * ld_to * SIZE, ld_to)


def restore_columns(number: int, length: int, values: Address, ld: int) -> None:
    """The columns of a tile in place of their spectra, `length` times as large."""
    half = length // 2
    last = half + 1 + (half - 1) * length
    for column in range(2):
        target = values + column * last * ld * SIZE
        real_inverse(number, target, target + half * ld * SIZE, target, ld, target, ld)
    for column in range(half - 1):
        at = values + (half + 1 + column * length) * ld * SIZE
        inverse(number, at, ld, at, ld)


def restore_row(number: int, length: int, row: int, values: Address, ld: int, start: Address, line: Address) -> None:
    """Row `row` of a tile, all of its pixels, from the spectra of its rows."""
    half = length // 2
    first, last = values + row // 2 * ld * SIZE, (half + 1 + (half - 1) * length) * ld * SIZE
    part = row % 2 * LANES * SIZE
    real_output(number, first + part, first + last + part, values + (half + 1 - length + row) * ld * SIZE,
                length * ld, start, line, 2 * LANES)  # fmt: skip


def transform_tiles(
    source: Source, plane: Plane, step_h: int, step_w: int, at: Address, valid: int, h0: int, w0: int, number: int,
    length: int, tiles: int, next_col: int, line: Address, source_line: Address, values: Address, next_tile: int,
    ld: int, limit: Address,
) -> None:  # fmt: skip
    """The spectra of a row of tiles of `valid` channels of a plane, the first of which is at (h0, w0).

    A tile begins `next_col` pixels right of the one before; its points are `next_tile` elements further. See
    `pack_lanes` for the other arguments; `line` is workspace for a row of all tiles.
    """
    for row in range(length):
        pack_lanes(source, plane, step_h, step_w, at, valid, line, h0 + row, 1, w0, (tiles - 1) * next_col + length,
                   source_line, limit)  # fmt: skip
        for t in range(tiles):
            transform_row(number, length, row, line + t * next_col * LANES * SIZE, values + t * next_tile * SIZE, ld)
    for t in range(tiles):
        of_tile = values + t * next_tile * SIZE
        transform_columns(number, length, of_tile, ld, of_tile, ld)


def fft_tiles(
    plan: FftTiles, tables: Entries, source: Address, weight: Address, bias: Address, out: Address, finish: Entries,
    space: Address, item: int,
) -> None:  # fmt: skip
    """One work item: some images, rows and columns of some results of a group."""
    extents, block, to, number, length = plan.extents, plan.block, plan.out, plan.number, plan.length
    n, g, k0, i0, j0, images, groups, results, rows, cols = work_item(extents, block, item)
    outputs_h, outputs_w, points = plan.outputs_h, plan.outputs_w, plan.points
    tiles_h, tiles_w = ceil_div(rows, outputs_h), ceil_div(cols, outputs_w)
    of_image = tiles_h * tiles_w
    tiles = images * of_image
    spans = ceil_div(tiles, MAX_COMPLEX_SPAN)
    # strides are odd numbers of cache lines: the points of a tile start in different sets of a cache
    ld_values, ld_products = tiles * plan.pitch + LANES, tiles * 2 * LANES + LANES
    line, values, starts = space + plan.line_at * SIZE, space + plan.values_at * SIZE, space + plan.starts_at * SIZE
    zeros, all_products = starts + LANES * SIZE, space + plan.products_at * SIZE
    source_line, sums, maps = (
        space + plan.source_line_at * SIZE,
        space + plan.sums_at * SIZE,
        space + plan.maps_at * SIZE,
    )
    limit, channels_table = source + plan.source.size * SIZE, tables + plan.channels_table * 8
    blocks, all_vectors = ceil_div(extents.channels, block.channels), ceil_div(extents.results, LANES)
    of_panel, pixels = points * plan.ld_weight, images * rows * cols
    of_plane = ceil_div(extents.channels, PANEL) * of_panel
    out += (to.start + n * to.image + g * to.group + i0 * to.row + j0 * to.col) * SIZE
    clear(zeros)
    clear(zeros + LANES * SIZE)
    for block_number in range(plan.planes * blocks):
        plane_number, c0 = block_number // blocks, block_number % blocks * block.channels
        plane = plane_at(tables, plan.planes_table, plane_number)
        channels = min(block.channels, extents.channels - c0)
        for c in range(0, channels, LANES):
            for tile_row in range(images * tiles_h):
                image, i = tile_row // tiles_h, tile_row % tiles_h * outputs_h
                channel = (n + image) * plan.source.image + g * plan.source.group + (c0 + c) * plan.source.channel
                transform_tiles(plan.source, plane, plan.step_h, plan.step_w, source + channel * SIZE,
                                min(LANES, channels - c), i0 + i - plane.pad_h, j0 - plane.pad_w, number, length,
                                tiles_w, outputs_w, line, source_line,
                                values + (tile_row * tiles_w * plan.pitch + 2 * c) * SIZE, plan.pitch, ld_values,
                                limit)  # fmt: skip
        for k in range(0, results, LANES):
            vector, products = g * all_vectors + (k0 + k) // LANES, all_products + k // LANES * plan.next_result * SIZE
            transformed = weight + (plan.weight_start + (vector * plan.planes + plane_number) * of_plane
                                    + c0 // PANEL * of_panel) * SIZE  # fmt: skip
            for p in range(points):
                of_point = products + p * ld_products * SIZE
                for s in range(spans):
                    t, end = tiles * s // spans, tiles * (s + 1) // spans
                    start, step = zeros, 0
                    if block_number:
                        start, step = of_point + t * 2 * LANES * SIZE, 2 * LANES
                    complex_span(end - t, transformed + p * plan.ld_weight * SIZE,
                                 values + (p * ld_values + t * plan.pitch) * SIZE, plan.pitch, channels_table, channels,
                                 start, step, of_point + t * 2 * LANES * SIZE, 2 * LANES)  # fmt: skip
            if block_number == plan.planes * blocks - 1:
                valid = min(LANES, results - k)
                read_bias(plan.packing, tables, bias, g, k0 + k, valid, starts)
                for tile_row in range(images * tiles_h):
                    image, i = tile_row // tiles_h, tile_row % tiles_h * outputs_h
                    first = products + tile_row * tiles_w * 2 * LANES * SIZE
                    for t in range(tiles_w):
                        restore_columns(number, length, first + t * 2 * LANES * SIZE, ld_products)
                    for row in range(min(outputs_h, rows - i)):
                        for t in range(tiles_w):
                            restore_row(number, length, row, first + t * 2 * LANES * SIZE, ld_products, starts,
                                        line + t * outputs_w * LANES * SIZE)  # fmt: skip
                        if to.pixelwise:
                            of_row = sums + (k * pixels + ((image * rows + i + row) * cols) * LANES) * SIZE
                            for j in range(cols):
                                move(of_row + j * LANES * SIZE, line + j * LANES * SIZE)
                        else:
                            store_lanes(to, plan.packing, tables, extents.rows, i0 + i + row, g, k0 + k, valid, starts,
                                        line, maps, out + (image * to.image + (i + row) * to.row) * SIZE, 1, cols, 1,
                                        finish)  # fmt: skip
    if to.pixelwise:
        store_channels(to, sums, groups, results, out + k0 * SIZE, rows, cols, images, finish,
                       g * extents.results + k0)  # fmt: skip


def fft_weight(
    plan: FftWeight, tables: Entries, source: Address, weight: Address, bias: Address, out: Address, finish: Entries,
    space: Address, item: int,
) -> None:  # fmt: skip
    """One work item: some channels of a vector of results. The output is (vectors of results of all groups, planes,
    panels of channels, points, channels of a panel, a complex number of two vectors)."""
    vectors, blocks = ceil_div(plan.results, LANES), ceil_div(plan.channels, plan.block)
    vector, c0 = item // blocks, item % blocks * plan.block
    g, k = vector // vectors, vector % vectors * LANES
    channels, points, length = min(plan.block, plan.channels - c0), plan.points, plan.length
    panel, end = space + plan.panel_at * SIZE, weight + plan.groups * plan.weight.group * SIZE
    line, values, taps = space + plan.line_at * SIZE, space + plan.values_at * SIZE, plan.taps_h * plan.taps_w
    pack_weight(plan.packing, plan.weight, tables, weight, end, g, k, min(LANES, plan.results - k), c0, channels, panel)
    for s in range(length):
        clear(line + s * LANES * SIZE)
    for p in range(2 * points):  # the rows below the kernel stay zeros
        clear(values + p * LANES * SIZE)
    for plane in range(plan.planes):
        of_plane = (
            plan.out_start + (vector * plan.planes + plane) * ceil_div(plan.channels, PANEL) * points * plan.ld_weight
        )
        for c in range(channels):
            panel_start = of_plane + (c0 + c) // PANEL * points * plan.ld_weight
            to = out + (panel_start + (c0 + c) % PANEL * 2 * LANES) * SIZE
            of_channel = panel + c * plan.packing.taps * LANES * SIZE
            for r in range(plan.taps_h):
                for s in range(plan.taps_w):
                    tap = entry(tables, plan.taps_table + plane * taps + r * plan.taps_w + s)
                    move(line + s * LANES * SIZE, of_channel + tap * SIZE)
                transform_row(plan.number, length, r, line, values, 2 * LANES)
            transform_columns(plan.number, length, values, 2 * LANES, to, plan.ld_weight)
