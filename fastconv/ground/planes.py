"""Stride erased: the positions that a line meets, as shifts within planes that are read one after the other.

Output i of a line meets the source at i * hop - before + a * step for tap a. With that offset divided by the hop,
offset = shift * hop + residue, the source is at (i + shift) * hop + residue: in the plane of every hop-th position
that starts at `residue`, tap a is the output's own position moved by `shift`. A copy of the source split into the
planes that taps use, and continued by zeros, has every tap at a constant distance from every output.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fastconv.ground.arrays import Array
from fastconv.ground.phases import Line, Phase, distinct


@dataclass(frozen=True, slots=True, eq=False)
class Planes:
    """The planes of one axis.

    origins   the source position that each plane starts at, which may be outside
    hop       source positions from one of a plane to the next
    reach     the largest shift: a plane of the outputs i0 <= i < i1 has i1 - i0 + reach positions, from i0
    taps      (taps, 2), for each tap its plane's number and its shift, 0 <= shift <= reach
    """

    origins: tuple[int, ...]
    hop: int
    reach: int
    taps: Array

    @classmethod
    def of(cls, line: Line, most: int | None = None) -> Planes:
        """The planes that the taps of `line` use; at most so many outputs (default: all) are read at a time."""
        offsets = _offsets(line)
        shifts = offsets // line.hop
        least, last = int(shifts[0]), int(shifts[-1])
        if last - least > min(line.outputs, most or line.outputs) * (line.taps - 1):
            # a dilation so long that most of a plane would not be read: each tap has one of its own
            return cls(tuple(offsets.tolist()), line.hop, 0, _pairs(np.arange(line.taps), 0))
        if line.hop == 1:  # most lines
            return cls((least,), 1, last - least, _pairs(0, shifts - least))
        of_taps = offsets % line.hop
        residues = sorted(set(of_taps.tolist()))
        origins = tuple(residue + least * line.hop for residue in residues)
        return cls(origins, line.hop, last - least, _pairs(np.searchsorted(residues, of_taps), shifts - least))

    @classmethod
    def joined(cls, lines: Collection[Line]) -> Planes:
        """The one plane that lines of hop 1 read; `part` has the taps of each."""
        least = -max(line.before for line in lines)
        return cls((least,), 1, _reach(lines), np.empty((0, 2), np.int64))

    def part(self, line: Line) -> Planes:
        """The same plane with the taps of one of the lines that it was joined of."""
        return replace(self, taps=_pairs(0, _offsets(line) - self.origins[0]))

    def cropped(self, extent: int, length: int) -> tuple[Planes, int]:
        """The same where only positions inside are read, of one plane; and how many there are.

        Shifts are counted from the first of them, so they may be negative.
        """
        first, end = self.inside(0, extent, length)
        origin = self.origins[0] + first * self.hop
        return replace(self, origins=(origin,), taps=_pairs(0, self.taps[:, 1] - first)), end - first

    def inside(self, plane: int, extent: int, length: int) -> tuple[int, int]:
        """The positions of a plane, of the first `length`, that are in 0 <= h < extent: from the first to before the
        last."""
        origin = self.origins[plane]
        first = min(length, max(0, -(origin // self.hop)))
        return first, max(first, min(length, (extent - 1 - origin) // self.hop + 1))


def _offsets(line: Line) -> Array:
    """Where the source is that each tap meets at output 0."""
    return np.arange(line.taps) * line.step - line.before


def _pairs(numbers: Array | int, shifts: Array | int) -> Array:
    pairs = np.empty((np.broadcast(numbers, shifts).size, 2), np.int64)
    pairs[:, 0], pairs[:, 1] = numbers, shifts
    return pairs


def are_side_by_side(phases: Sequence[Phase]) -> bool:
    """Whether phases read pixels near each other, and write each pixel between those of the others."""
    return all(
        _reach(lines) <= max(line.outputs for line in lines) + 32 and all(line.place < line.apart for line in lines)
        for lines in distinct(phases)
    )


def _reach(lines: Collection[Line]) -> int:
    """That of the one plane that lines of hop 1 read."""
    return max((line.taps - 1) * line.step - line.before for line in lines) + max(line.before for line in lines)
