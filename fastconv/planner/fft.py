"""The kernel `fft`: correlations as products of spectra, in overlapped tiles (overlap-save), for every engine.

With stride 1 both maps are written as correlations: the large map is one of the small map with the kernel turned around
(`problem.subpixel`). A tile of T x T positions gives L x L outputs, T = L + span - 1.

    map      a tile's spectrum = source's spectrum * conj(kernel's spectrum), summed over channels
    weight   kernel's spectrum = source's spectrum * conj(small map's spectrum), summed over tiles and images

For each frequency the sum is a product of complex matrices, which NumPy's BLAS computes. Groups, results and tiles are
cut into blocks, so that all spectra of a block take a bounded workspace. Its channels, then its frequencies, then its
results are divided among threads (`fft_passes`).

Transforms are `numpy.fft`'s, in the precision of their argument. SciPy's would be a package that may be missing, and
whose bits differ.

Tiles and blocks depend on the problem of one image alone, and matrices are so small that BLAS computes them on one
thread. So the bits of a map depend neither on the number of threads nor on the other images of a batch.

Sources: A. Oppenheim, R. Schafer, Discrete-Time Signal Processing, section 8.7 (overlap-save); M. Mathieu, M. Henaff,
Y. LeCun, Fast Training of Convolutional Networks through FFTs, 2014.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from fastconv.backends.contract import AnyEngine, Run, float_mode
from fastconv.backends.python_threads import Workers
from fastconv.planner import window_costs
from fastconv.planner.blocking import even_block
from fastconv.planner.fft_costs import COSTS
from fastconv.planner.fft_passes import SLAB, Blocks, Passes, Tiling
from fastconv.planner.im2col import grouped
from fastconv.planner.request import Proposal, Request
from fastconv.planner.steps import MakeCount
from fastconv.problem.arrays import Array
from fastconv.problem.subpixel import AxisMap, Phase

#: The longest tile on an axis: a longer one gains nothing, as a number costs more in a longer transform.
_LONGEST = 2**16
#: Numbers of tiles on an axis that are tried.
_COUNTS = *range(1, 9), *(2**i * j for i in range(1, 20) for j in (5, 6, 7, 8))


def applies(request: Request) -> str | None:
    """Why a contraction is not computed by spectra."""
    if request.stands_for:
        return "it makes no plans, of which a product of matrices is made"
    if request.itemsize not in (4, 8):
        return "it computes in float32 and float64 only"
    if any(axis.stride > 1 for axis in request.geometry.axes):
        return "the stride is not 1"
    if any(2 * axis.dilation * (axis.taps - 1) > _LONGEST for axis in request.geometry.axes):
        return f"the kernel spans more than {_LONGEST // 2:,} pixels"
    if request.phase_count != 1:
        return "the map is not written by one correlation"
    return None


def propose(request: Request) -> Proposal:
    """How it computes a contraction, and what that costs."""
    geometry, costs = request.geometry, COSTS
    if request.layout is not None:
        starting = costs.margin * costs.start * 1e-9 * request.model.multiply_adds
        if starting > costs.hopeless * request.least_cost:  # finding tiles would take longer than the other kernels
            return Proposal(0, starting / request.threads)
    _, of_weight, of_image = _plan_of(_extents(request))
    images = 1 if request.target == "weight" else geometry.batch
    nanoseconds = costs.start + of_weight + images * of_image
    if request.layout is None:  # less the products of the definition, which the others compute besides
        products = 1000 * geometry.flops / window_costs.WINDOW_COSTS.flops
        return Proposal(0, costs.window_margin * nanoseconds - products)
    nanoseconds *= costs.margin
    return Proposal(0, nanoseconds * 1e-9 * request.model.multiply_adds / request.threads)


def prepare(engine: AnyEngine, request: Request, proposal: Proposal, make_count: MakeCount) -> Run:
    """The contraction as a function of arrays."""
    extents, g = _extents(request), request.geometry.groups
    phase, target = extents.phase, request.target
    passes = Passes(_plan_of(extents)[0], phase, Workers(request.threads, float_mode(engine)))

    def run(first: Array, second: Array, bias: Array | None, out: Array) -> None:
        with np.errstate(all="ignore"):
            if target == "weight":
                passes.to_weight(first, second, grouped(out, 0, g))
                return
            weight, written = grouped(second, 0, g), out
            if target == "large":
                weight = weight.swapaxes(1, 2)[..., *phase.kernel_slices]
                written = out[..., *phase.out_slices]
                if written.shape != out.shape:
                    out[...] = 0 if bias is None else bias[:, None, None]
            passes.to_map(first, weight, bias, written)

    return run


def workspace(request: Request, proposal: Proposal) -> int:
    """Bytes of the spectra of a block, and of what each thread transforms at a time."""
    extents = _extents(request)
    blocks = _plan_of(extents)[0]
    height, half = blocks.spectrum
    frequencies = height * half
    kernels = blocks.groups * blocks.results * extents.channels
    maps = blocks.groups * (blocks.results + extents.channels) * blocks.tiles
    spectra = frequencies * (maps + kernels * (2 if extents.to_weight else 1))
    least = max(blocks.tiles, extents.channels * (extents.results if blocks.groups > 1 else 1)) * frequencies
    each = 4 * max(SLAB, least)
    # memory comes in sizes that are up to an eighth larger
    return 2 * request.itemsize * (spectra * 9 // 8 + request.threads * each)


class _Extents(NamedTuple):
    """What decides how a correlation is computed: groups, channels and results of a group, images that are summed."""

    groups: int
    channels: int
    results: int
    phase: Phase
    to_weight: bool
    images: int
    itemsize: int


def _extents(request: Request) -> _Extents:
    geometry, g = request.geometry, request.geometry.groups
    channels, results = geometry.large_channels // g, geometry.small_channels // g
    if request.to_large:
        channels, results = results, channels
    to_weight = request.target == "weight"
    images = geometry.batch if to_weight else 1
    return _Extents(g, channels, results, request.phases[0], to_weight, images, request.itemsize)


@functools.lru_cache(512)
def _plan_of(extents: _Extents) -> tuple[Blocks, float, float]:
    """The cheapest tiles, in blocks whose spectra fit into the workspace, and the nanoseconds of `_cost`."""
    costs, (g, c, k) = COSTS, extents[:3]
    rows, cols = (_tilings(axis) for axis in extents.phase)
    found = _cost(extents, np.array(rows, float).T[:, :, None], np.array(cols, float).T[:, None, :])
    i, j = divmod(int(np.argmin(np.where(_fits(extents, rows, cols), sum(found), np.inf))), len(cols))
    (height, width), (down, across) = ([tiling[n] for tiling in (rows[i], cols[j])] for n in (1, 0))
    spectra = costs.spectra_bytes // (2 * extents.itemsize * height * (width // 2 + 1))
    groups = even_block(spectra // (c * k), g)
    results = even_block(spectra // (groups * c), k)
    most = spectra // (groups * (c + results))
    tile_cols = even_block(most, across)
    tile_rows = even_block(most // tile_cols, down)
    images = even_block(most // (down * across), extents.images)
    blocks = Blocks(rows[i], cols[j], groups, results, tile_rows, tile_cols, images)
    of_weight, of_images = (float(cost[i, j]) for cost in found)
    return blocks, of_weight, of_images


def _fits(extents: _Extents, rows: list[Tiling], cols: list[Tiling]) -> Any:
    """For all pairs of tilings whether spectra of a tile of all channels fit into a block, or are the shortest."""
    frequencies = np.outer([one.length for one in rows], [one.length // 2 + 1 for one in cols])
    most = COSTS.spectra_bytes // (2 * extents.itemsize * (extents.channels + 1))
    return frequencies <= max(most, frequencies.min())


def _cost(extents: _Extents, rows: Any, cols: Any) -> tuple[Any, Any]:
    """Nanoseconds on one thread for the spectra of the weight, and for what is done for each image, or for all images
    if they are summed: for all pairs of tilings (tiles, length, outputs) of rows and columns."""
    costs, (g, c, k) = COSTS, extents[:3]
    (down, height, high), (across, width, _) = rows, cols
    half, tiles, images = np.floor(width / 2) + 1, down * across, extents.images
    row = costs.line + costs.real * width * np.log2(width + 1)
    column = costs.line + (costs.complex * np.log2(height) + costs.between) * height
    columns = half * (column * (height > 1) + costs.move * height)
    of_source = across * (down * high + height - high) * row + tiles * columns
    of_result = tiles * (high * row + columns)
    of_kernel = extents.phase.rows.taps * row + columns
    summed, frequencies = tiles * images, height * half
    if c == 1:
        product = costs.multiply_alone * k * summed
    else:
        terms, sums = max(c, costs.fewest_terms), np.maximum(summed, costs.fewest_columns)
        product = costs.call + costs.multiply * k * terms * sums
    # each block of results reads the source again
    again = np.clip(2 * extents.itemsize * c * k * frequencies / costs.spectra_bytes, 1, k)
    maps = images * (c * again * of_source + k * of_result)
    size = g * extents.itemsize / 4
    return size * c * k * of_kernel, size * (maps + frequencies * product)


@functools.lru_cache(512)
def _tilings(axis: AxisMap) -> list[Tiling]:
    """Ways to cut an axis: a single tile, or several, down to tiles that are little longer than the kernel."""
    halo = axis.dilation * (axis.taps - 1)
    found: dict[int, Tiling] = {}
    for count in _COUNTS:
        length = good_length(-(-axis.outputs // count) + halo)
        if length <= _LONGEST:
            found[length] = Tiling(-(-axis.outputs // (length - halo)), length, length - halo)
        if count >= axis.outputs or 4 * length <= 5 * halo:
            break
    return list(found.values())


@functools.lru_cache(4096)
def good_length(least: int) -> int:
    """The shortest length from `least` on that is 1, or even and a product of 2, 3 and 5: its transform is quick."""
    if least == 1:
        return 1
    length = least + least % 2
    while not _is_smooth(length):
        length += 2
    return length


def _is_smooth(number: int) -> bool:
    for factor in (2, 3, 5):
        while number % factor == 0:
            number //= factor
    return number == 1
