"""The kernel im2col, for window engines: convolution by windows, block by block.

A block is some images, groups and channels times a rectangle of output pixels, handed to the engine as windows. Windows
inside the map are a view of it; of others a copy is made, with zeros outside the map. Memory beyond input and output
is one block's and the weight's, whatever the problem's size.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fastconv.backends.contract import Engine, Run
from fastconv.planner import window_costs
from fastconv.planner.blocking import even_block
from fastconv.planner.request import Proposal, Request
from fastconv.planner.steps import InitializedRun, MakeCount, guarded_writing
from fastconv.problem.arrays import Array
from fastconv.problem.geometry import Geometry
from fastconv.problem.subpixel import AxisMap, Phase, reading_large, writing_large


def propose(request: Request) -> Proposal:
    """How it computes any contraction, and the cost besides that of the matrix products."""
    geometry, (rows, cols), costs = request.geometry, request.geometry.axes, window_costs.WINDOW_COSTS
    g, taps = geometry.groups, rows.taps * cols.taps
    pixels = geometry.batch * g * rows.small * cols.small
    if not request.to_large:
        copied = geometry.large_channels // g * taps * costs.copy if taps > 1 else 0
        return Proposal(0, costs.calls + pixels * copied)
    # The columns of a phase are copied unless it has one tap. Outputs are written with a stride, and if it is long
    # each store is to another cache line.
    phases = request.phase_count
    copied = geometry.small_channels // g * taps * costs.copy if taps > phases else 0
    stored: float = geometry.large_channels // g * phases * (1 + min(cols.stride, costs.line) / 2)
    return Proposal(0, costs.calls * phases + pixels * (copied + stored))


def prepare(engine: Engine, request: Request, proposal: Proposal, make_count: MakeCount) -> Run:
    """The contraction as a function of arrays."""
    geometry = request.geometry

    def small(large: Array, weight: Array, bias: Array | None, out: Array) -> None:
        to_small(engine, geometry, large, weight, out)

    def large(small: Array, weight: Array, bias: Array | None, out: Array) -> None:
        to_large(engine, geometry, writing_large(geometry), small, weight, out)

    def weight(large: Array, small: Array, bias: Array | None, out: Array) -> None:
        to_weight(engine, geometry, large, small, out)

    run = InitializedRun({"small": small, "large": large, "weight": weight}[request.target])
    return guarded_writing(engine, request, run, make_count) if request.to_large else run


def to_small(engine: Engine, geometry: Geometry, large: Array, weight: Array, small: Array) -> None:
    """Add to `small` (N, K, P, Q) the convolution of `large` (N, C, H, W) with `weight` (K, C/G, R, S)."""
    g = geometry.groups
    large, weight, small = grouped(large, 1, g), grouped(weight, 0, g), grouped(small, 1, g)
    _correlate(engine, reading_large(geometry), large, weight, small)


def to_large(
    engine: Engine, geometry: Geometry, phases: Iterable[Phase], small: Array, weight: Array, large: Array
) -> None:
    """Add to `large` (N, C, H, W) the transposed convolution of `small` (N, K, P, Q) with `weight` (K, C/G, R, S),
    phase by phase."""
    g = geometry.groups
    small, weight, large = grouped(small, 1, g), grouped(weight, 0, g).swapaxes(1, 2), grouped(large, 1, g)
    for phase in phases:
        _correlate(engine, phase, small, weight[..., *phase.kernel_slices], large[..., *phase.out_slices])


def to_weight(engine: Engine, geometry: Geometry, large: Array, small: Array, weight: Array) -> None:
    """Add to `weight` (K, C/G, R, S) the correlation of `large` (N, C, H, W) with `small` (N, K, P, Q)."""
    g = geometry.groups
    large, small, weight = grouped(large, 1, g), grouped(small, 1, g), grouped(weight, 0, g)
    phase = reading_large(geometry)
    for block in _blocks(_Extents.of(phase, large.shape, small.shape)):
        windows = _windows(large, phase, block)
        engine.correlate_weight(windows, small[block.outputs], weight[block.groups, :, block.channels])


def _correlate(engine: Engine, phase: Phase, source: Array, weight: Array, out: Array) -> None:
    weight = np.ascontiguousarray(weight)  # a phase's taps are strided and reversed; once is cheaper than each block
    for block in _blocks(_Extents.of(phase, source.shape, out.shape)):
        windows = _windows(source, phase, block)
        engine.correlate(windows, weight[block.groups, :, block.channels], out[block.outputs])


def workspace(request: Request, proposal: Proposal) -> int:
    """The most bytes that a block takes beyond its input and output."""
    geometry = request.geometry
    g = geometry.groups
    large = (geometry.batch, g, geometry.large_channels // g)
    small = (geometry.batch, g, geometry.small_channels // g)
    if request.to_large:
        sizes = [_Extents.of(equivalent.first, small, large).workspace() for equivalent in request.equivalent]
    else:
        sizes = [_Extents.of(reading_large(geometry), large, small).workspace()]
    return max(sizes, default=0) * request.itemsize


class _Extents(NamedTuple):
    """What a correlation runs over: images, groups, channels read and written in a group, taps, output pixels."""

    images: int
    groups: int
    channels: int
    results: int
    taps: int
    rows: int
    cols: int

    @classmethod
    def of(cls, phase: Phase, source: Sequence[int], result: Sequence[int]) -> "_Extents":
        """The extents of a phase between maps of shapes (n, g, c, ...) and (n, g, k, ...)."""
        taps = phase.rows.taps * phase.cols.taps
        n, g, c = source[:3]
        return cls(max(1, n), g, c, result[2], taps, phase.rows.outputs, phase.cols.outputs)

    def workspace(self) -> int:
        """Elements, at most, of a block's padded span, columns and products, and of the phase's weight, whole and in
        part. The span is never larger than the columns."""
        n, g, c, p, q = self.block_lengths()
        columns = n * g * c * self.taps * p * q
        products = n * g * self.results * p * q
        weight = self.results * self.taps * (self.groups * self.channels + g * c)
        return 2 * columns + products + weight

    def block_lengths(self) -> tuple[int, int, int, int, int]:
        """(images, groups, channels, rows, cols) of a block.

        First as many channels as leave space for `width` pixels; then as many pixels as fit, row by row, image by
        image; then groups. The columns and the products of a block have at most `matrix` elements, unless the taps of
        one channel alone have more.
        """
        costs = window_costs.WINDOW_COSTS
        width = max(1, min(costs.width, self.images * self.rows * self.cols))
        channels = even_block(costs.matrix // (self.taps * width), self.channels)
        most_pixels = costs.matrix // max(channels * self.taps, self.results)
        cols = even_block(most_pixels, self.cols)
        rows = even_block(most_pixels // cols, self.rows)
        images = even_block(most_pixels // (cols * rows), self.images)
        return images, even_block(most_pixels // (cols * rows * images), self.groups), channels, rows, cols


class _Block(NamedTuple):
    images: slice
    groups: slice
    channels: slice
    rows: slice
    cols: slice

    @property
    def outputs(self) -> tuple[slice, slice, slice, slice, slice]:
        """The index of the block in an output (n, g, k, p, q)."""
        return self.images, self.groups, slice(None), self.rows, self.cols


def _blocks(extents: _Extents) -> Iterator[_Block]:
    n, g, c, p, q = extents.block_lengths()
    for images in slices_of(extents.images, n):
        for groups in slices_of(extents.groups, g):
            for rows in slices_of(extents.rows, p):
                for cols in slices_of(extents.cols, q):
                    for channels in slices_of(extents.channels, c):
                        yield _Block(images, groups, channels, rows, cols)


def slices_of(extent: int, length: int) -> list[slice]:
    """An extent in slices of a length, of which the last may be shorter."""
    return [slice(start, min(start + length, extent)) for start in range(0, extent, length)]


def _windows(source: Array, phase: Phase, block: _Block) -> Array:
    """The windows of a block: (n, g, c, r, s, p, q), see `backends.contract`."""
    source = source[block.images, block.groups, block.channels]
    rows, cols = phase.rows, phase.cols
    down, across = _span(rows, block.rows), _span(cols, block.cols)
    if down.start >= 0 and down.stop <= source.shape[3] and across.start >= 0 and across.stop <= source.shape[4]:
        return _view(source[..., down, across], phase, block)
    taps_and_pixels = rows.taps * cols.taps * _length(block.rows) * _length(block.cols)
    if _length(down) * _length(across) <= taps_and_pixels:
        return _view(padded(source, down, across), phase, block)
    return _filled(source, phase, block)


def _span(axis_map: AxisMap, outputs: slice) -> slice:
    """The source positions that the outputs of a block read, from the first to the last; some may be outside."""
    start = outputs.start * axis_map.stride - axis_map.pad
    return slice(start, start + (_length(outputs) - 1) * axis_map.stride + (axis_map.taps - 1) * axis_map.dilation + 1)


def _view(span: Array, phase: Phase, block: _Block) -> Array:
    """Windows that all lie inside the map: they share its memory."""
    n, g, c, _, _ = span.shape
    *outer, down, right = span.strides
    rows, cols = phase.rows, phase.cols
    return np.lib.stride_tricks.as_strided(
        span,
        (n, g, c, rows.taps, cols.taps, _length(block.rows), _length(block.cols)),
        (*outer, down * rows.dilation, right * cols.dilation, down * rows.stride, right * cols.stride),
        writeable=False,
    )


def padded(source: Array, down: slice, across: slice) -> Array:
    """The rows `down` and the columns `across` of maps (..., h, w), copied into an array of zeros, row by row: some may
    be outside of the map."""
    *outer, height, width = source.shape
    spans = np.zeros((*outer, _length(down), _length(across)), source.dtype)
    first_row, end_row = max(0, down.start), max(0, min(height, down.stop))
    first_col, end_col = max(0, across.start), max(0, min(width, across.stop))
    if first_row < end_row and first_col < end_col:
        spans[..., first_row - down.start : end_row - down.start, first_col - across.start : end_col - across.start] = (
            source[..., first_row:end_row, first_col:end_col]
        )
    return spans


def _filled(source: Array, phase: Phase, block: _Block) -> Array:
    """Windows whose span has more elements than they have, by a long stride or dilation: each tap is copied by itself.

    Their order in memory is that of the columns that an engine makes of them.
    """
    n, g, c, height, width = source.shape
    rows, cols = phase.rows, phase.cols
    p, q = _length(block.rows), _length(block.cols)
    windows = np.zeros((g, c, rows.taps, cols.taps, n, p, q), source.dtype).transpose(4, 0, 1, 2, 3, 5, 6)
    across = [cols.linked(b, width, block.cols) for b in range(cols.taps)]
    for a in range(rows.taps):
        to_rows, from_rows = rows.linked(a, height, block.rows)
        for b, (to_cols, from_cols) in enumerate(across):
            windows[:, :, :, a, b, to_rows, to_cols] = source[..., from_rows, from_cols]
    return windows


def _length(positions: slice) -> int:
    return int(positions.stop - positions.start)


def grouped(array: Array, axis: int, groups: int) -> Array:
    """A view whose `axis` of channels is split into (groups, channels in a group)."""
    shape = array.shape
    return array.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])
