"""Direct convolution: every tap of the kernel is multiplied once. How it is cut depends on the kind of engine.

    windows      for engines that multiply windows, block by block
    tiles        for engines that multiply tiles of registers
    depthwise    the same where each group has one channel
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from fastconv.algorithms import depthwise, tiles, windows
from fastconv.engines.contract import Engine, Layout, Plan, TileEngine
from fastconv.ground.arrays import Array
from fastconv.ground.geometry import Geometry
from fastconv.ground.phases import Phase, reading_large, writing_large, writing_large_by_taps

Contraction = Literal["small", "large", "weight"]


def declines(geometry: Geometry) -> str | None:
    """Why the problem cannot be computed directly: never."""
    return None


def to_small(
    engine: Engine | TileEngine, geometry: Geometry, large: Array, weight: Array, bias: Array | None, small: Array,
    threads: int,
) -> None:  # fmt: skip
    """Write the convolution of `large` (N, C, H, W) with `weight` (K, C/G, R, S), plus `bias` (K,), to `small`."""
    if not isinstance(engine, TileEngine):
        _start(small, bias)
        windows.to_small(engine, geometry, large, weight, small)
        return
    phase = reading_large(geometry)
    _correlate(engine, geometry, [phase], False, large, weight, bias, small, threads)


def to_large(
    engine: Engine | TileEngine, geometry: Geometry, small: Array, weight: Array, bias: Array | None, large: Array,
    threads: int,
) -> None:  # fmt: skip
    """Write the transposed convolution of `small` (N, K, P, Q) with `weight` (K, C/G, R, S), plus `bias` (C,), to
    `large`."""
    # a zero of the border times an infinite weight would be NaN where no tap is linked at all
    by_taps = _meets_border(geometry) and not _is_finite(weight)
    phases = _phases(geometry, by_taps)
    if not isinstance(engine, TileEngine):
        _start(large, bias)
        windows.to_large(engine, geometry, phases, small, weight, large)
        return
    if by_taps or not _covers(geometry):
        _start(large, bias)
    _correlate(engine, geometry, phases, True, small, weight, bias, large, threads, by_taps)


def to_weight(
    engine: Engine | TileEngine, geometry: Geometry, large: Array, small: Array, weight: Array, threads: int
) -> None:
    """Write the correlation of `large` (N, C, H, W) with `small` (N, K, P, Q) to `weight` (K, C/G, R, S)."""
    if not isinstance(engine, TileEngine):
        weight[...] = 0
        windows.to_weight(engine, geometry, large, small, weight)
        return
    large, small = np.ascontiguousarray(large), np.ascontiguousarray(small)
    layout = engine.layout(weight.itemsize)
    if depthwise.applies(geometry, layout, multiples=False):
        clips = _is_long(geometry) and _is_finite(small)
        plan, splits = depthwise.weight_gradient(geometry, clips, layout, weight.itemsize, threads)
    else:
        plan, splits = tiles.weight_gradient(geometry, layout, weight.itemsize, threads)
    if splits == 1:
        engine.run(plan, (large, small, None, weight), threads)
        return
    parts = np.empty((splits, *weight.shape), weight.dtype)
    engine.run(plan, (large, small, None, parts), threads)
    np.add.reduce(parts, axis=0, out=weight)


def workspace(engine: Engine | TileEngine, geometry: Geometry, target: Contraction, itemsize: int, threads: int) -> int:
    """The most bytes that the contraction that makes `target` takes beyond its input and output."""
    if not isinstance(engine, TileEngine):
        return windows.workspace(geometry, target, itemsize)
    layout = engine.layout(itemsize)
    if target == "weight":
        if depthwise.applies(geometry, layout, multiples=False):
            plan, splits = depthwise.weight_gradient(geometry, False, layout, itemsize, threads)
        else:
            plan, splits = tiles.weight_gradient(geometry, layout, itemsize, threads)
        partial = splits * math.prod(geometry.weight_shape) if splits > 1 else 0
        plans = [plan]
    else:
        partial = 0
        phases = _phases(geometry, False) if target == "large" else (reading_large(geometry),)
        plans = [_plan(phase, geometry, target == "large", False, False, layout, itemsize, threads) for phase in phases]
    return itemsize * (partial + max((plan.workspace * min(threads, plan.items) for plan in plans), default=0))


def _correlate(
    engine: TileEngine, geometry: Geometry, phases: Sequence[Phase], to_large: bool, source: Array, weight: Array,
    bias: Array | None, out: Array, threads: int, adds: bool = False,
) -> None:  # fmt: skip
    source, weight = np.ascontiguousarray(source), np.ascontiguousarray(weight)
    bias = None if bias is None else np.ascontiguousarray(bias)
    layout = engine.layout(out.itemsize)
    clips = _is_long(geometry) and (to_large or _is_finite(weight))
    for phase in phases:
        plan = _plan(phase, geometry, to_large, adds, clips, layout, out.itemsize, threads)
        engine.run(plan, (source, weight, None if adds else bias, out), threads)


def _plan(
    phase: Phase, geometry: Geometry, to_large: bool, adds: bool, clips: bool, layout: Layout, itemsize: int, threads: int
) -> Plan:
    if depthwise.applies(geometry, layout, multiples=not to_large):
        return depthwise.correlation(geometry, phase, to_large, adds, clips, layout, itemsize, threads)
    return tiles.correlation(geometry, phase, to_large, adds, layout, itemsize, threads)


@functools.lru_cache(maxsize=1024)
def _phases(geometry: Geometry, by_taps: bool) -> tuple[Phase, ...]:
    return tuple(writing_large_by_taps(geometry) if by_taps else writing_large(geometry))


@functools.lru_cache(maxsize=1024)
def _covers(geometry: Geometry) -> bool:
    """Whether every pixel of the large map is linked to some tap."""
    pixels = sum(phase.rows.outputs * phase.cols.outputs for phase in _phases(geometry, False))
    return pixels == math.prod(axis.large for axis in geometry.axes)


@functools.lru_cache(maxsize=1024)
def _meets_border(geometry: Geometry) -> bool:
    """Whether writing the large map reads zeros beside the small one."""
    return not all(
        line.inside(tap, axis.small) == (0, line.outputs)
        for phase in _phases(geometry, False)
        for line, axis in zip((phase.rows, phase.cols), geometry.axes, strict=True)
        for tap in range(line.taps)
    )


def _is_long(geometry: Geometry) -> bool:
    """Whether the kernel has so many rows that leaving out those on the padding is worth a look at the weight."""
    return geometry.axes[0].taps > 3


def _is_finite(array: Array) -> bool:
    # a sum is finite only if each number is; it is quicker, and the second look is for sums that overflow
    return bool(np.isfinite(array.sum()) or np.isfinite(array).all())


def _start(out: Array, bias: Array | None) -> None:
    """What a sum over taps starts from."""
    out[...] = 0 if bias is None else bias[:, None, None]
