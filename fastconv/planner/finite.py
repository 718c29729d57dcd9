"""A second factor that is infinite or NaN in places, for runs that take it to be finite.

Zero times infinity is NaN, and runs are not exact about zeros. One that reads the large map leaves out some of the
padding: the NaNs that are missed are set afterwards. One that writes it multiplies zeros of a border where no tap is
linked: it is run on a finite copy of the factor, and the outputs that are linked to its odd elements, those that are
infinite or NaN, get the products with them afterwards.

Whether there are odd elements shows in the result. A sum with an infinite or NaN product is never finite again, so a
few pixels of the result whose sums have every element of the factor between them are enough: one pixel, whose taps are
all inside of the map, for most problems. That costs a microsecond, however large the factor is; see `_Look`.

A few odd elements are looked at one by one. Of many, contractions of ones and marks count how many each output is
linked to, so that either takes a few times as long as a run with finite numbers.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from fastconv.backends.contract import Run
from fastconv.problem.arrays import Array
from fastconv.problem.axes import Axis
from fastconv.problem.geometry import Geometry
from fastconv.problem.process import product
from fastconv.problem.subpixel import AxisMap, equivalent_maps, reading_map

#: From a second factor for a single channel that is read, the contraction with ones, of one image.
Count: TypeAlias = Callable[[Array], Array]
#: Odd elements, at most, that are looked at one by one.
_FEW = 3
#: Elements, at most, of a factor that is looked at itself: that takes no longer than to look at one pixel.
_SHORT = 2**12
#: Pixels of the result, at most, that are looked at for all of the factor.
_PIXELS = 16
#: How many elements of a weight are glanced at before it is multiplied.
_GLANCE = 64


def reading(run: Run, geometry: Geometry, target: str, looks_later: bool, count: Count) -> Run:
    """`run`, which reads the large map and leaves out some of its padding, for any second factor.

    `looks_later`: all of the result is smaller than the factor, and has each element of it in some sum.
    """
    to_weight = target == "weight"
    look = _Look(geometry, target, looks_later)

    def guarded(first: Array, factor: Array, bias: Array | None, out: Array) -> None:
        run(first, factor, bias, out)
        if _is_finite(factor) if factor.size <= _SHORT else look.finds_finite(out):
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
            for place, here, _ in _links(geometry, to_weight, odd):
                missed = np.full(out.shape[2:], np.nan, out.dtype)
                missed[here] = 0
                by_channel[place[to_weight]] += missed
            return
        # whichever image or channel of the large map they meet
        marks = odd.sum(0, keepdims=True, dtype=out.dtype) if to_weight else _sum_channels(odd, out.dtype)
        k = len(by_channel)
        all_of_channel, linked = marks.reshape(k, -1).sum(1), count(marks).reshape(k, 1, *out.shape[2:])
        by_channel += _nan_unless_zero(np.subtract(all_of_channel[:, None, None, None], linked, out=linked))

    return guarded


def writing(run: Run, geometry: Geometry, looks_later: bool, count: Count) -> Run:
    """`run`, which writes the large map and takes the weight to be finite, for any weight.

    `looks_later`: all of the result is smaller than the weight, and has each element of it in some sum.
    """
    look = _Look(geometry, "large", looks_later)
    groups, each = geometry.groups, geometry.large_channels // geometry.groups

    def guarded(small: Array, weight: Array, bias: Array | None, large: Array) -> None:
        if weight.size <= _SHORT and _is_finite(weight):
            run(small, weight, bias, large)
            return
        is_run = weight.size > _SHORT and look.is_possible and _seems_finite(weight)
        if is_run:
            run(small, weight, bias, large)
            if look.finds_finite(large):
                return
        finite = np.isfinite(weight)
        if not finite.all():
            with np.errstate(all="ignore"):
                mend(small, weight, bias, large, ~finite)
        elif not is_run:
            run(small, weight, bias, large)

    def mend(small: Array, weight: Array, bias: Array | None, large: Array, odd: Array) -> None:
        if weight.dtype.kind == "c":
            _by_parts(guarded, small, weight, bias, large)
        elif np.count_nonzero(odd) <= _FEW:
            at = np.flatnonzero(odd)
            tame = weight.copy()
            tame.put(at, _tame(weight.take(at)))
            run(small, tame, bias, large)
            for place, here, there in _links(geometry, False, odd):
                k, c = place[:2]
                c += k * groups // geometry.small_channels * each
                pixels: Any = (slice(None), c, *there), (slice(None), k, *here)
                large[pixels[0]] += weight[place] * small[pixels[1]]
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
                run(small, _tame(weight), bias, large)
                large += _nan_unless_zero(links)
            return
        if links.min() and all(array is None or np.isfinite(array).all() for array in (small, bias)):
            large[...] = 0  # as each output is infinite or NaN, whatever its other products are
        else:
            run(small, _tame(weight), bias, large)
        # +1 and -1 for each infinity, 0 for infinity times zero and NaN: in the first case they add up to their number
        balance = np.empty_like(large)
        run(np.sign(small), signs.astype(weight.dtype), None, balance)
        others = np.abs(balance)
        large += _nan_unless_zero(np.subtract(links, others, out=others))
        large += _amplified(balance)

    return guarded


def _seems_finite(weight: Array) -> bool:
    """Whether a few elements of a large weight are finite: where many are not, this saves a run that is of no use."""
    return _is_finite(weight.reshape(-1)[:: weight.size // _GLANCE])


def _is_finite(numbers: Array) -> bool:
    return bool(np.isfinite(numbers).all())


class _Look:
    """Whether the second factor is finite, as the result shows it: in a few pixels, or else in all."""

    def __init__(self, geometry: Geometry, target: str, looks_at_all: bool) -> None:
        self._geometry, self._target = geometry, target
        self._to_weight = target == "weight"
        self._looks_at_all = looks_at_all

    @functools.cached_property
    def _pixels(self) -> list[tuple[int, int]]:
        """The pixels that tell."""
        return _telling_pixels(self._geometry, self._target)

    @property
    def is_possible(self) -> bool:
        """Whether it shows in the result."""
        return self._looks_at_all or bool(self._pixels)

    def finds_finite(self, result: Array) -> bool:
        """Whether the factor is finite, as far as the result shows: False where it may be."""
        if self._pixels:
            planes = result[:, 0] if self._to_weight else result[0]  # each of one channel of the factor's first axis
            return all(_is_finite(planes[:, i, j]) for i, j in self._pixels)
        return self._looks_at_all and _is_finite(result)


def _telling_pixels(geometry: Geometry, target: str) -> list[tuple[int, int]]:
    """Places (row, column) of the result that have, between them, every element of the second factor in their sums;
    none if there are too many, or if an element links no pixel. They do so in any image, or in any channel of a weight.
    """
    rows, cols = (_telling(axis, target) for axis in geometry.axes)
    return list(itertools.product(rows, cols)) if len(rows) * len(cols) <= _PIXELS else []


@functools.lru_cache(512)
def _telling(axis: Axis, target: str) -> list[int]:
    """The same on one axis; none if there are too many."""
    if target != "large":
        return _covering(_line(axis, target == "weight"), axis.large)
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


def _covering(line: AxisMap, extent: int) -> list[int]:
    """A few outputs that between them link each tap to a position in `extent`; none if some tap is linked nowhere.

    The first output that links a tap links the most taps after it.
    """
    found: list[int] = []
    tap = 0
    while tap < line.taps:
        first, end = line.inside(tap, extent)
        if first == end or len(found) == _PIXELS:
            return []
        found.append(first)
        tap = line.taps_inside(first, first, extent)[1]
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


def _tame(weight: Array) -> Array:
    """`weight` with the largest numbers of their sign for infinities, so that an infinite pixel stays infinite, and any
    number for NaN."""
    most = np.finfo(weight.dtype).max
    tame: Array = weight * weight.dtype.type(1)  # makes signalling NaNs quiet, which `fmax` would return
    np.clip(tame, -most, most, out=tame)
    np.fmax(tame, -most, out=tame)
    return tame


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


def _line(axis: Axis, of_pixels: bool) -> AxisMap:
    """An axis as the large map is read; `of_pixels`: taps are the outputs, and the small map's pixels the taps."""
    line = reading_map(axis)
    if of_pixels:
        return replace(line, outputs=line.taps, stride=line.dilation, taps=line.outputs, dilation=line.stride)
    return line


def _links(
    geometry: Geometry, of_pixels: bool, odd: Array
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...], tuple[slice, ...]]]:
    """The place of each odd element, the outputs that it links to pixels of the large map, and these pixels."""
    lines = [_line(axis, of_pixels) for axis in geometry.axes]
    for at in np.flatnonzero(odd):
        place = tuple(map(int, np.unravel_index(at, odd.shape)))
        pairs = [
            line.linked(tap, axis.large, slice(0, line.outputs))
            for line, tap, axis in zip(lines, place[2:], geometry.axes, strict=True)
        ]
        here, there = zip(*pairs, strict=True)
        yield place, here, there
