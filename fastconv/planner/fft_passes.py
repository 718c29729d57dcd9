"""The passes of the kernel `fft` over blocks of tiles: spectra, their products, and back.

The *spectrum* of a tile of real numbers has the frequencies (row, column), of whose columns only those from 0 to half
the tile's width are kept: the others are their conjugates. In a block of spectra the frequencies come first, so that
for each of them the numbers of all channels and tiles are a matrix.

All transforms have the norm `ortho`: with norms that leave a transform as it is, NumPy multiplies by the integer 1, and
converting that makes it up to five times slower.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fastconv.backends import memory
from fastconv.backends.python_threads import Workers
from fastconv.planner.im2col import padded, slices_of
from fastconv.problem.arrays import Array
from fastconv.problem.process import product
from fastconv.problem.subpixel import Phase

#: Complex numbers that a thread transforms at a time, about: they stay in its second-level cache.
SLAB = 2**15
#: Multiply-adds of the largest product of complex matrices that BLAS is given: OpenBLAS starts threads of its own for
#: larger ones, which would compete with ours.
_OF_ONE_THREAD = 2**15


class Windows(NamedTuple):
    """`number` windows of `length` positions, the first at `start`, each `step` behind the one before."""

    start: int
    number: int
    step: int
    length: int

    @property
    def span(self) -> slice:
        """The positions of all of them; some may be outside of the map."""
        return slice(self.start, self.start + (self.number - 1) * self.step + self.length)

    def of(self, array: Array, axis: int) -> Array:
        """A view of an array that holds the span along `axis`, which is split into (windows, positions)."""
        shape, strides = list(array.shape), list(array.strides)
        shape[axis : axis + 1] = self.number, self.length
        strides[axis : axis + 1] = self.step * strides[axis], strides[axis]
        return np.lib.stride_tricks.as_strided(array, shape, strides, writeable=False)


class Tiling(NamedTuple):
    """How an axis is cut: `tiles` tiles, each a transform of `length` positions that gives `outputs` outputs."""

    tiles: int
    length: int
    outputs: int

    def windows(self, tiles: slice, start: int, length: int) -> Windows:
        """Windows of some tiles, one behind the other; the first tile's begins at `start`."""
        return Windows(start + tiles.start * self.outputs, tiles.stop - tiles.start, self.outputs, length)


class Blocks(NamedTuple):
    """How a correlation is cut.

    rows, cols             the tiles
    groups, results        groups of a block, and results of each; several groups have all their results
    tile_rows, tile_cols   tiles of a block
    images                 images of a block
    """

    rows: Tiling
    cols: Tiling
    groups: int
    results: int
    tile_rows: int
    tile_cols: int
    images: int = 1

    @property
    def spectrum(self) -> tuple[int, int]:
        """Rows and columns of a spectrum."""
        return self.rows.length, self.cols.length // 2 + 1

    @property
    def tiles(self) -> int:
        """Tiles of a block, at most."""
        return self.images * self.tile_rows * self.tile_cols


class Passes(NamedTuple):
    """Both passes of a correlation. Maps are (n, channels, h, w), and weights (g, k, c, r, s) with k results and c
    channels of each group."""

    blocks: Blocks
    phase: Phase
    workers: Workers

    def to_map(self, source: Array, weight: Array, bias: Array | None, out: Array) -> None:
        """Write `out`, the correlation of `source` with `weight`."""
        g, k, c = weight.shape[:3]
        for groups, results in self._channel_blocks(g, k):
            kernels = self._kernel_spectra(weight[groups, results])
            of_source, of_out = _channels(groups, slice(0, c), c), _channels(groups, results, k)
            of_bias = None if bias is None else bias[of_out]
            for image in range(len(source)):
                for tiles in self._tile_blocks():
                    spectra = self._source_spectra(source[image : image + 1, of_source], tiles)
                    products = self._products(kernels, _grouped(spectra, c))
                    self._write_map(products, tiles, of_bias, out[image, of_out])

    def to_weight(self, source: Array, small: Array, weight: Array) -> None:
        """Write `weight`, the correlation of `source` with the small map."""
        g, k, c = weight.shape[:3]
        for groups, results in self._channel_blocks(g, k):
            of_source, of_small = _channels(groups, slice(0, c), c), _channels(groups, results, k)
            of_block = weight[groups, results]
            sums = None
            for images in slices_of(len(source), self.blocks.images):
                for tiles in self._tile_blocks():
                    factors = _grouped(self._small_spectra(small[images, of_small], tiles), of_block.shape[1])
                    spectra = _grouped(self._source_spectra(source[images, of_source], tiles), c)
                    products = self._products(factors, spectra.swapaxes(3, 4))
                    sums = products if sums is None else self._add(sums, products)
            if sums is not None:
                self._write_weight(sums, of_block)

    def _channel_blocks(self, groups: int, results: int) -> Iterator[tuple[slice, slice]]:
        for of_groups in slices_of(groups, self.blocks.groups):
            for of_results in slices_of(results, self.blocks.results):
                yield of_groups, of_results

    def _tile_blocks(self) -> Iterator[tuple[slice, slice]]:
        for rows in slices_of(self.blocks.rows.tiles, self.blocks.tile_rows):
            for cols in slices_of(self.blocks.cols.tiles, self.blocks.tile_cols):
                yield rows, cols

    def _kernel_spectra(self, weight: Array) -> Array:
        """The conjugate spectra (row, col, g, k, c) of a block of a weight, times what makes the transforms of a
        convolution orthonormal."""
        (height, half), width = self.blocks.spectrum, self.blocks.cols.length
        rows, cols = self.phase
        spectra = _space((height, half, *weight.shape[:3]), weight.dtype)
        written, scale = np.moveaxis(spectra, (0, 1), (3, 4)), weight.dtype.type(math.sqrt(height * width))

        def transform(part: slice) -> None:
            for index in _slabs(weight, part, height * half):
                taps = weight[index] * scale
                found = _columns(_rows(taps, width, cols.dilation), height, rows.dilation)
                written[index] = np.conjugate(found, out=found)

        self.workers.share(transform, weight.shape[_slab_axis(weight)])
        return spectra

    def _source_spectra(self, source: Array, tiles: tuple[slice, slice]) -> Array:
        """The spectra of a block of the source, see `_spectra`."""
        (rows, cols), (on_rows, on_cols) = self.blocks[:2], self.phase
        down = rows.windows(tiles[0], -on_rows.pad, rows.length)
        across = cols.windows(tiles[1], -on_cols.pad, cols.length)
        return self._spectra(source, down, across, is_conjugate=False)

    def _small_spectra(self, small: Array, tiles: tuple[slice, slice]) -> Array:
        """The conjugate spectra of a block of the small map: each tile is followed by zeros."""
        rows, cols = self.blocks[:2]
        down, across = rows.windows(tiles[0], 0, rows.outputs), cols.windows(tiles[1], 0, cols.outputs)
        return self._spectra(small, down, across, is_conjugate=True)

    def _spectra(self, maps: Array, down: Windows, across: Windows, is_conjugate: bool) -> Array:
        """The spectra (row, col, channel, tile) of the windows of maps (n, channels, h, w)."""
        (height, half), width = self.blocks.spectrum, self.blocks.cols.length
        n, channels = maps.shape[:2]
        spectra = _space((height, half, channels, n, down.number, across.number), maps.dtype)
        written = spectra.transpose(3, 2, 4, 5, 0, 1)
        step = max(1, SLAB // (n * down.number * across.number * height * half))

        def transform(part: slice) -> None:
            for some in slices_of(part.stop - part.start, step):
                of_channels = slice(part.start + some.start, part.start + some.stop)
                span = padded(maps[:, of_channels], down.span, across.span)
                found = _columns(down.of(_rows(across.of(span, 3), width), 2).swapaxes(3, 4), height)
                # by assignment, as NumPy's functions write in the order in which they read
                written[:, of_channels] = np.conjugate(found, out=found) if is_conjugate else found

        self.workers.share(transform, channels)
        return spectra.reshape(height, half, channels, -1)

    def _products(self, first: Array, second: Array) -> Array:
        """The products (row, col, g, k, n) of the matrices (row, col, g, k, m) and (row, col, g, m, n)."""
        *outer, k, m = first.shape
        n = second.shape[-1]
        products = _space((*outer, k, n), first.real.dtype)
        a, b, out = (array.reshape(-1, *array.shape[2:]) for array in (first, second, products))
        rows = max(1, _OF_ONE_THREAD // (m * n))

        def multiply(part: slice) -> None:
            if m == 1:
                np.multiply(a[part], b[part], out=out[part])
                return
            for some in slices_of(k, rows):
                product(a[part, :, some], b[part], out[part, :, some])

        self.workers.share(multiply, len(out))
        return products

    def _add(self, sums: Array, products: Array) -> Array:
        def add(part: slice) -> None:
            np.add(sums[part], products[part], out=sums[part])

        self.workers.share(add, len(sums))
        return sums

    def _write_map(self, products: Array, tiles: tuple[slice, slice], bias: Array | None, out: Array) -> None:
        """Transform the products (row, col, g, k, tile) of a block back, and write the outputs (channels, p, q)."""
        (height, half), (rows, cols) = self.blocks.spectrum, self.blocks[:2]
        of_tiles = [(i, j) for i in range(tiles[0].start, tiles[0].stop) for j in range(tiles[1].start, tiles[1].stop)]
        read = np.moveaxis(products.reshape(height, half, len(out), len(of_tiles)), (0, 1), (2, 3))
        step = max(1, SLAB // (len(of_tiles) * height * half))

        def transform(part: slice) -> None:
            for some in slices_of(part.stop - part.start, step):
                channels = slice(part.start + some.start, part.start + some.stop)
                found = _inverse(read[channels], cols.length, slice(0, rows.outputs))
                if bias is not None:
                    found += bias[channels, None, None, None]
                for number, (i, j) in enumerate(of_tiles):
                    block = out[channels, i * rows.outputs : (i + 1) * rows.outputs,
                                j * cols.outputs : (j + 1) * cols.outputs]  # fmt: skip
                    block[...] = found[:, number, : block.shape[1], : block.shape[2]]

        self.workers.share(transform, len(out))

    def _write_weight(self, sums: Array, weight: Array) -> None:
        """Transform sums (row, col, g, k, c) back and write the weight."""
        height, half = self.blocks.spectrum
        rows, cols = self.phase
        width = self.blocks.cols.length
        read, scale = np.moveaxis(sums, (0, 1), (3, 4)), weight.dtype.type(math.sqrt(height * width))
        of_rows, of_cols = (slice(0, axis.dilation * (axis.taps - 1) + 1, axis.dilation) for axis in (rows, cols))

        def transform(part: slice) -> None:
            for index in _slabs(weight, part, height * half):
                found = _inverse(read[index], width, of_rows)
                np.multiply(found[..., of_cols], scale, out=weight[index])

        self.workers.share(transform, weight.shape[_slab_axis(weight)])


def _space(shape: tuple[int, ...], dtype: Any) -> Array:
    """Memory for spectra of real numbers of this dtype."""
    return memory.empty(shape, np.result_type(dtype, np.complex64))


def _rows(tiles: Array, width: int, step: int = 1) -> Array:
    """The transforms along the rows of tiles (..., row, col) of `width` columns; every `step`-th column is given."""
    return np.fft.rfft(_extended(tiles, -1, width, step), norm="ortho")


def _columns(found: Array, height: int, step: int = 1) -> Array:
    """The spectra of tiles of `height` rows; `found` has the transforms along every `step`-th row."""
    extended = _extended(found, -2, height, step)
    return extended if height == 1 else np.fft.fft(extended, axis=-2, norm="ortho", out=extended)


def _extended(numbers: Array, axis: int, length: int, step: int) -> Array:
    """A copy with `step` - 1 zeros between the numbers of an axis, and zeros behind them.

    NumPy's transforms take zeros themselves, and views, but take up to four times as long then.
    """
    shape, count = list(numbers.shape), numbers.shape[axis]
    shape[axis] = length
    extended = (np.empty if count == length else np.zeros)(shape, numbers.dtype)
    np.moveaxis(extended, axis, -1)[..., : (count - 1) * step + 1 : step] = np.moveaxis(numbers, axis, -1)
    return extended


def _inverse(spectra: Array, width: int, rows: slice) -> Array:
    """The tiles of spectra (..., row, col), of which these rows are needed."""
    if spectra.shape[-2] > 1:
        spectra = np.fft.ifft(np.ascontiguousarray(spectra), axis=-2, norm="ortho")[..., rows, :]
    return np.fft.irfft(spectra, width, norm="ortho")


def _channels(groups: slice, of_group: slice, channels: int) -> slice:
    """The channels of a map that belong to these groups, or to a part of one group."""
    start = groups.start * channels + of_group.start
    return slice(start, (groups.stop - 1) * channels + of_group.stop)


def _grouped(spectra: Array, channels: int) -> Array:
    """Spectra (row, col, channel, tile) as (row, col, g, c, tile)."""
    return spectra.reshape(*spectra.shape[:2], -1, channels, spectra.shape[3])


def _slab_axis(weight: Array) -> int:
    """The axis of a weight along which it is cut into slabs: groups if there are several, or else results."""
    return 0 if len(weight) > 1 else 1


def _slabs(weight: Array, part: slice, frequencies: int) -> Iterator[tuple[slice, ...]]:
    """The indices of slabs of a weight, in a part of `_slab_axis`."""
    axis = _slab_axis(weight)
    each = math.prod(weight.shape[axis + 1 : 3]) * frequencies
    for some in slices_of(part.stop - part.start, max(1, SLAB // each)):
        yield (slice(None),) * axis + (slice(part.start + some.start, part.start + some.stop),)
