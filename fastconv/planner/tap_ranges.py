"""What need not be multiplied as it is padding: if the other factor is finite, a product with zero is zero.

TapRanges         which taps spans of outputs meet
bundles     which outputs taps meet, for the weight's gradient
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from fastconv.kernels.drivers.channel_lanes import SpanEntry
from fastconv.planner.cost_model import CostModel
from fastconv.planner.plan_builder import Tables
from fastconv.problem.arrays import Array
from fastconv.problem.subpixel import AxisMap, Phase


def cost_of_looking(model: CostModel, *sizes: int) -> int:
    """What it costs, in multiply-adds, to see whether a factor is finite, from it or from the result."""
    return model.look + model.look_at_element * min(sizes)


@dataclass(frozen=True, slots=True, eq=False)
class TapRanges:
    """Ranges of taps, from the first to before the last, of a phase whose rows are cut into spans.

    rows    (rows, 2), those of each row of outputs
    cols    (spans, 2), those of each span of a row
    kept    the part of all multiply-adds that they are
    """

    rows: Array
    cols: Array
    kept: float

    @classmethod
    def everywhere(cls, phase: Phase) -> TapRanges:
        """All taps, once for all rows and spans."""
        return cls(np.array([[0, phase.rows.taps]]), np.array([[0, phase.cols.taps]]), 1.0)

    @classmethod
    def inside(cls, phase: Phase, source: tuple[int, ...], most: int) -> TapRanges:
        """The taps that meet pixels of the source, where rows are cut into the fewest spans of at most `most`."""
        down, across = phase.rows, phase.cols
        count = -(-across.outputs // most)
        ends = across.outputs * np.arange(count + 1) // count
        each = np.arange(down.outputs)
        rows, cols = _ranges(down, each, each, source[0]), _ranges(across, ends[:-1], ends[1:] - 1, source[1])
        kept_rows = (rows[:, 1] - rows[:, 0]).sum() / (down.outputs * down.taps)
        kept_cols = (cols[:, 1] - cols[:, 0]) @ (ends[1:] - ends[:-1]) / (across.outputs * across.taps)
        return cls(rows, cols, float(kept_rows * kept_cols))

    def add_to(self, tables: Tables, pairs: Array) -> int:
        """Add a table with a `SpanEntry` for each row and span, and the tables of their taps; where it starts.

        `pairs`, (channels, a, b, 2), are the entries of taps.
        """
        found: dict[tuple[int, ...], int] = {}
        described: dict[tuple[int, int], list[SpanEntry]] = {}
        all_rows, all_cols = ([(first, end) for first, end in ranges.tolist()] for ranges in (self.rows, self.cols))
        for rows in dict.fromkeys(all_rows):
            # rows of taps of a single channel follow each other, whichever are wanted
            there = (0, pairs.shape[1]) if len(pairs) == 1 else rows
            described[rows] = []
            for cols in all_cols:
                if (key := (*there, *cols)) not in found:
                    found[key] = tables.add(pairs[:, slice(*there), slice(*cols)])
                length = cols[1] - cols[0]
                start = found[key] + 2 * (rows[0] - there[0]) * length
                described[rows].append(SpanEntry(start, (rows[1] - rows[0]) * length))
        return tables.add(np.array([described[rows] for rows in all_rows]))


def _ranges(line: AxisMap, first: Array, last: Array, extent: int) -> Array:
    """`AxisMap.taps_inside` of several ranges of outputs, but at least one tap each, as a micro-kernel takes one."""
    at_first, at_last = first * line.stride - line.pad, last * line.stride - line.pad
    start = np.minimum(np.maximum(-(at_last // line.dilation), 0), line.taps - 1)
    end = np.minimum((extent - 1 - at_first) // line.dilation + 1, line.taps)
    return np.array([start, np.maximum(end, start + 1)]).T


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


def bundles(phase: Phase, source: tuple[int, ...], lengths: Collection[int]) -> list[TapGroups]:
    """For each length, rows of taps in the fewest bundles of at most so many, as equal as can be."""
    down, across = phase.rows, phase.cols
    a = np.arange(down.taps)
    rows = np.array([a, a + 1, *_inside(down, a, source[0])]).T
    # the further on a tap is, the earlier it meets the source, and leaves it
    first, end = _inside(across, np.arange(across.taps), source[1])
    found = []
    for length in lengths:
        count = -(-across.taps // length)
        ends = across.taps * np.arange(count + 1) // count
        heads, tails = ends[:-1], ends[1:] - 1
        cols = np.array([heads, ends[1:], first[tails], end[heads]]).T
        reaches = bool((first[heads] != first[tails]).any() or (end[heads] != end[tails]).any())
        found.append(TapGroups(rows, cols, np.ones(count, np.int64), reaches))
    return found


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
