"""Direct convolution: every tap of the kernel is multiplied once. How it is cut depends on the kind of engine.

windows      for engines that multiply windows, block by block
overlaps     the same where strides are long
tiles        for engines that multiply tiles of registers, a lane for each pixel
results      the same with a lane for each result
merged       and with one for each result of all phases
weights      the weight's gradient, for these engines
gradients    how it is cut
products     problems that are products of matrices, as others of these
depthwise    the same where each group has one channel
rows         and its kernel is small
joint        how phases lie that one plan runs
planning     what plans are made of
met          which taps are multiplied at all
cuts         how both kinds cut an extent, and what the tiles' ways to cut cost
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from fastconv.algorithms import depthwise, merged, overlaps, products, results, rows, tiles, weights, windows
from fastconv.algorithms.planning import is_line_inside
from fastconv.engines.contract import AnyEngine, Engine, Plan, TileEngine, is_tiled
from fastconv.engines.plans import Place
from fastconv.ground.arrays import Array
from fastconv.ground.geometry import Geometry
from fastconv.ground.phases import Phase, reading_large, writing_large, writing_large_alike, writing_large_by_taps

Contraction = Literal["small", "large", "weight"]
Target = Literal["small", "large", "taps"]
#: What the lanes of a vector are, for groups of several channels: of those that there are for a problem, the cheapest.
#: "phases" are results of all phases; a weight's gradient has "taps" instead.
_KINDS = {"pixels": tiles, "results": results}
_LANES = (*_KINDS, "phases", "taps")
#: Phases, at most, that are planned one by one where that is cheaper than plans of those that are alike; with True, the
#: depthwise ones, which have one plan, of several kinds.
_MANY = {False: 256, True: 1024}
#: Phases, at most, of which each has a plan with tables of its own.
_MOST = 1024
Run: TypeAlias = Callable[[Array, Array, Array | None, Array], None]


@dataclass(frozen=True, slots=True)
class Started:
    """A contraction that first sets all of `out`, to the bias or to zeros; `onto` is the rest, which adds to that."""

    onto: Run

    def __call__(self, first: Array, second: Array, bias: Array | None, out: Array) -> None:
        """All of it."""
        _start(out, bias)
        self.onto(first, second, bias, out)


def declines(geometry: Geometry) -> str | None:
    """Why the problem cannot be computed directly: never."""
    return None


def prepared(engine: AnyEngine, geometry: Geometry, target: Contraction, itemsize: int, threads: int) -> Run:
    """The contraction that makes `target`, as a function of arrays (first, second, bias, out) that writes `out`:

    small     large (N, C, H, W), weight (K, C/G, R, S), bias (K,) or None: their convolution
    large     small (N, K, P, Q), weight (K, C/G, R, S), bias (C,) or None: their transposed convolution
    weight    large (N, C, H, W), small (N, K, P, Q), None: their correlation

    For a tile engine the arrays are in C order, and share no memory with `out`.
    """
    if is_tiled(engine):
        if products.applies(geometry, target, engine.layout(itemsize)):
            return _product(engine, geometry, target, itemsize, threads)
        return _TILED[target](engine, geometry, itemsize, threads)
    return Started(functools.partial(_by_windows, engine, geometry, target))  # type: ignore[arg-type]


def _by_windows(
    engine: Engine, geometry: Geometry, target: Contraction, first: Array, second: Array, bias: Array | None, out: Array
) -> None:
    if target == "small":
        windows.to_small(engine, geometry, first, second, out)
    elif target == "weight":
        windows.to_weight(engine, geometry, first, second, out)
    elif overlaps.applies(geometry):
        overlaps.to_large(engine, geometry, first, second, out)
    else:
        phases = writing_large if _is_finite(second) else writing_large_by_taps
        windows.to_large(engine, geometry, phases(geometry), first, second, out)


def _small(engine: TileEngine, geometry: Geometry, itemsize: int, threads: int) -> Run:
    (clipped,) = _plans(engine, geometry, "small", True, itemsize, threads)
    run = engine.prepared(clipped, threads)
    if not _says([clipped], Place.CLIPS):
        return run

    def whole(large: Array, weight: Array, bias: Array | None, small: Array) -> None:
        (plan,) = _plans(engine, geometry, "small", False, itemsize, threads)
        engine.prepared(plan, threads)(large, weight, bias, small)

    is_larger = math.prod(geometry.weight_shape) > math.prod(geometry.small_shape)
    return _unless_infinite(run, whole, is_larger and _links(geometry, each_tap=True))


def _large(engine: TileEngine, geometry: Geometry, itemsize: int, threads: int) -> Run:
    plans = _plans(engine, geometry, "large", True, itemsize, threads)
    runs = [engine.prepared(plan, threads) for plan in plans]
    meets_border, leaves_gaps = _meets_border(geometry), _leaves_gaps(geometry) and not _says(plans, Place.FILLS)
    if len(runs) == 1 and not meets_border and not leaves_gaps:
        return runs[0]

    def phase_by_phase(small: Array, weight: Array, bias: Array | None, large: Array) -> None:
        for run in runs:
            run(small, weight, bias, large)

    def by_taps(small: Array, weight: Array, bias: Array | None, large: Array) -> None:
        _start(large, bias)
        for plan in _plans(engine, geometry, "taps", False, itemsize, threads):
            engine.prepared(plan, threads)(small, weight, None, large)

    # a zero of the border times an infinite weight would be NaN where no tap is linked at all
    is_larger = math.prod(geometry.weight_shape) >= math.prod(geometry.large_shape)
    run = _unless_infinite(phase_by_phase, by_taps, is_larger) if meets_border else phase_by_phase
    return Started(run) if leaves_gaps else run


def _weight(engine: TileEngine, geometry: Geometry, itemsize: int, threads: int) -> Run:
    clipped, splits = _weight_plan(engine, geometry, True, itemsize)
    run = _in_parts(engine.prepared(clipped, threads), splits)
    if not _says([clipped], Place.CLIPS):
        return run

    def whole(large: Array, small: Array, bias: Array | None, weight: Array) -> None:
        plan, splits = _weight_plan(engine, geometry, False, itemsize)
        _in_parts(engine.prepared(plan, threads), splits)(large, small, bias, weight)

    is_larger = math.prod(geometry.small_shape) > math.prod(geometry.weight_shape)
    return _unless_infinite(run, whole, is_larger and _links(geometry, each_tap=False))


def _product(engine: TileEngine, geometry: Geometry, target: Contraction, itemsize: int, threads: int) -> Run:
    """The contraction of maps and a weight that are matrices, as the one of another convolution."""
    if target == "small":
        run = engine.prepared(_map_plan(engine, geometry, itemsize), threads)
    else:
        run = _TILED[products.ROLES[target]](engine, products.turned(geometry), itemsize, threads)
    if target == "weight":
        return run

    def product(first: Array, weight: Array, bias: Array | None, out: Array) -> None:
        run(weight, first, None, out)
        if bias is not None:
            with np.errstate(all="ignore"):
                np.add(out, bias[:, None, None], out=out)

    return product


def _map_plan(engine: TileEngine, geometry: Geometry, itemsize: int) -> Plan:
    """The plan of a map of one pixel, as the gradient of another convolution's weight: one sum for each number."""
    layout = engine.layout(itemsize)
    lanes = ("pixels",) if products.is_long(geometry, layout) else ("taps", "results")
    return weights.gradient(products.turned(geometry), False, layout, itemsize, lanes, splits=False)[0]


def _in_parts(run: Run, splits: int) -> Run:
    """A weight's gradient from so many partial sums."""

    def in_parts(large: Array, small: Array, _: Array | None, weight: Array) -> None:
        parts = np.empty((splits * weight.shape[0], *weight.shape[1:]), weight.dtype)
        run(large, small, None, parts)
        with np.errstate(all="ignore"):
            np.add.reduce(parts.reshape(splits, *weight.shape), axis=0, out=weight)

    return in_parts if splits > 1 else run


def _unless_infinite(run: Run, whole: Run, looks_later: bool) -> Run:
    """`run`, which takes its second factor to be finite, and where that is not, `whole`.

    `looks_later`: the result, which is smaller, is looked at instead. It tells as well if each element of the factor
    meets some pixel: if it is finite, so was the factor.
    """

    def look_first(first: Array, factor: Array, bias: Array | None, out: Array) -> None:
        (run if _is_finite(factor) else whole)(first, factor, bias, out)

    def look_later(first: Array, factor: Array, bias: Array | None, out: Array) -> None:
        run(first, factor, bias, out)
        if not _is_finite(out) and not _is_finite(factor):
            whole(first, factor, bias, out)

    return look_later if looks_later else look_first


def workspace(engine: AnyEngine, geometry: Geometry, target: Contraction, itemsize: int, threads: int) -> int:
    """The most bytes that the contraction that makes `target` takes beyond its input and output."""
    if not is_tiled(engine):
        if target == "large" and overlaps.applies(geometry):
            return itemsize * overlaps.workspace(geometry)
        return windows.workspace(geometry, target, itemsize)
    if products.applies(geometry, target, engine.layout(itemsize)):
        if target == "small":
            plan = _map_plan(engine, geometry, itemsize)
            return itemsize * plan.workspace * min(threads, plan.items)
        geometry, target = products.turned(geometry), products.ROLES[target]
    most = 0
    for clips in (False, True):  # which of them runs depends on the numbers
        partial = 0
        if target == "weight":
            plan, splits = _weight_plan(engine, geometry, clips, itemsize)
            plans: Sequence[Plan] = [plan]
            partial = splits * math.prod(geometry.weight_shape) if splits > 1 else 0
        else:
            plans = _plans(engine, geometry, target, clips, itemsize, threads)
        most = max([most, *(partial + plan.workspace * min(threads, plan.items) for plan in plans)])
    return itemsize * most


def _plans(
    engine: TileEngine, geometry: Geometry, target: Target, clips: bool, itemsize: int, threads: int
) -> list[Plan]:
    """The plans of the phases that make a map; "taps" is the large one, tap by tap, added to what it holds."""
    layout = engine.layout(itemsize)
    to_large, adds = target != "small", target == "taps"
    alike = writing_large_alike(geometry) if target == "large" else []
    is_depthwise = depthwise.applies(geometry, layout, multiples=not to_large)
    number = sum(map(len, alike))
    if number > _MANY[is_depthwise and len(alike) > 1]:
        ways = [merged.correlation(geometry, alike, clips, layout, itemsize, threads)]
        if number <= _MOST:
            ways.append(tiles.correlation_of_many(geometry, alike, layout, itemsize, threads))
        return min(ways, key=lambda way: way[:2]).plans()
    phases = list(_PHASES[target](geometry))
    if rows.applies(geometry, phases, to_large, adds, layout):
        return [rows.correlation(geometry, phases, to_large, layout, itemsize)]
    if is_depthwise:
        return depthwise.correlation(geometry, phases, to_large, adds, clips, layout, itemsize)
    kinds = [_KINDS[name] for name in _LANES if name in _KINDS and _KINDS[name].applies(phases, adds)] or [tiles]
    ways = [kind.correlation(geometry, phases, to_large, adds, clips, layout, itemsize, threads) for kind in kinds]
    if "phases" in _LANES and merged.applies(alike):
        ways.append(merged.correlation(geometry, alike, clips, layout, itemsize, threads))
    return min(ways, key=lambda way: way[:2]).plans()


def _weight_plan(engine: TileEngine, geometry: Geometry, clips: bool, itemsize: int) -> tuple[Plan, int]:
    """The plan of a weight's gradient, and its partial sums."""
    layout = engine.layout(itemsize)
    if rows.applies_to_weight(geometry, layout):
        return rows.weight_gradient(geometry, layout, itemsize), 1
    if depthwise.applies(geometry, layout, multiples=False):
        return depthwise.weight_gradient(geometry, clips, layout, itemsize)
    return weights.gradient(geometry, clips, layout, itemsize, _LANES)


_TILED: dict[str, Callable[[TileEngine, Geometry, int, int], Run]] = {
    "small": _small,
    "large": _large,
    "weight": _weight,
}
_PHASES: dict[str, Callable[[Geometry], Iterable[Phase]]] = {
    "small": lambda geometry: [reading_large(geometry)],
    "large": writing_large,
    "taps": writing_large_by_taps,
}


def _leaves_gaps(geometry: Geometry) -> bool:
    """Whether some pixel of the large map is linked to no tap."""
    pixels = sum(
        len(alike) * math.prod(line.outputs for line in alike.lines) for alike in writing_large_alike(geometry)
    )
    return pixels < math.prod(axis.large for axis in geometry.axes)


def _meets_border(geometry: Geometry) -> bool:
    """Whether writing the large map reads zeros beside the small one."""
    return not all(
        is_line_inside(line, axis.small)
        for alike in writing_large_alike(geometry)
        for line, axis in zip(alike.lines, geometry.axes, strict=True)
    )


def _says(plans: Sequence[Plan], place: Place) -> bool:
    """Whether there are plans that leave out taps on the padding (CLIPS), or fill the gaps between pixels (FILLS)."""
    return bool(plans) and all(plan.vector[:, place].all() for plan in plans)


def _links(geometry: Geometry, *, each_tap: bool) -> bool:
    """Whether each tap links some pixel of the large map, or each pixel of the small one is linked to one."""
    for axis in geometry.axes:
        taps, small = np.arange(axis.taps) * axis.dilation, np.arange(axis.small) * axis.stride - axis.before
        at = small[:, None] + taps
        if not ((at >= 0) & (at < axis.large)).any(0 if each_tap else 1).all():
            return False
    return True


def _is_finite(array: Array) -> bool:
    return bool(np.isfinite(array.max(initial=0)) and np.isfinite(array.min(initial=0)))


def _start(out: Array, bias: Array | None) -> None:
    """What a sum over taps starts from."""
    out[...] = 0 if bias is None else bias[:, None, None]
