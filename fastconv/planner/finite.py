"""Guards around runs that are right only for a finite second factor: they mend the result if it has infinities or NaNs.

Zero times infinity is NaN, and runs treat zeros freely. One that reads the large map skips some of the padding: the
missing NaNs are set afterwards. One that writes it multiplies zeros beside the small map, where no tap is linked: it is
run on a finite copy of the factor, and the outputs that are linked to its odd elements, those that are infinite or NaN,
get the products with them afterwards.

Whether there are odd elements shows in the result. A sum with an infinite or NaN product is never finite again, so it
is enough to check a few pixels of the result whose sums together contain every element of the factor: for most problems
one pixel, whose taps are all inside the map. That costs a microsecond, however large the factor is: `_FinitenessCheck`.

A few odd elements are mended one by one. If they are many, contractions of ones and marks count how many of them each
output is linked to, which takes a few times as long as a run with finite numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from fastconv.backends.contract import Run
from fastconv.problem.arrays import Array
from fastconv.problem.axes import Axis
from fastconv.problem.cached import CachedProperty
from fastconv.problem.geometry import Geometry
from fastconv.problem.memory_order import empty_like
from fastconv.problem.process import product
from fastconv.problem.subpixel import AxisMap, equivalent_maps, reading_map

#: The contraction of one image of ones, with one channel in each group, and the given second factor.
Count: TypeAlias = Callable[[Array], Array]
#: Odd elements, at most, that are mended one by one.
_FEW = 3
#: Elements, at most, of a factor that is checked itself: that takes no longer than checking one pixel of the result.
_SHORT = 2**12
#: Elements of a factor that are checked in the time of one number of a pixel, which is in a cache line of its own.
_LINE = 32
#: Pixels of the result, at most, that are checked in place of the factor.
_PIXELS = 16
#: Elements of a weight, about, that are checked before it is multiplied.
_SAMPLE = 64


def guard_reading(run: Run, geometry: Geometry, target: str, may_check_result: bool, count: Count) -> Run:
    """`run`, which reads the large map and skips some of its padding, made right for any second factor.

    `may_check_result`: the whole result may be checked, as it is smaller than the factor, and each element of
    the factor is in some sum.
    """
    to_weight = target == "weight"
    check = _FinitenessCheck(geometry, target, may_check_result)

    def guarded(first: Array, factor: Array, bias: Array | None, out: Array) -> None:
        run(first, factor, bias, out)
        if _is_finite(factor) if check.is_short(factor) else check.proves_finite(out):
            return
        if np.isnan(out).all():  # no NaN is missed
            return
        finite = np.isfinite(factor)
        if not finite.all():
            with np.errstate(all="ignore"):
                mend(~finite, out)

    def mend(odd: Array, out: Array) -> None:
        by_channel = out if to_weight else out.swapaxes(0, 1)  # of the small map
        if np.count_nonzero(odd) <= _FEW:
            for index, outputs, _ in _links(geometry, to_weight, odd):
                missed = np.full(out.shape[2:], np.nan, out.dtype)
                missed[outputs] = 0
                by_channel[index[to_weight]] += missed
            return
        # summed over images, or over channels of the large map: which of them is odd makes no difference
        marks = odd.sum(0, keepdims=True, dtype=out.dtype) if to_weight else _sum_channels(odd, out.dtype)
        k = len(by_channel)
        all_of_channel, linked = marks.reshape(k, -1).sum(1), count(marks).reshape(k, 1, *out.shape[2:])
        by_channel += _nan_unless_zero(np.subtract(all_of_channel[:, None, None, None], linked, out=linked))

    return guarded


def guard_writing(run: Run, geometry: Geometry, may_check_result: bool, count: Count) -> Run:
    """`run`, which writes the large map and is right for a finite weight only, made right for any weight.

    `may_check_result`: the whole result may be checked, as it is smaller than the weight, and each element of
    the weight is in some sum.
    """
    check = _FinitenessCheck(geometry, "large", may_check_result)
    groups, each = geometry.groups, geometry.large_channels // geometry.groups

    def guarded(small: Array, weight: Array, bias: Array | None, large: Array) -> None:
        is_short = check.is_short(weight)
        if is_short and _is_finite(weight):
            run(small, weight, bias, large)
            return
        has_run = not is_short and check.is_possible and _seems_finite(weight)
        if has_run:
            run(small, weight, bias, large)
            if check.proves_finite(large):
                return
        finite = np.isfinite(weight)
        if not finite.all():
            with np.errstate(all="ignore"):
                mend(small, weight, bias, large, ~finite)
        elif not has_run:
            run(small, weight, bias, large)

    def mend(small: Array, weight: Array, bias: Array | None, large: Array, odd: Array) -> None:
        if weight.dtype.kind == "c":
            _by_parts(guarded, small, weight, bias, large)
        elif np.count_nonzero(odd) <= _FEW:
            at = np.flatnonzero(odd)
            finite_weight = weight.copy()
            finite_weight.put(at, _finite_copy(weight.take(at)))
            run(small, finite_weight, bias, large)
            for index, outputs, positions in _links(geometry, False, odd):
                k, c = index[:2]
                c += k * groups // geometry.small_channels * each
                pixels: Any = (slice(None), c, *positions), (slice(None), k, *outputs)
                large[pixels[0]] += weight[index] * small[pixels[1]]
        else:
            links = count(odd.reshape(groups, -1, *odd.shape[1:]).sum(1, dtype=large.dtype))
            by_counts(small, weight, bias, large, links)

    def by_counts(small: Array, weight: Array, bias: Array | None, large: Array, links: Array) -> None:
        # a sum that has products with odd elements is infinite if these are infinities of one sign, and else NaN
        signs = (weight == np.inf).view(np.int8) - (weight == -np.inf).view(np.int8)
        if not signs.any():
            if links.min():
                large[...] = np.nan
            else:
                run(small, _finite_copy(weight), bias, large)
                large += _nan_unless_zero(links)
            return
        if links.min() and all(array is None or np.isfinite(array).all() for array in (small, bias)):
            large[...] = 0  # as each output is infinite or NaN, whatever its other products are
        else:
            run(small, _finite_copy(weight), bias, large)
        # +1 and -1 for each infinity, 0 for infinity times zero and NaN: in the first case they add up to their number
        balance, of_small = empty_like(large), empty_like(small)
        run(np.sign(small, out=of_small), signs.astype(weight.dtype), None, balance)
        others = np.abs(balance)
        large += _nan_unless_zero(np.subtract(links, others, out=others))
        large += _amplified(balance)

    return guarded


def _seems_finite(weight: Array) -> bool:
    """Whether a few elements of a large weight are finite: if many are not, this saves a useless run."""
    return _is_finite(weight.reshape(-1)[:: weight.size // _SAMPLE])


def _is_finite(numbers: Array) -> bool:
    """Whether a few numbers are finite: to look for a byte takes a microsecond less than `numpy.ndarray.all`."""
    return b"\0" not in np.isfinite(numbers).tobytes()


class _FinitenessCheck:
    """Checks by the result whether the second factor is finite: by a few pixels of it, or else by all of it."""

    def __init__(self, geometry: Geometry, target: str, may_check_all: bool) -> None:
        self._geometry, self._target = geometry, target
        self._to_weight = target == "weight"
        self._may_check_all = may_check_all

    @CachedProperty
    def _pixels(self) -> Array:
        """The pixels to check, see `_covering_pixels`."""
        return _covering_pixels(self._geometry, self._target)

    @CachedProperty
    def _short(self) -> int:
        """Elements, at most, of a factor that is checked itself, as that takes no longer than checking the pixels."""
        geometry = self._geometry
        maps = geometry.large_channels if self._target == "large" else geometry.small_channels
        return _LINE * maps * self._pixels.size

    def is_short(self, factor: Array) -> bool:
        """Whether the factor itself is checked, as it is short."""
        return factor.size <= _SHORT or factor.size <= self._short

    @property
    def is_possible(self) -> bool:
        """Whether the result can show it."""
        return self._may_check_all or self._pixels.size > 0

    def proves_finite(self, result: Array) -> bool:
        """True if the result proves the factor finite; False if the factor itself has to be checked."""
        if self._pixels.size:
            planes = result if self._to_weight else result[0]  # each begins with a map of one channel of the factor
            if result.flags.c_contiguous:
                return _is_finite(planes.reshape(len(planes), -1).take(self._pixels, 1))
            return _is_finite(planes[:, *divmod(self._pixels, planes.shape[2])])  # to reshape it would copy all of it
        return self._may_check_all and bool(np.isfinite(result).all())


def _covering_pixels(geometry: Geometry, target: str) -> Array:
    """Pixels of a map of the result whose sums together contain every element of the second factor; empty if they
    would be too many, or if an element is linked to no pixel. They serve for any image, or any channel of a weight.
    """
    rows, cols = (np.array(_covering_outputs(axis, target), np.intp) for axis in geometry.axes)
    width = geometry.axes[1]
    pitch = {"large": width.large, "small": width.small, "weight": width.taps}[target]
    pixels = np.add.outer(rows * pitch, cols).ravel()
    return pixels if len(pixels) <= _PIXELS else pixels[:0]


@functools.lru_cache(512)
def _covering_outputs(axis: Axis, target: str) -> list[int]:
    """The same on one axis; empty if they would be too many."""
    if target != "large":
        return _covering(_axis_map(axis, target == "weight"), axis.large)
    written = equivalent_maps(axis)
    if sum(len(maps) for maps in written) > _PIXELS or sum(len(maps) * maps.first.taps for maps in written) < axis.taps:
        return []
    found: list[int] = []
    for maps in written:
        outputs = _covering(maps.first, axis.small)
        if not outputs:
            return []
        found += [start + i * maps.first.out_stride for start in maps.out_starts.tolist() for i in outputs]
    return found


def _covering(axis_map: AxisMap, extent: int) -> list[int]:
    """A few outputs that together link each tap to a position inside `extent`; empty if a tap is linked to none.

    Of all outputs that link a tap, the first one links the most of the taps after it.
    """
    found: list[int] = []
    tap = 0
    while tap < axis_map.taps:
        first, end = axis_map.inside(tap, extent)
        if first == end or len(found) == _PIXELS:
            return []
        found.append(first)
        tap = axis_map.taps_inside(first, first, extent)[1]
    return found


def _sum_channels(marks: Array, dtype: np.dtype[Any]) -> Array:
    """(k, c, r, s) as numbers (k, 1, r, s), by a product of matrices: kernels are too short for sums over axes."""
    k, c, *kernel = marks.shape
    if c == 1:
        return marks.astype(dtype)
    return product(np.ones((1, c), dtype), marks.reshape(k, c, -1).astype(dtype)).reshape(k, 1, *kernel)


def _by_parts(run: Run, first: Array, factor: Array, bias: Array | None, out: Array) -> None:
    """Complex numbers as four products of real ones, which is how their infinities are defined."""
    other = np.empty(out.shape, out.real.dtype)
    parts: tuple[Any, Any] = (None, None) if bias is None else (bias.real, bias.imag)
    run(first.real, factor.real, parts[0], out.real)
    run(first.imag, factor.imag, None, other)
    out.real -= other
    run(first.real, factor.imag, parts[1], out.imag)
    run(first.imag, factor.real, None, other)
    out.imag += other


def _finite_copy(weight: Array) -> Array:
    """`weight` with the largest numbers of their sign for infinities, so that an infinite pixel stays infinite, and any
    number for NaN."""
    most = np.finfo(weight.dtype).max
    finite_weight: Array = weight * weight.dtype.type(1)  # makes signalling NaNs quiet, which `fmax` would return
    np.clip(finite_weight, -most, most, out=finite_weight)
    np.fmax(finite_weight, -most, out=finite_weight)
    return finite_weight


def _amplified(counts: Array) -> Array:
    """Zeros as they are and all other integers infinite: in place, and without a branch for each element."""
    most = np.finfo(counts.dtype).max
    counts *= most
    counts *= most
    return counts


def _nan_unless_zero(counts: Array) -> Array:
    """Zeros as they are and all other integers NaN, likewise."""
    amplified = _amplified(counts)
    amplified *= 0
    return amplified


def _axis_map(axis: Axis, exchanged: bool) -> AxisMap:
    """The axis map that reads the large map; `exchanged`: with outputs and taps exchanged, as in a weight gradient."""
    axis_map = reading_map(axis)
    if exchanged:
        return axis_map._replace(
            outputs=axis_map.taps, stride=axis_map.dilation, taps=axis_map.outputs, dilation=axis_map.stride
        )
    return axis_map


def _links(
    geometry: Geometry, exchanged: bool, odd: Array
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...], tuple[slice, ...]]]:
    """For each odd element: its index, the outputs that it links to pixels of the large map, and these pixels."""
    axis_maps = [_axis_map(axis, exchanged) for axis in geometry.axes]
    for at in np.flatnonzero(odd):
        index = tuple(map(int, np.unravel_index(at, odd.shape)))
        pairs = [
            axis_map.linked(tap, axis.large, slice(0, axis_map.outputs))
            for axis_map, tap, axis in zip(axis_maps, index[2:], geometry.axes, strict=True)
        ]
        outputs, positions = zip(*pairs, strict=True)
        yield index, outputs, positions
