"""The parts of plans for tile engines: tables, and the extents and strides of maps and padded tiles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fastconv.backends.contract import Plan, dtype_of
from fastconv.kernels.arguments import Extents, Out, PaddedTile, Small, Source, Weight, integers, names
from fastconv.kernels.chains import FAN_IN
from fastconv.planner.cost_model import CACHE_LINE, SET_STRIDE, CostModel
from fastconv.planner.panels import Panels
from fastconv.planner.request import Request
from fastconv.problem.arrays import Array
from fastconv.problem.memory_order import strides_in
from fastconv.problem.polyphase import Planes
from fastconv.problem.subpixel import AxisMap, Phase


class Tables:
    """Several tables in one vector of integers; a plan names a table by where it starts."""

    def __init__(self) -> None:
        self._parts: list[Array] = []
        self._length = 0

    def add(self, values: Sequence[int] | Sequence[Sequence[int]] | Array) -> int:
        """Append a table; returns where it starts."""
        part = np.asarray(values, np.int64).ravel()
        self._parts.append(part)
        self._length += len(part)
        return self._length - len(part)

    def joined(self) -> Array:
        """The vector. It has at least one integer, as engines take its address."""
        return np.concatenate(self._parts or [np.zeros(1, np.int64)])


def plan_of(
    name: str, itemsize: int, tables: Tables, arguments: Any, parts: dict[str, int], *, skips_padding: bool = False,
    fills_gaps: bool = False, panels: Panels | None = None,
) -> Plan:  # fmt: skip
    """A plan with one structure of arguments. `parts`: the parts of its workspace, field name -> number of elements."""
    starts, total = {}, 0
    for part, elements in parts.items():
        starts[part] = total
        total += -(-elements // 16) * 16
    arguments = arguments._replace(group=1, workspace=total, **starts)
    vector = np.array([integers(arguments)], np.int64)
    return Plan(name, itemsize, vector, tables.joined(), arguments.items, total, skips_padding, fills_gaps, panels)


def rows_of(structure: type, vector: Array) -> Array:
    """The rows of a plan's vector as structures, as a view."""
    return vector.view(dtype_of(structure))[:, 0]


def move_tables(rows: Array, structure: type, starts: Array) -> None:
    """Add to the start of each table in the rows of a plan, as `rows_of` gives them."""
    for name in names(structure):
        if name.endswith("_table"):
            column = rows
            for part in name.split("."):
                column = column[part]
            column[...] += starts


def joined_plans(structure: type, plans: Sequence[Plan], group: int, order: Array | None = None) -> Plan:
    """One plan that joins several plans of a pass with these arguments, in that `order`.

    Each `group` plans in a row belong together: a thread does a work item of each of them in turn.
    """
    if len(plans) == 1:
        return plans[0]
    vector = np.concatenate([plan.vector for plan in plans])
    starts = np.cumsum([0, *(len(plan.tables) for plan in plans[:-1])])
    move_tables(rows_of(structure, vector), structure, np.repeat(starts, [len(plan.vector) for plan in plans]))
    vector = vector if order is None else vector[order]
    rows = rows_of(structure, vector)
    workspace = max(plan.workspace for plan in plans)
    rows["workspace"], rows["group"] = workspace, group
    items = sum(plan.items for plan in plans)
    tables = np.concatenate([plan.tables for plan in plans])
    return plans[0]._replace(vector=vector, tables=tables, items=items, workspace=workspace)


def odd_lines(elements: int, itemsize: int) -> int:
    """So many elements, rounded up to an odd number of cache lines.

    With such a stride consecutive rows start in different sets of a cache.
    """
    line = CACHE_LINE // itemsize
    return (-(-elements // line) | 1) * line


def padded_tile(
    tables: Tables, rows: Planes, cols: Planes, channels: int, tile_rows: int, tile_cols: int, itemsize: int,
    is_transposed: bool, has_channels_last: bool = False,
) -> PaddedTile:  # fmt: skip
    """The padded tile of the planes of both axes; a plane has `channels` times `tile_rows` x `tile_cols` positions.

    A channel has an odd number of cache lines, so that the same pixel of many channels is in different sets of a
    cache, even if the map's extents are powers of two. Behind a plane's last row there is space for a vector, and
    behind each channel's if several channels are filled at once (`is_transposed`, see `kernels.pack_pixels`).

    With `has_channels_last` a plane has the channels of each pixel side by side, as the source has them. Pixels of many
    channels have a number of cache lines that is no multiple of four, for the same reason.
    """
    line = CACHE_LINE // itemsize
    channel = odd_lines(tile_rows * tile_cols + is_transposed * line, itemsize)
    plane, pixel = channels * channel, 1
    if has_channels_last:
        pixel = channels if channels < line else -(-channels // line) * line
        pixel += (pixel % (4 * line) == 0) * line
        plane, channel = tile_rows * tile_cols * pixel, 1
    return PaddedTile(
        plane=plane + line, channel=channel, pixel=pixel, rows=tile_rows, cols=tile_cols,
        planes_h=len(rows.origins), planes_w=len(cols.origins), stride_h=rows.stride, stride_w=cols.stride,
        origins_h_table=tables.add(rows.origins), origins_w_table=tables.add(cols.origins),
    )  # fmt: skip


def slots_of(chains: int) -> int:
    """The sums that the workspace of so many chains has: an unfinished one of each level, but for a single chain, and
    that of the chain that is computed."""
    return len(np.base_repr(chains - 1, FAN_IN)) + 1 if chains > 1 else 1


def share_cache_sets(plane: tuple[int, ...], itemsize: int) -> bool:
    """Whether the same pixels of consecutive planes of these extents share few sets of a cache."""
    return math.prod(plane) * itemsize % SET_STRIDE == 0


def plane_offsets(rows: Planes, cols: Planes, plane: int, width: int, pixel: int = 1) -> Array:
    """The offset of each tap (r, s) in a padded tile whose planes have `plane` elements and `width` columns of `pixel`
    elements."""
    down = rows.taps[:, 0] * (len(cols.origins) * plane) + rows.taps[:, 1] * (width * pixel)
    across = cols.taps[:, 0] * plane + cols.taps[:, 1] * pixel
    offsets: Array = (down[:, None] + across).ravel()
    return offsets


def channel_taps(channels: int, *offsets_of: tuple[int, Array]) -> Array:
    """(channels, taps, arrays): the offset of each tap of each channel in several arrays. `offsets_of` has for each
    array the stride of channels, and the offsets of one channel's taps."""
    numbers = np.arange(channels)[:, None]
    table = np.empty((channels, len(offsets_of[0][1]), len(offsets_of)), np.int64)
    for number, (step, offsets) in enumerate(offsets_of):
        np.add(numbers * step, offsets, out=table[:, :, number])
    return table


def weight_offsets(phase: Phase, kernel_width: int) -> Array:
    """The offset of each tap (a, b) of a phase in a kernel (R, S)."""
    return (phase.rows.kernel_taps[:, None] * kernel_width + phase.cols.kernel_taps).ravel()


def is_axis_inside(axis_map: AxisMap, extent: int) -> bool:
    """Whether the axis map reads positions inside the source only."""
    return (
        axis_map.pad <= 0
        and (axis_map.outputs - 1) * axis_map.stride + (axis_map.taps - 1) * axis_map.dilation - axis_map.pad < extent
    )


class Maps:
    """What a correlation reads and writes.

    channels, results   channels that are read and that are written, of a group
    source, out         extents (height, width) of the map that is read and of the one that is written
    source_order, out_order   the strides of both
    taps                taps of a channel
    weight_strides      the strides of the weight
    """

    def __init__(self, request: Request) -> None:
        geometry, to_large = request.geometry, request.to_large
        down, across = geometry.axes
        large, small = (down.large, across.large), (down.small, across.small)
        orders = strides_in(geometry, request.orders)
        self.source_order, self.out_order = orders[::-1] if to_large else orders
        self.taps = taps = down.taps * across.taps
        self.batch, self.groups, self._itemsize = geometry.batch, geometry.groups, request.itemsize
        c, k = geometry.large_channels // self.groups, geometry.small_channels // self.groups
        self.channels, self.results, self.source, self.out = c, k, large, small
        self.weight_strides = Weight(group=k * c * taps, result=c * taps, channel=taps)
        if to_large:
            self.channels, self.results, self.source, self.out = k, c, small, large
            self.weight_strides = Weight(group=k * c * taps, result=taps, channel=c * taps)

    @property
    def weight_size(self) -> int:
        """Elements of the weight."""
        return self.groups * self.results * self.channels * self.taps

    @property
    def out_size(self) -> int:
        """Elements of what is written."""
        return math.prod((self.batch, self.groups, self.results, *self.out))

    def extents(self, rows: int, cols: int) -> Extents:
        """The extents of the problem, with `rows` x `cols` outputs."""
        return Extents(self.batch, self.groups, self.channels, self.results, rows, cols)

    def panels(self, phases: Iterable[Array], lanes: int) -> Panels:
        """The weight in panels of `lanes` results in their order; `phases` are each one's offsets of taps in the
        kernel."""
        strides = self.weight_strides
        results = range(0, self.results * strides.result, strides.result)
        return Panels.of(self.groups, self.channels, strides, results, phases, lanes)

    @property
    def source_strides(self) -> Source:
        """The strides and extents of the map that is read."""
        order, channels = self.source_order, self.groups * self.channels
        return Source(
            order.size((self.batch, channels, *self.source)), order.image, self.channels * order.channel, order.channel,
            order.row, order.col, *self.source,
        )  # fmt: skip

    @property
    def small_strides(self) -> Small:
        """The strides of the small map, which a weight gradient reads."""
        order, channels = self.out_order, self.groups * self.results
        return Small(
            order.size((self.batch, channels, *self.out)), order.image, self.results * order.channel, order.channel,
            order.row, order.col,
        )  # fmt: skip

    def out_strides(self, row: int, col: int, out_stride: tuple[int, int], fill_gaps: bool = False) -> Out:
        """The strides of the map that is written, from pixel (row, col) on; `out_stride` are those of outputs, in
        pixels."""
        order, (down, across) = self.out_order, out_stride
        start = row * order.row + col * order.col
        return Out(
            start, order.image, self.results * order.channel, order.channel, down * order.row, across * order.col,
            fill_gaps, self.has_channels_last, order.channel * self._itemsize % SET_STRIDE == 0,
        )  # fmt: skip

    @property
    def is_transposed(self) -> bool:
        """Whether columns of the source are not neighbours in memory, see `kernels.pack_pixels`."""
        return self.source_order.col != 1

    @property
    def reads_channels_last(self) -> bool:
        """Whether the channels of a pixel of the source are neighbours, unlike its columns."""
        return self.source_order.channel == 1 != self.source_order.col

    @property
    def has_channels_last(self) -> bool:
        """Whether the channels of a pixel of what is written are neighbours, unlike its columns."""
        return self.out_order.channel == 1 != self.out_order.col

    def groups_beside(self, rows: int, model: CostModel, itemsize: int) -> int:
        """Groups of a work item: several if channels are neighbours in memory and a group has few, so that what is read
        and written of a pixel is several cache lines. Their results must fill whole register tiles of `rows` rows."""
        if not self.has_channels_last or self.results % rows:
            return 1
        wanted = model.bytes_beside // (max(self.channels, self.results) * itemsize)
        return max(1, min(self.groups, wanted, self.batch * self.groups // model.work_items))

    def fills_gaps(self, phases: Sequence[Phase], cols: int) -> bool:
        """Whether a plan of these phases, which are all there are, also writes the pixels that no phase computes.

        It does if there is one phase, those pixels lie between the outputs of a row, work items, of `cols` columns,
        have whole rows, and all pixels of a channel follow each other.
        """
        one = phases[0]
        has_gaps = len(phases) == 1 and one.cols.out_stride > 1 and one.rows.out_start == one.cols.out_start == 0
        follow_each_other = self.out_order.col == 1 and self.out_order.row == self.out[1]
        return has_gaps and follow_each_other and cols == one.cols.outputs

    def source_bytes(self, itemsize: int) -> int:
        """Bytes of the map that is read."""
        return math.prod((self.batch, self.groups, self.channels, *self.source)) * itemsize

    def is_inside(self, phase: Phase) -> bool:
        """Whether the phase can read the source in place: columns are neighbours, stride 1, and no position outside."""
        are_neighbours = phase.rows.stride == phase.cols.stride == self.source_order.col == 1
        return are_neighbours and self.has_no_padding(phase)

    def pitches(self, phase: Phase) -> tuple[int, int]:
        """The elements of the source between what neighbouring outputs of a row, and of a column, read."""
        return phase.cols.stride * self.source_order.col, phase.rows.stride * self.source_order.row

    def has_no_padding(self, phase: Phase) -> bool:
        """Whether the phase reads no position outside of the source."""
        height, width = self.source
        return is_axis_inside(phase.rows, height) and is_axis_inside(phase.cols, width)

    def offsets(self, phase: Phase) -> Array:
        """The offset of each tap of a phase in a channel of the source, which is read in place."""
        a = phase.rows.dilation * np.arange(phase.rows.taps) - phase.rows.pad
        b = phase.cols.dilation * np.arange(phase.cols.taps) - phase.cols.pad
        offsets: Array = (a[:, None] * self.source_order.row + b * self.source_order.col).ravel()
        return offsets
