"""The arguments of each pass: structures of 64-bit integers, declared once for planner, Numba and C.

Strides and offsets count elements unless said otherwise. A field whose name ends in `_table` is where a table starts in
the plan's vector of tables. One whose name ends in `_at` is an offset in a thread's workspace, in elements.

Every pass's structure begins with the three fields of `Header`, by which both engines hand out work items.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple


class Header(NamedTuple):
    """The fields that each pass's structure begins with.

    items      work items, each done by one thread
    group      plans of one call whose work items write neighbouring elements: a thread does an item of each in turn
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
    """A map that is read: strides from one image, group, channel, row and column to the next, and extents.

    size  the elements from the first one to the end of the furthest one
    """

    size: int
    image: int
    group: int
    channel: int
    row: int
    col: int
    height: int
    width: int


class Weight(NamedTuple):
    """The weight: strides from one group, result and channel to the next."""

    group: int
    result: int
    channel: int


class Out(NamedTuple):
    """A map that is written: where it starts, and strides from one image, group, result, row and column to the next.

    fill_gaps   1: the pixels between those that the plan computes are set to the bias, as no plan computes them
    pixelwise   1: the results of a pixel are neighbours, and are stored together
    conflict    1: neighbouring results of a pixel are a multiple of `cost_model.SET_STRIDE` bytes from each other and
                would evict each other from the first-level cache; so they are stored one after the other
    """

    start: int
    image: int
    group: int
    result: int
    row: int
    col: int
    fill_gaps: int
    pixelwise: int
    conflict: int


class Finish(NamedTuple):
    """What `store.epilogue` does to finished sums. It belongs to a call, not to a plan.

    activation  the number of the function that is applied, see `abi`
    residual    bytes from each element of the output to the one that is added to it before; 0: nothing is added
    slopes      address of a slope for each channel of the output; 0: none
    """

    activation: int
    residual: int
    slopes: int


class Small(NamedTuple):
    """The small map that a weight gradient reads: strides from one image, group, result (k), row and column to the
    next; `size` as of `Source`."""

    size: int
    image: int
    group: int
    result: int
    row: int
    col: int


class WeightOut(NamedTuple):
    """The weight gradient that is written: strides from one partial sum, group and result (k) to the next."""

    split: int
    group: int
    result: int


class PaddedTile(NamedTuple):
    """A zero-padded copy of a strip of the source, as planes (polyphase), each with all channels of a block.

    plane, channel, pixel   strides from one plane, channel and pixel of a row to the next
    rows, cols          extents of a plane of one channel
    planes_h, planes_w  number of planes on each axis
    stride_h, stride_w  source positions from one row or column of a plane to the next
    origins_h_table     for each plane row the source row where it starts; likewise origins_w_table
    """

    plane: int
    channel: int
    pixel: int
    rows: int
    cols: int
    planes_h: int
    planes_w: int
    stride_h: int
    stride_w: int
    origins_h_table: int
    origins_w_table: int


class Block(NamedTuple):
    """The extents of one work item, at most; with several groups, all results of each."""

    images: int
    rows: int
    cols: int
    channels: int
    results: int
    groups: int = 1


def fields(structure: type) -> dict[str, type]:
    """The fields of a structure, each with its type: `int` or another structure.

    The annotations themselves, which are types and not strings: so no module of a structure imports `annotations` from
    `__future__`. Resolving strings would take a third of the time of a first call.
    """
    return structure.__annotations__


@functools.cache
def names(structure: type) -> tuple[str, ...]:
    """The integers of a structure in order, by dotted names."""
    found: list[str] = []
    for name, kind in fields(structure).items():
        found += [name] if kind is int else [f"{name}.{inner}" for inner in names(kind)]
    return tuple(found)


def integers(values: Any) -> tuple[int, ...]:
    """The integers of a structure in order."""
    structure: type = type(values)
    return _reader(structure)(values)


@functools.cache
def _reader(structure: type) -> Callable[[Any], tuple[int, ...]]:
    """What reads the integers of a structure at once."""
    return operator.attrgetter(*names(structure))
