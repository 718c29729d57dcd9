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


class Sums(NamedTuple):
    """The sums of a plan's phases, which lie as they are written. Those of a single phase lie side by side.

    rows, cols          extents of all of them
    stride_h, stride_w  rows and columns from one output of a phase to the next
    has_gaps            1: some are of no phase, and hold the bias
    """

    rows: int
    cols: int
    stride_h: int
    stride_w: int
    has_gaps: int


class PhaseEntry(NamedTuple):
    """A phase of a plan.

    rows, cols   extents of its outputs
    row, col     where its first output is among the sums
    spans_table  a `SpanEntry` for all outputs, or one for each span of each row if taps on the padding are skipped
    """

    rows: int
    cols: int
    row: int
    col: int
    spans_table: int


class SpanEntry(NamedTuple):
    """The taps of a span of outputs.

    taps_table  for each channel of a block and each tap a pair: its offset in the packed weight and in the source
    taps        their number for each channel
    """

    taps_table: int
    taps: int


class LanePacking(NamedTuple):
    """Which results are the lanes of vectors: in the packed weight, in sums, and in what is stored.

    taps    taps of a channel in the packed weight
    biases  elements of the bias of a group
    run     0: lanes are a group's results in order. Else they are results of several phases that read the same pixels,
            and so many lanes at a time are neighbours in the weight and in the output
    weight_table, out_table, bias_table    with `run`, for each lane: its offset in the weight, output and bias
    taps_table    with `run`, for each tap of a channel: its offset in the weight
    """

    taps: int
    biases: int
    run: int
    weight_table: int
    out_table: int
    bias_table: int
    taps_table: int


class ResultVectors(NamedTuple):
    """When to use which micro-kernel with a lane for each result.

    half  for so many results at most: half a vector; 0: never
    two   for so many results at least: two vectors; 0: never
    """

    half: int
    two: int


class ChannelLanes(NamedTuple):
    """Arguments of `drivers.channel_lanes`. With `packing.run`, `extents.results` counts the results of all phases.

    padded         1: the source is read through a padded tile; 0: where it is
    prefetch       1: the source comes from memory, as maps exceed the caches
    skips_padding  1: taps on the padding are skipped
    phases         number of phases
    phases_table   a `PhaseEntry` for each
    panel_pitch    elements from the packed weight of a vector of results to that of the next
    tile_at, panel_at, starts_at, sums_at, maps_at    workspace: the padded tile; the packed weight; what sums start
                   from, with a lane for each result; sums, likewise; sums of one vector of results, as maps
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
    vectors: ResultVectors
    padded: int
    prefetch: int
    skips_padding: int
    phases: int
    phases_table: int
    panel_pitch: int
    tile_at: int
    panel_at: int
    starts_at: int
    sums_at: int
    maps_at: int


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
