"""Direct convolution for engines that multiply tiles: how a problem is cut, as plans of integers.

A piece of work is a strip of output rows of some images, times some channels written. Its source, a block of channels
at a time, is copied once into a zero-padded *field* in which each tap of the kernel is the same run of pixels at
another distance (`ground.planes`), or is read as it is where that holds already. Tiles of the field are copied into
*panels* where that pays: each tap's pixels one after the other, without the columns that lie between two rows of a
field. The weight is read in its own layout.

Workspace is a field, a panel and the strip's sums for each thread, whatever the problem's size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fastconv.algorithms import cuts
from fastconv.algorithms.cuts import Cut, Way, even
from fastconv.engines.contract import Layout, Plan
from fastconv.engines.plans import Place as P
from fastconv.ground.arrays import Array
from fastconv.ground.geometry import Geometry
from fastconv.ground.phases import Line, Phase, reading_large
from fastconv.ground.planes import Planes

#: Taps that are summed at a time: more are read from the second-level cache, fewer load and store sums more often.
_PANEL_TAPS = 384
#: Pixels of a panel of the weight's gradient.
_PANEL_PIXELS = 256
#: Results that a piece of a weight's gradient has at least, if it can: each piece copies its taps' pixels anew.
_FEWEST_RESULTS = 64


class _Tables:
    """One vector of integers made of several tables, each of which is known by where it starts."""

    def __init__(self) -> None:
        self._parts: list[Array] = []
        self._length = 0

    def add(self, values: Sequence[int] | Array) -> int:
        part = np.asarray(values, np.int64).ravel()
        self._parts.append(part)
        self._length += len(part)
        return self._length - len(part)

    def joined(self) -> Array:
        return np.concatenate(self._parts)


def _plan(name: str, itemsize: int, tables: _Tables, integers: dict[P, int], parts: dict[P, int]) -> Plan:
    """A plan with `integers`, and a workspace of `parts`, each of so many elements."""
    total = 0
    for part, elements in parts.items():
        integers[part] = total
        total += -(-elements // 16) * 16
    integers[P.WORKSPACE] = total
    vector = np.zeros((1, len(P)), np.int64)
    vector[0, list(integers)] = list(integers.values())
    vector[0, P.GROUP] = 1
    return Plan(name, itemsize, vector, tables.joined(), integers[P.ITEMS], total)


#: Plans so few that a thread does a piece of each in one go.
_FEW = 4
#: The places that say which pieces there are, whole rows provided.
_CUTS = [P.ITEMS, P.IMAGES, P.ROWS, P.BLOCK_IMAGES, P.BLOCK_ROWS, P.BLOCK_RESULTS]
#: The places that hold where a table starts.
_STARTS = [P.ORIGINS_H, P.ORIGINS_W, P.TAPS, P.PANEL_TAPS]


def together(plans: Sequence[Plan], beside: int) -> Plan:
    """One plan that runs several of one pass, of which each `beside` write the same rows.

    A thread does a piece of each plan of a group before the next. Those that write the same rows are a group; up to
    four are, whatever they write, as two threads that write neighbouring rows wait for each other's cache lines.
    """
    vectors = np.concatenate([plan.vector for plan in plans])
    starts = np.cumsum([0, *(len(plan.tables) for plan in plans[:-1])])
    vectors[:, _STARTS] += starts[:, None]
    workspace = max(plan.workspace for plan in plans)
    vectors[:, P.WORKSPACE] = workspace
    vectors[:, P.GROUP] = len(plans) if len(plans) <= _FEW else beside
    if beside == 2:
        pairs = vectors.reshape(-1, 2, len(P))
        are_cut_alike = (pairs[:, 0, _CUTS] == pairs[:, 1, _CUTS]).all(1)
        are_whole = (pairs[:, :, P.BLOCK_COLS] == pairs[:, :, P.COLS]).all(1)
        pairs[:, :, P.WEAVES] = np.outer(are_cut_alike & are_whole & (pairs[:, 0, P.OUT_COL] == 2), (1, 2))
    items = sum(plan.items for plan in plans)
    tables = np.concatenate([plan.tables for plan in plans])
    return Plan(plans[0].name, plans[0].itemsize, vectors, tables, items, workspace)


def _planes_tables(tables: _Tables, rows: Planes, cols: Planes) -> dict[P, int]:
    """The planes of both axes."""
    return {
        P.PLANES_H: len(rows.origins),
        P.PLANES_W: len(cols.origins),
        P.HOP_H: rows.hop,
        P.HOP_W: cols.hop,
        P.ORIGINS_H: tables.add(rows.origins),
        P.ORIGINS_W: tables.add(cols.origins),
    }


def _source(n: int, g: int, c: int, height: int, width: int) -> dict[P, int]:
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


#: Bytes of a line of the caches.
_LINE = 64


def _field(channels: int, rows: int, cols: int, itemsize: int) -> dict[P, int]:
    """Extents of a field. Each channel has an odd number of cache lines, so that the same pixels of many channels are
    in different sets of a cache, however round the map's extents are; behind a plane's last row there is room for a
    vector.
    """
    line = _LINE // itemsize
    channel = (-(-rows * cols // line) | 1) * line
    return {
        P.FIELD_PLANE: channels * channel + line, P.FIELD_CHANNEL: channel, P.FIELD_ROWS: rows, P.FIELD_COLS: cols,
    }  # fmt: skip


def _field_offsets(rows: Planes, cols: Planes, field: dict[P, int]) -> Array:
    """Where each tap (a, b) of the first channel is in a field."""
    plane, width = field[P.FIELD_PLANE], field[P.FIELD_COLS]
    down = np.array([number * len(cols.origins) * plane + shift * width for number, shift in rows.taps])
    across = np.array([number * plane + shift for number, shift in cols.taps])
    offsets: Array = (down[:, None] + across).ravel()
    return offsets


def _weight_offsets(phase: Phase, kernel_width: int) -> Array:
    """Where each tap (a, b) is in one kernel (R, S)."""
    r = phase.rows.kernel + phase.rows.between * np.arange(phase.rows.taps)
    s = phase.cols.kernel + phase.cols.between * np.arange(phase.cols.taps)
    return (r[:, None] * kernel_width + s).ravel()


def _is_inside(line: Line, extent: int) -> bool:
    """Whether the line meets positions inside the source only."""
    return line.before <= 0 and (line.outputs - 1) * line.hop + (line.taps - 1) * line.step - line.before < extent


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
    def integers(self) -> dict[P, int]:
        """Extents and strides, all but those of an output's pixels."""
        (height, width), (out_h, out_w) = self.source, self.out
        return {
            P.IMAGES: self.batch, P.GROUPS: self.groups, P.CHANNELS: self.channels, P.RESULTS: self.results,
            **_source(self.batch, self.groups, self.channels, height, width),
            **self.weight,
            P.OUT_IMAGE: self.groups * self.results * out_h * out_w, P.OUT_GROUP: self.results * out_h * out_w,
            P.OUT_RESULT: out_h * out_w,
        }  # fmt: skip

    def is_inside(self, phase: Phase) -> bool:
        """Whether the phase reads neighbouring pixels that exist: then it can read them where they are."""
        rows, cols = phase.rows, phase.cols
        height, width = self.source
        return rows.hop == cols.hop == 1 and _is_inside(rows, height) and _is_inside(cols, width)

    def offsets(self, phase: Phase) -> Array:
        """Where each tap of a phase is in a channel that is read where it is."""
        a = phase.rows.step * np.arange(phase.rows.taps) - phase.rows.before
        b = phase.cols.step * np.arange(phase.cols.taps) - phase.cols.before
        offsets: Array = (a[:, None] * self.source[1] + b).ravel()
        return offsets


class _Correlation:
    """A phase that reads the large map and writes the small one, or the other way round, and its plan."""

    def __init__(self, geometry: Geometry, phase: Phase, to_large: bool, layout: Layout, itemsize: int) -> None:
        self.phase, self.layout, self.itemsize = phase, layout, itemsize
        self.kernel_width = geometry.axes[1].taps
        self.maps = Maps(geometry, to_large)
        rows, cols = phase.rows, phase.cols
        self.taps = rows.taps * cols.taps
        self.in_planes, self.across_planes = Planes.of(rows), Planes.of(cols)
        self.planes = len(self.in_planes.origins) * len(self.across_planes.origins)
        self.reach = self.in_planes.reach, self.across_planes.reach
        self.copies = not self.maps.is_inside(phase)
        most = c = self.maps.channels
        if self.copies:
            line = self.planes * (1 + self.reach[0]) * (min(cols.outputs, 64 * layout.lanes) + self.reach[1])
            most = cuts.FIELD // itemsize // line
        self.block_c = even(max(1, min(_PANEL_TAPS // self.taps, most)), c)

    def cut(self, adds: bool, threads: int) -> Cut:
        """The cheapest way to cut it."""
        maps, rows, cols = self.maps, self.phase.rows, self.phase.cols
        extents = maps.batch, maps.groups, maps.channels, maps.results, rows.outputs, cols.outputs
        is_whole = not self.copies and self.taps == 1 and cols.outputs == maps.source[1]
        is_summed_there = cols.apart == 1 and not adds and maps.channels <= 2 * self.block_c
        return cuts.best(
            False, self.layout, self.itemsize, extents, self.taps, self.reach, self.planes, self.block_c,
            self.copies, is_whole, is_summed_there, threads,
        )  # fmt: skip

    def plan(self, cut: Cut, adds: bool) -> Plan:
        """Its plan, cut so."""
        maps, rows, cols, lanes, block_c = self.maps, self.phase.rows, self.phase.cols, self.layout.lanes, self.block_c
        out_w, i, j = maps.out[1], rows.outputs, cols.outputs
        tile = self.layout.tiles[cut.tile][1] * lanes
        field = _field(block_c, cut.rows + self.reach[0], cut.cols + self.reach[1], self.itemsize)
        strips = -(-maps.batch // cut.images) * maps.groups * -(-i // cut.rows) * -(-j // cut.cols)

        tables = _Tables()
        in_weight = _weight_offsets(self.phase, self.kernel_width)
        if self.copies:
            in_field, step = _field_offsets(self.in_planes, self.across_planes, field), field[P.FIELD_CHANNEL]
        else:
            in_field, step = maps.offsets(self.phase), math.prod(maps.source)
        channels = np.arange(block_c)[:, None]
        in_weight = (channels * maps.weight[P.WEIGHT_CHANNEL] + in_weight).ravel()
        in_field = (channels * step + in_field).ravel()
        in_panel = np.arange(len(in_field)) * (tile + lanes)
        integers = {
            P.ITEMS: strips * -(-maps.results // cut.results),
            P.ROWS: i, P.COLS: j, P.TAPS_A: rows.taps, P.TAPS_B: cols.taps,
            **maps.integers,
            P.OUT_START: rows.place * out_w + cols.place, P.OUT_ROW: rows.apart * out_w, P.OUT_COL: cols.apart,
            P.ADDS: adds, P.COPIES: self.copies, P.PIXELS: cut.pixels, P.TILE: cut.tile,
            **field,
            P.BLOCK_IMAGES: cut.images, P.BLOCK_ROWS: cut.rows, P.BLOCK_COLS: cut.cols, P.BLOCK_CHANNELS: block_c,
            P.BLOCK_RESULTS: cut.results,
            P.TAPS: tables.add(np.stack([in_weight, in_field], 1)),
            P.PANEL_TAPS: tables.add(np.stack([in_weight, in_panel], 1)),
            **_planes_tables(tables, self.in_planes, self.across_planes),
        }  # fmt: skip
        parts = {
            P.START: cut.results * lanes,
            P.SUMS: cut.sums,
            P.PANEL: block_c * self.taps * (tile + lanes) + 2 * lanes,
            P.FIELD: self.copies * cut.images * self.planes * field[P.FIELD_PLANE] + tile + 2 * lanes,
        }
        return _plan("correlate", self.itemsize, tables, integers, parts)


def correlation(
    geometry: Geometry, phases: Sequence[Phase], to_large: bool, adds: bool, layout: Layout, itemsize: int, threads: int
) -> Way:
    """The way to compute phases that read the large map and write the small one, or the other way round."""
    problems = [_Correlation(geometry, phase, to_large, layout, itemsize) for phase in phases]
    found = [problem.cut(adds, threads) for problem in problems]

    def plans() -> list[Plan]:
        made = [problem.plan(cut, adds) for problem, cut in zip(problems, found, strict=True)]
        if adds or not made:
            return made  # tap by tap they write the same elements
        apart = phases[0].cols.apart > 1
        return [together(made, sum(phase.rows == phases[0].rows for phase in phases) if apart else 1)]

    return Way(sum(cut.excess for cut in found), sum(cut.cost for cut in found), plans)


def weight_gradient(geometry: Geometry, layout: Layout, itemsize: int) -> tuple[Plan, int]:
    """The plan of a weight's gradient, and the number of partial sums."""
    g = geometry.groups
    phase = reading_large(geometry)
    rows, cols = phase.rows, phase.cols
    height, width = (axis.large for axis in geometry.axes)
    n, i, j = geometry.batch, rows.outputs, cols.outputs
    c, k = geometry.large_channels // g, geometry.small_channels // g
    taps = rows.taps * cols.taps
    in_planes, across_planes = Planes.of(rows), Planes.of(cols)
    copies = not (rows.hop == 1 and cols.hop == 1 and _is_inside(rows, height) and _is_inside(cols, width))
    planes = len(in_planes.origins) * len(across_planes.origins)
    tile_rows, tile_vectors = layout.full
    tile = tile_vectors * layout.lanes

    tiles_k = -(-k // tile_rows)
    block_k = most_k = tile_rows * min(tiles_k, 64)
    most = max(tile, cuts.SUMS // itemsize // block_k // 2)  # taps of a piece
    least = 3 * tile
    block_c = max(1, min(c, most // taps, max(-(-least // taps), -(-c // cuts.PIECES))))
    block_c = even(block_c, c)
    if (block_c * taps) % layout.lanes and block_c < c and taps < layout.lanes:
        whole = layout.lanes // math.gcd(layout.lanes, taps)
        block_c = min(c, -(-block_c // whole) * whole)
    block_i, block_j = i, j
    if copies:
        room = cuts.FIELD // itemsize // (block_c * planes)
        block_j = even(max(layout.lanes, room // (1 + in_planes.reach) - across_planes.reach), j)
        block_i = 1 if block_j < j else even(max(1, room // (j + across_planes.reach) - in_planes.reach), i)
    field_cols = block_j + across_planes.reach
    field_rows = block_i + in_planes.reach
    # small images together
    block_n = 1
    if (block_i, block_j) == (i, j) and i * j < _PANEL_PIXELS:
        room = cuts.FIELD // itemsize // (block_c * planes * field_rows * field_cols) if copies else n
        block_n = even(max(1, min(n, room, 4 * _PANEL_PIXELS // (i * j))), n)
    # Where there are too few pieces for threads, first some results each, as long as they are worth the copies; then
    # some pixels each, whose sums are added in order. None of it depends on the number of threads.
    pieces = g * -(-c // block_c)
    parts = min(-(-cuts.PIECES // pieces), max(1, k // _FEWEST_RESULTS))
    block_k = tile_rows * min(most_k // tile_rows, -(-tiles_k // parts))
    pieces *= -(-k // block_k)
    size = g * c * k * taps
    splits = 1
    if pieces < cuts.PIECES:
        wanted = max(1, min(-(-cuts.PIECES // pieces), 2**18 // size))
        if block_n == 1 and n * -(-i // block_i) * -(-j // block_j) < wanted:
            block_i = even(-(-i // -(-wanted // n)), i)
        units = -(-n // block_n) * -(-i // block_i) * -(-j // block_j)
        splits = min(units, wanted)

    tables = _Tables()
    field_rows = block_i + in_planes.reach
    field = _field(block_c, field_rows, field_cols, itemsize)
    plane = field[P.FIELD_PLANE]
    if copies:
        in_field = _field_offsets(in_planes, across_planes, field)
        step = field[P.FIELD_CHANNEL]
    else:
        a = rows.step * np.arange(rows.taps) - rows.before
        b = cols.step * np.arange(cols.taps) - cols.before
        in_field = (a[:, None] * width + b).ravel()
        step = height * width
    in_field = (np.arange(block_c)[:, None] * step + in_field).ravel()
    # lanes beyond the last tap repeat it
    in_field = np.concatenate([in_field, np.repeat(in_field[-1], -len(in_field) % layout.lanes)])
    pixels = np.arange(_PANEL_PIXELS if block_n == 1 else block_n * i * j)
    in_small = pixels if block_n == 1 else pixels // (i * j) * (g * k * i * j) + pixels % (i * j)
    integers = {
        P.ITEMS: pieces * splits,
        P.IMAGES: n, P.GROUPS: g, P.CHANNELS: c, P.RESULTS: k, P.ROWS: i, P.COLS: j,
        P.TAPS_A: rows.taps, P.TAPS_B: cols.taps,
        **_source(n, g, c, height, width),
        P.WEIGHT_GROUP: k * i * j, P.WEIGHT_RESULT: i * j, P.WEIGHT_CHANNEL: g * k * i * j,
        P.OUT_IMAGE: size, P.OUT_GROUP: k * c * taps, P.OUT_RESULT: c * taps,
        P.COPIES: copies, **field,
        P.BLOCK_IMAGES: block_n, P.BLOCK_ROWS: block_i, P.BLOCK_COLS: block_j, P.BLOCK_CHANNELS: block_c,
        P.BLOCK_RESULTS: block_k,
        P.BLOCK_PIXELS: even(_PANEL_PIXELS, block_n * block_i * block_j), P.SPLITS: splits,
        P.TAPS: tables.add(np.stack([0 * in_field, in_field], 1)),
        P.PANEL_TAPS: tables.add(np.stack([in_small, pixels * tile], 1)),
        **_planes_tables(tables, in_planes, across_planes),
    }  # fmt: skip
    workspace = {
        P.START: layout.lanes,
        P.SUMS: block_k * (-(-block_c * taps // layout.lanes) + tile_vectors) * layout.lanes,
        P.PANEL: _PANEL_PIXELS * tile + layout.lanes,
        P.FIELD: copies * block_n * planes * plane + 2 * layout.lanes,
    }
    return _plan("correlate_weight", itemsize, tables, integers, workspace), splits
