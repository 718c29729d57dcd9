"""What need not be multiplied as it is padding: if the other factor is finite, a product with zero is zero.

TapRanges         which taps spans of outputs meet
bundles     which outputs taps meet, for the weight's gradient
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, replace

import numpy as np

from fastconv.kernels.drivers.channel_lanes import SpanEntry
from fastconv.planner.plan_builder import Tables
from fastconv.problem.arrays import Array
from fastconv.problem.subpixel import AxisMap, Phase

#: What a look whether a factor is finite costs, in multiply-adds: that of an element, and beside.
_LOOKING, _CALLING = 16, 2**20


def cost_of_looking(*sizes: int) -> int:
    """What it costs, in multiply-adds, to see whether a factor is finite, from it or from the result."""
    return _CALLING + _LOOKING * min(sizes)


@dataclass(frozen=True, slots=True)
class TapRanges:
    """Ranges of taps, from the first to before the last, of a phase whose rows are cut into spans.

    rows    those of each row of outputs
    cols    those of each span of a row
    kept    the part of all multiply-adds that they are
    """

    rows: tuple[tuple[int, int], ...]
    cols: tuple[tuple[int, int], ...]
    kept: float

    @classmethod
    def everywhere(cls, phase: Phase) -> TapRanges:
        """All taps, once for all rows and spans."""
        return cls(((0, phase.rows.taps),), ((0, phase.cols.taps),), 1.0)

    @classmethod
    def inside(cls, phase: Phase, source: tuple[int, ...], most: int) -> TapRanges:
        """The taps that meet pixels of the source, where rows are cut into the fewest spans of at most `most`."""
        down, across = phase.rows, phase.cols
        count = -(-across.outputs // most)
        ends = [across.outputs * number // count for number in range(count + 1)]
        rows = [_some(down.taps_inside(i, i, source[0]), down.taps) for i in range(down.outputs)]
        cols = [_some(across.taps_inside(j, end - 1, source[1]), across.taps) for j, end in itertools.pairwise(ends)]
        kept_rows = np.diff(rows).sum() / (down.outputs * down.taps)
        kept_cols = np.diff(cols)[:, 0] @ np.diff(ends) / (across.outputs * across.taps)
        return cls(tuple(rows), tuple(cols), float(kept_rows * kept_cols))

    def add_to(self, tables: Tables, pairs: Array) -> int:
        """Add a table with a `SpanEntry` for each row and span, and the tables of their taps; where it starts.

        `pairs`, (channels, a, b, 2), are the entries of taps.
        """
        found: dict[tuple[tuple[int, int], tuple[int, int]], int] = {}

        def entry(rows: tuple[int, int], cols: tuple[int, int]) -> SpanEntry:
            # rows of taps of a single channel follow each other, whichever are wanted
            there = (0, pairs.shape[1]) if len(pairs) == 1 else rows
            if (there, cols) not in found:
                found[there, cols] = tables.add(pairs[:, slice(*there), slice(*cols)])
            length = cols[1] - cols[0]
            return SpanEntry(found[there, cols] + 2 * (rows[0] - there[0]) * length, (rows[1] - rows[0]) * length)

        return tables.add(np.array([entry(rows, cols) for rows in self.rows for cols in self.cols]))


def _some(met: tuple[int, int], taps: int) -> tuple[int, int]:
    """At least one tap, as a micro-kernel takes one."""
    first = min(met[0], taps - 1)
    return first, max(met[1], first + 1)


@dataclass(frozen=True, eq=False)
class TapGroups:
    """Neighbouring taps of a kernel, and the outputs that some of them meet: each of `rows` with each of `cols`.

    rows      (rows, 4): taps from a to before another, one each or all, and outputs from i to before another
    cols      (cols, 4): likewise b and j
    runs      of how many neighbours the rows of each of `cols` are, which share reads
    reaches   whether some of them meet the padding there
    """

    rows: Array
    cols: Array
    runs: Array
    reaches: bool

    @functools.cached_property
    def kinds(self) -> list[tuple[int, int, int]]:
        """The different ones: how many taps they are, of how many neighbours their runs, and the outputs that all of
        them meet."""
        height, met = int(self.rows[0, 1] - self.rows[0, 0]), int((self.rows[:, 3] - self.rows[:, 2]).sum())
        outputs: dict[tuple[int, int], int] = {}
        for (b, end_b, j, end_j), run in zip(self.cols.tolist(), self.runs.tolist(), strict=True):
            kind = end_b - b, run
            outputs[kind] = outputs.get(kind, 0) + (end_j - j) * met
        return [(height * wide, run, count) for (wide, run), count in sorted(outputs.items())]


def everything(phase: Phase) -> TapGroups:
    """All taps, which may meet all outputs."""
    rows, cols = (np.array([[0, line.taps, 0, line.outputs]]) for line in (phase.rows, phase.cols))
    return TapGroups(rows, cols, np.ones(1, np.int64), True)


def bundles(phase: Phase, source: tuple[int, ...], length: int) -> TapGroups:
    """Rows of taps in the fewest bundles of at most `length`, as equal as can be."""
    down, across = phase.rows, phase.cols
    count = -(-across.taps // length)
    ends = across.taps * np.arange(count + 1) // count
    # the further on a tap is, the earlier it meets the source, and leaves it
    first, last = _inside(across, ends[:-1], source[1]), _inside(across, ends[1:] - 1, source[1])
    cols = np.array([ends[:-1], ends[1:], last[0], first[1]]).T
    a = np.arange(down.taps)
    rows = np.array([a, a + 1, *_inside(down, a, source[0])]).T
    reaches = any((one != other).any() for one, other in zip(first, last, strict=True))
    return TapGroups(rows, cols, np.ones(count, np.int64), reaches)


def _inside(line: AxisMap, taps: Array, extent: int) -> tuple[Array, Array]:
    """`AxisMap.inside` of several taps."""
    at_zero = taps * line.dilation - line.pad
    first = np.minimum(np.maximum(-(at_zero // line.stride), 0), line.outputs)
    end = np.minimum((extent - 1 - at_zero) // line.stride + 1, line.outputs)
    return first, np.maximum(first, end)


def in_runs(bundles: TapGroups, longest: int) -> TapGroups:
    """The same taps in runs of `longest`, and what is left of each row in a shorter one."""
    cols, runs = [], []
    left = bundles.cols
    for run in range(longest, 0, -1):
        taken = left.copy()
        taken[:, 1] -= np.diff(left)[:, 0] % run
        left = np.column_stack([taken[:, 1], left[:, 1:]])
        taken = taken[taken[:, 0] < taken[:, 1]]
        cols.append(taken)
        runs.append(np.full(len(taken), run))
    joined = np.concatenate(cols)
    order = np.argsort(joined[:, 0])
    return replace(bundles, cols=joined[order], runs=np.concatenate(runs)[order])
