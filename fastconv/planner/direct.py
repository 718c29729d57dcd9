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
nonfinite    factors that are infinite or NaN in places, where not all of them are
cuts         how both kinds cut an extent, and what the tiles' ways to cut cost
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fastconv.backends.contract import AnyEngine, Engine, Plan, Run, TileEngine, is_tiled
from fastconv.planner import (
    channel_lanes,
    depthwise_channelwise,
    depthwise_rowwise,
    finite,
    im2col,
    interleaved_phases,
    matmul,
    overlap_add,
    pixel_lanes,
    weight_grad,
)
from fastconv.planner.plan_builder import is_line_inside
from fastconv.problem.arrays import Array
from fastconv.problem.geometry import Geometry
from fastconv.problem.subpixel import Phase, equivalent_phases, reading_large, writing_large

Contraction = Literal["small", "large", "weight"]
Target = Literal["small", "large"]
#: What the lanes of a vector are, for groups of several channels: of those that there are for a problem, the cheapest.
#: "phases" are results of all phases; a weight's gradient has "taps" instead.
_KINDS = {"pixels": pixel_lanes, "results": channel_lanes}
_LANES = (*_KINDS, "phases", "taps")
#: Phases, at most, that are planned one by one where that is cheaper than plans of those that are alike; with True, the
#: depthwise ones, which have one plan, of several kinds.
_MANY = {False: 256, True: 1024}
#: Phases, at most, of which each has a plan with tables of its own.
_MOST = 1024


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
        if matmul.applies(geometry, target, engine.layout(itemsize)):
            return _product(engine, geometry, target, itemsize, threads)
        return _TILED[target](engine, geometry, itemsize, threads)
    run = Started(functools.partial(_by_windows, engine, geometry, target))  # type: ignore[arg-type]
    is_exact = target != "large" or overlap_add.applies(geometry)
    return run if is_exact else _guarded(run, engine, geometry, threads)


def _by_windows(
    engine: Engine, geometry: Geometry, target: Contraction, first: Array, second: Array, bias: Array | None, out: Array
) -> None:
    if target == "small":
        im2col.to_small(engine, geometry, first, second, out)
    elif target == "weight":
        im2col.to_weight(engine, geometry, first, second, out)
    elif overlap_add.applies(geometry):
        overlap_add.to_large(engine, geometry, first, second, out)
    else:
        im2col.to_large(engine, geometry, writing_large(geometry), first, second, out)


def _small(engine: TileEngine, geometry: Geometry, itemsize: int, threads: int) -> Run:
    (clipped,) = _plans(engine, geometry, "small", itemsize, threads)
    run = engine.prepared(clipped, threads)
    if not clipped.skips_padding:
        return run

    is_larger = math.prod(geometry.weight_shape) > math.prod(geometry.small_shape)
    looks_later = is_larger and _links(geometry, each_tap=True)
    return finite.reading(run, geometry, "small", looks_later, _count(engine, geometry, "small", threads))


def _large(engine: TileEngine, geometry: Geometry, itemsize: int, threads: int) -> Run:
    plans = _plans(engine, geometry, "large", itemsize, threads)
    runs = [engine.prepared(plan, threads) for plan in plans]
    leaves_gaps = _leaves_gaps(geometry) and not (plans and all(plan.fills_gaps for plan in plans))
    if len(runs) == 1 and not leaves_gaps:
        return _guarded(runs[0], engine, geometry, threads)

    def phase_by_phase(small: Array, weight: Array, bias: Array | None, large: Array) -> None:
        for run in runs:
            run(small, weight, bias, large)

    return _guarded(Started(phase_by_phase) if leaves_gaps else phase_by_phase, engine, geometry, threads)


def _guarded(run: Run, engine: AnyEngine, geometry: Geometry, threads: int) -> Run:
    """`run`, which makes the large map, for any weight: a zero of the border times an infinite one would be NaN where
    no tap is linked."""
    if not _meets_border(geometry):
        return run

    is_larger = math.prod(geometry.weight_shape) >= math.prod(geometry.large_shape)
    return finite.writing(run, geometry, is_larger, _count(engine, geometry, "large", threads))


def _count(engine: AnyEngine, geometry: Geometry, target: Contraction, threads: int) -> finite.Count:
    """The contraction of ones, one image and in each group one channel of them, with a factor for these."""
    g = geometry.groups
    of_one = (
        replace(geometry, batch=1, small_channels=g)
        if target == "large"
        else replace(geometry, batch=1, large_channels=g)
    )

    def count(factor: Array) -> Array:
        dtype = factor.dtype
        run: Run = geometry.remembered(
            ("count", engine, target, dtype, threads),
            lambda: prepared(engine, of_one, target, dtype.itemsize, threads),
        )
        out = np.empty(getattr(of_one, f"{target}_shape"), dtype)
        ones = np.ones(of_one.small_shape if target == "large" else of_one.large_shape, dtype)
        run(ones, factor, None, out)
        return out

    return count


def _weight(engine: TileEngine, geometry: Geometry, itemsize: int, threads: int) -> Run:
    clipped, splits = _weight_plan(engine, geometry, itemsize)
    run = in_parts(engine.prepared(clipped, threads), splits)
    if not clipped.skips_padding:
        return run

    is_larger = math.prod(geometry.small_shape) > math.prod(geometry.weight_shape)
    looks_later = is_larger and _links(geometry, each_tap=False)
    return finite.reading(run, geometry, "weight", looks_later, _count(engine, geometry, "weight", threads))


def _product(engine: TileEngine, geometry: Geometry, target: Contraction, itemsize: int, threads: int) -> Run:
    """The contraction of maps and a weight that are matrices, as the one of another convolution."""
    if target == "small":
        run = engine.prepared(_map_plan(engine, geometry, itemsize), threads)
    else:
        run = _TILED[matmul.ROLES[target]](engine, matmul.turned(geometry), itemsize, threads)
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
    lanes = ("pixels",) if matmul.is_long(geometry, layout) else ("taps", "results")
    return weight_grad.gradient(matmul.turned(geometry), False, layout, itemsize, lanes, splits=False)[0]


def in_parts(run: Run, splits: int) -> Run:
    """A gradient from so many partial sums, which are written one behind the other."""

    def add(large: Array, small: Array, _: Array | None, weight: Array) -> None:
        parts = np.empty((splits * weight.shape[0], *weight.shape[1:]), weight.dtype)
        run(large, small, None, parts)
        with np.errstate(all="ignore"):
            np.add.reduce(parts.reshape(splits, *weight.shape), axis=0, out=weight)

    return add if splits > 1 else run


def workspace(engine: AnyEngine, geometry: Geometry, target: Contraction, itemsize: int, threads: int) -> int:
    """The most bytes that the contraction that makes `target` takes beyond its input and output, for finite numbers.

    Where the second factor is infinite or NaN in places, it may be as many as those of all three arrays besides.
    """
    if not is_tiled(engine):
        if target == "large" and overlap_add.applies(geometry):
            return itemsize * overlap_add.workspace(geometry)
        return im2col.workspace(geometry, target, itemsize)
    if matmul.applies(geometry, target, engine.layout(itemsize)):
        if target == "small":
            plan = _map_plan(engine, geometry, itemsize)
            return itemsize * plan.workspace * min(threads, plan.items)
        geometry, target = matmul.turned(geometry), matmul.ROLES[target]
    partial = 0
    if target == "weight":
        plan, splits = _weight_plan(engine, geometry, itemsize)
        plans: Sequence[Plan] = [plan]
        partial = splits * math.prod(geometry.weight_shape) if splits > 1 else 0
    else:
        plans = _plans(engine, geometry, target, itemsize, threads)
    return itemsize * max((partial + plan.workspace * min(threads, plan.items) for plan in plans), default=0)


def _plans(engine: TileEngine, geometry: Geometry, target: Target, itemsize: int, threads: int) -> list[Plan]:
    """The plans of the phases that make a map."""
    layout = engine.layout(itemsize)
    to_large = target == "large"
    alike = equivalent_phases(geometry) if to_large else []
    is_depthwise = depthwise_channelwise.applies(geometry, layout, multiples=not to_large)
    number = sum(map(len, alike))
    if number > _MANY[is_depthwise and len(alike) > 1]:
        ways = [interleaved_phases.correlation(geometry, alike, layout, itemsize, threads)]
        if number <= _MOST:
            ways.append(pixel_lanes.correlation_of_many(geometry, alike, layout, itemsize, threads))
        return min(ways, key=lambda way: way[:2]).plans()
    phases = list(_PHASES[target](geometry))
    if depthwise_rowwise.applies(geometry, phases, to_large, layout):
        return [depthwise_rowwise.correlation(geometry, phases, to_large, layout, itemsize)]
    if is_depthwise:
        return depthwise_channelwise.correlation(geometry, phases, to_large, layout, itemsize)
    kinds = [_KINDS[name] for name in _LANES if name in _KINDS and _KINDS[name].applies(phases)] or [pixel_lanes]
    ways = [kind.correlation(geometry, phases, to_large, layout, itemsize, threads) for kind in kinds]
    if "phases" in _LANES and interleaved_phases.applies(alike):
        ways.append(interleaved_phases.correlation(geometry, alike, layout, itemsize, threads))
    return min(ways, key=lambda way: way[:2]).plans()


def _weight_plan(engine: TileEngine, geometry: Geometry, itemsize: int) -> tuple[Plan, int]:
    """The plan of a weight's gradient, and its partial sums."""
    layout = engine.layout(itemsize)
    if depthwise_rowwise.applies_to_weight(geometry, layout):
        return depthwise_rowwise.weight_gradient(geometry, layout, itemsize), 1
    if depthwise_channelwise.applies(geometry, layout, multiples=False):
        return depthwise_channelwise.weight_gradient(geometry, layout, itemsize)
    return weight_grad.gradient(geometry, True, layout, itemsize, _LANES)


_TILED: dict[str, Callable[[TileEngine, Geometry, int, int], Run]] = {
    "small": _small,
    "large": _large,
    "weight": _weight,
}
_PHASES: dict[str, Callable[[Geometry], Iterable[Phase]]] = {
    "small": lambda geometry: [reading_large(geometry)],
    "large": writing_large,
}


def _leaves_gaps(geometry: Geometry) -> bool:
    """Whether some pixel of the large map is linked to no tap."""
    pixels = sum(
        len(alike) * math.prod(line.outputs for line in alike.axis_maps) for alike in equivalent_phases(geometry)
    )
    return pixels < math.prod(axis.large for axis in geometry.axes)


def _meets_border(geometry: Geometry) -> bool:
    """Whether writing the large map reads zeros beside the small one."""
    return not all(
        is_line_inside(line, axis.small)
        for alike in equivalent_phases(geometry)
        for line, axis in zip(alike.axis_maps, geometry.axes, strict=True)
    )


def _links(geometry: Geometry, *, each_tap: bool) -> bool:
    """Whether each tap links some pixel of the large map, or each pixel of the small one is linked to one."""
    for axis in geometry.axes:
        taps, small = np.arange(axis.taps) * axis.dilation, np.arange(axis.small) * axis.stride - axis.pad_before
        at = small[:, None] + taps
        if not ((at >= 0) & (at < axis.large)).any(0 if each_tap else 1).all():
            return False
    return True


def _start(out: Array, bias: Array | None) -> None:
    """What a sum over taps starts from."""
    out[...] = 0 if bias is None else bias[:, None, None]
