"""The arguments of each pass: structures of 64-bit integers, declared once for planner, Numba and C.

Strides and offsets count elements unless said otherwise. A field whose name ends in `_table` is where a table starts in
the plan's vector of tables; `workspace` fields are where a part starts in a thread's workspace, in elements.

Every pass's structure begins with the three fields of `Header`, which both engines read to hand out work items.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, get_type_hints


class Header(NamedTuple):
    """What a structure of arguments begins with.

    items      work items, each done by one thread
    group      plans of one call whose items write neighbouring elements: one thread does an item of each in turn
    workspace  elements of a thread's workspace
    """

    items: int
    group: int
    workspace: int


class Extents(NamedTuple):
    """Sizes of a problem. Channels and results are those of one group; rows and cols are outputs."""

    images: int
    groups: int
    channels: int
    results: int
    rows: int
    cols: int


class Source(NamedTuple):
    """A map that is read, in C order: strides from one image, group and channel to the next, and its extents."""

    size: int
    image: int
    group: int
    channel: int
    height: int
    width: int


class Weight(NamedTuple):
    """The weight: strides from one group, result and channel to the next."""

    group: int
    result: int
    channel: int


class Out(NamedTuple):
    """A map that is written: where it starts, and strides from one image, group, result, row and column to the next.

    fill_gaps   1: pixels between those that the plan computes are set to the bias, as no plan computes them
    interleave  of two plans that write every second column: 1 for the first, 2 for the second, 0 for other plans
    l1_conflict 1: the same pixels of many results are in few sets of the first-level cache
    """

    start: int
    image: int
    group: int
    result: int
    row: int
    col: int
    fill_gaps: int
    interleave: int
    l1_conflict: int


class Small(NamedTuple):
    """The small map that a weight gradient reads: strides from one image, group and result (k) to the next."""

    image: int
    group: int
    result: int


class WeightOut(NamedTuple):
    """The weight gradient that is written: strides from one partial sum, group and result (k) to the next."""

    split: int
    group: int
    result: int


class PaddedTile(NamedTuple):
    """A zero-padded copy of a strip of the source, as planes (polyphase), each with all channels of a block.

    plane, channel      strides from one plane and channel to the next
    rows, cols          extents of a plane of one channel
    planes_h, planes_w  number of planes on each axis
    stride_h, stride_w  source positions from one row or column of a plane to the next
    origins_h_table     for each plane row the source row where it starts; likewise origins_w_table
    """

    plane: int
    channel: int
    rows: int
    cols: int
    planes_h: int
    planes_w: int
    stride_h: int
    stride_w: int
    origins_h_table: int
    origins_w_table: int


class Block(NamedTuple):
    """The extents of one work item, at most."""

    images: int
    rows: int
    cols: int
    channels: int
    results: int


class WeightGradPixelLanes(NamedTuple):
    """Arguments of `drivers.weight_grad_pixel_lanes`.

    taps           taps of the kernel (r, s)
    splits         partial sums
    padded         1: the source is read through a padded tile; 0: where it is
    block_pixels   pixels that are summed at a time
    taps_table     for each tap (c, r, s) of a block a pair: 0 and its offset in what is read
    tile_at, sums_at, square_at    workspace: the padded tile; the sums; a square of lanes x lanes
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
    taps_table: int
    tile_at: int
    sums_at: int
    square_at: int


class WeightGradTapLanes(NamedTuple):
    """Arguments of `drivers.weight_grad_tap_lanes`.

    taps          taps of the kernel (r, s)
    splits        partial sums
    padded        1: the source is read through a padded tile; 0: where it is
    block_pixels  pixels that are summed at a time
    taps_table    for each tap (c, r, s) of a block, and on to whole vectors, a pair: 0 and its offset in what is read
    pixels_table  for each pixel of a block a pair: its offset in the small map and in the panel
    tile_at, panel_at, sums_at, zeros_at    workspace: the padded tile, the panel of taps, the sums, a vector of zeros
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
    taps_table: int
    pixels_table: int
    tile_at: int
    panel_at: int
    sums_at: int
    zeros_at: int


class TapGroup(NamedTuple):
    """Taps that are summed over the same outputs, a row of `WeightGradChannelLanes.tap_groups_table`.

    taps_table   a pair for each tap (c, r, s) of the group: its offset in the sums and in what is read
    taps         how many a channel has
    first_row, end_row, first_col, end_col    the outputs for which they read inside the source
    pixels_table a pair for each pixel of a panel: its offset in the panel and in what is read
    panel_col    the first column of the panel that the table has
    run          how many neighbouring taps share what they read
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


class WeightGradChannelLanes(NamedTuple):
    """Arguments of `drivers.weight_grad_channel_lanes`.

    taps            taps of the kernel (r, s)
    splits          partial sums
    padded          1: the source is read through a padded tile; 0: where it is
    block_pixels    pixels of a panel
    step_h, step_w  positions from what one output reads to what the next one reads
    halves, pairs   as `next_results` takes them
    next_panel      elements from a panel of one vector of results to that of the next
    tap_groups      how many there are; `tap_groups_table` has a `TapGroup` for each
    tile_at, panel_at, sums_at, zeros_at, square_at    workspace
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


class BiasGrad(NamedTuple):
    """Arguments of `drivers.bias_grad`.

    images, channels, pixels    extents of the map
    block_channels    channels of a work item, at most
    splits            partial sums
    along             1: the rows of a block are pieces of one image's map; 0: they are images
    blocks            blocks of a channel, of which a partial sum has a part: see `drivers.bias_grad.sum_block`
    blocks_at, sums_at, square_at    workspace: sums of blocks; of channels; a square of lanes x lanes
    """

    items: int
    group: int
    workspace: int
    images: int
    channels: int
    pixels: int
    block_channels: int
    splits: int
    along: int
    blocks: int
    blocks_at: int
    sums_at: int
    square_at: int


def fields(structure: type) -> dict[str, type]:
    """The fields of a structure, each with its type: `int` or another structure."""
    return get_type_hints(structure)


def names(structure: type, prefix: str = "") -> Iterator[str]:
    """The integers of a structure in order, by dotted names."""
    for name, kind in fields(structure).items():
        if kind is int:
            yield prefix + name
        else:
            yield from names(kind, f"{prefix}{name}.")


def integers(values: Any) -> list[int]:
    """The integers of a structure in order."""
    flat: list[int] = []
    for value in values:
        if isinstance(value, tuple):
            flat += integers(value)
        else:
            flat.append(int(value))
    return flat
