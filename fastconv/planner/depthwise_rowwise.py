"""The kernel depthwise row-wise, for small kernels: vectors along the rows of the maps, which are read in place.

A work item is a strip of rows of some channels of one image. Kernels and strides that have a micro-kernel are
listed in `kernels.abi`; each reads a row of the source once for all rows of the output that use it.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastconv.backends.contract import Plan
from fastconv.kernels.abi import ROW_KERNELS, ROW_KERNELS_TRANSPOSED, ROW_KERNELS_WEIGHT_GRAD
from fastconv.kernels.drivers.depthwise_rowwise import (
    DepthwiseRowwise,
    DepthwiseRowwiseTransposed,
    DepthwiseRowwiseWeightGrad,
)
from fastconv.planner.blocking import even_block
from fastconv.planner.plan_builder import Maps, Tables, plan_of, slots_of
from fastconv.planner.request import Proposal, Request
from fastconv.problem.geometry import Geometry
from fastconv.problem.subpixel import Phase

#: How many elements ahead a source is prefetched, at most.
_PREFETCH_ELEMENTS = 2**15


def applies(request: Request) -> str | None:
    """Why it cannot compute maps: each group must have one channel and up to four results, and a micro-kernel."""
    geometry, to_large = request.geometry, request.to_large
    g, most = geometry.groups, 1 if to_large else 4
    if geometry.large_channels != g or geometry.small_channels > most * g:
        return f"a group links {geometry.large_channels // g} channels with {geometry.small_channels // g}"
    if request.phase_count not in (1, 4):
        return f"there are {request.phase_count} phases"
    if not (_is_one_phase_kernel(request.phases) or (to_large and _is_transposed_kernel(geometry, request.phases))):
        return "there is no micro-kernel for this kernel size, stride and dilation"
    return None


def propose(request: Request) -> Proposal:
    """How it computes maps."""
    # lanes along the rows may be empty at their ends, those along channels cost two transpositions
    cost = _cost(request) * request.geometry.small_channels
    return Proposal(
        0,
        request.geometry.batch * cost,
        lambda: [plan_of_phases(request)],
        sharing=request.threads,
    )


def _is_one_phase_kernel(phases: Sequence[Phase]) -> bool:
    """Whether it is one phase of a kernel and a stride in `ROW_KERNELS`, whose taps are in order, or reversed."""
    if len(phases) != 1:
        return False
    rows, cols = phases[0].rows, phases[0].cols
    return (
        (rows.taps, rows.stride) == (cols.taps, cols.stride) in ROW_KERNELS
        and (rows.first_tap, rows.tap_step) == (cols.first_tap, cols.tap_step) in ((0, 1), (rows.taps - 1, -1))
        and rows.dilation == cols.dilation == rows.out_stride == cols.out_stride == 1
    )


def _is_transposed_kernel(geometry: Geometry, phases: Sequence[Phase]) -> bool:
    """Whether it is the four phases of a kernel and a padding in `ROW_KERNELS_TRANSPOSED`, with a stride of 2."""
    rows, cols = geometry.axes
    return (
        len(phases) == 4
        and (rows.taps, rows.pad_before % 2) == (cols.taps, cols.pad_before % 2) in ROW_KERNELS_TRANSPOSED
        and (rows.stride, cols.stride, rows.dilation, cols.dilation) == (2, 2, 1, 1)
        and min(rows.small, cols.small) > 1
    )


def _cost(request: Request) -> float:
    """What a plane costs, in multiply-adds of a vector: two more rows than it has are started, and a stride needs
    shuffles. The four phases count as one."""
    geometry, layout, model, phases = request.geometry, request.tiles, request.model, request.phases
    rows, cols = phases[0].rows.outputs, phases[0].cols.outputs
    taps = geometry.axes[0].taps
    tap = model.rowwise_tap_of_5x5 if taps == 5 and layout.pairs else model.rowwise_tap
    row = tap * taps**2 + model.rowwise_stride * (geometry.axes[1].stride - 1)
    return model.depthwise_rowwise * (rows + 2) * -(-cols // layout.lanes) * row


def plan_of_phases(request: Request) -> Plan:
    """The plan of a map's phases."""
    geometry, phases, itemsize, model = request.geometry, request.phases, request.itemsize, request.model
    (height, width), (out_h, out_w) = (
        tuple(getattr(axis, role) for axis in geometry.axes) for role in ("large", "small")
    )
    channels, results = geometry.large_channels, geometry.small_channels
    if request.to_large:
        channels, results, (height, width), (out_h, out_w) = results, channels, (out_h, out_w), (height, width)
    n, kernel = geometry.batch, geometry.axes[0].taps
    one, is_one_phase = phases[0], len(phases) == 1
    if is_one_phase:
        number = ROW_KERNELS.index((kernel, one.rows.stride))
    else:
        number = ROW_KERNELS_TRANSPOSED.index((kernel, geometry.axes[0].pad_before % 2))

    # strips that stay in a cache, and enough work items for several threads; pairs of rows are not divided
    block_k = even_block(max(1, int(model.rowwise_item // _cost(request))), results)
    blocks = n * -(-results // block_k)
    most = model.depthwise_strip_bytes // itemsize // (width * height // out_h + out_w)
    most = max(model.fewest_rows, min(most, -(-out_h * blocks // model.work_items)))
    block_i = -(-even_block(most, out_h) // 2) * 2
    maps = Maps(request)
    source, out = maps.source_strides, maps.out_strides(0, 0, (1, 1))
    items = blocks * -(-out_h // block_i)
    common = {"images": n, "results": results, "rows": out_h, "cols": out_w, "number": number, "kernel": kernel**2}
    common |= {"block_rows": block_i, "block_results": block_k}
    if is_one_phase:
        arguments: DepthwiseRowwise | DepthwiseRowwiseTransposed = DepthwiseRowwise(
            items=items, group=1, workspace=0, **common, multiple=results // channels, flip=one.rows.tap_step < 0,
            stride_h=one.rows.stride, stride_w=one.cols.stride, first_h=-one.rows.pad, first_w=-one.cols.pad,
            ahead=_prefetch_rows(height, width), source=source, out=out, panel_at=0,
        )  # fmt: skip
        return plan_of("depthwise_rowwise", itemsize, Tables(), arguments, {"panel_at": kernel**2})
    arguments = DepthwiseRowwiseTransposed(
        items=items, group=1, workspace=0, **common, half_pad_h=geometry.axes[0].pad_before // 2,
        half_pad_w=geometry.axes[1].pad_before // 2, ahead=_prefetch_rows(height, width), source=source, out=out,
    )  # fmt: skip
    return plan_of("depthwise_rowwise_transposed", itemsize, Tables(), arguments, {})


def _prefetch_rows(height: int, width: int) -> int:
    """How many rows ahead to prefetch a source of these extents: to the same row of the next plane, but not too far.

    The first column of a plane reads each row for the first time, with a stride that not every hardware prefetcher
    follows. A shorter distance, or prefetching into the first-level cache, was too slow to hide the latency of memory.
    """
    return min(height, _PREFETCH_ELEMENTS // width + 1)


def applies_to_weight(request: Request) -> str | None:
    """Why it cannot compute a weight's gradient: that needs a micro-kernel, and channels for several threads."""
    geometry = request.geometry
    rows, cols = geometry.axes
    if request.forbids_partial_sums:
        return "its sums are several for each number"
    if not geometry.groups == geometry.large_channels == geometry.small_channels:
        return "a group has several channels or results"
    if geometry.groups < request.model.work_items:
        return f"there are fewer than {request.model.work_items} channels to share among threads"
    if (rows.taps, rows.stride) not in ROW_KERNELS_WEIGHT_GRAD or (rows.taps, rows.stride) != (cols.taps, cols.stride):
        return "there is no micro-kernel for this kernel size and stride"
    if rows.dilation > 1 or cols.dilation > 1:
        return "the kernel is dilated"
    return None


def propose_weight(request: Request) -> Proposal:
    """How it computes a weight's gradient."""
    return Proposal(
        0,
        _weight_cost(request) * request.geometry.groups,
        lambda: [weight_gradient(request)],
        sharing=request.threads,
    )


def _weight_cost(request: Request) -> float:
    """The cost of a channel of the weight gradient, in multiply-adds of a vector."""
    geometry, layout, model = request.geometry, request.tiles, request.model
    rows, cols = geometry.axes
    shuffled = model.rowwise_weight_stride * (rows.stride - 1)
    row = model.rowwise_weight_tap * rows.taps**2 + shuffled + model.rowwise_weight_row
    unfinished_rows = -(-rows.taps // rows.stride)
    column = (rows.small + unfinished_rows - 1) * row + model.weight_column
    return geometry.batch * -(-cols.small // layout.lanes) * column + model.add_channel


def weight_gradient(request: Request) -> Plan:
    """The plan of a weight's gradient."""
    geometry, lanes, itemsize, model = request.geometry, request.tiles.lanes, request.itemsize, request.model
    rows, cols = geometry.axes
    n, channels, taps = geometry.batch, geometry.groups, rows.taps * cols.taps
    block = even_block(max(1, int(model.rowwise_item // _weight_cost(request))), channels)
    maps = Maps(request)
    # each lane has a chain of its own
    vectors = -(-cols.small // lanes)
    chain_images = even_block(model.chain_pixels // (rows.small * vectors), n)
    chain_vectors = even_block(model.chain_pixels // rows.small, vectors)
    slots = slots_of(-(-n // chain_images) * -(-vectors // chain_vectors))
    arguments = DepthwiseRowwiseWeightGrad(
        items=-(-channels // block), group=1, workspace=0, images=n, results=channels, rows=rows.small, cols=cols.small,
        number=ROW_KERNELS_WEIGHT_GRAD.index((rows.taps, rows.stride)), kernel=taps, stride_w=cols.stride,
        first_h=-rows.pad_before, first_w=-cols.pad_before, ahead=_prefetch_rows(rows.large, cols.large),
        source=maps.source_strides, small=maps.small_strides, block_results=block,
        chain_images=chain_images, chain_cols=chain_vectors * lanes, sums_at=0, square_at=0,
    )  # fmt: skip
    parts = {"sums_at": slots * block * -(-taps // lanes) * lanes * lanes, "square_at": lanes * lanes}
    return plan_of("depthwise_rowwise_weight_grad", itemsize, Tables(), arguments, parts)
