"""From a kernel's plans to a function of arrays: the steps around the passes of a contraction.

Plans are bound to passes of the engine; pixels that no phase writes get the bias first; partial sums are added up; and
a run that is right only for a finite second factor is guarded (`planner.finite`).
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastconv.backends.contract import AnyEngine, FinishingRun, Run, TileEngine, finishes
from fastconv.planner import finite
from fastconv.planner.panels import Panels
from fastconv.planner.plan_builder import is_axis_inside
from fastconv.planner.request import Proposal, Request
from fastconv.problem.arrays import Array
from fastconv.problem.axes import Axis
from fastconv.problem.geometry import Geometry
from fastconv.problem.subpixel import equivalent_maps

#: Makes the counting function that the guard of a request needs, see `finite.Count`.
MakeCount: TypeAlias = Callable[[AnyEngine, Request], finite.Count]


class InitializedRun:
    """A contraction in two steps: set all of `out` to the bias or to zeros, then add the sums (`accumulate`)."""

    __slots__ = ("accumulate",)

    def __init__(self, accumulate: Run) -> None:
        self.accumulate = accumulate

    def __call__(self, first: Array, second: Array, bias: Array | None, out: Array) -> None:
        """Both steps."""
        out[...] = 0 if bias is None else bias[:, None, None]
        self.accumulate(first, second, bias, out)


def run_plans(engine: TileEngine, request: Request, proposal: Proposal, make_count: MakeCount) -> Run:
    """The contraction by the passes of a kernel's plans, one after the other, for any second factor."""
    plans = proposal.plans()
    passes = [engine.prepared(plan, request.threads) for plan in plans]
    run = passes[0] if len(passes) == 1 else _one_after_another(passes)
    if request.to_large:
        if leaves_gaps(request.geometry) and not (plans and all(plan.fills_gaps for plan in plans)):
            run = InitializedRun(run)
        return guarded_writing(engine, request, run, make_count)
    run = with_partial_sums(run, proposal.splits)
    return _guarded_reading(engine, request, run, make_count) if all(plan.skips_padding for plan in plans) else run


def _nothing_around(run: Any) -> Any:
    return run


class PanelRun(NamedTuple):
    """A map that is made of a constant, finite weight: its passes take packed weights and have an epilogue.

    panels  for each pass how its weight is packed, as `Panels` or with such a method `packed`; None: it takes the
            weight as it is
    around  wraps the passes: it takes a `FinishingRun` and returns one that also works before and after it, such as
            converting maps
    """

    passes: tuple[FinishingRun, ...]
    panels: tuple[Any, ...]
    around: Callable[[Any], Any] = _nothing_around

    def within(self, around: Callable[[Any], Any]) -> "PanelRun":
        """The same with more around it."""
        inner = self.around
        return self._replace(around=lambda run: around(inner(run)))

    def with_weight(self, weight: Array, packed: dict[Panels, Array] | None) -> tuple[Any, Any]:
        """A function with the arguments of a `FinishingRun`, and the weight as it takes it. What is packed is kept in
        `packed`."""
        kept = {} if packed is None else packed
        weights = [weight if panels is None else panels.packed(weight, kept) for panels in self.panels]
        if len(weights) == 1:
            return self.around(self.passes[0]), weights[0]
        return self.around(self._all), weights

    def _all(
        self, first: Array, weights: Sequence[Array], bias: Array | None, out: Array, residual: Array | None,
        slopes: Array | None, number: int,
    ) -> None:  # fmt: skip
        """Every pass, each for other pixels."""
        for run, weight in zip(self.passes, weights, strict=True):
            run(first, weight, bias, out, residual, slopes, number)


def panel_run(engine: AnyEngine, request: Request, proposal: Proposal) -> PanelRun | None:
    """The map of a request whose weight is constant and finite; None if the engine's passes have no epilogue, or pixels
    that no pass writes would be left out."""
    if not finishes(engine) or request.target == "weight":
        return None
    plans = proposal.plans()
    if not plans or (request.to_large and leaves_gaps(request.geometry) and not all(plan.fills_gaps for plan in plans)):
        return None
    passes: tuple[Any, ...] = tuple(engine.prepared(plan, request.threads) for plan in plans)
    return PanelRun(passes, tuple(plan.panels for plan in plans))


def run_product(engine: TileEngine, request: Request, proposal: Proposal, make_count: MakeCount) -> Run:
    """The contraction by the pass of a matrix product, which takes the second factor first; no padding, so no guard."""
    (plan,) = proposal.plans()
    run = engine.prepared(plan, request.threads)
    if request.target == "weight":
        return run

    def product(first: Array, weight: Array, bias: Array | None, out: Array) -> None:
        run(weight, first, None, out)
        if bias is not None:
            with np.errstate(all="ignore"):
                np.add(out, bias[:, None, None], out=out)

    return product


def workspace_of_plans(request: Request, proposal: Proposal) -> int:
    """The bytes of the workspace of a kernel's plans and of the partial sums."""
    partial = proposal.splits * math.prod(request.geometry.weight_shape) if proposal.splits > 1 else 0
    return request.itemsize * max(
        (partial + plan.workspace * min(request.threads, plan.items) for plan in proposal.plans()), default=0
    )


def guarded_writing(engine: AnyEngine, request: Request, run: Run, make_count: MakeCount) -> Run:
    """`run`, which writes the large map, made right for any weight: it multiplies zeros beside the small map, and zero
    times an infinite weight would be NaN."""
    geometry = request.geometry
    if not _reads_border(geometry):
        return run
    may_check_result = math.prod(geometry.weight_shape) >= math.prod(geometry.large_shape)
    return finite.guard_writing(run, geometry, may_check_result, make_count(engine, request))


def _guarded_reading(engine: AnyEngine, request: Request, run: Run, make_count: MakeCount) -> Run:
    """`run`, which skips taps on the padding, made right for any second factor."""
    geometry = request.geometry
    factor, result = geometry.weight_shape, geometry.small_shape
    if request.target == "weight":
        factor, result = result, factor
    may_check_result = math.prod(factor) > math.prod(result) and _are_linked(
        geometry, each_tap=request.target == "small"
    )
    return finite.guard_reading(run, geometry, request.target, may_check_result, make_count(engine, request))


def _one_after_another(passes: Sequence[Run]) -> Run:
    """Several passes one after the other, each for other pixels."""

    def in_turn(first: Array, second: Array, bias: Array | None, out: Array) -> None:
        for run in passes:
            run(first, second, bias, out)

    return in_turn


def with_partial_sums(run: Run, splits: int) -> Run:
    """A weight or bias gradient as the sum of `splits` partial sums, added in order."""

    def add(large: Array, small: Array, _: Array | None, weight: Array) -> None:
        parts = np.empty((splits * weight.shape[0], *weight.shape[1:]), weight.dtype)
        run(large, small, None, parts)
        with np.errstate(all="ignore"):
            np.add.reduce(parts.reshape(splits, *weight.shape), axis=0, out=weight)

    return add if splits > 1 else run


def leaves_gaps(geometry: Geometry) -> bool:
    """Whether some pixel of the large map is linked to no tap."""
    return any(_written(axis).positions < axis.large for axis in geometry.axes)


def _reads_border(geometry: Geometry) -> bool:
    """Whether some phase that writes the large map reads zeros beside the small map."""
    written = [_written(axis) for axis in geometry.axes]
    return all(of_axis.positions for of_axis in written) and not all(of_axis.is_inside for of_axis in written)


class _Written(NamedTuple):
    """What writing the large map does on one axis: how many positions it writes, and whether it reads inside only."""

    positions: int
    is_inside: bool


@functools.lru_cache(512)
def _written(axis: Axis) -> _Written:
    found = equivalent_maps(axis)
    return _Written(
        sum(len(maps) * maps.first.outputs for maps in found),
        all(is_axis_inside(maps.first, axis.small) for maps in found),
    )


def _are_linked(geometry: Geometry, *, each_tap: bool) -> bool:
    """Whether each tap (`each_tap`), or else each pixel of the small map, is linked to some pixel of the large map."""
    for axis in geometry.axes:
        taps, small = np.arange(axis.taps) * axis.dilation, np.arange(axis.small) * axis.stride - axis.pad_before
        at = small[:, None] + taps
        if not ((at >= 0) & (at < axis.large)).any(0 if each_tap else 1).all():
            return False
    return True
