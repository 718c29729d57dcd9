"""Direct convolution with a lane for each result of all phases: how it is cut, as a plan.

Where the phases of a transposed convolution read the same pixels, as those of a kernel do that is a multiple of the
stride long, the results of each are lanes beside those of the others: few results fill vectors, and what lies side by
side on the map is stored together.
"""

from __future__ import annotations

import math

import numpy as np

from fastconv.backends.contract import Layout
from fastconv.kernels.abi import Place as P
from fastconv.planner.blocking import Cut
from fastconv.planner.channel_lanes import Correlation
from fastconv.planner.plan_builder import Tables, weight_offsets
from fastconv.planner.request import MANY_PHASES, Request, Way
from fastconv.problem.arrays import Array
from fastconv.problem.geometry import Geometry
from fastconv.problem.subpixel import EquivalentPhases, Phase

#: The cost of moving lanes that lie side by side to where they belong, and from the weight, in multiply-adds of a
#: vector.
_PLACING, _FETCHING = 1.0, 4.0


#: Phases of a kind, on average, from which on several kinds are worth a plan each; what these cost more than the model
#: says, as each reads the source and the weight anew, and threads wait for each other after it.
_MANY, _KINDS = 32, 2.0


def applies(request: Request) -> str | None:
    """Why it cannot compute the large map: there must be several phases, of which all or most are equivalent."""
    number, kinds = request.phase_count, len(request.equivalent)
    if number < 2:
        return f"there {'is one phase' if number else 'are no phases'}"
    if kinds > 1 and number < _MANY * kinds and number <= MANY_PHASES:
        return f"its {number} phases are of {kinds} kinds, each of which would have a plan"
    return None


class _Merged(Correlation):
    """Phases that are alike: a problem of the first one, and results of all.

    run     lanes that lie side by side
    lines   which of the columns' lines each lane of a row is, in runs: where the last one would be short, it begins
            earlier, and has the same sums as the one before
    """

    def __init__(self, geometry: Geometry, alike: EquivalentPhases, layout: Layout, itemsize: int) -> None:
        self.alike, number = alike, len(alike.cols)
        are_neighbours = (np.diff(alike.cols.out_starts) == 1).all() and (np.diff(alike.cols.first_taps) == 1).all()
        runs = [2**e for e in range(layout.lanes.bit_length())] if are_neighbours else [1]
        self.run = min((run for run in runs if run <= number), key=lambda run: _cost(geometry, alike, run, layout))
        starts = np.minimum(np.arange(0, number, self.run), number - self.run)
        self.lines = (starts[:, None] + np.arange(self.run)).ravel()
        super().__init__(geometry, [alike.first], True, layout, itemsize, len(alike.rows) * len(self.lines))

    def costs(self) -> tuple[float, float]:
        """What it costs to gather the weight of as many results as there are lanes, and to place their sums."""
        runs = self.layout.lanes // self.run
        return runs * _FETCHING * self.kernel * self.maps.channels, runs * _PLACING

    def in_panel(self, phase: Phase) -> Array:
        """Which row of a channel's weight each tap is."""
        return np.arange(self.kernel)

    def lanes(self, tables: Tables, cut: Cut) -> dict[P, int]:
        """What a plan says of its lanes: where each is."""
        maps, first, (rows, cols) = self.maps, self.phases[0], (self.alike.rows, self.alike.cols)
        results = np.arange(maps.results)[:, None, None]
        lanes = np.empty((-(-self.results // self.layout.lanes) * self.layout.lanes, 3), np.int64)
        table = lanes[: self.results].reshape(maps.results, len(rows), len(self.lines), 3)
        for place, stride, to_row, of_rows, of_cols in (
            (0, maps.weight[P.WEIGHT_RESULT], self.kernel_width, rows.first_taps, cols.first_taps),
            (1, math.prod(maps.out), maps.out[1], rows.out_starts, cols.out_starts),
        ):
            down, across = (of_rows - of_rows[0]) * to_row, (of_cols - of_cols[0])[self.lines]
            np.add(results * stride, down[:, None] + across, out=table[..., place])
        table[..., 2] = results
        lanes[self.results :] = lanes[self.results - 1]  # lanes beyond the last result repeat it
        return {
            P.RESULTS: self.results, P.MERGES: self.run, P.MULTIPLE: maps.results, P.LANE_TABLE: tables.add(lanes),
            P.TAPS_A: first.rows.taps, P.TAPS_B: first.cols.taps,
            P.TAP_TABLE: tables.add(weight_offsets(first, self.kernel_width)),
        }  # fmt: skip


def _cost(geometry: Geometry, alike: EquivalentPhases, run: int, layout: Layout) -> float:
    """What a row of lanes in such runs costs: to multiply, to gather of the weight, and to place."""
    rows, cols = alike.axis_maps
    pixels = geometry.batch * rows.outputs * cols.outputs
    weights = rows.taps * cols.taps * geometry.small_channels // geometry.groups
    each = run / layout.lanes * pixels * weights + _FETCHING * weights + _PLACING * pixels
    return -(-len(alike.cols) // run) * each


class _Alone(Correlation):
    """A phase that is like no other: those fill what lies between its pixels."""

    def lanes(self, tables: Tables, cut: Cut) -> dict[P, int]:
        """What a plan says of its lanes: nothing."""
        return {}


def way(request: Request) -> Way:
    """How it computes phases, those that are equivalent by one plan each."""
    geometry, layout, itemsize, threads = request.geometry, request.tiles, request.itemsize, request.threads
    ways = [
        _Merged(geometry, alike, layout, itemsize).way(threads)
        if len(alike) > 1
        else _Alone(geometry, [alike.first], True, layout, itemsize).way(threads)
        for alike in request.equivalent
    ]
    return Way(
        sum(way.excess for way in ways),
        sum(way.cost for way in ways) * (_KINDS if len(ways) > 1 else 1),
        lambda: [plan for way in ways for plan in way.plans()],
    )
