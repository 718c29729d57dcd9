"""Direct convolution with a lane for each result of all phases: how it is cut, as a plan.

Where the phases of a transposed convolution read the same pixels, as those of a kernel do that is a multiple of the
stride long, the results of each are lanes beside those of the others: few results fill vectors, and what lies side by
side on the map is stored together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fastconv.algorithms.cuts import Cut, Way
from fastconv.algorithms.planning import Tables, weight_offsets
from fastconv.algorithms.results import Correlation
from fastconv.engines.contract import Layout
from fastconv.engines.plans import Place as P
from fastconv.ground.arrays import Array
from fastconv.ground.geometry import Geometry
from fastconv.ground.phases import Line, Phase

#: The cost of moving lanes that lie side by side to where they belong, and from the weight, in multiply-adds of a
#: vector.
_PLACING, _FETCHING = 1.0, 4.0


def applies(phases: Sequence[Phase]) -> bool:
    """Whether it is several phases that read the same pixels, and lie alike in the kernel and on the map."""
    if len(phases) < 2:
        return False
    one = phases[0]
    return all(_are_alike(phase.rows, one.rows) and _are_alike(phase.cols, one.cols) for phase in phases)


def _are_alike(line: Line, other: Line) -> bool:
    moved = line.place - other.place
    return line == replace(other, place=line.place, kernel=other.kernel + moved)


class _Merged(Correlation):
    """Phases to which it `applies`: a problem of the first one, and results of all."""

    def __init__(
        self, geometry: Geometry, phases: Sequence[Phase], to_large: bool, layout: Layout, itemsize: int
    ) -> None:
        self.merged = sorted(phases, key=lambda phase: (phase.rows.place, phase.cols.place))
        super().__init__(geometry, self.merged[:1], to_large, layout, itemsize, len(phases))
        places = {phase.cols.place for phase in phases}
        are_all = max(places) - min(places) == len(places) - 1
        #: Lanes that lie side by side.
        self.run = math.gcd(len(places), layout.lanes) if are_all else 1

    def costs(self) -> tuple[float, float]:
        """What it costs to gather the weight of as many results as there are lanes, and to place their sums."""
        runs = self.layout.lanes // self.run
        return runs * _FETCHING * self.kernel * self.maps.channels, runs * _PLACING

    def in_panel(self, phase: Phase) -> Array:
        """Which row of a channel's weight each tap is."""
        return np.arange(self.kernel)

    def lanes(self, tables: Tables, cut: Cut) -> dict[P, int]:
        """What a plan says of its lanes: where each is."""
        maps, first = self.maps, self.phases[0]
        down = np.array([phase.rows.place - first.rows.place for phase in self.merged])
        across = np.array([phase.cols.place - first.cols.place for phase in self.merged])
        results = np.arange(maps.results)[:, None]
        in_weight = results * maps.weight[P.WEIGHT_RESULT] + down * self.kernel_width + across
        in_out = results * math.prod(maps.out) + down * maps.out[1] + across
        table = np.stack([in_weight, in_out, results + 0 * down], 2).reshape(-1, 3)
        # lanes beyond the last result repeat it
        table = np.concatenate([table, np.repeat(table[-1:], -len(table) % self.layout.lanes, 0)])
        return {
            P.RESULTS: self.results, P.MERGES: self.run, P.MULTIPLE: maps.results, P.LANE_TABLE: tables.add(table),
            P.TAPS_A: first.rows.taps, P.TAPS_B: first.cols.taps,
            P.TAP_TABLE: tables.add(weight_offsets(first, self.kernel_width)),
        }  # fmt: skip


def correlation(
    geometry: Geometry, phases: Sequence[Phase], to_large: bool, layout: Layout, itemsize: int, threads: int
) -> Way:
    """The way to compute phases to which it `applies`."""
    return _Merged(geometry, phases, to_large, layout, itemsize).way(threads)
