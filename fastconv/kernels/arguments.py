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


class TapRange(NamedTuple):
    """Some taps of a table: from the first to before the last."""

    first: int
    end: int


class LaneTile(NamedTuple):
    """A padded copy of a strip of the source with a lane for each channel, as planes (polyphase) of vectors.

    rows, cols          extents of a plane
    planes_h, planes_w  number of planes on each axis
    stride_h            source rows from one row of a plane to the next
    origins_h_table     for each plane row the source row where it starts
    inside_table        for each plane column a `TapRange`: the tile's columns inside the source
    layers              number of `Layer`s, which are in `layers_table`
    skip_padding        1: rows of the padding are never read, and need no zeros
    """

    rows: int
    cols: int
    planes_h: int
    planes_w: int
    stride_h: int
    origins_h_table: int
    inside_table: int
    layers: int
    layers_table: int
    skip_padding: int


class Layer(NamedTuple):
    """Source rows that go to a `LaneTile`: `rows` of them for a whole strip, from `origin` on, `step` apart.

    places_table  for each of their pixels its offset in the tile
    """

    origin: int
    step: int
    rows: int
    places_table: int


class TapBand(NamedTuple):
    """Taps of a row that read neighbouring pixels, so that the row of sums is a band matrix times the row of pixels.

    taps        how many; 0: they do not, or are too few
    first, end  the tile's columns inside the source, counted from what the first tap of the first output reads
    """

    taps: int
    first: int
    end: int


class DepthwisePhase(NamedTuple):
    """A phase of a depthwise correlation.

    rows, cols            its outputs
    first_row, first_col  where its sums start among those of all phases
    taps_table            a pair for each tap: its offset in the packed weight and in the tile
    taps                  how many there are
    ranges_table          for each row of outputs the `TapRange` that reads inside the source
    band                  whether its rows of taps are bands
    """

    rows: int
    cols: int
    first_row: int
    first_col: int
    taps_table: int
    taps: int
    ranges_table: int
    band: TapBand


class DepthwiseChannelwise(NamedTuple):
    """Arguments of `drivers.depthwise_channelwise`.

    results       channels that are written, `multiple` for each channel of the source
    rows          outputs of the longest phase; sums_rows, sums_cols: outputs of all phases
    kernel        taps of a channel in the weight
    block_images, block_rows   extents of a work item
    phases        number of phases; `phases_table` has a `DepthwisePhase` for each
    out_stride_h, out_stride_w  from one output of a phase to the next among those of all phases
    gaps          1: some of these are outputs of no phase, and get the bias
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

    rows, cols            taps of the kernel, which are the outputs
    small_rows, small_cols  extents of the small map, whose pixels are the taps
    out_split             stride from one partial sum to the next; `splits` is their number
    block_rows            rows of the small map that are summed at a time
    stride_h              source rows from what one row of the small map reads to what the next one reads
    taps_table            a pair for each pixel of a block: its offset in the packed small map and in the tile
    ranges_table          for each row of the kernel the `TapRange` of pixels that read inside the source
    band                  whether rows of the small map are bands
    panel_at, sums_at, tile_at    workspace: the packed small map, the sums, the tile
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
    stride_h: int
    taps_table: int
    ranges_table: int
    band: TapBand
    panel_at: int
    sums_at: int
    tile_at: int


class DepthwiseRowwise(NamedTuple):
    """Arguments of `drivers.depthwise_rowwise`.

    results             channels that are written, `multiple` for each channel of the source
    rows, cols          outputs
    number              which of `abi.ROW_KERNELS`
    kernel              taps of a channel
    flip                1: the kernel's taps are taken from the last to the first
    stride_h, stride_w  source positions from what one output reads to what the next one reads
    first_h, first_w    the source position that the first output's first tap reads
    block_rows, block_results   extents of a work item
    panel_at            workspace: a flipped kernel
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
    source: Source
    out: Out
    block_rows: int
    block_results: int
    panel_at: int


class DepthwiseRowwiseTransposed(NamedTuple):
    """Arguments of `drivers.depthwise_rowwise_transposed`, whose stride is 2.

    results         channels
    rows, cols      outputs
    number          which of `abi.ROW_KERNELS_TRANSPOSED`
    kernel          taps of a channel
    half_pad_h, half_pad_w   the padding divided by 2, rounded down
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
    source: Source
    out: Out
    block_rows: int
    block_results: int


class DepthwiseRowwiseWeightGrad(NamedTuple):
    """Arguments of `drivers.depthwise_rowwise_weight_grad`.

    results             channels
    rows, cols          extents of the small map
    number              which of `abi.ROW_KERNELS_WEIGHT_GRAD`
    kernel              taps of a channel
    stride_w            source columns from what one column of the small map reads to what the next one reads
    first_h, first_w    the source position that the small map's first pixel reads at the first tap
    block_results       channels of a work item
    sums_at, square_at  workspace: sums with a lane for each pixel, a square of vectors
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
    source: Source
    small: Small
    block_results: int
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
