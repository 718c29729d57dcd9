"""What the plans of engines that multiply tiles are made of: tables, and the extents and strides of maps and fields."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.backends.contract import Plan
from fastconv.kernels.abi import Place as P
from fastconv.kernels.arguments import Extents, Out, PaddedTile, Source, Weight, integers
from fastconv.problem.arrays import Array
from fastconv.problem.geometry import Geometry
from fastconv.problem.polyphase import Planes
from fastconv.problem.subpixel import AxisMap, Phase


class Tables:
    """One vector of integers made of several tables, each of which is known by where it starts."""

    def __init__(self) -> None:
        self._parts: list[Array] = []
        self._length = 0

    def add(self, values: Sequence[int] | Array) -> int:
        """Where these values start, which come behind those before."""
        part = np.asarray(values, np.int64).ravel()
        self._parts.append(part)
        self._length += len(part)
        return self._length - len(part)

    def joined(self) -> Array:
        """All of it."""
        return np.concatenate(self._parts)


def plan_of(name: str, itemsize: int, tables: Tables, integers: dict[P, int], parts: dict[P, int]) -> Plan:
    """A plan with `integers`, and a workspace of `parts`, each of so many elements."""
    total = 0
    for part, elements in parts.items():
        integers[part] = total
        total += -(-elements // 16) * 16
    integers[P.WORKSPACE] = total
    vector = np.zeros((1, len(P)), np.int64)
    vector[0, list(integers)] = list(integers.values())
    vector[0, P.GROUP] = 1
    flags = bool(integers.get(P.CLIPS)), bool(integers.get(P.FILLS))
    return Plan(name, itemsize, vector, tables.joined(), integers[P.ITEMS], total, *flags)


def plan_with(
    name: str, itemsize: int, tables: Tables, arguments: Any, parts: dict[str, int], *, skips_padding: bool = False,
    fills_gaps: bool = False,
) -> Plan:  # fmt: skip
    """A plan of one structure of `fastconv.kernels.arguments`, and a workspace of `parts`, each of so many elements."""
    starts, total = {}, 0
    for part, elements in parts.items():
        starts[part] = total
        total += -(-elements // 16) * 16
    arguments = arguments._replace(group=1, workspace=total, **starts)
    vector = np.array([integers(arguments)], np.int64)
    return Plan(name, itemsize, vector, tables.joined(), arguments.items, total, skips_padding, fills_gaps)


def padded_tile(tables: Tables, rows: Planes, cols: Planes, field: dict[P, int]) -> PaddedTile:
    """The padded tile of the planes of both axes, whose extents `field_of` gives."""
    return PaddedTile(
        plane=field[P.FIELD_PLANE], channel=field[P.FIELD_CHANNEL], rows=field[P.FIELD_ROWS], cols=field[P.FIELD_COLS],
        planes_h=len(rows.origins), planes_w=len(cols.origins), stride_h=rows.stride, stride_w=cols.stride,
        origins_h_table=tables.add(rows.origins), origins_w_table=tables.add(cols.origins),
    )  # fmt: skip


def planes_tables(tables: Tables, rows: Planes, cols: Planes) -> dict[P, int]:
    """The planes of both axes."""
    return {
        P.PLANES_H: len(rows.origins),
        P.PLANES_W: len(cols.origins),
        P.HOP_H: rows.stride,
        P.HOP_W: cols.stride,
        P.ORIGINS_H: tables.add(rows.origins),
        P.ORIGINS_W: tables.add(cols.origins),
    }


def source_of(n: int, g: int, c: int, height: int, width: int) -> dict[P, int]:
    """Extents and strides of a source (n, g, c, height, width)."""
    plane = height * width
    return {
        P.SOURCE_SIZE: n * g * c * plane,
        P.SOURCE_IMAGE: g * c * plane,
        P.SOURCE_GROUP: c * plane,
        P.SOURCE_CHANNEL: plane,
        P.SOURCE_HEIGHT: height,
        P.SOURCE_WIDTH: width,
    }


#: Bytes of a line of the caches; and bytes of which each multiple is in the same set of the first-level one.
_LINE, _ALIASING = 64, 4096
#: Bytes, about, that a last-level cache keeps of what one call reads and writes for the next; it is shared with others.
_CACHED = 14 * 2**20


def are_aliases(plane: tuple[int, ...], itemsize: int) -> bool:
    """Whether the same pixels of planes of this extent, one behind the other, are in few sets of a cache."""
    return math.prod(plane) * itemsize % _ALIASING == 0


def field_of(channels: int, rows: int, cols: int, itemsize: int) -> dict[P, int]:
    """Extents of a field. Each channel has an odd number of cache lines, so that the same pixels of many channels are
    in different sets of a cache, however round the map's extents are; behind a plane's last row there is room for a
    vector.
    """
    line = _LINE // itemsize
    channel = (-(-rows * cols // line) | 1) * line
    return {
        P.FIELD_PLANE: channels * channel + line, P.FIELD_CHANNEL: channel, P.FIELD_ROWS: rows, P.FIELD_COLS: cols,
    }  # fmt: skip


def field_offsets(rows: Planes, cols: Planes, field: dict[P, int]) -> Array:
    """Where each tap (a, b) of the first channel is in a field."""
    plane, width = field[P.FIELD_PLANE], field[P.FIELD_COLS]
    down = rows.taps @ (len(cols.origins) * plane, width)
    across = cols.taps @ (plane, 1)
    offsets: Array = (down[:, None] + across).ravel()
    return offsets


def weight_offsets(phase: Phase, kernel_width: int) -> Array:
    """Where each tap (a, b) is in one kernel (R, S)."""
    return (phase.rows.kernel_taps[:, None] * kernel_width + phase.cols.kernel_taps).ravel()


def is_line_inside(line: AxisMap, extent: int) -> bool:
    """Whether the line meets positions inside the source only."""
    return line.pad <= 0 and (line.outputs - 1) * line.stride + (line.taps - 1) * line.dilation - line.pad < extent


def gap_filling(phases: Sequence[Phase], cols: int) -> dict[str, int]:
    """How a plan fills the pixels between those of its phase (`arguments.Out`): it does so if there is no other phase,
    they are between those of a row, and its work items, of so many columns, have whole rows of the map."""
    one = phases[0]
    has_gaps = len(phases) == 1 and one.cols.out_stride > 1 and one.rows.out_start == one.cols.out_start == 0
    fill_gaps = has_gaps and cols == one.cols.outputs
    return {"fill_gaps": fill_gaps, "interleave": 2 * (fill_gaps and one.cols.out_stride == 2)}


def fills(phases: Sequence[Phase], cols: int) -> dict[P, int]:
    """The same by places."""
    said = gap_filling(phases, cols)
    return {P.FILLS: said["fill_gaps"], P.WEAVES: said["interleave"]}


class Maps:
    """What a correlation reads and writes.

    channels, results   of a group
    source, out         the extents (h, w) of a map
    kernel              taps of a channel
    weight              the strides of the weight
    """

    def __init__(self, geometry: Geometry, to_large: bool) -> None:
        large, small = (tuple(getattr(axis, role) for axis in geometry.axes) for role in ("large", "small"))
        self.kernel = kernel = math.prod(axis.taps for axis in geometry.axes)
        self.batch, self.groups = geometry.batch, geometry.groups
        c, k = geometry.large_channels // self.groups, geometry.small_channels // self.groups
        self.weight = {P.WEIGHT_GROUP: k * c * kernel, P.WEIGHT_RESULT: c * kernel, P.WEIGHT_CHANNEL: kernel}
        self.channels, self.results, self.source, self.out = c, k, large, small
        if to_large:
            self.channels, self.results, self.source, self.out = k, c, small, large
            self.weight[P.WEIGHT_RESULT], self.weight[P.WEIGHT_CHANNEL] = kernel, c * kernel

    @property
    def weight_size(self) -> int:
        """Elements of the weight."""
        return self.groups * self.results * self.channels * self.kernel

    @property
    def out_size(self) -> int:
        """Elements of what is written."""
        return math.prod((self.batch, self.groups, self.results, *self.out))

    @property
    def integers(self) -> dict[P, int]:
        """Extents and strides, all but those of an output's pixels."""
        (height, width), (out_h, out_w) = self.source, self.out
        return {
            P.IMAGES: self.batch, P.GROUPS: self.groups, P.CHANNELS: self.channels, P.RESULTS: self.results,
            **source_of(self.batch, self.groups, self.channels, height, width),
            **self.weight,
            P.OUT_IMAGE: self.groups * self.results * out_h * out_w, P.OUT_GROUP: self.results * out_h * out_w,
            P.OUT_RESULT: out_h * out_w,
        }  # fmt: skip

    def extents(self, rows: int, cols: int) -> Extents:
        """Its sizes, with so many outputs."""
        return Extents(self.batch, self.groups, self.channels, self.results, rows, cols)

    @property
    def source_strides(self) -> Source:
        """The map that is read."""
        height, width = self.source
        plane, channels = height * width, self.groups * self.channels
        return Source(
            size=self.batch * channels * plane, image=channels * plane, group=self.channels * plane, channel=plane,
            height=height, width=width,
        )  # fmt: skip

    @property
    def weight_strides(self) -> Weight:
        """The weight."""
        return Weight(*(self.weight[place] for place in (P.WEIGHT_GROUP, P.WEIGHT_RESULT, P.WEIGHT_CHANNEL)))

    def out_strides(
        self, start: int, row: int, col: int, *, fill_gaps: int = 0, interleave: int = 0, l1_conflict: int = 0
    ) -> Out:
        """The map that is written, from pixel `start` on; `row` and `col` from one output to the next."""
        plane = math.prod(self.out)
        return Out(
            start=start, image=self.groups * self.results * plane, group=self.results * plane, result=plane, row=row,
            col=col, fill_gaps=fill_gaps, interleave=interleave, l1_conflict=l1_conflict,
        )  # fmt: skip

    def exceed_caches(self, itemsize: int) -> bool:
        """Whether both maps together are more than caches hold, so that memory brings them."""
        source = math.prod((self.batch, self.groups, self.channels, *self.source))
        return (source + self.out_size) * itemsize > _CACHED

    def is_inside(self, phase: Phase) -> bool:
        """Whether the phase reads neighbouring pixels that exist: then it can read them where they are."""
        rows, cols = phase.rows, phase.cols
        height, width = self.source
        return rows.stride == cols.stride == 1 and is_line_inside(rows, height) and is_line_inside(cols, width)

    def offsets(self, phase: Phase) -> Array:
        """Where each tap of a phase is in a channel that is read where it is."""
        a = phase.rows.dilation * np.arange(phase.rows.taps) - phase.rows.pad
        b = phase.cols.dilation * np.arange(phase.cols.taps) - phase.cols.pad
        offsets: Array = (a[:, None] * self.source[1] + b).ravel()
        return offsets
