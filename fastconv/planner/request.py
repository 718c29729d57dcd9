"""`Request`: one contraction that has to be computed. `Proposal`: how a kernel would compute it, and at what cost."""

from collections.abc import Callable, Collection
from typing import Literal, NamedTuple

from fastconv.backends.contract import AnyEngine, Layout, Plan, is_tiled
from fastconv.planner import cost_model
from fastconv.planner.cost_model import CostModel
from fastconv.problem.cached import CachedProperty
from fastconv.problem.geometry import Geometry
from fastconv.problem.memory_order import C_ORDER, MemoryOrders
from fastconv.problem.subpixel import EquivalentPhases, Phase, equivalent_phases, reading_large, writing_large

#: The target of a contraction: the small map, the large map or the weight, computed from the two others.
Contraction = Literal["small", "large", "weight"]

#: With more phases than this, equivalent phases share one plan where that is possible; and the most phases that a
#: kernel with separate tables for each phase takes.
MANY_PHASES, MOST_PHASES = 256, 1024


class _Fields(NamedTuple):
    """The fields of a `Request`.

    geometry    with a batch axis and two spatial axes
    target      what is computed
    layout      the registers of a tile engine; None for a window engine
    itemsize    bytes of an element
    threads     the most threads that may compute it
    orders      the memory orders of both maps
    stands_for  the contraction that this one stands for, if it is a matrix product in another form (`matmul`); or None
    packs_weight  the weight is constant and finite, and kernels may take it packed (`panels`)
    is_nominal  costs are the same on all machines with this instruction set
    """

    geometry: Geometry
    target: Contraction
    layout: Layout | None
    itemsize: int
    threads: int
    orders: MemoryOrders = C_ORDER
    stands_for: Contraction | None = None
    packs_weight: bool = False
    is_nominal: bool = False


class Request(_Fields):
    """One contraction of a problem, for one kind of machine. Its properties are computed once."""

    @classmethod
    def of(
        cls, engine: AnyEngine, geometry: Geometry, target: Contraction, itemsize: int, threads: int,
        orders: MemoryOrders = C_ORDER,
    ) -> "Request":  # fmt: skip
        """The request for an engine."""
        return cls(geometry, target, engine.layout(itemsize) if is_tiled(engine) else None, itemsize, threads, orders)

    def as_product(self, geometry: Geometry, target: Contraction) -> "Request":
        """The request for the contraction of another convolution that computes the same matrix product."""
        return self._replace(
            geometry=geometry, target=target, orders=C_ORDER, stands_for=self.target, packs_weight=False
        )

    def of_two_images(self) -> "Request":
        """The request for two images of it on one thread, in C order, with nominal costs: it has what decides about the
        bits of a map. For a weight gradient it has all images, which are summed.

        Two, as one image and a large batch have the same arithmetic: what is done once for a weight counts half.
        """
        batch = self.geometry.batch if self.target == "weight" else 2
        return self._replace(
            geometry=self.geometry._replace(batch=batch), threads=1, orders=C_ORDER, packs_weight=False, is_nominal=True
        )

    def in_c_order(self, roles: Collection[str]) -> "Request":
        """The same with these maps in C order."""
        return self._replace(orders=self.orders._replace(**dict.fromkeys(roles))) if roles else self

    @property
    def tiles(self) -> Layout:
        """The layout, for kernels of tile engines."""
        assert self.layout is not None
        return self.layout

    @CachedProperty
    def model(self) -> CostModel:
        """The constants for its kernels; nominal ones for weight gradients, see `cost_model`."""
        is_nominal = self.is_nominal or self.target == "weight"
        return cost_model.nominal(self.tiles) if is_nominal else cost_model.current(self.tiles)

    @property
    def least_cost(self) -> float:
        """The cost of the multiply-adds of the definition without anything else, in the unit of `Proposal.cost`."""
        if self.layout is None:
            return 0
        return self.geometry.flops / 2 / self.layout.lanes / self.threads

    @property
    def to_large(self) -> bool:
        """Whether the large map is written."""
        return self.target == "large"

    @property
    def forbids_partial_sums(self) -> bool:
        """Whether each number must be one sum over all pixels, no partial sums. It stands for a small map then, whose
        channels are the pixels here, and the bits of a map must not depend on the batch."""
        return self.stands_for == "small"

    @CachedProperty
    def equivalent(self) -> list[EquivalentPhases]:
        """The phases that write the large map, grouped by what they read; empty for the other targets."""
        return equivalent_phases(self.geometry) if self.to_large else []

    @CachedProperty
    def phase_count(self) -> int:
        """The number of phases that compute the map."""
        return sum(map(len, self.equivalent)) if self.to_large else 1

    @CachedProperty
    def phases(self) -> list[Phase]:
        """The phases that compute the map. There may be a million: check `phase_count` first."""
        return list(writing_large(self.geometry)) if self.to_large else [reading_large(self.geometry)]


def _no_plans() -> list[Plan]:
    return []


class Proposal(NamedTuple):
    """How a kernel would compute a request.

    excess   bytes of workspace beyond the limit of a thread; compared before the cost, the least is preferred
    cost     predicted cost; in multiply-adds of one vector for kernels of tile engines; for those of window engines in
             nanoseconds, without the matrix products, which are the same for all of them
    plans    a function that makes the plans of the passes, for kernels of tile engines
    splits   number of partial sums of a weight gradient
    sharing  number of threads by which `cost` has still to be divided to give the time
    """

    excess: int
    cost: float
    plans: Callable[[], list[Plan]] = _no_plans
    splits: int = 1
    sharing: int = 1
