"""Direct convolution: every tap of the kernel is multiplied once, block by block, over strided windows.

A block is some images, groups and channels times a rectangle of output pixels. Its source is cut out of the map,
zero-padded only where it sticks out, and handed to the engine as windows. Memory beyond input and output is one
block's, whatever the problem's size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fastconv.engines.contract import Engine
from fastconv.ground.arrays import Array
from fastconv.ground.geometry import Geometry
from fastconv.ground.phases import Line, Phase, reading_large, writing_large

NAME = "direct"

Contraction = Literal["small", "large", "weight"]

#: Elements of the largest matrix of a block. Larger blocks wait less often for BLAS threads to meet, smaller ones stay
#: in a smaller cache; this is the size at which layers of ResNet-50 stop gaining.
BUDGET = 2**20
#: Pixels that a block keeps, where it can, at the expense of channels: BLAS needs a matrix to be wide.
_WIDTH = 128


def declines(geometry: Geometry) -> str | None:
    """Why the problem cannot be computed directly: never."""
    return None


def to_small(engine: Engine, geometry: Geometry, large: Array, weight: Array, small: Array) -> None:
    """Add to `small` (N, K, P, Q) the convolution of `large` (N, C, H, W) with `weight` (K, C/G, R, S)."""
    g = geometry.groups
    large, weight, small = _grouped(large, 1, g), _grouped(weight, 0, g), _grouped(small, 1, g)
    _correlate(engine, reading_large(geometry), large, weight, small)


def to_large(engine: Engine, geometry: Geometry, small: Array, weight: Array, large: Array) -> None:
    """Add to `large` (N, C, H, W) the transposed convolution of `small` (N, K, P, Q) with `weight` (K, C/G, R, S)."""
    g = geometry.groups
    small, weight, large = _grouped(small, 1, g), _grouped(weight, 0, g).swapaxes(1, 2), _grouped(large, 1, g)
    for phase in writing_large(geometry):
        _correlate(engine, phase, small, weight[..., *phase.taps], large[..., *phase.place])


def to_weight(engine: Engine, geometry: Geometry, large: Array, small: Array, weight: Array) -> None:
    """Add to `weight` (K, C/G, R, S) the correlation of `large` (N, C, H, W) with `small` (N, K, P, Q)."""
    g = geometry.groups
    large, small, weight = _grouped(large, 1, g), _grouped(small, 1, g), _grouped(weight, 0, g)
    phase = reading_large(geometry)
    for block in _blocks(_Extents.of(phase, large.shape, small.shape)):
        windows = _windows(large, phase, block)
        engine.correlate_weight(windows, small[block.outputs], weight[block.groups, :, block.channels])


def _correlate(engine: Engine, phase: Phase, source: Array, weight: Array, out: Array) -> None:
    weight = np.ascontiguousarray(weight)  # a phase's taps are strided and reversed; once is cheaper than each block
    for block in _blocks(_Extents.of(phase, source.shape, out.shape)):
        windows = _windows(source, phase, block)
        engine.correlate(windows, weight[block.groups, :, block.channels], out[block.outputs])


def workspace(geometry: Geometry, contraction: Contraction, itemsize: int) -> int:
    """The most bytes that a block of `contraction` takes beyond its input and output."""
    g = geometry.groups
    large = (geometry.batch, g, geometry.large_channels // g)
    small = (geometry.batch, g, geometry.small_channels // g)
    if contraction == "large":
        sizes = [_Extents.of(phase, small, large).workspace(phase) for phase in writing_large(geometry)]
    else:
        phase = reading_large(geometry)
        sizes = [_Extents.of(phase, large, small).workspace(phase)]
    return max(sizes, default=0) * itemsize


@dataclass(frozen=True, slots=True)
class _Extents:
    """What a correlation runs over: images, groups, channels read and written in a group, taps, output pixels."""

    images: int
    groups: int
    channels: int
    results: int
    taps: int
    rows: int
    cols: int

    @classmethod
    def of(cls, phase: Phase, source: Sequence[int], result: Sequence[int]) -> _Extents:
        """The extents of a phase between maps of shapes (n, g, c, ...) and (n, g, k, ...)."""
        taps = phase.rows.taps * phase.cols.taps
        n, g, c = source[:3]
        return cls(n, g, c, result[2], taps, phase.rows.outputs, phase.cols.outputs)

    def workspace(self, phase: Phase) -> int:
        """Elements of a block's cut, columns and products, and of the phase's weight, in whole and cut to the block."""
        n, g, c, p, q = self.block_lengths()
        cut = n * g * c * _reach(phase.rows, p) * _reach(phase.cols, q)
        columns = n * g * c * self.taps * p * q
        products = n * g * self.results * p * q
        weight = self.results * self.taps * (self.groups * self.channels + g * c)
        return cut + columns + products + weight

    def block_lengths(self) -> tuple[int, int, int, int, int]:
        """(images, groups, channels, rows, cols) of a block.

        First as many channels as leave room for `_WIDTH` pixels; then as many pixels as fit, row by row, image by
        image; then groups. The columns and the products of a block have at most BUDGET elements, unless the taps of
        one channel alone have more.
        """
        width = max(1, min(_WIDTH, self.images * self.rows * self.cols))
        channels = _even(BUDGET // (self.taps * width), self.channels)
        room = BUDGET // max(channels * self.taps, self.results)
        cols = _even(room, self.cols)
        rows = _even(room // cols, self.rows)
        images = _even(room // (cols * rows), self.images)
        return images, _even(room // (cols * rows * images), self.groups), channels, rows, cols


@dataclass(frozen=True, slots=True)
class _Block:
    images: slice
    groups: slice
    channels: slice
    rows: slice
    cols: slice

    @property
    def outputs(self) -> tuple[slice, slice, slice, slice, slice]:
        """The block's place in an output (n, g, k, p, q)."""
        return self.images, self.groups, slice(None), self.rows, self.cols


def _even(most: int, extent: int) -> int:
    """The length that cuts `extent` into the fewest pieces of at most `most` (at least 1), as equal as can be."""
    pieces = -(-extent // max(1, min(most, extent)))
    return -(-extent // pieces)


def _blocks(extents: _Extents) -> Iterator[_Block]:
    n, g, c, p, q = extents.block_lengths()
    for images in _pieces(extents.images, n):
        for groups in _pieces(extents.groups, g):
            for rows in _pieces(extents.rows, p):
                for cols in _pieces(extents.cols, q):
                    for channels in _pieces(extents.channels, c):
                        yield _Block(images, groups, channels, rows, cols)


def _pieces(extent: int, length: int) -> Sequence[slice]:
    return [slice(start, min(start + length, extent)) for start in range(0, extent, length)]


def _reach(line: Line, outputs: int) -> int:
    """Source positions that `outputs` consecutive outputs meet, from the first to the last."""
    return (outputs - 1) * line.hop + line.reach


def _windows(source: Array, phase: Phase, block: _Block) -> Array:
    """The windows of a block: a view (n, g, c, r, s, p, q) of its cut, see `engines.contract`."""
    rows, cols = phase.rows, phase.cols
    cut = _cut(source[block.images, block.groups, block.channels], rows, cols, block)
    n, g, c, _, _ = cut.shape
    *outer, down, right = cut.strides
    return np.lib.stride_tricks.as_strided(
        cut,
        (n, g, c, rows.taps, cols.taps, _length(block.rows), _length(block.cols)),
        (*outer, down * rows.step, right * cols.step, down * rows.hop, right * cols.hop),
        writeable=False,
    )


def _cut(source: Array, rows: Line, cols: Line, block: _Block) -> Array:
    """The part of `source` (n, g, c, rows, cols) that the outputs of a block meet: a view if it lies inside, and
    else a copy in a field of zeros."""
    *outer, height, width = source.shape
    from_rows, to_rows, down = _overlap(rows, block.rows, height)
    from_cols, to_cols, across = _overlap(cols, block.cols, width)
    inside = source[..., from_rows, from_cols]
    if inside.shape[3:] == (down, across):
        return inside
    cut = np.zeros((*outer, down, across), source.dtype)
    cut[..., to_rows, to_cols] = inside
    return cut


def _overlap(line: Line, outputs: slice, extent: int) -> tuple[slice, slice, int]:
    """Of the source positions that `outputs` meet: those inside `extent`, their place among all, how many all are."""
    start = outputs.start * line.hop - line.before
    length = _reach(line, _length(outputs))
    first = min(max(0, start), extent)
    last = max(first, min(extent, start + length))
    return slice(first, last), slice(first - start, last - start) if last > first else slice(0, 0), length


def _length(piece: slice) -> int:
    return int(piece.stop - piece.start)


def _grouped(array: Array, axis: int, groups: int) -> Array:
    """A view whose `axis` of channels is split into (groups, channels in a group)."""
    shape = array.shape
    return array.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])
