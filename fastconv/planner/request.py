"""What a kernel is asked for, and what it answers: a request for one contraction, and a way to compute it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from fastconv.backends.contract import AnyEngine, Layout, Plan, is_tiled
from fastconv.planner import cost_model
from fastconv.planner.cost_model import CostModel
from fastconv.problem.geometry import Geometry
from fastconv.problem.subpixel import EquivalentPhases, Phase, equivalent_phases, reading_large, writing_large

#: What a contraction makes: the small map, the large map or the weight, from the two others.
Contraction = Literal["small", "large", "weight"]

#: Phases, at most, that are planned one by one if planning a whole group of equivalent ones is possible instead; and
#: phases, at most, that can each have tables of their own.
MANY_PHASES, MOST_PHASES = 256, 1024


@dataclass(frozen=True)
class Request:
    """One contraction of a problem, for one kind of machine.

    geometry    with a batch axis and two spatial axes
    target      what is made
    layout      the registers of a tile engine; None for a window engine
    itemsize    bytes of an element
    threads     how many there are at most
    product_of  the contraction of maps of one pixel that this one computes as a product of matrices; None for others
    """

    geometry: Geometry
    target: Contraction
    layout: Layout | None
    itemsize: int
    threads: int
    product_of: Contraction | None = None

    @classmethod
    def of(cls, engine: AnyEngine, geometry: Geometry, target: Contraction, itemsize: int, threads: int) -> Request:
        """The request for an engine."""
        return cls(geometry, target, engine.layout(itemsize) if is_tiled(engine) else None, itemsize, threads)

    def as_product(self, geometry: Geometry, target: Contraction) -> Request:
        """The request for the contraction of another convolution that is the same product of matrices."""
        return replace(self, geometry=geometry, target=target, product_of=self.target)

    @property
    def tiles(self) -> Layout:
        """The layout, for kernels of tile engines."""
        assert self.layout is not None
        return self.layout

    @functools.cached_property
    def model(self) -> CostModel:
        """The constants that its kernels follow: weight gradients have nominal ones, as `cost_model` says."""
        return cost_model.nominal(self.tiles) if self.target == "weight" else cost_model.current(self.tiles)

    @property
    def to_large(self) -> bool:
        """Whether the large map is written."""
        return self.target == "large"

    @property
    def in_one_sum(self) -> bool:
        """Whether each number must be one sum over all pixels, padding included: the pixels are a map's channels then,
        and a map's bits do not depend on the batch."""
        return self.product_of == "small"

    @functools.cached_property
    def equivalent(self) -> list[EquivalentPhases]:
        """The phases that write the large map, grouped by what they read; none where it is read."""
        return equivalent_phases(self.geometry) if self.to_large else []

    @functools.cached_property
    def phase_count(self) -> int:
        """How many phases make the map."""
        return sum(map(len, self.equivalent)) if self.to_large else 1

    @functools.cached_property
    def phases(self) -> list[Phase]:
        """The phases that make the map. There may be a million: look at `phase_count` first."""
        return list(writing_large(self.geometry)) if self.to_large else [reading_large(self.geometry)]


def _no_plans() -> list[Plan]:
    return []


class Way(NamedTuple):
    """How a kernel would compute a request.

    excess   bytes of workspace beyond what a thread should use: ways without any come first
    cost     predicted cost; for kernels of tile engines in multiply-adds of a vector register, for those of window
             engines in nanoseconds beyond the products, which all of them multiply
    plans    makes the plans of the passes, for kernels of tile engines
    splits   partial sums that a weight's gradient is added up from
    sharing  threads that share the cost
    """

    excess: int
    cost: float
    plans: Callable[[], list[Plan]] = _no_plans
    splits: int = 1
    sharing: int = 1
