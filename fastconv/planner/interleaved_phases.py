"""The kernel interleaved phases: channel lanes in which the results of several phases are the lanes.

If the phases of a transposed convolution read the same pixels, as with a kernel whose size is a multiple of the stride,
the results of all phases are lanes side by side: few results fill vectors, and neighbours in the output are stored
together.
"""

from __future__ import annotations

import math

import numpy as np

from fastconv.kernels.pack_weight import LanePacking
from fastconv.planner import channel_lanes
from fastconv.planner.channel_lanes import PhaseGroupPlanner
from fastconv.planner.panels import Panels
from fastconv.planner.plan_builder import Maps, Tables, weight_offsets
from fastconv.planner.request import MANY_PHASES, Proposal, Request
from fastconv.problem.arrays import Array
from fastconv.problem.subpixel import EquivalentPhases, Phase

#: Phases of a kind, on average, from which on several kinds of equivalent phases are worth a plan each.
_PHASES_PER_PLAN = 32


def applies(request: Request) -> str | None:
    """Why it cannot compute the large map: it needs several phases, all or most of them equivalent."""
    number, kinds = request.phase_count, len(request.equivalent)
    if number < 2:
        return f"there {'is one phase' if number else 'are no phases'}"
    if kinds > 1 and number < _PHASES_PER_PLAN * kinds and number <= MANY_PHASES:
        return f"its {number} phases are of {kinds} kinds, each of which would have a plan"
    return None


class ResultsOfPhases:
    """Results of equivalent phases as lanes, see `channel_lanes.Lanes`; the first phase stands for all of them.

    Lanes are ordered by result, then by row and column of the phase. Columns come in runs of neighbours whose weights
    and outputs are neighbours too. A last run that would be short starts earlier, and repeats sums of the one before.
    """

    def __init__(self, request: Request, equivalent: EquivalentPhases, maps: Maps) -> None:
        self.maps, self._equivalent, self._lanes, self._model = maps, equivalent, request.tiles.lanes, request.model
        self._kernel_width, number = request.geometry.axes[1].taps, len(equivalent.cols)
        are_neighbours = (np.diff(equivalent.cols.out_starts) == 1).all() and (
            np.diff(equivalent.cols.first_taps) == 1
        ).all()
        runs = [2**e for e in range(self._lanes.bit_length())] if are_neighbours else [1]
        self._run = min((run for run in runs if run <= number), key=lambda run: _cost(request, equivalent, run))
        starts = np.minimum(np.arange(0, number, self._run), number - self._run)
        self._cols = (starts[:, None] + np.arange(self._run)).ravel()
        self.results = maps.results * len(equivalent.rows) * len(self._cols)
        self.taps = math.prod(axis_map.taps for axis_map in equivalent.axis_maps)

    def costs(self) -> tuple[float, float]:
        """As `Lanes`: runs are gathered from the weight, and stored."""
        runs = self._lanes // self._run
        return runs * self._model.gather_run * self.taps * self.maps.channels, runs * self._model.store_run

    def panel_taps(self, phase: Phase) -> Array:
        """As `Lanes`."""
        return np.arange(self.taps)

    def offsets(self) -> tuple[Array, Array]:
        """As `Lanes`."""
        return self._weight_offsets(), weight_offsets(self._equivalent.first, self._kernel_width)

    def packing(self, tables: Tables) -> LanePacking:
        """As `Lanes`."""
        maps, rows, cols = self.maps, self._equivalent.rows, self._equivalent.cols
        in_out = self._offsets(math.prod(maps.out), maps.out[1], rows.out_starts, cols.out_starts)
        return LanePacking(
            taps=self.taps, biases=maps.results, run=self._run,
            weight_table=tables.add(self._weight_offsets()), out_table=tables.add(in_out),
            bias_table=tables.add(np.repeat(np.arange(maps.results), len(rows) * len(self._cols))),
            taps_table=tables.add(weight_offsets(self._equivalent.first, self._kernel_width)),
        )  # fmt: skip

    def panels(self) -> Panels:
        """As `Lanes`."""
        maps = self.maps
        taps = weight_offsets(self._equivalent.first, self._kernel_width)
        return Panels.of(maps.groups, maps.channels, maps.weight_strides, self._weight_offsets(), [taps], self._lanes)

    def _weight_offsets(self) -> Array:
        """For each lane its offset in the weight."""
        rows, cols = self._equivalent.rows, self._equivalent.cols
        return self._offsets(self.maps.weight_strides.result, self._kernel_width, rows.first_taps, cols.first_taps)

    def _offsets(self, stride: int, to_row: int, of_rows: Array, of_cols: Array) -> Array:
        """Each lane's offset from the first lane: strides of results and rows, positions of phases."""
        down, across = (of_rows - of_rows[0]) * to_row, (of_cols - of_cols[0])[self._cols]
        offsets: Array = (np.arange(self.maps.results)[:, None, None] * stride + down[:, None] + across).ravel()
        return offsets


def _cost(request: Request, equivalent: EquivalentPhases, run: int) -> float:
    """The cost of a row of phases in runs of this length: multiply-adds, gathering the weight, storing."""
    geometry, model, (rows, cols) = request.geometry, request.model, equivalent.axis_maps
    pixels = geometry.batch * rows.outputs * cols.outputs
    weights = rows.taps * cols.taps * geometry.small_channels // geometry.groups
    each = run / request.tiles.lanes * pixels * weights + model.gather_run * weights + model.store_run * pixels
    return -(-len(equivalent.cols) // run) * each


def propose(request: Request) -> Proposal:
    """How it computes the large map: by a plan for each kind of equivalent phases, which writes their pixels only."""
    maps, proposals = Maps(request), []
    for equivalent in request.equivalent:
        if len(equivalent) == 1:
            one = channel_lanes.planner_of(request, [equivalent.first], is_all=False)
        else:
            lanes = ResultsOfPhases(request, equivalent, maps)
            one = PhaseGroupPlanner(request, [equivalent.first], maps, lanes, is_all=False)
        proposals.append(one.propose(request.threads))
    return Proposal(
        sum(proposal.excess for proposal in proposals),
        sum(proposal.cost for proposal in proposals) * (request.model.several_plans if len(proposals) > 1 else 1),
        lambda: [plan for proposal in proposals for plan in proposal.plans()],
    )
