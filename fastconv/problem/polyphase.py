"""Polyphase planes: a source split by its stride, so that each tap is a constant shift within one plane.

Output i of an axis map reads the source at i * stride - pad + a * dilation for tap a. Divide the offset of tap a by the
stride, a * dilation - pad = shift * stride + residue: the source position is (i + shift) * stride + residue. So in the
plane of every stride-th position that starts at `residue`, tap a is output i's own position moved by `shift`. A copy of
the source split into the planes that taps use, and padded with zeros, has every tap at a constant distance from every
output.
"""

import functools
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from fastconv.problem.arrays import Array
from fastconv.problem.subpixel import AxisMap, Phase, distinct


class Planes(NamedTuple):
    """The planes of one axis.

    origins   the source position that each plane starts at, which may be outside
    stride    source positions from one position of a plane to the next
    halo      the largest shift: a plane of the outputs i0 <= i < i1 has i1 - i0 + halo positions, from i0
    taps      (taps, 2), for each tap its plane's number and its shift, 0 <= shift <= halo
    """

    origins: tuple[int, ...]
    stride: int
    halo: int
    taps: Array

    @classmethod
    def of(cls, line: AxisMap, most: int | None = None) -> "Planes":
        """The planes that the taps of an axis map use. `most`: outputs that are read at a time (default: all)."""
        return _planes(line, min(line.outputs, most or line.outputs))

    @classmethod
    def joined(cls, lines: Collection[AxisMap]) -> "Planes":
        """The one plane that several axis maps of stride 1 read; `part` gives the taps of each."""
        least = -max(line.pad for line in lines)
        return cls((least,), 1, _halo(lines), np.empty((0, 2), np.int64))

    def part(self, line: AxisMap) -> "Planes":
        """The same plane with the taps of one of the axis maps that it was joined from."""
        return self._replace(taps=_pairs(0, _offsets(line) - self.origins[0]))

    def cropped(self, extent: int, length: int) -> tuple["Planes", int]:
        """One plane, its first `length` positions cropped to those inside the source, and the number of these.

        Shifts are counted from the first of these, so they may be negative.
        """
        first, end = self.inside(0, extent, length)
        origin = self.origins[0] + first * self.stride
        return self._replace(origins=(origin,), taps=_pairs(0, self.taps[:, 1] - first)), end - first

    def inside(self, plane: int, extent: int, length: int) -> tuple[int, int]:
        """Which of the first `length` positions of a plane are inside 0 <= h < extent: the first, and the one behind
        the last."""
        origin = self.origins[plane]
        first = min(length, max(0, -(origin // self.stride)))
        return first, max(first, min(length, (extent - 1 - origin) // self.stride + 1))


@functools.lru_cache(512)
def _planes(line: AxisMap, outputs: int) -> Planes:
    """The planes of an axis map, `outputs` outputs at a time; cached, as several kernels ask for the same."""
    least, last = -line.pad // line.stride, ((line.taps - 1) * line.dilation - line.pad) // line.stride
    if last - least > outputs * (line.taps - 1):
        # with so long a dilation most of a plane would not be read, so each tap has a plane of its own
        return Planes(tuple(_offsets(line).tolist()), line.stride, 0, _pairs(np.arange(line.taps), 0))
    if line.stride == 1:  # most axis maps
        return Planes((least,), 1, last - least, _pairs(0, line.dilation * np.arange(line.taps)))
    offsets = _offsets(line)
    shifts = offsets // line.stride
    of_taps = offsets % line.stride
    residues = sorted(set(of_taps.tolist()))
    origins = tuple(residue + least * line.stride for residue in residues)
    return Planes(origins, line.stride, last - least, _pairs(np.searchsorted(residues, of_taps), shifts - least))


def _offsets(line: AxisMap) -> Array:
    """The source position that each tap reads for output 0."""
    return np.arange(line.taps) * line.dilation - line.pad


def _pairs(numbers: Array | int, shifts: Array | int) -> Array:
    pairs = np.empty((np.broadcast(numbers, shifts).size, 2), np.int64)
    pairs[:, 0], pairs[:, 1] = numbers, shifts
    return pairs


def are_side_by_side(phases: Sequence[Phase]) -> bool:
    """Whether phases read neighbouring pixels and their outputs interleave, so that one plan can compute them."""
    return all(
        _halo(lines) <= max(line.outputs for line in lines) + 32
        and all(line.out_start < line.out_stride for line in lines)
        for lines in distinct(phases)
    )


def _halo(lines: Collection[AxisMap]) -> int:
    """The halo of the one plane that axis maps of stride 1 read."""
    return max((line.taps - 1) * line.dilation - line.pad for line in lines) + max(line.pad for line in lines)
