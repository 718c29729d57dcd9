"""Winograd's convolution with a vector lane for each result, and the transform of its weight.

The output is cut into tiles of `outputs_h` x `outputs_w` pixels, each of which reads `size_h` x `size_w` pixels. Every
element of a transformed tile is a matrix product of its own:

    products[p, t, k] = sum over c of weight[k, p, c] * values[p, t, c]

over the channels c in order, for the elements p of a tile, the tiles t and the results k. A work item packs its
tiles with a lane for each channel and transforms them into `values`. It multiplies, transforms the products back,
adds the bias and stores.

In each image tiles begin at multiples of `outputs_h` and `outputs_w`, whatever the block. So bits depend neither on
the block sizes nor on the other images. The matrices are in `kernels.toom_cook`.
"""

from typing import NamedTuple

from fastconv.kernels.arguments import Block, Extents, Out, Source, Weight
from fastconv.kernels.drivers.channel_lanes import read_bias
from fastconv.kernels.lanes import copy_lanes, to_lanes
from fastconv.kernels.pack_weight import LanePacking, pack_weight
from fastconv.kernels.primitives import (
    LANES,
    MAX_SPAN,
    SIZE,
    Address,
    Entries,
    ceil_div,
    clear,
    load,
    move,
    span,
    store,
    transform_input,
    transform_output,
    transform_weight,
)
from fastconv.kernels.store import epilogue_of_pixels, store_channels, store_lanes
from fastconv.kernels.work_items import next_results, work_item

#: Channels of a panel of the transformed weight. A panel has all elements of a tile for these channels, so that it is
#: written in the first-level cache. A product for one element reads a part of each panel.
PANEL = 16


class Plane(NamedTuple):
    """A polyphase plane of the source: where it starts, its extents, the padding before its first row and column."""

    start: int
    height: int
    width: int
    pad_h: int
    pad_w: int


def plane_at(tables: Entries, start: int, number: int) -> Plane:
    """Row `number` of the table of planes that starts at entry `start`."""
    raise NotImplementedError


class Winograd(NamedTuple):
    """Arguments of `winograd`.

    packed         1: the weight is transformed already, by `winograd_weight`; 0: it is transformed here
    number         row of `abi.WINOGRAD`
    outputs_h, outputs_w, size_h, size_w    pixels of a tile that are written and read
    weight_start   where the transformed weight starts
    planes         planes of the source whose products are added, see `planes_table` for each
    step_h, step_w source positions from one row or column of a plane to the next
    pitch          elements from one tile to the next in `values`
    halves, pairs  arguments of `next_results`
    direct         1: sums are made in the output, where a vector of results follows another
    channels_table for each channel of a block a pair: its offset in the transformed weight and in `values`
    taps, taps_table    taps of a plane; for each of them, plane by plane, its offset in the packed weight
    tile_at, line_at, values_at, starts_at, products_at, sums_at, maps_at, panel_at, weight_at    workspace: the padded
                   pixels of a vector of channels; a row of the source; the transformed tiles; zeros, then the bias; the
                   products; the sums, with a lane for each result; the sums of one vector of results as maps; a packed
                   and a transformed weight
    """

    items: int
    group: int
    workspace: int
    extents: Extents
    source: Source
    weight: Weight
    out: Out
    block: Block
    packing: LanePacking
    packed: int
    number: int
    outputs_h: int
    outputs_w: int
    size_h: int
    size_w: int
    weight_start: int
    planes: int
    planes_table: int
    step_h: int
    step_w: int
    pitch: int
    halves: int
    pairs: int
    direct: int
    channels_table: int
    taps: int
    taps_table: int
    tile_at: int
    line_at: int
    values_at: int
    starts_at: int
    products_at: int
    sums_at: int
    maps_at: int
    panel_at: int
    weight_at: int


class WinogradWeight(NamedTuple):
    """Arguments of `winograd_weight`.

    groups, results, channels   extents of the weight; channels and results are those of a group
    number        row of `abi.WINOGRAD`
    points        elements of a tile
    out_start     where the transformed weight starts
    block         channels of a work item
    planes        planes of the source, each with taps of its own
    taps, taps_table    as of `Winograd`
    panel_at      workspace: the packed weight
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
    points: int
    out_start: int
    block: int
    planes: int
    taps: int
    taps_table: int
    panel_at: int


def pack_lanes(
    source: Source, plane: Plane, step_h: int, step_w: int, at: Address, valid: int, to: Address, h0: int, rows: int,
    w0: int, cols: int, line: Address, limit: Address,
) -> None:  # fmt: skip
    """Write `rows` x `cols` pixels of `valid` channels of a plane, from (h0, w0) on, as vectors; zeros outside of it.

    `at` is the address of the first channel of an image. If step_w is not 1, `line` is workspace for a row of the
    source. Nothing at `limit` or beyond is read.
    """
    row, col = step_h * source.row, step_w * source.col
    for h in range(h0, h0 + rows):
        first, end = 0, 0
        if h >= 0 and h < plane.height:
            first = min(cols, max(0, -w0))
            end = max(first, min(cols, plane.width - w0))
        for v in range(first):
            clear(to + v * LANES * SIZE)
        read, inside = at + (plane.start + h * row + (w0 + first) * col) * SIZE, to + first * LANES * SIZE
        count = end - first
        if source.channel == 1:
            copy_lanes(read, col, valid, inside, LANES, count)
        elif col == 1:
            to_lanes(read, source.channel, valid, 1, 0, inside, 0, count, limit)
        elif source.col == 1 and count > 0:
            to_lanes(read, source.channel, valid, 1, 0, line, 0, (count - 1) * step_w + 1, limit)
            for v in range(count):
                move(inside + v * LANES * SIZE, line + v * step_w * LANES * SIZE)
        else:
            for v in range(count):
                for lane in range(valid):
                    value = load(read + (v * col + lane * source.channel) * SIZE)
                    store(value, inside + (v * LANES + lane) * SIZE)
        for v in range(end, cols):
            clear(to + v * LANES * SIZE)
        to += cols * LANES * SIZE


def transform_panels(
    number: int, points: int, source: Address, kernel: int, taps: Entries, channels: int, to: Address
) -> None:
    """Transform the packed weight of a vector of results, `kernel` taps of each of `channels` channels, into panels."""
    for c in range(channels):
        transform_weight(number, source + c * kernel * LANES * SIZE, taps,
                         to + (c // PANEL * points * PANEL + c % PANEL) * LANES * SIZE, PANEL * LANES)  # fmt: skip


def winograd(
    plan: Winograd, tables: Entries, source: Address, weight: Address, bias: Address, out: Address, finish: Entries,
    space: Address, item: int,
) -> None:  # fmt: skip
    """One work item: some results of a group for a strip of tiles of some images."""
    extents, block, to, outputs_h, outputs_w = plan.extents, plan.block, plan.out, plan.outputs_h, plan.outputs_w
    n, g, k0, i0, j0, images, groups, results, rows, cols = work_item(extents, block, item)
    tiles_h, tiles_w, points = ceil_div(rows, outputs_h), ceil_div(cols, outputs_w), plan.size_h * plan.size_w
    height, width = tiles_h * outputs_h + plan.size_h - outputs_h, tiles_w * outputs_w + plan.size_w - outputs_w
    of_image, pixels = tiles_h * tiles_w, images * rows * cols
    tiles = images * of_image
    # strides are odd numbers of cache lines: the elements of a tile start in different sets of a cache
    ld_values, ld_products = (tiles // 2 * 2 + 1) * plan.pitch, (tiles // 2 * 2 + 1) * LANES
    spans = ceil_div(tiles, MAX_SPAN)
    tile, line, values = space + plan.tile_at * SIZE, space + plan.line_at * SIZE, space + plan.values_at * SIZE
    zeros, all_products = space + plan.starts_at * SIZE, space + plan.products_at * SIZE
    own_panel, transformed = space + plan.panel_at * SIZE, space + plan.weight_at * SIZE
    all_sums, maps = space + plan.sums_at * SIZE, space + plan.maps_at * SIZE
    starts, limit = zeros + LANES * SIZE, source + plan.source.size * SIZE
    weight_end, in_products = weight + extents.groups * plan.weight.group * SIZE, tables + plan.channels_table * 8
    panel = PANEL * LANES  # elements of a panel of one element of a tile
    of_plane = ceil_div(extents.channels, PANEL) * points * panel
    of_vector = plan.planes * of_plane if plan.packed else ceil_div(block.channels, PANEL) * points * panel
    blocks = ceil_div(extents.channels, block.channels)
    out += (to.start + n * to.image + g * to.group + i0 * to.row + j0 * to.col) * SIZE
    clear(zeros)
    for block_number in range(plan.planes * blocks):
        plane_number, c0 = block_number // blocks, block_number % blocks * block.channels
        plane = plane_at(tables, plan.planes_table, plane_number)
        channels = min(block.channels, extents.channels - c0)
        for c in range(0, channels, LANES):
            for image in range(images):
                channel = (n + image) * plan.source.image + g * plan.source.group + (c0 + c) * plan.source.channel
                pack_lanes(plan.source, plane, plan.step_h, plan.step_w, source + channel * SIZE,
                           min(LANES, channels - c), tile, i0 - plane.pad_h, height, j0 - plane.pad_w, width, line,
                           limit)  # fmt: skip
                for t in range(of_image):
                    corner = tile + (t // tiles_w * outputs_h * width + t % tiles_w * outputs_w) * LANES * SIZE
                    transform_input(plan.number, corner, width * LANES,
                                    values + ((image * of_image + t) * plan.pitch + c) * SIZE, ld_values)  # fmt: skip
        k = 0
        while k < results:
            kind, count = next_results(plan.halves, plan.pairs, results - k)
            if plan.packed:
                vector = g * ceil_div(extents.results, LANES) + (k0 + k) // LANES
                panels = vector * of_vector + plane_number * of_plane + c0 // PANEL * points * panel
                transformed = weight + (plan.weight_start + panels) * SIZE
            else:
                for v in range(0, count, LANES):
                    pack_weight(plan.packing, plan.weight, tables, weight, weight_end, g, k0 + k + v,
                                min(LANES, count - v), c0, channels, own_panel)  # fmt: skip
                    transform_panels(plan.number, points, own_panel, plan.packing.taps,
                                     tables + (plan.taps_table + plane_number * plan.taps) * 8, channels,
                                     transformed + v // LANES * of_vector * SIZE)  # fmt: skip
            products = all_products
            if plan.planes * blocks > 1:
                products += k // LANES * points * ld_products * SIZE
            start, next_start, step = zeros, 0, 0
            for p in range(points):
                of_point = products + p * ld_products * SIZE
                for s in range(spans):
                    first, end = tiles * s // spans, tiles * (s + 1) // spans
                    if block_number:
                        start, next_start, step = of_point + first * LANES * SIZE, points * ld_products, LANES
                    # the next panel is far from this one, so it is prefetched
                    span(kind, end - first, transformed + p * panel * SIZE, of_vector,
                         values + (p * ld_values + first * plan.pitch) * SIZE, plan.pitch, in_products, channels, start,
                         next_start, step, of_point + first * LANES * SIZE, points * ld_products, LANES, 0,
                         points * panel if plan.packed and s == 0 else 0, 0, 0, 0)  # fmt: skip
            if block_number == plan.planes * blocks - 1:
                for v in range(0, count, LANES):
                    read_bias(plan.packing, tables, bias, g, k0 + k + v, min(LANES, count - v), starts)
                    sums, ld_row, ld_col, ld_image = all_sums, cols * LANES, LANES, rows * cols * LANES
                    if plan.direct:
                        sums, ld_row, ld_col, ld_image = out + (k0 + k + v) * SIZE, to.row, to.col, to.image
                    elif to.pixelwise:
                        sums += (k + v) * pixels * SIZE
                    for t in range(tiles):
                        i, j = t % of_image // tiles_w * outputs_h, t % tiles_w * outputs_w
                        transform_output(plan.number, products + (v // LANES * points * ld_products + t * LANES) * SIZE,
                                         ld_products, starts,
                                         sums + (t // of_image * ld_image + i * ld_row + j * ld_col) * SIZE, ld_row,
                                         ld_col, rows - i, cols - j)  # fmt: skip
                    if not to.pixelwise:
                        store_lanes(to, plan.packing, tables, extents.rows, i0, g, k0 + k + v, min(LANES, count - v),
                                    starts, all_sums, maps, out, rows, cols, images, finish)  # fmt: skip
            k += count
    if plan.direct:
        epilogue_of_pixels(finish, g * extents.results + k0, to, out + k0 * SIZE, results, rows, cols, images)
    elif to.pixelwise:
        store_channels(to, all_sums, groups, results, out + k0 * SIZE, rows, cols, images, finish,
                       g * extents.results + k0)  # fmt: skip


def winograd_weight(
    plan: WinogradWeight, tables: Entries, source: Address, weight: Address, bias: Address, out: Address,
    finish: Entries, space: Address, item: int,
) -> None:  # fmt: skip
    """One work item: some channels of a vector of results. The output is (vectors of results of all groups, panels of
    channels, elements of a tile, channels of a panel, lanes)."""
    vectors, blocks = ceil_div(plan.results, LANES), ceil_div(plan.channels, plan.block)
    vector, c0 = item // blocks, item % blocks * plan.block
    g, k = vector // vectors, vector % vectors * LANES
    channels, points = min(plan.block, plan.channels - c0), plan.points
    panel, end = space + plan.panel_at * SIZE, weight + plan.groups * plan.weight.group * SIZE
    pack_weight(plan.packing, plan.weight, tables, weight, end, g, k, min(LANES, plan.results - k), c0, channels, panel)
    panels = ceil_div(plan.channels, PANEL)
    for plane in range(plan.planes):
        to = out + plan.out_start * SIZE
        to += ((vector * plan.planes + plane) * panels + c0 // PANEL) * points * PANEL * LANES * SIZE
        transform_panels(plan.number, points, panel, plan.packing.taps,
                         tables + (plan.taps_table + plane * plan.taps) * 8, channels, to)  # fmt: skip
