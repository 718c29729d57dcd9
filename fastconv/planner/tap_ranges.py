"""Which taps read inside the source, so that products with padding can be skipped. That needs a finite other factor, as
zero times infinity is NaN.

TapRanges    for rows and spans of outputs: the taps that read inside the source
TapGroups    for the weight gradient: groups of taps, and the outputs for which they read inside the source

What depends on one axis is kept by axis: problems of many sizes share their heights and widths.
"""

import functools
from typing import NamedTuple

import numpy as np

from fastconv.kernels.drivers.channel_lanes import SpanEntry
from fastconv.planner.cost_model import CostModel
from fastconv.planner.plan_builder import Tables
from fastconv.problem.arrays import Array
from fastconv.problem.subpixel import AxisMap, Phase


def cost_of_finite_check(model: CostModel, *sizes: int) -> int:
    """The cost, in multiply-adds, of checking whether a factor is finite, by the smaller of factor and result."""
    return model.check_finite + model.check_element * min(sizes)


class TapRanges(NamedTuple):
    """The tap ranges (first, one behind the last) of a phase whose rows are divided into spans.

    rows    (rows, 2), the rows of taps of each row of outputs
    cols    (spans, 2), the columns of taps of each span of a row
    kept    the fraction of all multiply-adds that remains
    """

    rows: Array
    cols: Array
    kept: float

    @classmethod
    def everywhere(cls, phase: Phase) -> "TapRanges":
        """All taps, once for all rows and spans."""
        return cls(np.array([[0, phase.rows.taps]]), np.array([[0, phase.cols.taps]]), 1.0)

    @classmethod
    def inside(cls, phase: Phase, source: tuple[int, ...], most: int) -> "TapRanges":
        """The taps that read inside the source, with rows divided into the fewest spans of at most `most` outputs."""
        rows, kept_rows = _taps_of_spans(phase.rows, source[0], 1)
        cols, kept_cols = _taps_of_spans(phase.cols, source[1], most)
        return cls(rows, cols, kept_rows * kept_cols)

    def add_to(self, tables: Tables, pairs: Array) -> int:
        """Add a table with a `SpanEntry` for each row and span, and the tables of their taps; where it starts.

        `pairs`, (channels, a, b, 2), has for each tap its offsets in the packed weight and in the source.
        """
        found: dict[tuple[int, ...], int] = {}
        entries: dict[tuple[int, int], list[SpanEntry]] = {}
        all_rows, all_cols = ([(first, end) for first, end in ranges.tolist()] for ranges in (self.rows, self.cols))
        for rows in dict.fromkeys(all_rows):
            # with one channel, any range of rows is a contiguous part of the table of all rows
            table_rows = (0, pairs.shape[1]) if len(pairs) == 1 else rows
            entries[rows] = []
            for cols in all_cols:
                if (key := (*table_rows, *cols)) not in found:
                    found[key] = tables.add(pairs[:, slice(*table_rows), slice(*cols)])
                length = cols[1] - cols[0]
                start = found[key] + 2 * (rows[0] - table_rows[0]) * length
                entries[rows].append(SpanEntry(start, (rows[1] - rows[0]) * length))
        return tables.add(np.array([entries[rows] for rows in all_rows]))


@functools.lru_cache(512)
def _taps_of_spans(axis_map: AxisMap, extent: int, most: int) -> tuple[Array, float]:
    """For each of the fewest spans of at most `most` outputs, the taps that some of them link to positions inside
    `extent`; and the fraction of all multiply-adds that these are.

    Each span has at least one tap, as a micro-kernel takes at least one.
    """
    count = -(-axis_map.outputs // most)
    ends = axis_map.outputs * np.arange(count + 1) // count
    at_first, at_last = ends[:-1] * axis_map.stride - axis_map.pad, (ends[1:] - 1) * axis_map.stride - axis_map.pad
    start = np.minimum(np.maximum(-(at_last // axis_map.dilation), 0), axis_map.taps - 1)
    end = np.maximum(np.minimum((extent - 1 - at_first) // axis_map.dilation + 1, axis_map.taps), start + 1)
    kept = (end - start) @ (ends[1:] - ends[:-1]) / (axis_map.outputs * axis_map.taps)
    return np.array([start, end]).T, float(kept)


class TapsOfRow(NamedTuple):
    """Groups of neighbouring taps of a kernel's row, and the outputs of a row for which each group is summed.

    table     (groups, 4): first tap and the one behind the last; first output and the one behind the last
    runs      for each group, how many neighbouring taps share what they read
    kinds     the kinds of groups: taps, length of their runs, and the outputs of all groups of this kind
    reaches   whether some tap reads padding for some output of its group
    """

    table: Array
    runs: Array
    kinds: list[tuple[int, int, int]]
    reads_padding: bool

    @classmethod
    def of(cls, table: Array, runs: Array, reads_padding: bool) -> "TapsOfRow":
        """The groups of a table."""
        outputs: dict[tuple[int, int], int] = {}
        for (b, end_b, j, end_j), run in zip(table.tolist(), runs.tolist(), strict=True):
            kind = end_b - b, run
            outputs[kind] = outputs.get(kind, 0) + end_j - j
        return cls(table, runs, [(*kind, number) for kind, number in sorted(outputs.items())], reads_padding)

    def divided_into_runs(self, longest: int) -> "TapsOfRow":
        """The same taps in runs of `longest` neighbours; what is left of a group is one shorter run."""
        groups, runs = [], []
        left = self.table
        for run in range(longest, 0, -1):
            taken = left.copy()
            taken[:, 1] -= np.diff(left)[:, 0] % run
            left = np.column_stack([taken[:, 1], left[:, 1:]])
            taken = taken[taken[:, 0] < taken[:, 1]]
            groups.append(taken)
            runs.append(np.full(len(taken), run))
        joined = np.concatenate(groups)
        order = np.argsort(joined[:, 0])
        return TapsOfRow.of(joined[order], np.concatenate(runs)[order], self.reads_padding)


class TapGroups(NamedTuple):
    """Tap groups, each of `rows` with each of `cols`: neighbouring taps, and the outputs for which they are summed.

    rows            (rows, 4): first row of taps and the one behind the last, one row or all; first row of outputs and
                    the one behind the last
    height          rows of taps of each of `rows`
    outputs_of_rows rows of outputs of all `rows` together
    cols            the groups of a row of taps
    """

    rows: Array
    height: int
    outputs_of_rows: int
    cols: TapsOfRow

    @property
    def kinds(self) -> list[tuple[int, int, int]]:
        """The kinds of groups: taps, length of their runs, and the outputs of all groups of this kind."""
        return [(self.height * wide, run, number * self.outputs_of_rows) for wide, run, number in self.cols.kinds]


def all_taps(phase: Phase, longest: int) -> list[TapGroups]:
    """A single group: all taps with all outputs; and the same in runs of `longest`, unless that is 1."""
    down, across = phase.rows, phase.cols
    rows = np.array([[0, down.taps, 0, down.outputs]])
    return [
        TapGroups(rows, down.taps, down.outputs, cols) for cols in _all_of_row(across.taps, across.outputs, longest)
    ]


def tap_groups(phase: Phase, source: tuple[int, ...], lengths: tuple[int, ...], longest: int) -> list[TapGroups]:
    """For each length, the tap groups that divide each row of taps into the fewest groups of at most so many taps; and
    the same in runs of `longest`, unless that is 1."""
    rows, outputs = _groups_of_rows(phase.rows, source[0])
    return [TapGroups(rows, 1, outputs, cols) for cols in _groups_of_row(phase.cols, source[1], lengths, longest)]


@functools.lru_cache(512)
def _groups_of_rows(axis_map: AxisMap, extent: int) -> tuple[Array, int]:
    """`TapGroups.rows` of single rows of taps, and the rows of outputs of all of them together."""
    a = np.arange(axis_map.taps)
    first, end = _inside(axis_map, a, extent)
    return np.array([a, a + 1, first, end]).T, int((end - first).sum())


@functools.lru_cache(512)
def _all_of_row(taps: int, outputs: int, longest: int) -> list[TapsOfRow]:
    """All taps of a row as one group, and in runs of `longest`."""
    return _also_in_runs([TapsOfRow.of(np.array([[0, taps, 0, outputs]]), np.ones(1, np.int64), True)], longest)


@functools.lru_cache(512)
def _groups_of_row(axis_map: AxisMap, extent: int, lengths: tuple[int, ...], longest: int) -> list[TapsOfRow]:
    """The groups of a row of taps, as `tap_groups`."""
    # a later tap reads further on, so its first output inside the source comes earlier, and so does its last
    first, end = _inside(axis_map, np.arange(axis_map.taps), extent)
    found = []
    for length in lengths:
        count = -(-axis_map.taps // length)
        ends = axis_map.taps * np.arange(count + 1) // count
        heads, tails = ends[:-1], ends[1:] - 1
        table = np.array([heads, ends[1:], first[tails], end[heads]]).T
        reads_padding = bool((first[heads] != first[tails]).any() or (end[heads] != end[tails]).any())
        found.append(TapsOfRow.of(table, np.ones(count, np.int64), reads_padding))
    return _also_in_runs(found, longest)


def _also_in_runs(found: list[TapsOfRow], longest: int) -> list[TapsOfRow]:
    return [*found, *(taps.divided_into_runs(longest) for taps in found if longest > 1)]


def _inside(axis_map: AxisMap, taps: Array, extent: int) -> tuple[Array, Array]:
    """`AxisMap.inside` of several taps."""
    at_zero = taps * axis_map.dilation - axis_map.pad
    first = np.minimum(np.maximum(-(at_zero // axis_map.stride), 0), axis_map.outputs)
    end = np.minimum((extent - 1 - at_zero) // axis_map.stride + 1, axis_map.outputs)
    return first, np.maximum(first, end)
