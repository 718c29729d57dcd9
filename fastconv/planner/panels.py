"""Panels: a constant weight, packed once for kernels that read it so.

A panel has a vector of results of a group: for each channel and tap their weights side by side. So a kernel reads a
panel from its first element to its last, whatever the block sizes.

Pixel lanes read the weight as it is, an element at a time: a stream for each result of a register tile. One stream,
from panels of as many results as a tile has rows, was 0 to 30% slower where the weight exceeds the second-level cache.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from fastconv.kernels.arguments import Weight
from fastconv.problem.arrays import Array


class Panels(NamedTuple):
    """How a weight is packed.

    groups, channels   extents
    group, channel     strides of the weight, from one group and channel to the next
    results, taps      for each result and each tap of a channel its offset in the weight
    lanes              results of a panel; missing ones are zeros
    """

    groups: int
    channels: int
    group: int
    channel: int
    results: tuple[int, ...]
    taps: tuple[int, ...]
    lanes: int

    @classmethod
    def of(
        cls, groups: int, channels: int, strides: Weight, results: Iterable[int], taps: Iterable[int], lanes: int
    ) -> Panels:
        """Those of a weight with these strides."""
        return cls(
            groups, channels, strides.group, strides.channel, tuple(map(int, results)), tuple(map(int, taps)), lanes
        )

    @property
    def panel(self) -> int:
        """Elements of a panel."""
        return self.channels * len(self.taps) * self.lanes

    @property
    def strides(self) -> Weight:
        """The strides of the packed weight. That of a result is right for the first ones of panels."""
        panels, result = -(-len(self.results) // self.lanes), self.channels * len(self.taps)
        return Weight(panels * self.panel, result, len(self.taps) * self.lanes)

    def packed(self, weight: Array, known: dict[Panels, Array]) -> Array:
        """The packed weight (panels of all groups, channels, taps, lanes), from `known` if it is there."""
        if (found := known.get(self)) is None:
            known[self] = found = self._pack(weight)
        return found

    def _pack(self, weight: Array) -> Array:
        panels = -(-len(self.results) // self.lanes)
        packed = np.zeros((self.groups, panels * self.lanes, self.channels, len(self.taps)), weight.dtype)
        of_channel = np.arange(self.channels)[:, None] * self.channel + self.taps
        of_group = np.array(self.results)[:, None, None] + of_channel
        numbers = weight.reshape(-1)
        for g in range(self.groups):
            np.take(numbers, of_group + g * self.group, out=packed[g, : len(self.results)])
        packed = packed.reshape(self.groups, panels, self.lanes, self.channels, len(self.taps))
        shape = self.groups * panels, self.channels, len(self.taps), self.lanes
        return np.ascontiguousarray(packed.transpose(0, 1, 3, 4, 2)).reshape(shape)
