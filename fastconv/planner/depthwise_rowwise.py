"""Direct convolution of channels that have a small kernel each: vectors along the rows of the maps, read as they are.

A piece of work is a strip of rows of some channels of one image. Kernels and strides that have a micro-kernel are
listed in `backends.abi`; each reads a row of the source once for all rows of the output that it meets.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastconv.backends.abi import MEETINGS, SLIDES, SPREADS
from fastconv.backends.abi import Place as P
from fastconv.backends.contract import Layout, Plan
from fastconv.planner import blocking
from fastconv.planner.blocking import even
from fastconv.planner.plan_builder import Tables, plan_of
from fastconv.planner.request import Request, Way
from fastconv.problem.geometry import Geometry
from fastconv.problem.subpixel import Phase

#: Bytes, about, of a strip's maps, so that they stay in the second-level cache while columns of vectors go down them;
#: and the rows that a strip has at least, as each begins with rows whose sums are not whole.
_STRIP, _FEWEST_ROWS = 2**17, 16
#: What a piece of work should cost at least, in multiply-adds of a vector.
_PIECE = 6000
#: What a column of vectors of a weight's gradient costs beside its rows, and summing up a channel's lanes, likewise.
_COLUMN, _TOTAL = 160, 100
#: What a tap costs, a shuffle beside it; and one of a 5x5 kernel where there are tiles for two vectors of results, as a
#: whole register is multiplied in one step there.
_TAP, _TAP_OF_FIVE = 1.35, 1.7


def applies(request: Request) -> str | None:
    """Why it cannot compute maps: each group must have one channel and up to four results, and a micro-kernel."""
    geometry, to_large = request.geometry, request.to_large
    g, most = geometry.groups, 1 if to_large else 4
    if geometry.large_channels != g or geometry.small_channels > most * g:
        return f"a group links {geometry.large_channels // g} channels with {geometry.small_channels // g}"
    if request.phase_count not in (1, 4):
        return f"there are {request.phase_count} phases"
    if not (_is_slide(request.phases) or (to_large and _is_spread(geometry, request.phases))):
        return "there is no micro-kernel for this kernel size, stride and dilation"
    return None


def way(request: Request) -> Way:
    """How it computes maps."""
    geometry, layout = request.geometry, request.tiles
    # lanes along the rows may be empty at their ends, those along channels cost two transpositions
    cost = _cost(geometry, request.phases, layout) * geometry.small_channels
    return Way(
        0,
        geometry.batch * cost,
        lambda: [correlation(geometry, request.phases, request.to_large, layout, request.itemsize)],
        sharing=request.threads,
    )


def _is_slide(phases: Sequence[Phase]) -> bool:
    """Whether it is one phase of a kernel and a stride in `SLIDES`, whose taps are in order, or turned round."""
    if len(phases) != 1:
        return False
    rows, cols = phases[0].rows, phases[0].cols
    return (
        (rows.taps, rows.stride) == (cols.taps, cols.stride) in SLIDES
        and (rows.first_tap, rows.tap_step) == (cols.first_tap, cols.tap_step) in ((0, 1), (rows.taps - 1, -1))
        and rows.dilation == cols.dilation == rows.out_stride == cols.out_stride == 1
    )


def _is_spread(geometry: Geometry, phases: Sequence[Phase]) -> bool:
    """Whether it is the four phases of a kernel and a padding in `SPREADS`, with a stride of 2."""
    rows, cols = geometry.axes
    return (
        len(phases) == 4
        and (rows.taps, rows.pad_before % 2) == (cols.taps, cols.pad_before % 2) in SPREADS
        and (rows.stride, cols.stride, rows.dilation, cols.dilation) == (2, 2, 1, 1)
        and min(rows.small, cols.small) > 1
    )


def _cost(geometry: Geometry, phases: Sequence[Phase], layout: Layout) -> float:
    """What a plane costs, in multiply-adds of a vector: two rows more than it has are begun, and a stride wants
    shuffles. Four phases are read and multiplied as one."""
    rows, cols = phases[0].rows.outputs, phases[0].cols.outputs
    taps = geometry.axes[0].taps
    row = (_TAP_OF_FIVE if taps == 5 and layout.pairs else _TAP) * taps**2 + 10 * (geometry.axes[1].stride - 1)
    return (rows + 2) * -(-cols // layout.lanes) * row


def correlation(geometry: Geometry, phases: Sequence[Phase], to_large: bool, layout: Layout, itemsize: int) -> Plan:
    """The plan of a map's phases."""
    (height, width), (out_h, out_w) = (
        tuple(getattr(axis, role) for axis in geometry.axes) for role in ("large", "small")
    )
    channels, results = geometry.large_channels, geometry.small_channels
    if to_large:
        channels, results, (height, width), (out_h, out_w) = results, channels, (out_h, out_w), (height, width)
    n, kernel = geometry.batch, geometry.axes[0].taps
    one = phases[0]
    tables = Tables()
    if len(phases) == 1:
        name, kind, hop = "correlate_rows", SLIDES.index((kernel, one.rows.stride)), one.rows.stride
        origins = -one.rows.pad, -one.cols.pad
    else:
        name, kind, hop = "spread_rows", SPREADS.index((kernel, geometry.axes[0].pad_before % 2)), 1
        origins = geometry.axes[0].pad_before // 2, geometry.axes[1].pad_before // 2

    # strips that stay in a cache, and enough pieces for several threads; pairs of rows stay together
    cost = _cost(geometry, phases, layout)
    block_k = even(max(1, int(_PIECE // cost)), results)
    pieces = n * -(-results // block_k)
    most = _STRIP // itemsize // (width * height // out_h + out_w)
    most = max(_FEWEST_ROWS, min(most, -(-out_h * pieces // blocking.PIECES)))
    block_i = -(-even(most, out_h) // 2) * 2
    integers = {
        P.ITEMS: pieces * -(-out_h // block_i),
        P.IMAGES: n, P.GROUPS: 1, P.CHANNELS: channels, P.RESULTS: results, P.ROWS: out_h, P.COLS: out_w,
        P.MULTIPLE: results // channels, P.TILE: kind, P.TURNS: one.rows.tap_step < 0,
        P.SOURCE_IMAGE: channels * height * width, P.SOURCE_CHANNEL: height * width,
        P.SOURCE_HEIGHT: height, P.SOURCE_WIDTH: width, P.HOP_H: hop, P.HOP_W: hop,
        P.WEIGHT_RESULT: kernel**2,
        P.OUT_IMAGE: results * out_h * out_w, P.OUT_RESULT: out_h * out_w, P.OUT_ROW: out_w,
        P.BLOCK_ROWS: block_i, P.BLOCK_RESULTS: block_k,
        P.ORIGINS_H: tables.add(origins[:1]), P.ORIGINS_W: tables.add(origins[1:]),
    }  # fmt: skip
    return plan_of(name, itemsize, tables, integers, {P.PANEL: kernel**2})


def applies_to_weight(request: Request) -> str | None:
    """Why it cannot compute a weight's gradient: that needs a micro-kernel, and channels for several threads."""
    geometry = request.geometry
    rows, cols = geometry.axes
    if request.in_one_sum:
        return "its sums are several for each number"
    if not geometry.groups == geometry.large_channels == geometry.small_channels:
        return "a group has several channels or results"
    if geometry.groups < blocking.PIECES:
        return f"there are fewer than {blocking.PIECES} channels to share among threads"
    if (rows.taps, rows.stride) not in MEETINGS or (rows.taps, rows.stride) != (cols.taps, cols.stride):
        return "there is no micro-kernel for this kernel size and stride"
    if rows.dilation > 1 or cols.dilation > 1:
        return "the kernel is dilated"
    return None


def weight_way(request: Request) -> Way:
    """How it computes a weight's gradient."""
    geometry, layout = request.geometry, request.tiles
    return Way(
        0,
        weight_cost(geometry, layout) * geometry.groups,
        lambda: [weight_gradient(geometry, layout, request.itemsize)],
        sharing=request.threads,
    )


def weight_cost(geometry: Geometry, layout: Layout) -> float:
    """What a channel of a weight's gradient costs, in multiply-adds of a vector."""
    rows, cols = geometry.axes
    row = 1.35 * rows.taps**2 + 17 * (rows.stride - 1) + 2
    waiting = -(-rows.taps // rows.stride)
    column = (rows.small + waiting - 1) * row + _COLUMN
    return geometry.batch * -(-cols.small // layout.lanes) * column + _TOTAL


def weight_gradient(geometry: Geometry, layout: Layout, itemsize: int) -> Plan:
    """The plan of a weight's gradient."""
    rows, cols = geometry.axes
    n, channels, taps, lanes = geometry.batch, geometry.groups, rows.taps * cols.taps, layout.lanes
    block = even(max(1, int(_PIECE // weight_cost(geometry, layout))), channels)
    tables = Tables()
    integers = {
        P.ITEMS: -(-channels // block),
        P.IMAGES: n, P.GROUPS: 1, P.CHANNELS: channels, P.RESULTS: channels, P.ROWS: rows.small, P.COLS: cols.small,
        P.TILE: MEETINGS.index((rows.taps, rows.stride)),
        P.SOURCE_IMAGE: channels * rows.large * cols.large, P.SOURCE_CHANNEL: rows.large * cols.large,
        P.SOURCE_HEIGHT: rows.large, P.SOURCE_WIDTH: cols.large, P.HOP_H: rows.stride, P.HOP_W: cols.stride,
        P.WEIGHT_CHANNEL: channels * rows.small * cols.small, P.WEIGHT_RESULT: rows.small * cols.small,
        P.OUT_RESULT: taps, P.BLOCK_RESULTS: block,
        P.ORIGINS_H: tables.add([-rows.pad_before]), P.ORIGINS_W: tables.add([-cols.pad_before]),
    }  # fmt: skip
    parts = {P.SUMS: block * -(-taps // lanes) * lanes * lanes, P.EXTRA: lanes * lanes}
    return plan_of("correlate_rows_weight", itemsize, tables, integers, parts)
