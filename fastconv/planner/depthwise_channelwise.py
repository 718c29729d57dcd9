"""The kernel depthwise channel-wise, a vector lane for each channel: its blocking, cost and plans.

A work item is a strip of rows of some images, and as many channels as a vector has lanes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from fastconv.backends.contract import Layout, Plan, dtype_of
from fastconv.kernels.along_row import TapBand
from fastconv.kernels.drivers.depthwise_channelwise import (
    DepthwiseChannelwise,
    DepthwiseChannelwiseWeightGrad,
    DepthwisePhase,
)
from fastconv.kernels.lane_tile import LaneTile, Layer
from fastconv.planner import depthwise_in_place
from fastconv.planner.blocking import even_block
from fastconv.planner.cost_model import CostModel
from fastconv.planner.phase_group import PhaseGroup
from fastconv.planner.plan_builder import Maps, Tables, plan_of, plane_offsets, slots_of
from fastconv.planner.request import MANY_PHASES, MOST_PHASES, Proposal, Request
from fastconv.problem.arrays import Array
from fastconv.problem.polyphase import Planes, are_side_by_side
from fastconv.problem.subpixel import AxisMap, Phase, distinct

#: The band of rows of taps that are no band.
_NO_BAND = TapBand(0, 0, 0)
#: Vectors behind a tile, as reads go beyond its end.
_VECTORS_BEHIND = 32


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
    return "its sums are several for each number" if request.forbids_partial_sums else _lacks_channels(request, 1)


def _lacks_channels(request: Request, most: int) -> str | None:
    """Why the channels do not suit it: each may have at most `most` results."""
    geometry, lanes = request.geometry, request.tiles.lanes
    g = geometry.groups
    if geometry.large_channels != g or geometry.small_channels > most * g:
        return f"a group links {geometry.large_channels // g} channels with {geometry.small_channels // g}"
    return None if 4 * g > lanes else f"{g} channels leave most of {lanes} lanes empty"


def propose(request: Request) -> Proposal:
    """How it computes maps."""
    if depthwise_in_place.applies(request):
        return Proposal(
            0,
            request.geometry.batch * depthwise_in_place.cost(request),
            lambda: [depthwise_in_place.plan_of_phases(request, request.phases)],
            sharing=request.threads,
        )
    return Proposal(
        0,
        request.geometry.batch * _cost(request),
        lambda: plans_of(request),
        sharing=request.threads,
    )


def propose_weight(request: Request) -> Proposal:
    """How it computes a weight's gradient."""
    if depthwise_in_place.applies_to_weight(request):
        plan, splits = depthwise_in_place.weight_gradient(request)
        return Proposal(0, depthwise_in_place.weight_cost(request), lambda: [plan], splits, request.threads)
    plan, splits = weight_gradient(request)
    return Proposal(0, _weight_cost(request), lambda: [plan], splits, request.threads)


def _cost(request: Request) -> float:
    """The cost of an image, in multiply-adds of a vector: these, and transposing what is read and written."""
    geometry, layout, model, phases = request.geometry, request.tiles, request.model, request.phases
    down, across = geometry.axes
    pixels = sum(phase.rows.outputs * phase.cols.outputs for phase in phases)
    multiplied = sum(phase.rows.outputs * phase.cols.outputs * phase.rows.taps * phase.cols.taps for phase in phases)
    rows, cols = (down.small, across.small) if request.to_large else (down.large, across.large)
    transposed = _transposed_pixels(rows * cols, layout) + pixels
    each = model.transpose_map * transposed + model.depthwise_tap * multiplied
    return model.depthwise_channelwise * -(-geometry.small_channels // layout.lanes) * each


def _weight_cost(request: Request) -> float:
    """The cost of the weight gradient, in the same unit."""
    geometry, layout, model = request.geometry, request.tiles, request.model
    down, across = geometry.axes
    pixels = down.small * across.small
    transposed = _transposed_pixels(down.large * across.large, layout) + pixels
    multiplied = pixels * down.taps * across.taps
    each = model.transpose_both * transposed + model.channelwise_weight_tap * multiplied
    return geometry.batch * -(-geometry.small_channels // layout.lanes) * each


def _transposed_pixels(pixels: int, layout: Layout) -> float:
    """The pixels that are transposed for `pixels` pixels: whole squares of lanes, as the rows are contiguous."""
    return layout.lanes * -(-pixels // layout.lanes)


def _is_band(axis_maps: Sequence[AxisMap], planes: Planes, extent: int, length: int, model: CostModel) -> bool:
    """Whether rows of taps are bands: neighbouring taps read neighbouring pixels, and there are enough of them. Some of
    the `length` positions of a row must be inside the source, as the tile of a band has no padding."""
    if not planes.stride == len(planes.origins) == 1:
        return False
    first, end = planes.inside(0, extent, length)
    return first < end and all(axis_map.dilation == 1 <= axis_map.taps - model.band_from for axis_map in axis_maps)


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
    tables: Tables, rows: Planes, cols: Planes, tile: tuple[int, int], width: int, lanes: int, skip_padding: bool,
    tiles: int,
) -> LaneTile:  # fmt: skip
    """The padded tile of planes of extents `tile`, with a lane for each channel, of a source `width` wide; one of
    several `tiles`."""
    tile_rows, tile_cols = tile
    vectors = len(rows.origins) * len(cols.origins) * math.prod(tile) + _VECTORS_BEHIND
    if tiles > 1:
        vectors |= 1  # the same pixels of several tiles are in different sets of a cache
    inside = [cols.inside(b, width, tile_cols) for b in range(len(cols.origins))]
    layers = _layers(tables, rows, cols, tile, width, lanes)
    return LaneTile(
        size=vectors * lanes, rows=tile_rows, cols=tile_cols, planes_h=len(rows.origins),
        planes_w=len(cols.origins), stride_h=rows.stride, origins_h_table=tables.add(rows.origins),
        inside_table=tables.add(np.array(inside)),
        layers=len(layers), layers_table=tables.add(np.array(layers)), skip_padding=skip_padding,
    )  # fmt: skip


def _layers(tables: Tables, rows: Planes, cols: Planes, tile: tuple[int, int], width: int, lanes: int) -> list[Layer]:
    """Where the source's rows are written in a tile; no two planes share a pixel. Pixels of no plane go behind it."""
    tile_rows, tile_cols = tile
    plane = tile_rows * tile_cols
    row_of_planes = len(cols.origins) * plane
    behind = (len(rows.origins) * row_of_planes + _VECTORS_BEHIND - 1) * lanes
    columns = np.full(width, -1)
    for b, origin in enumerate(cols.origins):
        first, end = cols.inside(b, width, tile_cols)
        columns[origin + first * cols.stride :: cols.stride][: end - first] = b * plane + np.arange(first, end)
    u, a = (
        np.divmod(np.arange(tile_rows * rows.stride), rows.stride)
        if _cover_everything(rows)
        else (np.arange(tile_rows), 0)
    )
    found = [(rows.origins[0], 1)] if _cover_everything(rows) else [(origin, rows.stride) for origin in rows.origins]
    layers = []
    for number, (origin, step) in enumerate(found):
        starts = (a + number) * row_of_planes + u * tile_cols
        offsets = np.where(columns < 0, behind, (starts[:, None] + columns) * lanes)
        layers.append(Layer(origin, step, len(starts), tables.add(offsets)))
    return layers


def _cover_everything(planes: Planes) -> bool:
    """Whether the planes together have every position."""
    return len(planes.origins) == planes.stride == planes.origins[-1] - planes.origins[0] + 1


def _phases(
    tables: Tables, group: PhaseGroup, tile: tuple[int, int], kernel_width: int, height: int, lanes: int
) -> Array:
    """The `DepthwisePhase`s (rows, columns), still without bands; those with equal numbers of taps are made at once."""
    rows, cols = distinct(group.phases)
    plane, row = tile[0] * tile[1], tile[1]
    phases = np.zeros((len(rows), len(cols)), dtype_of(DepthwisePhase))
    phases["rows"], phases["cols"] = _column(rows, "outputs")[:, None], _column(cols, "outputs")
    if not group.is_one:
        phases["first_row"], phases["first_col"] = _column(rows, "out_start")[:, None], _column(cols, "out_start")
    for down, across in itertools.product(_by_tap_count(rows), _by_tap_count(cols)):
        row_maps, col_maps = [rows[number] for number in down], [cols[number] for number in across]
        in_tile = _outer(
            _tile_offsets(group.row_planes_of, row_maps, (len(group.cols.origins) * plane, row)),
            _tile_offsets(group.col_planes_of, col_maps, (plane, 1)),
        )
        in_rows = [axis_map.kernel_taps * kernel_width for axis_map in row_maps]
        in_weight = _outer(in_rows, [axis_map.kernel_taps for axis_map in col_maps])
        taps = np.stack([in_weight, in_tile], 4) * lanes
        number = taps[0, 0].size // 2
        starts = tables.add(taps) + 2 * number * np.arange(len(down) * len(across))
        wide = col_maps[0].taps
        ranges = {
            kind: tables.add(wide * _tap_ranges(axis_map, height))
            for kind, axis_map in {axis_map.kind: axis_map for axis_map in row_maps}.items()
        }
        of_both = np.ix_(down, across)
        phases["taps_table"][of_both], phases["taps"][of_both] = starts.reshape(len(down), -1), number
        phases["ranges_table"][of_both] = [[ranges[axis_map.kind]] for axis_map in row_maps]
    return phases


def _tile_offsets(
    planes: Callable[[AxisMap], Planes], axis_maps: Sequence[AxisMap], steps: tuple[int, int]
) -> list[Array]:
    """The offsets of the taps of each axis map in a tile; `steps` are the strides of planes and positions. Computed
    once for axis maps that read the same pixels."""
    known: dict[tuple[int, int, int], Array] = {}
    kinds = [(axis_map.taps, axis_map.dilation, axis_map.pad) for axis_map in axis_maps]
    for kind, axis_map in zip(kinds, axis_maps, strict=True):
        if kind not in known:
            known[kind] = planes(axis_map).taps @ steps
    return [known[kind] for kind in kinds]


def _column(axis_maps: Sequence[AxisMap], name: str) -> Array:
    return np.array([getattr(axis_map, name) for axis_map in axis_maps])


def _by_tap_count(axis_maps: Sequence[AxisMap]) -> list[list[int]]:
    """The indices of the axis maps, grouped by their number of taps."""
    taps = _column(axis_maps, "taps")
    return [np.flatnonzero(taps == number).tolist() for number in np.unique(taps)]


def _outer(down: Sequence[Array], across: Sequence[Array]) -> Array:
    """The sums (i, j, a, b) of the elements (i, a) and (j, b)."""
    sums: Array = np.array(down)[:, None, :, None] + np.array(across)[None, :, None, :]
    return sums


def _tap_ranges(axis_map: AxisMap, height: int) -> Array:
    """For each row of outputs, the range of rows of taps that read inside the source."""
    return np.array([axis_map.taps_inside(output, output, height) for output in range(axis_map.outputs)])


def _pairs(in_tile: Array, lanes: int) -> Array:
    """For each tap, its offsets in the packed weight and in the tile, whose elements are vectors."""
    return np.stack([np.arange(len(in_tile)), in_tile], 1) * lanes


def plans_of(request: Request) -> list[Plan]:
    """The plans of phases: one for all of them if they read neighbouring pixels and write each pixel once.

    Rows of taps on the padding are skipped, which needs a finite weight.
    """
    phases = request.phases
    if len(phases) > 1 and not are_side_by_side(phases):
        return [_plan_of_group(request, [phase]) for phase in phases]
    return [_plan_of_group(request, phases)] if phases else []


def _plan_of_group(request: Request, phases: Sequence[Phase]) -> Plan:
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
    skips_padding = geometry.axes[0].taps >= model.skip_rows_from
    maps, group = Maps(request), PhaseGroup(phases, (out_h, out_w))
    i, j = group.extents
    per_row = group.out_stride[0] * group.sums[1]

    tile_cols = j + group.halo[1]
    is_band = skips_padding and _is_band(distinct(phases)[1], group.cols, width, tile_cols, model)
    if is_band:
        group.cols, tile_cols = _cropped(group.cols, width, tile_cols, j, layout)
    are_neighbours = results == channels and maps.has_channels_last
    is_large = maps.source_bytes(itemsize) > model.level2_source_bytes
    beside = min(-(-results // lanes), model.vectors_beside if are_neighbours and is_large else 1)
    while True:
        block_i = model.padded_tile_bytes // itemsize // (group.planes * tile_cols * lanes * beside) - group.halo[0]
        block_i = max(1, min(i, block_i, model.sums_bytes // itemsize // (per_row * lanes * beside)))
        block_i, block_k = even_block(block_i, i), even_block(beside, -(-results // lanes)) * lanes
        items = -(-results // block_k) * -(-i // block_i)
        if beside == 1 or (n * items >= model.work_items and block_i >= min(i, 3 * group.halo[0])):
            break
        beside -= 1
    block_n = even_block(
        items // model.several_images_from, n
    )  # the weight is transposed once for all images of a work item
    tile_rows = block_i + group.halo[0]
    tile = tile_rows, tile_cols
    tables = Tables()
    described = _phases(tables, group, tile, kernel_width, height, lanes)
    if is_band:
        described["band"] = [
            tuple(_band(group.col_planes_of(axis_map), width, tile_cols)) for axis_map in distinct(phases)[1]
        ]
    arguments = DepthwiseChannelwise(
        items=-(-n // block_n) * items, group=1, workspace=0, images=n, results=results, multiple=results // channels,
        rows=i, sums_rows=group.sums[0], sums_cols=group.sums[1], kernel=kernel,
        source=maps.source_strides, out=group.written(maps),
        tile=_lane_tile(tables, group.rows, group.cols, tile, width, lanes, skips_padding, beside),
        block_images=block_n, block_rows=block_i, block_results=block_k, phases=described.size,
        phases_table=tables.add(described.ravel().view(np.int64)), out_stride_h=group.out_stride[0],
        out_stride_w=group.out_stride[1], gaps=group.has_gaps, start_at=0, panel_at=0, sums_at=0, tile_at=0,
    )  # fmt: skip
    parts = {
        "start_at": block_k,
        "panel_at": kernel * block_k,
        "sums_at": block_i * per_row * block_k + lanes * lanes,
        "tile_at": block_k // lanes * arguments.tile.size,
    }
    plan = plan_of("depthwise_channelwise", itemsize, tables, arguments, parts)
    return plan._replace(skips_padding=skips_padding)


def weight_gradient(request: Request) -> tuple[Plan, int]:
    """The plan of a weight's gradient, whose outputs are the kernel's taps; and the number of partial sums."""
    geometry, layout, itemsize, model = request.geometry, request.tiles, request.itemsize, request.model
    down, across = geometry.axes
    n, channels, lanes = geometry.batch, geometry.large_channels, layout.lanes
    skips_padding = down.taps >= model.skip_rows_from
    cols = _gradient_axis_map(across.taps, across.dilation, across.small, across.stride, across.pad_before)
    across_planes = Planes.of(cols)
    tile_cols = cols.outputs + across_planes.halo
    is_band = skips_padding and _is_band([cols], across_planes, across.large, tile_cols, model)
    if is_band:
        across_planes, tile_cols = _cropped(across_planes, across.large, tile_cols, cols.outputs, layout)
    # rows of the small map of a strip
    block = down.small
    while True:
        rows = _gradient_axis_map(down.taps, down.dilation, block, down.stride, down.pad_before)
        in_planes = Planes.of(rows)
        tile_rows = rows.outputs + in_planes.halo
        planes = len(in_planes.origins) * len(across_planes.origins)
        if (
            block == 1
            or max(planes * tile_rows * tile_cols, block * across.small) * lanes * itemsize <= model.padded_tile_bytes
        ):
            break
        block = -(-block // 2)
    blocks = -(-channels // lanes)
    units = n * -(-down.small // block)
    splits = min(units, -(-model.work_items // blocks))
    pixels, of_strip = down.small * across.small, block * across.small
    taps = rows.outputs * cols.outputs
    slots = slots_of(-(-min(n * pixels, -(-units // splits) * of_strip) // model.chain_pixels))
    step = across.small if is_band else 1  # a band has whole rows
    whole = _gradient_axis_map(down.taps, down.dilation, down.small, down.stride, down.pad_before)
    tile = tile_rows, tile_cols
    in_tile = plane_offsets(in_planes, across_planes, tile_rows * tile_cols, tile_cols)
    tables = Tables()
    maps = Maps(request)
    arguments = DepthwiseChannelwiseWeightGrad(
        items=blocks * splits, group=1, workspace=0, images=n, channels=channels, rows=rows.outputs, cols=cols.outputs,
        small_rows=down.small, small_cols=across.small, source=maps.source_strides, small=maps.small_strides,
        out_split=channels * taps, splits=splits,
        tile=_lane_tile(tables, in_planes, across_planes, tile, across.large, lanes, skips_padding, 1),
        block_rows=block, block_pixels=step * even_block(model.chain_block // step, of_strip // step),
        chain_pixels=model.chain_pixels,
        stride_h=down.stride, taps_table=tables.add(_pairs(in_tile, lanes)),
        ranges_table=tables.add(across.small * _tap_ranges(whole, down.large)),
        band=_band(across_planes, across.large, tile_cols) if is_band else _NO_BAND,
        panel_at=0, sums_at=0, tile_at=0,
    )  # fmt: skip
    parts = {
        "panel_at": of_strip * lanes,
        "sums_at": slots * taps * lanes,
        "tile_at": arguments.tile.size,
    }
    plan = plan_of("depthwise_channelwise_weight_grad", itemsize, tables, arguments, parts)
    return plan._replace(skips_padding=skips_padding), splits


def _gradient_axis_map(taps: int, dilation: int, small: int, stride: int, before: int) -> AxisMap:
    """The axis map of a weight gradient: its outputs are the kernel's taps, its taps the small map's positions."""
    return AxisMap(taps, dilation if taps > 1 else 1, small, stride if small > 1 else 1, before)
