"""Direct convolution of channels that have a kernel each, for engines that multiply tiles: how it is cut, as plans.

A piece of work is a strip of rows of one image and as many channels as a vector register has lanes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from fastconv.backends.abi import Place as P
from fastconv.backends.contract import Layout, Plan
from fastconv.planner import blocking
from fastconv.planner.blocking import even
from fastconv.planner.phase_group import PhaseGroup
from fastconv.planner.plan_builder import Tables, field_offsets, plan_of, planes_tables
from fastconv.planner.request import MANY_PHASES, MOST_PHASES, Request, Way
from fastconv.problem.arrays import Array
from fastconv.problem.geometry import Geometry
from fastconv.problem.polyphase import Planes, are_side_by_side
from fastconv.problem.subpixel import AxisMap, Phase, distinct

#: Rows of a kernel from which on leaving out those on the padding is worth a look whether the factor is finite.
_CLIPS_FROM = 4
#: Taps of a row from which on a band matrix is cheaper than tap by tap; what stands for none.
_BAND_FROM, _NO_BAND = 4, [0, 0, 0]
#: Pieces of work from which on one does several images.
_PIECES = 16
#: Vectors behind a field, for what is read beyond it.
_BEHIND = 32


def applies(request: Request) -> str | None:
    """Why it cannot compute maps: each group must have one channel, and there must be enough to fill the lanes."""
    most = 1 if request.to_large else 4
    if reason := _lacks_channels(request, most):
        return reason
    # with tables for each phase, unless all are equivalent: then the general kernels have one for all of them
    most_phases = MOST_PHASES if len(request.equivalent) > 1 else MANY_PHASES
    return f"each of {request.phase_count} phases would have tables" if request.phase_count > most_phases else None


def applies_to_weight(request: Request) -> str | None:
    """Why it cannot compute a weight's gradient."""
    return "its sums are several for each number" if request.in_one_sum else _lacks_channels(request, 1)


def _lacks_channels(request: Request, most: int) -> str | None:
    """Why channels do not suit it, of which each may have so many results."""
    geometry, lanes = request.geometry, request.tiles.lanes
    g = geometry.groups
    if geometry.large_channels != g or geometry.small_channels > most * g:
        return f"a group links {geometry.large_channels // g} channels with {geometry.small_channels // g}"
    return None if 4 * g > lanes else f"{g} channels leave most of {lanes} lanes empty"


def way(request: Request) -> Way:
    """How it computes maps."""
    geometry, layout, phases = request.geometry, request.tiles, request.phases
    return Way(
        0,
        geometry.batch * _cost(geometry, phases, request.to_large, layout),
        lambda: correlation(geometry, phases, request.to_large, layout, request.itemsize),
        sharing=request.threads,
    )


def weight_way(request: Request) -> Way:
    """How it computes a weight's gradient."""
    plan, splits = weight_gradient(request.geometry, request.tiles, request.itemsize)
    return Way(0, weight_cost(request.geometry, request.tiles), lambda: [plan], splits, request.threads)


def _cost(geometry: Geometry, phases: Sequence[Phase], to_large: bool, layout: Layout) -> float:
    """What an image costs, in multiply-adds of a vector: those, and the transpositions of what is read and written."""
    down, across = geometry.axes
    pixels = sum(phase.rows.outputs * phase.cols.outputs for phase in phases)
    multiplied = sum(phase.rows.outputs * phase.cols.outputs * phase.rows.taps * phase.cols.taps for phase in phases)
    rows, cols = (down.small, across.small) if to_large else (down.large, across.large)
    transposed = _moved(rows * cols, layout) + pixels
    return -(-geometry.small_channels // layout.lanes) * (13.0 * transposed + 1.1 * multiplied)


def weight_cost(geometry: Geometry, layout: Layout) -> float:
    """What the weight's gradient costs, in the same unit."""
    down, across = geometry.axes
    pixels = down.small * across.small
    transposed = _moved(down.large * across.large, layout) + pixels
    multiplied = pixels * down.taps * across.taps
    return geometry.batch * -(-geometry.small_channels // layout.lanes) * (20.0 * transposed + 1.9 * multiplied)


def _moved(pixels: int, layout: Layout) -> float:
    """So many pixels as they are transposed, in whole squares: rows that are all read follow each other."""
    return layout.lanes * -(-pixels // layout.lanes)


def _is_band(lines: Sequence[AxisMap], planes: Planes, extent: int, length: int) -> bool:
    """Whether neighbouring taps of a row meet neighbouring pixels, so many that its kernel is worth its loads. Of rows
    of `length` some pixel must be inside: a band has no field where all is padding."""
    if not planes.stride == len(planes.origins) == 1:
        return False
    first, end = planes.inside(0, extent, length)
    return first < end and all(line.dilation == 1 <= line.taps - _BAND_FROM for line in lines)


def _cropped(planes: Planes, extent: int, length: int, outputs: int, layout: Layout) -> tuple[Planes, int]:
    """The planes of bands, which need no padding, and the columns of their field: zeros fill a last square."""
    inside, cols = planes.cropped(extent, length)
    return inside, cols + max(-cols % width for width in layout.bands[outputs <= layout.bands[1] :])


def _band(planes: Planes, extent: int, length: int) -> list[int]:
    """What `P.BAND` says, its columns counted from that which the first tap of the first output meets."""
    shift = int(planes.taps[0, 1])
    return [len(planes.taps), *(column - shift for column in planes.inside(0, extent, length))]


def _layers(tables: Tables, rows: Planes, cols: Planes, field: dict[P, int], width: int, lanes: int) -> dict[P, int]:
    """Where the pixels of a strip lie in its field, see `P.LAYER_TABLE`: no two planes share a pixel. What none of them
    has lies behind the field."""
    plane, field_rows, field_cols = field[P.FIELD_PLANE], field[P.FIELD_ROWS], field[P.FIELD_COLS]
    row_of_planes = len(cols.origins) * plane
    behind = (len(rows.origins) * row_of_planes + _BEHIND - 1) * lanes
    columns = np.full(width, -1)
    for b, origin in enumerate(cols.origins):
        first, end = cols.inside(b, width, field_cols)
        columns[origin + first * cols.stride :: cols.stride][: end - first] = b * plane + np.arange(first, end)
    u, a = np.divmod(np.arange(field_rows * rows.stride), rows.stride) if _are_all(rows) else (np.arange(field_rows), 0)
    layers = [(rows.origins[0], 1)] if _are_all(rows) else [(origin, rows.stride) for origin in rows.origins]
    described = []
    for number, (origin, step) in enumerate(layers):
        starts = (a + number) * row_of_planes + u * field_cols
        places = np.where(columns < 0, behind, (starts[:, None] + columns) * lanes)
        described += [origin, step, len(starts), tables.add(places)]
    return {P.LAYERS: len(layers), P.LAYER_TABLE: tables.add(described)}


def _are_all(planes: Planes) -> bool:
    """Whether the planes have all positions between them."""
    return len(planes.origins) == planes.stride == planes.origins[-1] - planes.origins[0] + 1


def _described(
    tables: Tables, group: PhaseGroup, field: dict[P, int], kernel_width: int, height: int, lanes: int
) -> Array:
    """The table of phases without bands, (rows, columns, 10), see `P.PHASE_TABLE`; those of as many taps at once."""
    rows, cols = distinct(group.phases)
    plane, row = field[P.FIELD_PLANE], field[P.FIELD_COLS]
    described = np.zeros((len(rows), len(cols), 10), np.int64)
    described[:, :, 0], described[:, :, 1] = _each(rows, "outputs")[:, None], _each(cols, "outputs")
    if not group.is_one:
        described[:, :, 2], described[:, :, 3] = _each(rows, "out_start")[:, None], _each(cols, "out_start")
    for down, across in itertools.product(_of_as_many_taps(rows), _of_as_many_taps(cols)):
        of_rows, of_cols = [rows[number] for number in down], [cols[number] for number in across]
        in_field = _outer(
            _in_field(group.of_rows, of_rows, (len(group.cols.origins) * plane, row)),
            _in_field(group.of_cols, of_cols, (plane, 1)),
        )
        in_weight = _outer(
            [line.kernel_taps * kernel_width for line in of_rows], [line.kernel_taps for line in of_cols]
        )
        taps = np.stack([in_weight, in_field], 4) * lanes
        number = taps[0, 0].size // 2
        starts = tables.add(taps) + 2 * number * np.arange(len(down) * len(across))
        wide = of_cols[0].taps
        clips = {
            kind: tables.add(wide * _clip(line, height)) for kind, line in {line.kind: line for line in of_rows}.items()
        }
        described[np.ix_(down, across, [4, 5, 6])] = np.stack(
            np.broadcast_arrays(starts.reshape(len(down), -1), number, [[clips[line.kind]] for line in of_rows]), 2
        )
    return described


def _in_field(planes: Callable[[AxisMap], Planes], lines: Sequence[AxisMap], steps: tuple[int, int]) -> list[Array]:
    """Where the taps of each line are in a field, by the steps to the next plane and position; worked out once for
    lines that read the same pixels."""
    known: dict[tuple[int, int, int], Array] = {}
    kinds = [(line.taps, line.dilation, line.pad) for line in lines]
    for kind, line in zip(kinds, lines, strict=True):
        if kind not in known:
            known[kind] = planes(line).taps @ steps
    return [known[kind] for kind in kinds]


def _each(lines: Sequence[AxisMap], name: str) -> Array:
    return np.array([getattr(line, name) for line in lines])


def _of_as_many_taps(lines: Sequence[AxisMap]) -> list[list[int]]:
    """The numbers of the lines, those that have as many taps together."""
    taps = _each(lines, "taps")
    return [np.flatnonzero(taps == number).tolist() for number in np.unique(taps)]


def _outer(down: Sequence[Array], across: Sequence[Array]) -> Array:
    """The sums (i, j, a, b) of the elements (i, a) and (j, b)."""
    sums: Array = np.array(down)[:, None, :, None] + np.array(across)[None, :, None, :]
    return sums


def _clip(line: AxisMap, height: int) -> Array:
    """The rows of taps, from the first to before the last, that each row of outputs meets inside."""
    return np.array([line.taps_inside(output, output, height) for output in range(line.outputs)])


def _pairs(in_field: Array, lanes: int) -> Array:
    """For each tap, its number and its place in the field, in vectors of lanes."""
    return np.stack([np.arange(len(in_field)), in_field], 1) * lanes


def correlation(
    geometry: Geometry, phases: Sequence[Phase], to_large: bool, layout: Layout, itemsize: int
) -> list[Plan]:
    """The plans of phases: one for all of them if they read neighbouring pixels, and write each pixel once.

    Taps whose whole row is padding are left out, which a finite weight allows.
    """
    if len(phases) > 1 and not are_side_by_side(phases):
        return [_correlation(geometry, [phase], to_large, layout, itemsize) for phase in phases]
    return [_correlation(geometry, phases, to_large, layout, itemsize)] if phases else []


def _correlation(geometry: Geometry, phases: Sequence[Phase], to_large: bool, layout: Layout, itemsize: int) -> Plan:
    """One plan for phases that share a field."""
    lanes = layout.lanes
    kernel, kernel_width = math.prod(axis.taps for axis in geometry.axes), geometry.axes[1].taps
    channels, results = geometry.large_channels, geometry.small_channels
    (height, width), (out_h, out_w) = (
        tuple(getattr(axis, role) for axis in geometry.axes) for role in ("large", "small")
    )
    if to_large:
        channels, results, (height, width), (out_h, out_w) = results, channels, (out_h, out_w), (height, width)
    n = geometry.batch
    clips = geometry.axes[0].taps >= _CLIPS_FROM
    group = PhaseGroup(phases, (out_h, out_w))
    i, j = group.extents
    per_row = group.out_stride[0] * group.sums[1]

    field_cols = j + group.halo[1]
    is_band = clips and _is_band(distinct(phases)[1], group.cols, width, field_cols)
    if is_band:
        group.cols, field_cols = _cropped(group.cols, width, field_cols, j, layout)
    block_i = max(1, min(i, blocking.FIELD // itemsize // (group.planes * field_cols * lanes) - group.halo[0]))
    block_i = even(min(block_i, max(1, blocking.SUMS // itemsize // (per_row * lanes))), i)
    pieces = -(-results // lanes) * -(-i // block_i)
    block_n = even(pieces // _PIECES, n)  # the weight is transposed once for them
    field_rows = block_i + group.halo[0]
    field = {P.FIELD_PLANE: field_rows * field_cols, P.FIELD_ROWS: field_rows, P.FIELD_COLS: field_cols}
    tables = Tables()
    described = _described(tables, group, field, kernel_width, height, lanes)
    if is_band:
        described[:, :, 7:] = [_band(group.of_cols(line), width, field_cols) for line in distinct(phases)[1]]
    in_cols = [group.cols.inside(b, width, field_cols) for b in range(len(group.cols.origins))]
    integers = {
        P.ITEMS: -(-n // block_n) * pieces,
        P.IMAGES: n, P.GROUPS: 1, P.CHANNELS: channels, P.RESULTS: results,
        P.MULTIPLE: results // channels,
        P.SOURCE_SIZE: n * channels * height * width, P.SOURCE_IMAGE: channels * height * width,
        P.SOURCE_CHANNEL: height * width, P.SOURCE_HEIGHT: height, P.SOURCE_WIDTH: width,
        P.WEIGHT_RESULT: kernel, P.OUT_IMAGE: results * out_h * out_w, P.OUT_RESULT: out_h * out_w,
        P.CLIPS: clips,
        **group.integers(tables, described.ravel()),
        **field, P.BLOCK_IMAGES: block_n, P.BLOCK_ROWS: block_i,
        P.INSIDE_W: tables.add(in_cols),  # type: ignore[arg-type]
        **_layers(tables, group.rows, group.cols, field, width, lanes),
    }  # fmt: skip
    parts = {
        P.START: lanes,
        P.PANEL: kernel * lanes,
        P.SUMS: block_i * per_row * lanes + lanes * lanes,
        P.FIELD: group.planes * field_rows * field_cols * lanes + _BEHIND * lanes,
    }
    return plan_of("correlate_channels", itemsize, tables, integers, parts)


def weight_gradient(geometry: Geometry, layout: Layout, itemsize: int) -> tuple[Plan, int]:
    """The plan of a weight's gradient, whose outputs are the kernel's taps; and the number of partial sums."""
    down, across = geometry.axes
    n, channels, lanes = geometry.batch, geometry.large_channels, layout.lanes
    clips = down.taps >= _CLIPS_FROM
    cols = _exchanged(across.taps, across.dilation, across.small, across.stride, across.pad_before)
    across_planes = Planes.of(cols)
    field_cols = cols.outputs + across_planes.halo
    is_band = clips and _is_band([cols], across_planes, across.large, field_cols)
    if is_band:
        across_planes, field_cols = _cropped(across_planes, across.large, field_cols, cols.outputs, layout)
    # rows of the small map of a strip
    block = down.small
    while True:
        rows = _exchanged(down.taps, down.dilation, block, down.stride, down.pad_before)
        in_planes = Planes.of(rows)
        field_rows = rows.outputs + in_planes.halo
        planes = len(in_planes.origins) * len(across_planes.origins)
        if (
            block == 1
            or max(planes * field_rows * field_cols, block * across.small) * lanes * itemsize <= blocking.FIELD
        ):
            break
        block = -(-block // 2)
    blocks = -(-channels // lanes)
    units = n * -(-down.small // block)
    splits = min(units, -(-blocking.PIECES // blocks))
    whole = _exchanged(down.taps, down.dilation, down.small, down.stride, down.pad_before)
    field = {P.FIELD_PLANE: field_rows * field_cols, P.FIELD_ROWS: field_rows, P.FIELD_COLS: field_cols}
    in_field = field_offsets(in_planes, across_planes, field)
    in_cols = [across_planes.inside(b, across.large, field_cols) for b in range(len(across_planes.origins))]
    tables = Tables()
    integers = {
        P.ITEMS: blocks * splits,
        P.IMAGES: n, P.GROUPS: 1, P.CHANNELS: channels, P.RESULTS: channels,
        P.ROWS: rows.outputs, P.COLS: cols.outputs, P.TAPS_A: down.small, P.TAPS_B: across.small, P.MULTIPLE: 1,
        P.SOURCE_SIZE: n * channels * down.large * across.large, P.SOURCE_IMAGE: channels * down.large * across.large,
        P.SOURCE_CHANNEL: down.large * across.large, P.SOURCE_HEIGHT: down.large, P.SOURCE_WIDTH: across.large,
        P.SMALL_SIZE: n * channels * down.small * across.small,
        P.WEIGHT_RESULT: down.small * across.small, P.WEIGHT_CHANNEL: channels * down.small * across.small,
        P.OUT_IMAGE: channels * down.taps * across.taps, P.CLIPS: clips,
        P.SPLITS: splits,
        **field, P.BLOCK_ROWS: down.stride, P.BLOCK_PIXELS: block,
        P.TAPS: tables.add(_pairs(in_field, lanes)),
        P.BAND: tables.add(_band(across_planes, across.large, field_cols) if is_band else _NO_BAND),
        P.CLIP_ROWS: tables.add(across.small * _clip(whole, down.large)),
        **planes_tables(tables, in_planes, across_planes),
        P.INSIDE_W: tables.add(in_cols),  # type: ignore[arg-type]
        **_layers(tables, in_planes, across_planes, field, across.large, lanes),
    }  # fmt: skip
    parts = {
        P.PANEL: block * across.small * lanes,
        P.SUMS: rows.outputs * cols.outputs * lanes,
        P.FIELD: planes * field_rows * field_cols * lanes + _BEHIND * lanes,
    }
    return plan_of("correlate_channels_weight", itemsize, tables, integers, parts), splits


def _exchanged(taps: int, dilation: int, small: int, stride: int, before: int) -> AxisMap:
    """The line of an axis whose outputs are the kernel's taps and whose taps are the small map's positions."""
    return AxisMap(taps, dilation if taps > 1 else 1, small, stride if small > 1 else 1, before)
