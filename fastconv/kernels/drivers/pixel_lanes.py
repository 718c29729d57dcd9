"""The correlation with a vector lane for each pixel.

    out[n, g, k, p, q] = bias[g, k] + sum over c, r, s of weight[g, k, c, r, s] * x

where x is the source pixel of image n and channel c of group g that output (p, q) reads at tap (r, s). A row of the
register tile is a result k, its vectors are pixels, and its sum runs over taps (c, r, s). Each element is one chain of
multiply-adds in this order, so that the bits depend neither on blocks and threads nor on the other images of a batch.
"""

from typing import NamedTuple

from fastconv.kernels.abi import BY_ROWS, FEW_ROWS_TILE, PACKED, PREFETCHING
from fastconv.kernels.arguments import Block, Extents, Out, PaddedTile, Source, Weight
from fastconv.kernels.pack_panel import furthest_tap, pack_panel
from fastconv.kernels.pack_source import pack_source
from fastconv.kernels.primitives import (
    LANES,
    SIZE,
    Address,
    Entries,
    ceil_div,
    clear,
    load,
    multiply,
    prefetch_to_write,
    splat,
)
from fastconv.kernels.store import store_pixels, store_result
from fastconv.kernels.work_items import work_item


class RegisterTile(NamedTuple):
    """A register tile whose vectors are pixels.

    kind           0 of many rows, 1 of few, 2 of one
    rows, vectors  results and vectors of pixels
    """

    kind: int
    rows: int
    vectors: int


class PixelLanes(NamedTuple):
    """Arguments of `drivers.pixel_lanes`.

    taps               taps of a channel (r, s)
    padded             how the source is read: 0 directly, 1 through a padded tile, 2 through the padded tile that the
                       previous plan of the group has filled
    prefetch           1: the source exceeds half of the second-level cache, so it is prefetched
    pixel_order        how the pixels of a strip become one axis, see `abi.FLAT`
    taps_table         for each tap (c, r, s) of a block a `Tap`
    panel_taps_table   the same, with offsets in a panel
    tile_at, starts_at, sums_at, panel_at    workspace: the padded tile; for each result a vector of its bias; the
                       sums; the panel
    """

    items: int
    group: int
    workspace: int
    extents: Extents
    source: Source
    weight: Weight
    out: Out
    tile: PaddedTile
    block: Block
    register_tile: RegisterTile
    taps: int
    padded: int
    prefetch: int
    pixel_order: int
    taps_table: int
    panel_taps_table: int
    tile_at: int
    starts_at: int
    sums_at: int
    panel_at: int


def write_starts(starts: Address, bias: Address, results: int, rows: int) -> None:
    """Write a vector of the bias, or of zeros, for each result, rounded up to a multiple of `rows`."""
    for k in range(ceil_div(results, rows) * rows):
        if bias and k < results:
            splat(load(bias + k * SIZE), starts + k * LANES * SIZE)
        else:
            clear(starts + k * LANES * SIZE)


def lines_of_sums(pixel_order: int, images: int, rows: int, cols: int, row_pitch: int) -> tuple[int, int, int]:
    """The stride from one row to the next in the sums, the number of lines, and the pixels of a line.

    A line is divided into whole vectors, except for its end. With `abi.BY_ROWS` each row is a line; otherwise all rows
    are one line, see `abi.FLAT`.
    """
    pitch, lines = row_pitch, 1
    if pixel_order == PACKED:
        pitch = cols
    if pixel_order == BY_ROWS:
        pitch, lines = ceil_div(cols, LANES) * LANES, rows
    return pitch, lines, pitch if pixel_order == BY_ROWS else images * rows * pitch - (pitch - cols)


def micro_kernel(register_tile: RegisterTile, vectors: int) -> int:
    """The number of the `multiply` for so many vectors; only the tile of many rows has narrower versions."""
    return vectors if register_tile.kind == 0 else FEW_ROWS_TILE - 1 + register_tile.kind


def prefetch_sums(sums: Address, ld: int, rows: int, vectors: int) -> None:
    """Prefetch the cache lines to which the sums of a register tile will be written."""
    for m in range(rows):
        for v in range(vectors):
            prefetch_to_write(sums + (m * ld + v * LANES) * SIZE)


def pixel_lanes(
    plan: PixelLanes, tables: Entries, source: Address, weight: Address, bias: Address, out: Address,
    finish: Entries, space: Address, item: int,
) -> None:  # fmt: skip
    """One work item: a strip of pixels of some results of a group, or of all results of several, over all channels."""
    extents, block, tile, register_tile = plan.extents, plan.block, plan.tile, plan.register_tile
    n, g0, k0, i0, j0, images, groups, results, rows, cols = work_item(extents, block, item)
    height, width, ld_a, ld_out = register_tile.rows, register_tile.vectors, plan.weight.result, plan.out.result
    padded, panel = space + plan.tile_at * SIZE, space + plan.panel_at * SIZE
    sums, starts = space + plan.sums_at * SIZE, space + plan.starts_at * SIZE
    is_padded, is_packed, by_rows = plan.padded != 0, plan.pixel_order == PACKED, plan.pixel_order == BY_ROWS
    prefetches = plan.prefetch != 0 and not is_padded
    row_pitch, image_pitch, limit = plan.source.row, plan.source.image, source + plan.source.size * SIZE
    if is_padded:
        row_pitch, image_pitch = tile.cols, tile.planes_h * tile.planes_w * tile.plane
        limit = space + plan.workspace * SIZE  # memory after a padded tile may be read
    run, runs = cols, rows
    if row_pitch == cols:
        run, runs = rows * cols, 1
    pitch, lines, line = lines_of_sums(plan.pixel_order, images, rows, cols, row_pitch)
    vectors = ceil_div(line, LANES)
    if register_tile.kind != 0:
        vectors = ceil_div(vectors, width) * width
    ld_sums = (ceil_div(lines * line, LANES) + width) * LANES

    # Where a line of sums is a line of the output, register tiles that are full on both sides are summed in the output:
    # the first `direct` pixels of a line of the first `whole` results. With many blocks of channels they are not,
    # because each block reads and writes the sums, which is slow with the output's long strides.
    target = out + (plan.out.start + n * plan.out.image + g0 * plan.out.group) * SIZE
    target += (i0 * plan.out.row + j0 * plan.out.col + k0 * ld_out) * SIZE
    whole, direct = results // height * height, 0
    if plan.out.col == 1 and extents.channels <= 2 * block.channels:
        if by_rows:
            direct = cols // LANES
        elif images == 1 and pitch == cols and (plan.out.row == cols or rows == 1):
            direct = line // LANES
    if register_tile.kind != 0 or direct < vectors:
        direct = direct // width * width
    direct = direct * LANES

    blocks = ceil_div(extents.channels, block.channels)
    for block_number in range(groups * blocks):
        g, c0 = g0 + block_number // blocks, block_number % blocks * block.channels
        channels = min(block.channels, extents.channels - c0)
        if c0 == 0:
            write_starts(starts, bias + (g * extents.results + k0) * SIZE if bias else 0, results, height)
        count = channels * plan.taps
        channel = g * plan.source.group + c0 * plan.source.channel
        used_rows, used_cols = tile.rows - block.rows + rows, tile.cols - block.cols + cols
        base = padded
        if plan.padded == 1 and blocks > 1:
            pack_source(plan.source, tile, tables, source, padded, n, images, channel, channels, i0, used_rows, j0,
                        used_cols)  # fmt: skip
        elif is_padded:  # all groups at once
            base += (g - g0) * channels * tile.channel * SIZE
            if plan.padded == 1 and g == g0:
                pack_source(plan.source, tile, tables, source, padded, n, images, channel, groups * channels, i0,
                            used_rows, j0, used_cols)  # fmt: skip
        else:
            base = source + (n * image_pitch + channel + i0 * row_pitch + j0) * SIZE
        taps = tables + plan.taps_table * 8
        furthest = furthest_tap(taps, count - plan.taps, count)
        a = weight + (g * plan.weight.group + k0 * ld_a + c0 * plan.weight.channel) * SIZE
        for i in range(lines):
            for v in range(0, vectors, width):
                tile_vectors = min(width, vectors - v)
                pixel, end = v * LANES, (v + tile_vectors) * LANES
                number = micro_kernel(register_tile, tile_vectors)
                first_number = number
                b, b_taps = base + (i * row_pitch + pixel) * SIZE, taps
                # the last pixels of a source are packed too, because nothing after them may be read
                if is_packed or (not is_padded and end > line):
                    pack_panel(base, taps, count, furthest, limit, run, runs, row_pitch, image_pitch, panel,
                               (width + 1) * LANES, pixel, min(end, line))  # fmt: skip
                    b, b_taps = panel, tables + plan.panel_taps_table * 8
                elif prefetches and tile_vectors == width and height > 1:
                    first_number = number + PREFETCHING
                in_sums = sums + ((g - g0) * results * ld_sums + i * line + pixel) * SIZE
                in_out = target + (i * plan.out.row + pixel) * SIZE
                direct_results = whole if end <= direct else 0
                for k in range(0, results, height):
                    to, ld_to = in_sums + k * ld_sums * SIZE, ld_sums
                    if k < direct_results:
                        to, ld_to = in_out + k * ld_out * SIZE, ld_out
                        if c0 == 0:
                            # this tile's sums; the next tile's where they come from memory
                            prefetch_sums(to + prefetches * tile_vectors * LANES * SIZE, ld_out, height, tile_vectors)
                    start, ld_start, step = to, ld_to, LANES
                    if c0 == 0:
                        start, ld_start, step = starts + k * LANES * SIZE, LANES, 0
                    multiply(first_number if k == 0 else number, a + k * ld_a * SIZE, ld_a, results - k, b, b_taps,
                             count, start, ld_start, step, to, ld_to)  # fmt: skip
    # All channels are summed, so each result's sums are stored.
    if plan.out.pixelwise:
        store_pixels(plan.out, sums, ld_sums, pitch, target, groups * results, rows, cols, images, panel, finish,
                     g0 * extents.results + k0)  # fmt: skip
        return
    for k in range(results):
        store_result(plan.out, extents.rows, i0, load(starts + k * LANES * SIZE), sums + k * ld_sums * SIZE, pitch,
                     target + k * ld_out * SIZE, rows, cols, images, by_rows, direct if k < whole else 0, finish,
                     g0 * extents.results + k0 + k)  # fmt: skip
