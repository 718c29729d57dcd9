"""Direct convolution for engines that multiply tiles: how a problem is cut, as plans of integers.

A piece of work is a strip of output rows of some images, times some channels written. Its source, a block of channels at
a time, is copied once into a zero-padded *field* in which each tap of the kernel is the same run of pixels at another
distance (`ground.planes`), or is read as it is where that holds already. Tiles of the field are copied into *panels*
where that pays: each tap's pixels one after the other, without the columns that lie between two rows of a field. The
weight is read in its own layout.

Workspace is a field, a panel and the strip's sums for each thread, whatever the problem's size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fastconv.engines.contract import Layout, Plan
from fastconv.engines.plans import Place as P
from fastconv.ground.geometry import Geometry
from fastconv.ground.phases import Line, Phase, reading_large
from fastconv.ground.planes import Planes

#: Bytes, at most, of the parts of a thread's workspace; a single row of pixels or block of taps may take more.
FIELD, SUMS = 2**19, 2**19
#: Taps of a panel: it stays in the first-level cache with the weights of a tile.
_PANEL_TAPS = 128
#: Pixels of a panel of the weight's gradient.
_PANEL_PIXELS = 128
#: Vectors of pixels of a piece of work, about: so many that its first touch of the weight does not count.
_VECTORS = 60
#: Pieces of work for each thread, at least, where the problem has them: threads that meet late wait for one piece.
_PIECES = 4


def _even(most: int, extent: int) -> int:
    """The length that cuts `extent` into the fewest pieces of at most `most` (at least 1), as equal as can be."""
    pieces = -(-extent // max(1, min(most, extent)))
    return -(-extent // pieces)


class _Tables:
    """One vector of integers made of several tables, each of which is known by where it starts."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._length = 0

    def add(self, values: Sequence[int] | np.ndarray) -> int:
        part = np.asarray(values, np.int64).ravel()
        self._parts.append(part)
        self._length += len(part)
        return self._length - len(part)

    def joined(self) -> np.ndarray:
        return np.concatenate(self._parts)


def _plan(name: str, itemsize: int, tables: _Tables, integers: dict[P, int], parts: dict[P, int]) -> Plan:
    """A plan with `integers`, and a workspace of `parts`, each of so many elements."""
    total = 0
    for part, elements in parts.items():
        integers[part] = total
        total += -(-elements // 16) * 16
    integers[P.WORKSPACE] = total
    vector = np.zeros(len(P), np.int64)
    vector[list(integers)] = list(integers.values())
    return Plan(name, itemsize, vector, tables.joined(), integers[P.ITEMS], total)


def _planes_tables(tables: _Tables, rows: Planes, cols: Planes, width: int, length: int) -> dict[P, int]:
    """Where the planes start, and what of each row of one is inside the source."""
    in_cols = [(origin, *cols.inside(b, width, length)) for b, origin in enumerate(cols.origins)]
    return {
        P.PLANES_H: len(rows.origins),
        P.PLANES_W: len(cols.origins),
        P.HOP_H: rows.hop,
        P.HOP_W: cols.hop,
        P.ORIGINS_H: tables.add(rows.origins),
        P.ORIGINS_W: tables.add(in_cols),  # type: ignore[arg-type]
    }


def _field_offsets(rows: Planes, cols: Planes, height: int, width: int) -> np.ndarray:
    """Where each tap (a, b) is in one channel's field of planes of height x width."""
    down = np.array([(plane * len(cols.origins)) * height * width + shift * width for plane, shift in rows.taps])
    across = np.array([plane * height * width + shift for plane, shift in cols.taps])
    return (down[:, None] + across).ravel()


def _weight_offsets(phase: Phase, kernel_width: int) -> np.ndarray:
    """Where each tap (a, b) is in one kernel (R, S)."""
    r = phase.rows.kernel + phase.rows.between * np.arange(phase.rows.taps)
    s = phase.cols.kernel + phase.cols.between * np.arange(phase.cols.taps)
    return (r[:, None] * kernel_width + s).ravel()


def _is_inside(line: Line, extent: int) -> bool:
    """Whether the line meets positions inside the source only."""
    return line.before <= 0 and (line.outputs - 1) * line.hop + (line.taps - 1) * line.step - line.before < extent


def correlation(
    geometry: Geometry, phase: Phase, to_large: bool, adds: bool, layout: Layout, itemsize: int, threads: int
) -> Plan:
    """The plan of a phase that reads the large map and writes the small one, or the other way round."""
    g = geometry.groups
    rows, cols = phase.rows, phase.cols
    (height, large_h), (width, large_w) = ((axis.small, axis.large) for axis in geometry.axes)
    kernel = math.prod(axis.taps for axis in geometry.axes)
    kernel_width = geometry.axes[1].taps
    c, k = geometry.large_channels // g, geometry.small_channels // g
    out_h, out_w = height, width
    weight = {P.WEIGHT_GROUP: k * c * kernel, P.WEIGHT_RESULT: c * kernel, P.WEIGHT_CHANNEL: kernel}
    if to_large:
        c, k = k, c
        (height, large_h), (width, large_w) = (large_h, height), (large_w, width)
        weight[P.WEIGHT_RESULT], weight[P.WEIGHT_CHANNEL] = kernel, weight[P.WEIGHT_RESULT]
        out_h, out_w = height, width
    height, width = large_h, large_w
    taps = rows.taps * cols.taps
    n, i, j = geometry.batch, rows.outputs, cols.outputs

    tile_rows, tile_vectors = layout.full
    few = -(-k // layout.few[0]) * layout.few[0] < -(-k // tile_rows) * tile_rows
    if few:
        tile_rows, tile_vectors = layout.few
    tile = tile_vectors * layout.lanes

    in_planes, across_planes = Planes.of(rows), Planes.of(cols)
    flat = rows.hop == 1 and cols.hop == 1 and taps == 1 and i == height and j == width
    copies = not (rows.hop == 1 and cols.hop == 1 and _is_inside(rows, height) and _is_inside(cols, width))
    field_cols = j + across_planes.reach
    planes = len(in_planes.origins) * len(across_planes.origins)
    # without a panel, the columns between rows are computed too; with one, each tap of each pixel is copied
    waste = (field_cols - j) / j
    if flat:
        packs = n > 1 and i * j < 8 * layout.lanes  # tiles of several images
    else:
        packs = not copies or waste * k > 4

    block_c = _even(max(1, _PANEL_TAPS // taps), c)
    # rows of a strip: as many as its sums and its field may have
    vectors = max(tile_vectors * -(-_VECTORS // tile_vectors), tile_vectors)
    block_i = max(1, min(i, vectors * layout.lanes // j))
    block_n = 1
    if block_i == i and packs:
        block_n = max(1, min(n, vectors * layout.lanes // (i * j)))
    room = FIELD // itemsize // (block_c * planes * field_cols)
    if copies and block_n * (block_i + in_planes.reach) > room:
        block_n = 1
        block_i = max(1, min(block_i, room - in_planes.reach))
    block_i = _even(block_i, i)
    block_n = _even(block_n, n)
    pixels = block_n * block_i * (j if packs or flat else field_cols)
    block_k = tile_rows * max(1, min(-(-k // tile_rows), SUMS // itemsize // (pixels * tile_rows)))
    strips = -(-n // block_n) * g * -(-i // block_i)
    pieces = _PIECES * threads if threads > 1 else 1
    if strips < pieces:
        block_k = min(block_k, tile_rows * max(1, -(-k // (tile_rows * -(-pieces // strips)))))
    block_k = tile_rows * _even(block_k // tile_rows, -(-k // tile_rows))

    tables = _Tables()
    field_rows = block_i + in_planes.reach
    in_weight = _weight_offsets(phase, kernel_width)
    if copies:
        in_field = _field_offsets(in_planes, across_planes, field_rows, field_cols)
        step = planes * field_rows * field_cols
    else:
        a = rows.step * np.arange(rows.taps) - rows.before
        b = cols.step * np.arange(cols.taps) - cols.before
        in_field = (a[:, None] * width + b).ravel()
        step = height * width
    channels = np.arange(block_c)[:, None]
    in_weight = (channels * weight[P.WEIGHT_CHANNEL] + in_weight).ravel()
    in_field = (channels * step + in_field).ravel()
    in_panel = np.arange(len(in_field)) * (tile + layout.lanes)
    integers = {
        P.ITEMS: strips * -(-k // block_k),
        P.IMAGES: n, P.GROUPS: g, P.CHANNELS: c, P.RESULTS: k, P.ROWS: i, P.COLS: j,
        P.TAPS_A: rows.taps, P.TAPS_B: cols.taps,
        P.SOURCE_SIZE: n * g * c * height * width, P.SOURCE_IMAGE: g * c * height * width,
        P.SOURCE_GROUP: c * height * width, P.SOURCE_CHANNEL: height * width,
        P.SOURCE_HEIGHT: height, P.SOURCE_WIDTH: width,
        **weight,
        P.OUT_START: rows.place * out_w + cols.place, P.OUT_IMAGE: g * k * out_h * out_w, P.OUT_GROUP: k * out_h * out_w,
        P.OUT_RESULT: out_h * out_w, P.OUT_ROW: rows.apart * out_w, P.OUT_COL: cols.apart,
        P.ADDS: adds, P.COPIES: copies, P.PACKS: packs, P.FEW: few,
        P.FIELD_ROWS: field_rows, P.FIELD_COLS: field_cols,
        P.BLOCK_IMAGES: block_n, P.BLOCK_ROWS: block_i, P.BLOCK_CHANNELS: block_c, P.BLOCK_RESULTS: block_k,
        P.TAPS: tables.add(np.stack([in_weight, in_field], 1)),
        P.PANEL_TAPS: tables.add(np.stack([in_weight, in_panel], 1)),
        **_planes_tables(tables, in_planes, across_planes, width, field_cols),
    }  # fmt: skip
    across = -(-pixels // layout.lanes) + tile_vectors
    parts = {
        P.SUMS: block_k * across * layout.lanes,
        P.PANEL: block_c * taps * (tile + layout.lanes) + 2 * layout.lanes,
        P.FIELD: copies * block_n * block_c * planes * field_rows * field_cols + tile + 2 * layout.lanes,
    }
    return _plan("correlate", itemsize, tables, integers, parts)


def weight_gradient(geometry: Geometry, layout: Layout, itemsize: int, threads: int) -> tuple[Plan, int]:
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
    field_cols = j + across_planes.reach
    planes = len(in_planes.origins) * len(across_planes.origins)
    tile_rows, tile_vectors = layout.full
    tile = tile_vectors * layout.lanes

    block_k = tile_rows * min(-(-k // tile_rows), 64)
    most = max(tile, SUMS // itemsize // block_k // 2)  # taps of a piece
    least = 3 * tile
    block_c = max(1, min(c, most // taps, max(-(-least // taps), -(-c // (_PIECES * threads)))))
    block_c = _even(block_c, c)
    if (block_c * taps) % layout.lanes and block_c < c and taps < layout.lanes:
        whole = layout.lanes // math.gcd(layout.lanes, taps)
        block_c = min(c, -(-block_c // whole) * whole)
    room = FIELD // itemsize // (block_c * planes * field_cols)
    block_i = _even(max(1, min(i, room - in_planes.reach)), i) if copies else i
    strips = -(-i // block_i)
    items = g * -(-c // block_c) * -(-k // block_k)
    size = g * c * k * taps
    splits = 1
    # so few pieces that threads would idle: some images each, whatever the number of threads, added in order
    if items < 8:
        splits = max(1, min(n * strips, -(-8 // items), 2**18 // size))

    tables = _Tables()
    field_rows = block_i + in_planes.reach
    if copies:
        in_field = _field_offsets(in_planes, across_planes, field_rows, field_cols)
        step = planes * field_rows * field_cols
    else:
        a = rows.step * np.arange(rows.taps) - rows.before
        b = cols.step * np.arange(cols.taps) - cols.before
        in_field = (a[:, None] * width + b).ravel()
        step = height * width
    in_field = (np.arange(block_c)[:, None] * step + in_field).ravel()
    # lanes beyond the last tap repeat it
    in_field = np.concatenate([in_field, np.repeat(in_field[-1], -len(in_field) % layout.lanes)])
    pixel = np.arange(_PANEL_PIXELS)
    integers = {
        P.ITEMS: items * splits,
        P.IMAGES: n, P.GROUPS: g, P.CHANNELS: c, P.RESULTS: k, P.ROWS: i, P.COLS: j,
        P.TAPS_A: rows.taps, P.TAPS_B: cols.taps,
        P.SOURCE_SIZE: n * g * c * height * width, P.SOURCE_IMAGE: g * c * height * width,
        P.SOURCE_GROUP: c * height * width, P.SOURCE_CHANNEL: height * width,
        P.SOURCE_HEIGHT: height, P.SOURCE_WIDTH: width,
        P.WEIGHT_GROUP: k * i * j, P.WEIGHT_RESULT: i * j, P.WEIGHT_CHANNEL: g * k * i * j,
        P.OUT_IMAGE: size, P.OUT_GROUP: k * c * taps, P.OUT_RESULT: c * taps,
        P.COPIES: copies, P.FIELD_ROWS: field_rows, P.FIELD_COLS: field_cols,
        P.BLOCK_IMAGES: 1, P.BLOCK_ROWS: block_i, P.BLOCK_CHANNELS: block_c, P.BLOCK_RESULTS: block_k,
        P.BLOCK_PIXELS: _PANEL_PIXELS, P.SPLITS: splits,
        P.TAPS: tables.add(np.stack([0 * in_field, in_field], 1)),
        P.PANEL_TAPS: tables.add(np.stack([pixel, pixel * tile], 1)),
        **_planes_tables(tables, in_planes, across_planes, width, field_cols),
    }  # fmt: skip
    parts = {
        P.SUMS: -(-block_k // tile_rows)
        * tile_rows
        * (-(-block_c * taps // layout.lanes) + tile_vectors)
        * layout.lanes,
        P.PANEL: _PANEL_PIXELS * tile + layout.lanes,
        P.FIELD: copies * block_c * planes * field_rows * field_cols + 2 * layout.lanes,
    }
    return _plan("correlate_weight", itemsize, tables, integers, parts), splits
