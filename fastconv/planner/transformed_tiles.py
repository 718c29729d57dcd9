"""What kernels of maps in transformed tiles have in common: those of Winograd's convolution and of spectra.

Each part of a map (`map_parts`) has a planner, whose passes are the transform of its weight and the map. Plans keep the
transformed weight.
"""

import math
from typing import Any, NamedTuple, cast

import numpy as np

from fastconv.backends import memory
from fastconv.backends.contract import AnyEngine, FinishingRun, Run, TileEngine, finishes
from fastconv.kernels.pack_weight import LanePacking
from fastconv.planner import steps
from fastconv.planner.map_parts import ITEMSIZE, Part, parts_of
from fastconv.planner.plan_builder import Maps
from fastconv.planner.request import Proposal, Request
from fastconv.problem.arrays import Array

#: Phases of a transposed convolution times the parts of each, and planes of a part, at most.
_PARTS = 16


class Blocking(NamedTuple):
    """The blocking of a part: its cost, and the outputs, channels and results of a work item."""

    cost: float
    images: int
    rows: int
    cols: int
    channels: int
    results: int


def lanes_in_order(maps: Maps) -> LanePacking:
    """The packing of a weight whose lanes are a group's results in order."""
    return LanePacking(maps.taps, maps.results, run=0, weight_table=0, out_table=0, bias_table=0, taps_table=0)


class TransformedTiles:
    """A kernel with tiles of a size, as a row of the registry needs it."""

    #: What distinguishes its transformed weights from those of other kernels.
    kind: str

    def __init__(self, size: int) -> None:
        self.size = size

    def _why_not(self, part: Part) -> str | None:
        """Why there are no tiles for a part."""
        raise NotImplementedError

    def _planner(self, request: Request, part: Part, start: int) -> Any:
        """The planner of a part whose transformed weight starts at `start`; it knows its `weight_elements`."""
        raise NotImplementedError

    def propose(self, request: Request) -> Proposal:
        """How it computes a map."""
        raise NotImplementedError

    def applies(self, request: Request) -> str | None:
        """Why it cannot compute a map."""
        if request.itemsize != ITEMSIZE:
            return "it computes in float32 only"
        if request.phase_count > _PARTS:
            return f"there are {request.phase_count} phases"
        axis_maps = [axis_map for phase in request.phases for axis_map in phase]
        if any(axis_map.stride > 1 and axis_map.dilation > 1 for axis_map in axis_maps):
            return "it has a stride and a dilation"
        if any(axis_map.taps % axis_map.stride for axis_map in axis_maps):
            return "the stride does not divide the kernel"
        parts = parts_of(request)
        if len(parts) > _PARTS:
            return f"there are {len(parts)} phases"
        for part in parts:
            if len(part.rows.planes) * len(part.cols.planes) > _PARTS:
                return f"the source has {len(part.rows.planes) * len(part.cols.planes)} planes"
            if (reason := self._why_not(part)) is not None:
                return reason
        if not request.phases or (request.to_large and steps.leaves_gaps(request.geometry)):
            return "some outputs are linked to no tap"
        return None

    def planners(self, request: Request) -> list[Any]:
        """A planner for each part."""
        found: list[Any] = []
        start = 0
        for part in parts_of(request):
            found.append(self._planner(request, part, start))
            start += found[-1].weight_elements
        return found

    def _transformed_shape(self, request: Request) -> tuple[int, int, int, int]:
        """The transformed weights of all parts, in one array of four axes, as a pass takes it."""
        elements = sum(planner.weight_elements for planner in self.planners(request))
        return 1, 1, elements // request.tiles.lanes, request.tiles.lanes

    def prepare(self, engine: TileEngine, request: Request, proposal: Proposal, make_count: steps.MakeCount) -> Run:
        """The map as a function of arrays."""
        *before, compute = (engine.prepared(plan, request.threads) for plan in proposal.plans())
        if not before:
            return compute
        (transform,), shape = before, self._transformed_shape(request)

        def run(source: Array, weight: Array, bias: Array | None, out: Array) -> None:
            transformed = memory.empty(shape, weight.dtype)
            transform(weight, weight, None, transformed)
            compute(source, transformed, bias, out)

        return run

    def panel_run(self, engine: AnyEngine, request: Request, proposal: Proposal) -> steps.PanelRun | None:
        """The map for a constant, finite weight."""
        if not finishes(engine):
            return None
        *before, compute = (engine.prepared(plan, request.threads) for plan in proposal.plans())
        weights: list[TransformedWeight | None] = [None]
        if before:
            key = self.kind, self.size, request.target, request.tiles.lanes
            weights = [TransformedWeight(key, self._transformed_shape(request), *before)]
        return steps.PanelRun((cast(FinishingRun, compute),), tuple(weights))

    def workspace(self, request: Request, proposal: Proposal) -> int:
        """The bytes of the workspace, and of the transformed weight."""
        has_weight = len(proposal.plans()) > 1
        transformed = math.prod(self._transformed_shape(request)) if has_weight else 0
        return steps.workspace_of_plans(request, proposal) + ITEMSIZE * transformed


class TransformedWeight:
    """The weight as the pass of a map takes it, see `steps.PanelRun`. The key says what it depends on besides."""

    def __init__(self, key: Any, shape: tuple[int, ...], transform: Run) -> None:
        self._key, self._shape, self._transform = key, shape, transform

    def packed(self, weight: Array, known: dict[Any, Array]) -> Array:
        """The transformed weight, from `known` if it is there."""
        if (found := known.get(self._key)) is None:
            found = np.empty(self._shape, weight.dtype)
            self._transform(weight, weight, None, found)
            known[self._key] = found  # not before it is complete, as threads share a plan
        return found
