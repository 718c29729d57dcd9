"""Depthwise convolution of maps whose channels are neighbours: the part of the kernel depthwise channel-wise that
reads and writes maps as they are. A work item is a strip of rows of some images, and some vectors of channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastconv.backends.contract import Plan
from fastconv.kernels.abi import TAP_ROWS, WINDOWS
from fastconv.kernels.drivers.depthwise_in_place import DepthwiseInPlace, DepthwiseInPlaceWeightGrad, InPlacePhase
from fastconv.planner.blocking import even_block
from fastconv.planner.plan_builder import Maps, Tables, plan_of, slots_of
from fastconv.planner.request import Request
from fastconv.problem.arrays import Array
from fastconv.problem.memory_order import MapStrides
from fastconv.problem.subpixel import Phase, distinct


def applies(request: Request) -> bool:
    """Whether maps can be computed in place: each channel has one result, channels are neighbours in both maps, and
    there is a micro-kernel for each phase."""
    return (
        _are_neighbours(request) and bool(request.phases) and all(_has_micro_kernel(phase) for phase in request.phases)
    )


def applies_to_weight(request: Request) -> bool:
    """Whether a weight's gradient can be computed in place, likewise."""
    down, across = request.geometry.axes
    is_square = (down.taps, down.stride, down.dilation) == (across.taps, across.stride, across.dilation)
    has_window = is_square and down.dilation == 1 and (down.taps, down.stride) in WINDOWS
    return has_window and _are_neighbours(request)


def _are_neighbours(request: Request) -> bool:
    geometry, orders = request.geometry, request.orders
    is_single = geometry.groups == geometry.small_channels == geometry.large_channels >= request.tiles.lanes
    return is_single and all(order is not None and _is_pixelwise(order) for order in orders)


def _is_pixelwise(order: MapStrides) -> bool:
    return order.channel == 1 != order.col


def _has_micro_kernel(phase: Phase) -> bool:
    rows, cols = phase.rows, phase.cols
    is_dense = rows.dilation == cols.dilation == 1
    return is_dense and rows.taps >= rows.stride and (cols.taps, cols.stride) in TAP_ROWS


def cost(request: Request) -> float:
    """The cost of an image, in multiply-adds of a vector."""
    model = request.model
    taps = sum(_pixels(phase) * (model.in_place_tap * _taps(phase) + model.in_place_pixel) for phase in request.phases)
    return model.depthwise_channelwise * -(-request.geometry.groups // request.tiles.lanes) * taps


def _pixels(phase: Phase) -> int:
    return phase.rows.outputs * phase.cols.outputs


def _taps(phase: Phase) -> int:
    return phase.rows.taps * phase.cols.taps


def weight_cost(request: Request) -> float:
    """The cost of the weight gradient, in the same unit."""
    geometry, model = request.geometry, request.model
    down, across = geometry.axes
    pixels = geometry.batch * down.small * across.small
    each = model.in_place_weight_tap * down.taps * across.taps + model.in_place_weight_pixel
    return pixels * -(-geometry.groups // request.tiles.lanes) * each


def plan_of_phases(request: Request, phases: Sequence[Phase]) -> Plan:
    """The plan of a map's phases. Taps on the padding are skipped, which needs a finite weight."""
    geometry, layout, model = request.geometry, request.tiles, request.model
    lanes, channels, n = layout.lanes, geometry.groups, geometry.batch
    maps, tables = Maps(request), Tables()
    first = phases[0]
    rows = max(axis_map.outputs for axis_map in distinct(phases)[0])
    pixels = sum(map(_pixels, phases))
    whole = channels // lanes
    # Work is divided into strips of rows, then into vectors of channels, then into images: the more images a work item
    # has, the less often the weight is packed.
    wanted = 1 if request.threads == 1 else model.work_items
    strips = min(wanted, rows // 2 or 1, max(1, pixels // model.in_place_strip))
    blocks = min(whole, -(-wanted // (n * strips)))
    block_i = -(-even_block(-(-rows // strips), rows) // 2) * 2
    block_v = even_block(-(-whole // blocks), whole)
    items = -(-rows // block_i) * -(-whole // block_v)
    block_n = even_block(max(1, n * items // wanted), n)
    kernel = maps.taps
    order, starts = _panel_order(phases, kernel, geometry.axes[1].taps)
    arguments = DepthwiseInPlace(
        items=items * -(-n // block_n), group=1, workspace=0, images=n, results=channels, rows=rows, kernel=kernel,
        source=maps.source_strides, out=maps.out_strides(0, 0, (1, 1)), block_images=block_n, block_rows=block_i,
        block_vectors=block_v, phases=len(phases),
        phases_table=tables.add(_phases(phases, starts)), stride_h=first.rows.stride, stride_w=first.cols.stride,
        out_stride_h=first.rows.out_stride, out_stride_w=first.cols.out_stride,
        out_rows=maps.out[0], out_cols=maps.out[1],
        prefetch=block_v == whole and maps.source_bytes(request.itemsize) > model.in_place_prefetch_bytes,
        order_table=tables.add(order * lanes), start_at=0, panel_at=0,
    )  # fmt: skip
    parts = {"start_at": (block_v + 1) * lanes, "panel_at": (block_v + 1) * kernel * lanes}
    skips = not all(maps.has_no_padding(phase) for phase in phases)
    return plan_of("depthwise_in_place", request.itemsize, tables, arguments, parts, skips_padding=skips)


def _phases(phases: Sequence[Phase], starts: Sequence[int]) -> Array:
    """The `InPlacePhase`s, with the start of each one's taps in the packed weight."""
    return np.array([
        InPlacePhase(
            rows.outputs, cols.outputs, rows.out_start, cols.out_start, rows.taps, rows.pad, cols.pad,
            TAP_ROWS.index((cols.taps, cols.stride)), start,
        )
        for (rows, cols), start in zip(phases, starts, strict=True)
    ])  # fmt: skip


def _panel_order(phases: Sequence[Phase], kernel: int, width: int) -> tuple[Array, list[int]]:
    """For each tap of a kernel of `kernel` taps, rows of `width`, where it is in the packed weight: one phase's taps
    after the other's, in the order in which they are added, and then those of no phase. And where each phase's taps
    start."""
    starts, taken, order = [], 0, np.full(kernel, -1)
    for rows, cols in phases:
        taps = (rows.kernel_taps[:, None] * width + cols.kernel_taps).ravel()
        order[taps] = taken + np.arange(len(taps))
        starts.append(taken)
        taken += len(taps)
    order[order < 0] = taken
    return order, starts


def weight_gradient(request: Request) -> tuple[Plan, int]:
    """The plan of a weight's gradient; and the number of partial sums."""
    geometry, layout, model = request.geometry, request.tiles, request.model
    down, across = geometry.axes
    n, channels, lanes = geometry.batch, geometry.groups, layout.lanes
    maps, whole, taps = Maps(request), channels // lanes, down.taps
    # strips of several rows, as partial sums have to be added
    strips = min(model.work_items, max(1, n * down.small * across.small // model.in_place_weight_strip))
    of_image = -(-strips // n)
    block_p = even_block(-(-down.small // of_image), down.small)
    units = n * -(-down.small // block_p)
    splits = min(strips, units)
    block_v = even_block(-(-whole // min(whole, -(-model.work_items // splits))), whole)
    items = -(-whole // block_v) * splits
    rows_of_chain = -(-model.chain_pixels // across.small)
    slots = slots_of(-(-(-(-units // splits) * block_p) // rows_of_chain))
    kernel = taps * taps
    arguments = DepthwiseInPlaceWeightGrad(
        items=items, group=1, workspace=0, images=n, channels=channels,
        number=WINDOWS.index((taps, down.stride)), taps=taps, small_rows=down.small, small_cols=across.small,
        source=maps.source_strides, small=maps.small_strides, stride_h=down.stride, stride_w=across.stride,
        pad_h=down.pad_before, pad_w=across.pad_before, out_split=channels * kernel, splits=splits,
        block_rows=block_p, block_vectors=block_v, chain_pixels=model.chain_pixels,
        prefetch=block_v == whole and maps.source_bytes(request.itemsize) > model.in_place_prefetch_bytes, sums_at=0,
    )  # fmt: skip
    parts = {"sums_at": slots * (block_v + 1) * kernel * lanes}
    tables = Tables()
    plan = plan_of("depthwise_in_place_weight_grad", request.itemsize, tables, arguments, parts, skips_padding=True)
    return plan, splits
