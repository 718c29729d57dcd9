"""What need not be multiplied as it is padding: if the other factor is finite, a product with zero is zero.

Met         which taps spans of outputs meet
bundles     which outputs taps meet, for the weight's gradient
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastconv.algorithms.planning import Tables
from fastconv.ground.arrays import Array
from fastconv.ground.phases import Phase

#: What a look whether a factor is finite costs, in multiply-adds: that of an element, and beside.
_LOOKING, _CALLING = 16, 2**20


def cost_of_looking(*sizes: int) -> int:
    """What it costs, in multiply-adds, to see whether a factor is finite, from it or from the result."""
    return _CALLING + _LOOKING * min(sizes)


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


class Bundle(NamedTuple):
    """Neighbouring taps of a kernel, and the outputs that some of them meet: from the first to before the last.

    `reaches`: there some of them meet the padding; `run`: of how many neighbours its rows are, which share reads.
    """

    a: tuple[int, int]
    b: tuple[int, int]
    rows: tuple[int, int]
    cols: tuple[int, int]
    reaches: bool
    run: int = 1

    @property
    def taps(self) -> int:
        """How many they are."""
        return (self.a[1] - self.a[0]) * (self.b[1] - self.b[0])

    @property
    def outputs(self) -> int:
        """How many they meet."""
        return (self.rows[1] - self.rows[0]) * (self.cols[1] - self.cols[0])


def everything(phase: Phase) -> list[Bundle]:
    """All taps, which may meet all outputs."""
    down, across = phase.rows, phase.cols
    return [Bundle((0, down.taps), (0, across.taps), (0, down.outputs), (0, across.outputs), True)]


def bundles(phase: Phase, source: tuple[int, ...], length: int) -> list[Bundle]:
    """Rows of taps in the fewest bundles of at most `length`, as equal as can be."""
    down, across = phase.rows, phase.cols
    count = -(-across.taps // length)
    ends = [across.taps * number // count for number in range(count + 1)]
    # the further on a tap is, the earlier it meets the source, and leaves it
    found = []
    for b, end in itertools.pairwise(ends):
        first, last = across.inside(b, source[1]), across.inside(end - 1, source[1])
        found.append(((b, end), (last[0], first[1]), first != last))
    rows = [((a, a + 1), down.inside(a, source[0])) for a in range(down.taps)]
    return [Bundle(a, b, met_i, met_j, reaches) for a, met_i in rows for b, met_j, reaches in found]


def in_runs(bundles: Sequence[Bundle], longest: int) -> list[Bundle]:
    """The same taps in runs of `longest`, and what is left of each row in a shorter one."""
    found = []
    for bundle in bundles:
        b, end = bundle.b
        for run in range(longest, 0, -1):
            taps = (end - b) // run * run
            if taps:
                found.append(bundle._replace(b=(b, b + taps), run=run))
            b += taps
    return found
