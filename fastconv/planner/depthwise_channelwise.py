"""The kernel depthwise channel-wise, a vector lane for each channel: its blocking, cost and plans.

A work item is a strip of rows of some images, and as many channels as a vector has lanes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from fastconv.backends.contract import Layout, Plan, dtype_of
from fastconv.kernels.along_row import TapBand
from fastconv.kernels.arguments import Small, Source
from fastconv.kernels.drivers.depthwise_channelwise import (
    DepthwiseChannelwise,
    DepthwiseChannelwiseWeightGrad,
    DepthwisePhase,
)
from fastconv.kernels.lane_tile import LaneTile, Layer
from fastconv.planner.blocking import even
from fastconv.planner.cost_model import CostModel
from fastconv.planner.phase_group import PhaseGroup
from fastconv.planner.plan_builder import Tables, plan_of, plane_offsets
from fastconv.planner.request import MANY_PHASES, MOST_PHASES, Proposal, Request
from fastconv.problem.arrays import Array
from fastconv.problem.polyphase import Planes, are_side_by_side
from fastconv.problem.subpixel import AxisMap, Phase, distinct

#: The band of rows of taps that are no band.
_NO_BAND = TapBand(0, 0, 0)
#: Vectors of room behind a tile, as reads go beyond its end.
_BEHIND = 32


def applies(request: Request) -> str | None:
    """Why it cannot compute maps: each group must have one channel, and there must be enough to fill the lanes."""
    most = 1 if request.to_large else 4
    if reason := _lacks_channels(request, most):
        return reason
    # each phase has tables here; if all are equivalent, the general kernels do with the tables of one
    most_phases = MOST_PHASES if len(request.equivalent) > 1 else MANY_PHASES
    return f"each of {request.phase_count} phases would have tables" if request.phase_count > most_phases else None


def applies_to_weight(request: Request) -> str | None:
    """Why it cannot compute a weight's gradient."""
    return "its sums are several for each number" if request.in_one_sum else _lacks_channels(request, 1)


def _lacks_channels(request: Request, most: int) -> str | None:
    """Why the channels do not suit it: each may have at most `most` results."""
    geometry, lanes = request.geometry, request.tiles.lanes
    g = geometry.groups
    if geometry.large_channels != g or geometry.small_channels > most * g:
        return f"a group links {geometry.large_channels // g} channels with {geometry.small_channels // g}"
    return None if 4 * g > lanes else f"{g} channels leave most of {lanes} lanes empty"


def propose(request: Request) -> Proposal:
    """How it computes maps."""
    return Proposal(
        0,
        request.geometry.batch * _cost(request),
        lambda: correlation(request),
        sharing=request.threads,
    )


def propose_weight(request: Request) -> Proposal:
    """How it computes a weight's gradient."""
    plan, splits = weight_gradient(request)
    return Proposal(0, _weight_cost(request), lambda: [plan], splits, request.threads)


def _cost(request: Request) -> float:
    """The cost of an image, in multiply-adds of a vector: these, and transposing what is read and written."""
    geometry, layout, model, phases = request.geometry, request.tiles, request.model, request.phases
    down, across = geometry.axes
    pixels = sum(phase.rows.outputs * phase.cols.outputs for phase in phases)
    multiplied = sum(phase.rows.outputs * phase.cols.outputs * phase.rows.taps * phase.cols.taps for phase in phases)
    rows, cols = (down.small, across.small) if request.to_large else (down.large, across.large)
    transposed = _moved(rows * cols, layout) + pixels
    each = model.transpose_map * transposed + model.depthwise_tap * multiplied
    return model.depthwise_channelwise * -(-geometry.small_channels // layout.lanes) * each


def _weight_cost(request: Request) -> float:
    """The cost of the weight gradient, in the same unit."""
    geometry, layout, model = request.geometry, request.tiles, request.model
    down, across = geometry.axes
    pixels = down.small * across.small
    transposed = _moved(down.large * across.large, layout) + pixels
    multiplied = pixels * down.taps * across.taps
    each = model.transpose_both * transposed + model.channelwise_weight_tap * multiplied
    return geometry.batch * -(-geometry.small_channels // layout.lanes) * each


def _moved(pixels: int, layout: Layout) -> float:
    """The pixels that are transposed for `pixels` pixels: whole squares of lanes, as the rows are contiguous."""
    return layout.lanes * -(-pixels // layout.lanes)


def _is_band(lines: Sequence[AxisMap], planes: Planes, extent: int, length: int, model: CostModel) -> bool:
    """Whether rows of taps are bands: neighbouring taps read neighbouring pixels, and there are enough of them. Some of
    the `length` positions of a row must be inside the source, as the tile of a band has no padding."""
    if not planes.stride == len(planes.origins) == 1:
        return False
    first, end = planes.inside(0, extent, length)
    return first < end and all(line.dilation == 1 <= line.taps - model.band_from for line in lines)


def _cropped(planes: Planes, extent: int, length: int, outputs: int, layout: Layout) -> tuple[Planes, int]:
    """The planes without padding, which bands do not need, and the columns of their tile, in whole squares."""
    inside, cols = planes.cropped(extent, length)
    return inside, cols + max(-cols % width for width in layout.bands[outputs <= layout.bands[1] :])


def _band(planes: Planes, extent: int, length: int) -> TapBand:
    """The band of a row of taps that read neighbouring pixels."""
    shift = int(planes.taps[0, 1])
    first, end = planes.inside(0, extent, length)
    return TapBand(len(planes.taps), first - shift, end - shift)


def _lane_tile(
    tables: Tables, rows: Planes, cols: Planes, tile: tuple[int, int], width: int, lanes: int, skip_padding: bool
) -> LaneTile:
    """The padded tile of planes of extents `tile`, with a lane for each channel, of a source `width` wide."""
    tile_rows, tile_cols = tile
    inside = [cols.inside(b, width, tile_cols) for b in range(len(cols.origins))]
    layers = _layers(tables, rows, cols, tile, width, lanes)
    return LaneTile(
        rows=tile_rows, cols=tile_cols, planes_h=len(rows.origins), planes_w=len(cols.origins), stride_h=rows.stride,
        origins_h_table=tables.add(rows.origins), inside_table=tables.add(np.array(inside)),
        layers=len(layers), layers_table=tables.add(np.array(layers)), skip_padding=skip_padding,
    )  # fmt: skip


def _layers(tables: Tables, rows: Planes, cols: Planes, tile: tuple[int, int], width: int, lanes: int) -> list[Layer]:
    """Where the source's rows are written in a tile; no two planes share a pixel. Pixels of no plane go behind it."""
    tile_rows, tile_cols = tile
    plane = tile_rows * tile_cols
    row_of_planes = len(cols.origins) * plane
    behind = (len(rows.origins) * row_of_planes + _BEHIND - 1) * lanes
    columns = np.full(width, -1)
    for b, origin in enumerate(cols.origins):
        first, end = cols.inside(b, width, tile_cols)
        columns[origin + first * cols.stride :: cols.stride][: end - first] = b * plane + np.arange(first, end)
    u, a = np.divmod(np.arange(tile_rows * rows.stride), rows.stride) if _are_all(rows) else (np.arange(tile_rows), 0)
    found = [(rows.origins[0], 1)] if _are_all(rows) else [(origin, rows.stride) for origin in rows.origins]
    layers = []
    for number, (origin, step) in enumerate(found):
        starts = (a + number) * row_of_planes + u * tile_cols
        places = np.where(columns < 0, behind, (starts[:, None] + columns) * lanes)
        layers.append(Layer(origin, step, len(starts), tables.add(places)))
    return layers


def _are_all(planes: Planes) -> bool:
    """Whether the planes together have every position."""
    return len(planes.origins) == planes.stride == planes.origins[-1] - planes.origins[0] + 1


def _phases(
    tables: Tables, group: PhaseGroup, tile: tuple[int, int], kernel_width: int, height: int, lanes: int
) -> Array:
    """The `DepthwisePhase`s (rows, columns), still without bands; those with equal numbers of taps are made at once."""
    rows, cols = distinct(group.phases)
    plane, row = tile[0] * tile[1], tile[1]
    phases = np.zeros((len(rows), len(cols)), dtype_of(DepthwisePhase))
    phases["rows"], phases["cols"] = _each(rows, "outputs")[:, None], _each(cols, "outputs")
    if not group.is_one:
        phases["first_row"], phases["first_col"] = _each(rows, "out_start")[:, None], _each(cols, "out_start")
    for down, across in itertools.product(_of_as_many_taps(rows), _of_as_many_taps(cols)):
        of_rows, of_cols = [rows[number] for number in down], [cols[number] for number in across]
        in_tile = _outer(
            _in_field(group.of_rows, of_rows, (len(group.cols.origins) * plane, row)),
            _in_field(group.of_cols, of_cols, (plane, 1)),
        )
        in_rows = [line.kernel_taps * kernel_width for line in of_rows]
        in_weight = _outer(in_rows, [line.kernel_taps for line in of_cols])
        taps = np.stack([in_weight, in_tile], 4) * lanes
        number = taps[0, 0].size // 2
        starts = tables.add(taps) + 2 * number * np.arange(len(down) * len(across))
        wide = of_cols[0].taps
        ranges = {
            kind: tables.add(wide * _clip(line, height)) for kind, line in {line.kind: line for line in of_rows}.items()
        }
        of_both = np.ix_(down, across)
        phases["taps_table"][of_both], phases["taps"][of_both] = starts.reshape(len(down), -1), number
        phases["ranges_table"][of_both] = [[ranges[line.kind]] for line in of_rows]
    return phases


def _in_field(planes: Callable[[AxisMap], Planes], lines: Sequence[AxisMap], steps: tuple[int, int]) -> list[Array]:
    """The offsets of the taps of each axis map in a tile; `steps` are the strides of planes and positions. Computed
    once for axis maps that read the same pixels."""
    known: dict[tuple[int, int, int], Array] = {}
    kinds = [(line.taps, line.dilation, line.pad) for line in lines]
    for kind, line in zip(kinds, lines, strict=True):
        if kind not in known:
            known[kind] = planes(line).taps @ steps
    return [known[kind] for kind in kinds]


def _each(lines: Sequence[AxisMap], name: str) -> Array:
    return np.array([getattr(line, name) for line in lines])


def _of_as_many_taps(lines: Sequence[AxisMap]) -> list[list[int]]:
    """The indices of the axis maps, grouped by their number of taps."""
    taps = _each(lines, "taps")
    return [np.flatnonzero(taps == number).tolist() for number in np.unique(taps)]


def _outer(down: Sequence[Array], across: Sequence[Array]) -> Array:
    """The sums (i, j, a, b) of the elements (i, a) and (j, b)."""
    sums: Array = np.array(down)[:, None, :, None] + np.array(across)[None, :, None, :]
    return sums


def _clip(line: AxisMap, height: int) -> Array:
    """For each row of outputs, the range of rows of taps that read inside the source."""
    return np.array([line.taps_inside(output, output, height) for output in range(line.outputs)])


def _pairs(in_field: Array, lanes: int) -> Array:
    """For each tap, its offsets in the packed weight and in the tile, whose elements are vectors."""
    return np.stack([np.arange(len(in_field)), in_field], 1) * lanes


def correlation(request: Request) -> list[Plan]:
    """The plans of phases: one for all of them if they read neighbouring pixels and write each pixel once.

    Rows of taps on the padding are skipped, which needs a finite weight.
    """
    phases = request.phases
    if len(phases) > 1 and not are_side_by_side(phases):
        return [_correlation(request, [phase]) for phase in phases]
    return [_correlation(request, phases)] if phases else []


def _correlation(request: Request, phases: Sequence[Phase]) -> Plan:
    """One plan for phases that share a tile."""
    geometry, layout, itemsize, model = request.geometry, request.tiles, request.itemsize, request.model
    lanes = layout.lanes
    kernel, kernel_width = math.prod(axis.taps for axis in geometry.axes), geometry.axes[1].taps
    channels, results = geometry.large_channels, geometry.small_channels
    (height, width), (out_h, out_w) = (
        tuple(getattr(axis, role) for axis in geometry.axes) for role in ("large", "small")
    )
    if request.to_large:
        channels, results, (height, width), (out_h, out_w) = results, channels, (out_h, out_w), (height, width)
    n = geometry.batch
    clips = geometry.axes[0].taps >= model.skip_rows_from
    group = PhaseGroup(phases, (out_h, out_w))
    i, j = group.extents
    per_row = group.out_stride[0] * group.sums[1]

    field_cols = j + group.halo[1]
    is_band = clips and _is_band(distinct(phases)[1], group.cols, width, field_cols, model)
    if is_band:
        group.cols, field_cols = _cropped(group.cols, width, field_cols, j, layout)
    block_i = max(1, min(i, model.padded_tile_bytes // itemsize // (group.planes * field_cols * lanes) - group.halo[0]))
    block_i = even(min(block_i, max(1, model.sums_bytes // itemsize // (per_row * lanes))), i)
    pieces = -(-results // lanes) * -(-i // block_i)
    block_n = even(
        pieces // model.several_images_from, n
    )  # the weight is transposed once for all images of a work item
    field_rows = block_i + group.halo[0]
    tile = field_rows, field_cols
    tables = Tables()
    described = _phases(tables, group, tile, kernel_width, height, lanes)
    if is_band:
        described["band"] = [tuple(_band(group.of_cols(line), width, field_cols)) for line in distinct(phases)[1]]
    pixels = out_h * out_w
    arguments = DepthwiseChannelwise(
        items=-(-n // block_n) * pieces, group=1, workspace=0, images=n, results=results, multiple=results // channels,
        rows=i, sums_rows=group.sums[0], sums_cols=group.sums[1], kernel=kernel,
        source=Source(
            size=n * channels * height * width, image=channels * height * width, group=channels * height * width,
            channel=height * width, height=height, width=width,
        ),
        out=group.out(results * pixels, results * pixels, pixels),
        tile=_lane_tile(tables, group.rows, group.cols, tile, width, lanes, clips),
        block_images=block_n, block_rows=block_i, phases=described.size,
        phases_table=tables.add(described.ravel().view(np.int64)), out_stride_h=group.out_stride[0],
        out_stride_w=group.out_stride[1], gaps=group.has_gaps, start_at=0, panel_at=0, sums_at=0, tile_at=0,
    )  # fmt: skip
    parts = {
        "start_at": lanes,
        "panel_at": kernel * lanes,
        "sums_at": block_i * per_row * lanes + lanes * lanes,
        "tile_at": group.planes * field_rows * field_cols * lanes + _BEHIND * lanes,
    }
    return replace(plan_of("depthwise_channelwise", itemsize, tables, arguments, parts), skips_padding=clips)


def weight_gradient(request: Request) -> tuple[Plan, int]:
    """The plan of a weight's gradient, whose outputs are the kernel's taps; and the number of partial sums."""
    geometry, layout, itemsize, model = request.geometry, request.tiles, request.itemsize, request.model
    down, across = geometry.axes
    n, channels, lanes = geometry.batch, geometry.large_channels, layout.lanes
    clips = down.taps >= model.skip_rows_from
    cols = _exchanged(across.taps, across.dilation, across.small, across.stride, across.pad_before)
    across_planes = Planes.of(cols)
    field_cols = cols.outputs + across_planes.halo
    is_band = clips and _is_band([cols], across_planes, across.large, field_cols, model)
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
            or max(planes * field_rows * field_cols, block * across.small) * lanes * itemsize <= model.padded_tile_bytes
        ):
            break
        block = -(-block // 2)
    blocks = -(-channels // lanes)
    units = n * -(-down.small // block)
    splits = min(units, -(-model.work_items // blocks))
    whole = _exchanged(down.taps, down.dilation, down.small, down.stride, down.pad_before)
    tile = field_rows, field_cols
    in_tile = plane_offsets(in_planes, across_planes, field_rows * field_cols, field_cols)
    tables = Tables()
    large, small = down.large * across.large, down.small * across.small
    arguments = DepthwiseChannelwiseWeightGrad(
        items=blocks * splits, group=1, workspace=0, images=n, channels=channels, rows=rows.outputs, cols=cols.outputs,
        small_rows=down.small, small_cols=across.small,
        source=Source(n * channels * large, channels * large, channels * large, large, down.large, across.large),
        small=Small(image=channels * small, group=channels * small, result=small),
        out_split=channels * down.taps * across.taps, splits=splits,
        tile=_lane_tile(tables, in_planes, across_planes, tile, across.large, lanes, clips),
        block_rows=block, stride_h=down.stride, taps_table=tables.add(_pairs(in_tile, lanes)),
        ranges_table=tables.add(across.small * _clip(whole, down.large)),
        band=_band(across_planes, across.large, field_cols) if is_band else _NO_BAND,
        panel_at=0, sums_at=0, tile_at=0,
    )  # fmt: skip
    parts = {
        "panel_at": block * across.small * lanes,
        "sums_at": rows.outputs * cols.outputs * lanes,
        "tile_at": planes * field_rows * field_cols * lanes + _BEHIND * lanes,
    }
    plan = plan_of("depthwise_channelwise_weight_grad", itemsize, tables, arguments, parts)
    return replace(plan, skips_padding=clips), splits


def _exchanged(taps: int, dilation: int, small: int, stride: int, before: int) -> AxisMap:
    """The axis map of a weight gradient: its outputs are the kernel's taps, its taps the small map's positions."""
    return AxisMap(taps, dilation if taps > 1 else 1, small, stride if small > 1 else 1, before)
