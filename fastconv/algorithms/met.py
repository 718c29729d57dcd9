"""Which taps spans of outputs meet: those all of whose pixels are padding may be left out if the weight is finite."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from fastconv.algorithms.planning import Tables
from fastconv.ground.arrays import Array
from fastconv.ground.phases import Phase


@dataclass(frozen=True, slots=True)
class Met:
    """Ranges of taps, from the first to before the last, of a phase whose rows are cut into spans.

    rows    those of each row of outputs
    cols    those of each span of a row
    kept    the part of all multiply-adds that they are
    """

    rows: tuple[tuple[int, int], ...]
    cols: tuple[tuple[int, int], ...]
    kept: float

    @classmethod
    def everywhere(cls, phase: Phase) -> Met:
        """All taps, once for all rows and spans."""
        return cls(((0, phase.rows.taps),), ((0, phase.cols.taps),), 1.0)

    @classmethod
    def inside(cls, phase: Phase, source: tuple[int, ...], most: int) -> Met:
        """The taps that meet pixels of the source, where rows are cut into the fewest spans of at most `most`."""
        down, across = phase.rows, phase.cols
        count = -(-across.outputs // most)
        ends = [across.outputs * number // count for number in range(count + 1)]
        rows = [_some(down.met(i, i, source[0]), down.taps) for i in range(down.outputs)]
        cols = [_some(across.met(j, end - 1, source[1]), across.taps) for j, end in itertools.pairwise(ends)]
        kept_rows = np.diff(rows).sum() / (down.outputs * down.taps)
        kept_cols = np.diff(cols)[:, 0] @ np.diff(ends) / (across.outputs * across.taps)
        return cls(tuple(rows), tuple(cols), float(kept_rows * kept_cols))

    def add_to(self, tables: Tables, pairs: Array) -> int:
        """Where the table starts that says of each row and span where the pairs of its taps start, and how many a
        channel has. `pairs`, (channels, a, b, 2), says what to know of a tap."""
        found: dict[tuple[tuple[int, int], tuple[int, int]], int] = {}

        def described(rows: tuple[int, int], cols: tuple[int, int]) -> tuple[int, int]:
            # rows of taps of a single channel lie one behind the other, whichever are met
            there = (0, pairs.shape[1]) if len(pairs) == 1 else rows
            if (there, cols) not in found:
                found[there, cols] = tables.add(pairs[:, slice(*there), slice(*cols)])
            length = cols[1] - cols[0]
            return found[there, cols] + 2 * (rows[0] - there[0]) * length, (rows[1] - rows[0]) * length

        return tables.add(np.array([described(rows, cols) for rows in self.rows for cols in self.cols]))


def _some(met: tuple[int, int], taps: int) -> tuple[int, int]:
    """At least one tap, as a micro-kernel takes one."""
    first = min(met[0], taps - 1)
    return first, max(met[1], first + 1)
