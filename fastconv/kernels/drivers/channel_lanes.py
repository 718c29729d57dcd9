"""Convolution with a vector lane for each result (output channel).

    out[n, g, k, i, j] = bias[g, k] + sum over c, a, b of weight[g, k, c, a, b] * x

where x is the source pixel of image n and channel c of group g that output (i, j) reads at tap (a, b). The weight is
packed, and pixels are read one at a time, at any address. That is cheaper than a lane for each pixel if the weight is
small compared with the pixels that it is used for: few channels, groups, rows shorter than a vector.

The phases of a transposed convolution read one padded tile. Either their sums are interleaved in memory, in the order
of the output, or the lanes are results of all phases, which are packed and stored by `pack_weight.LanePacking`.
"""

from typing import NamedTuple

from fastconv.kernels.arguments import Block, Extents, Out, PaddedTile, Source, Weight
from fastconv.kernels.pack_source import pack_source
from fastconv.kernels.pack_weight import LanePacking, offset_of_result, pack_weight
from fastconv.kernels.primitives import (
    LANES,
    MAX_SPAN,
    SIZE,
    Address,
    Entries,
    ceil_div,
    clear,
    entry,
    load,
    move,
    prefetch_to_write,
    span,
    store,
)
from fastconv.kernels.store import epilogue_of_pixels, store_channels, store_lanes
from fastconv.kernels.work_items import next_results, work_item

#: How far ahead a packed weight is prefetched, as it may be in a slow cache: multiply-adds of one vector of results.
AHEAD = 256


class Sums(NamedTuple):
    """The sums of all phases of a plan, interleaved in the order of the output.

    rows, cols          extents
    stride_h, stride_w  rows and columns from one output of a phase to the next
    has_gaps            1: some sums belong to no phase and hold the bias
    """

    rows: int
    cols: int
    stride_h: int
    stride_w: int
    has_gaps: int


class PhaseEntry(NamedTuple):
    """A phase of a plan.

    rows, cols   extents of its outputs
    row, col     the position of its first output in the sums
    spans_table  one `SpanEntry` for all outputs, or one for each span of each row if taps that read padding are skipped
    channel      elements from one channel to the next in a weight that is packed already; else 0
    """

    rows: int
    cols: int
    row: int
    col: int
    spans_table: int
    channel: int


class SpanEntry(NamedTuple):
    """The taps of a span of outputs.

    taps_table  for each channel of a block and each tap a pair: its offset in the packed weight and in the source
    taps        their number for each channel
    """

    taps_table: int
    taps: int


class ChannelLanes(NamedTuple):
    """Arguments of `channel_lanes`. With `packing.run`, `extents.results` counts the results of all phases.

    halves, pairs  arguments of `next_results`
    packed         1: the weight is packed, see `planner.panels`; 0: it is packed here
    padded         1: the source is read through a padded tile; 0: directly
    prefetch       1: the source exceeds half of the second-level cache, so it is prefetched
    skips_padding  1: taps that read padding are skipped
    fetches        number of cache lines to prefetch of the weight that is packed next; 0: it is not prefetched
    fetches_table  the offset of each
    direct         1: the last sums are made in the output, where a vector of results follows another
    phases         number of phases
    phases_table   a `PhaseEntry` for each
    panel_pitch    elements from the packed weight of a vector of results to that of the next
    pitch, row_pitch    elements between what neighbouring outputs of a row, and of a column, read
    tile_at, panel_at, starts_at, sums_at, maps_at    workspace: the padded tile; the packed weight; the bias, and the
                   sums, with a lane for each result; the sums of one vector of results as maps
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
    sums: Sums
    packing: LanePacking
    halves: int
    pairs: int
    packed: int
    padded: int
    prefetch: int
    skips_padding: int
    fetches: int
    fetches_table: int
    direct: int
    phases: int
    phases_table: int
    panel_pitch: int
    pitch: int
    row_pitch: int
    tile_at: int
    panel_at: int
    starts_at: int
    sums_at: int
    maps_at: int


def phase_at(tables: Entries, start: int, number: int) -> PhaseEntry:
    """Row `number` of the table of phases that starts at entry `start`."""
    raise NotImplementedError


def span_at(tables: Entries, start: int, number: int) -> SpanEntry:
    """Row `number` of the table that starts at entry `start`."""
    raise NotImplementedError


def channel_lanes(
    plan: ChannelLanes, tables: Entries, source: Address, weight: Address, bias: Address, out: Address,
    finish: Entries, space: Address, item: int,
) -> None:  # fmt: skip
    """One work item: some results of a group, or all results of several groups, for a strip of pixels."""
    extents, block, tile, to, in_sums, packing = plan.extents, plan.block, plan.tile, plan.out, plan.sums, plan.packing
    n, g0, k0, i0, j0, images, groups, results, read_rows, read_cols = work_item(extents, block, item)
    weight_end = weight + extents.groups * plan.weight.group * SIZE
    padded, starts = space + plan.tile_at * SIZE, space + plan.starts_at * SIZE
    own_panel, all_sums = space + plan.panel_at * SIZE, space + plan.sums_at * SIZE
    maps = space + plan.maps_at * SIZE
    pitch, row_pitch, image_pitch = plan.pitch, plan.row_pitch, plan.source.image
    if plan.padded:
        image_pitch = tile.planes_h * tile.planes_w * tile.plane
    # as many sums as the strip writes
    rows = min(read_rows * in_sums.stride_h, in_sums.rows - i0 * in_sums.stride_h)
    cols = min(read_cols * in_sums.stride_w, in_sums.cols - j0 * in_sums.stride_w)
    pixels, ld_sums = images * rows * cols, in_sums.stride_w * LANES
    out += (to.start + n * to.image + g0 * to.group) * SIZE
    out += (i0 * in_sums.stride_h * to.row + j0 * in_sums.stride_w * to.col) * SIZE

    joins_rows = plan.phases == 1
    if plan.direct:
        joins_rows = joins_rows and to.row == cols * to.col
    blocks, sums_of_group = ceil_div(extents.channels, block.channels), ceil_div(results, LANES) * LANES * pixels
    for block_number in range(groups * blocks):
        g, c0 = g0 + block_number // blocks, block_number % blocks * block.channels
        channels = min(block.channels, extents.channels - c0)
        is_last = c0 + channels == extents.channels
        channel = g * plan.source.group + c0 * plan.source.channel
        if plan.padded:
            used_rows, used_cols = tile.rows - block.rows + read_rows, tile.cols - block.cols + read_cols
            base = padded
            if blocks > 1:
                pack_source(plan.source, tile, tables, source, padded, n, images, channel, channels, i0, used_rows, j0,
                            used_cols)  # fmt: skip
            else:  # all groups at once
                base += (g - g0) * channels * tile.channel * SIZE
                if g == g0:
                    pack_source(plan.source, tile, tables, source, padded, n, images, channel, groups * channels, i0,
                                used_rows, j0, used_cols)  # fmt: skip
        else:
            base = source + (n * image_pitch + channel + i0 * row_pitch + j0 * pitch) * SIZE
        k = 0
        while k < results:
            kind, count = next_results(plan.halves, plan.pairs, results - k)
            sums, panel = all_sums + ((g - g0) * sums_of_group + k * pixels) * SIZE, own_panel
            if plan.packed:
                panel = weight + (g * plan.weight.group + (k0 + k) * plan.weight.result) * SIZE
            for v in range(0, count, LANES):
                valid, at_start = min(LANES, count - v), starts + v * SIZE
                if plan.packed == 0:
                    pack_weight(packing, plan.weight, tables, weight, weight_end, g, k0 + k + v, valid, c0, channels,
                                panel + v // LANES * plan.panel_pitch * SIZE)  # fmt: skip
                read_bias(packing, tables, bias, g, k0 + k + v, valid, at_start)
                if c0 == 0 and in_sums.has_gaps:
                    for pixel in range(pixels):
                        move(sums + (v * pixels + pixel * LANES) * SIZE, at_start)
            # While these results are summed, the weight of the next ones is prefetched, a few lines in each span, as
            # all at once would wait for memory.
            next_k, next_c, fetches = k + count, c0, tables + plan.fetches_table * 8
            if next_k >= results:
                next_k, next_c = 0, c0 + channels
            fetches_left = plan.fetches if next_c < extents.channels else 0
            fetched = g * plan.weight.group + next_c * plan.weight.channel
            fetched = weight + (fetched + offset_of_result(packing, plan.weight, tables, k0 + next_k)) * SIZE
            # The first block of channels starts from the bias, later ones from the sums so far. The output is
            # prefetched while the last are added.
            prefetch_out = is_last and packing.run == 0 and not to.pixelwise and not to.conflict
            for number in range(plan.phases):
                phase = phase_at(tables, plan.phases_table, number)
                run, runs = min(read_cols, phase.cols - j0), min(read_rows, phase.rows - i0)
                if joins_rows and row_pitch == run * pitch:  # the rows are one long row of the source and of the sums
                    run *= runs
                    runs = 1
                spans = ceil_div(run, MAX_SPAN)
                fetches_of_span = ceil_div(plan.fetches, max(1, plan.phases * images * runs * spans))
                prefetch, of_phase = plan.prefetch and k == 0 and number == 0, panel + c0 * phase.channel * SIZE
                for image in range(images):
                    for i in range(runs):
                        row = phase.row + i * in_sums.stride_h
                        line = base + (image * image_pitch + i * row_pitch) * SIZE
                        of_line = sums + ((image * rows + row) * cols + phase.col) * LANES * SIZE
                        target = out + ((g - g0) * to.group + (k0 + k) * to.result + image * to.image) * SIZE
                        target += (row * to.row + phase.col * to.col) * SIZE
                        first_span = (i0 + i) * spans
                        j = 0
                        for s in range(spans):
                            taps = span_at(tables, phase.spans_table, first_span + s if plan.skips_padding else 0)
                            end = run * (s + 1) // spans
                            if prefetch_out:
                                there = target + j * in_sums.stride_w * to.col * SIZE
                                for lane in range(count):
                                    prefetch_to_write(there + lane * to.result * SIZE)
                            of_span = of_line + j * ld_sums * SIZE
                            written, next_written, ld_written = of_span, LANES * pixels, ld_sums
                            if plan.direct and is_last:
                                written, next_written = target + j * in_sums.stride_w * to.col * SIZE, LANES
                                ld_written = in_sums.stride_w * to.col
                            fetch_count = min(fetches_of_span, fetches_left)
                            is_first = image == 0 and i == 0 and s == 0
                            ahead = ceil_div(AHEAD, end - j) * LANES if plan.packed and is_first else 0
                            span(kind, end - j, of_phase, plan.panel_pitch, line + j * pitch * SIZE, pitch,
                                 tables + taps.taps_table * 8, channels * taps.taps, of_span if c0 else starts,
                                 LANES * pixels if c0 else LANES, ld_sums if c0 else 0, written, next_written,
                                 ld_written, prefetch, ahead, fetched, fetches, fetch_count)  # fmt: skip
                            fetches += fetch_count * 8
                            fetches_left -= fetch_count
                            j = end
            if is_last and not to.pixelwise:
                for v in range(0, count, LANES):
                    store_lanes(to, packing, tables, extents.rows, i0, g, k0 + k + v, min(LANES, count - v),
                                starts + v * SIZE, sums + v * pixels * SIZE, maps, out, rows, cols, images,
                                finish)  # fmt: skip
            k += count
    if plan.direct:
        epilogue_of_pixels(finish, g0 * extents.results + k0, to, out + k0 * SIZE, groups * results, rows, cols, images)
    elif to.pixelwise:
        store_channels(to, all_sums, groups, results, out + k0 * SIZE, rows, cols, images, finish,
                       g0 * extents.results + k0)  # fmt: skip


def read_bias(
    packing: LanePacking, tables: Entries, bias: Address, g: int, k: int, valid: int, target: Address
) -> None:
    """Write the bias of a vector of results of group g, from k on; zeros if there is no bias."""
    clear(target)
    if bias:
        for lane in range(valid):
            result = entry(tables, packing.bias_table + k + lane) if packing.run else k + lane
            store(load(bias + (g * packing.biases + result) * SIZE), target + lane * SIZE)
