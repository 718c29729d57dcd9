"""Panels: a constant weight, packed once for kernels that read it so.

A panel has a vector of results of a group: for each phase, channel and tap their weights side by side. So a kernel
reads a phase's part from its first element to its last, whatever the block sizes.

Pixel lanes read the weight as it is, an element at a time: a stream for each result of a register tile. One stream,
from panels of as many results as a tile has rows, was 0 to 30% slower where the weight exceeds the second-level cache.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from fastconv.kernels.arguments import Weight
from fastconv.problem.arrays import Array


class Panels(NamedTuple):
    """How a weight is packed.

    groups, channels   extents
    group, channel     strides of the weight, from one group and channel to the next
    results, phases    for each result, and for each tap of each phase, its offset in the weight
    lanes              results of a panel; missing ones are zeros
    """

    groups: int
    channels: int
    group: int
    channel: int
    results: tuple[int, ...]
    phases: tuple[tuple[int, ...], ...]
    lanes: int

    @classmethod
    def of(
        cls, groups: int, channels: int, strides: Weight, results: Iterable[int], phases: Iterable[Array], lanes: int
    ) -> "Panels":
        """Those of a weight with these strides."""
        taps = tuple(tuple(of_phase.tolist()) for of_phase in phases)
        return cls(groups, channels, strides.group, strides.channel, tuple(map(int, results)), taps, lanes)

    @property
    def panel(self) -> int:
        """Elements of a panel."""
        return self.channels * sum(map(len, self.phases)) * self.lanes

    @property
    def strides(self) -> Weight:
        """The strides of the packed weight. That of a result is right for the first ones of panels, and that of a
        channel depends on the phase."""
        return Weight(-(-len(self.results) // self.lanes) * self.panel, self.panel // self.lanes, 0)

    def start(self, phase: int) -> int:
        """Where a phase starts in a panel."""
        return self.channels * sum(map(len, self.phases[:phase])) * self.lanes

    def packed(self, weight: Array, known: dict["Panels", Array]) -> Array:
        """The packed weight (panels of all groups, 1, 1, elements of a panel), from `known` if it is there."""
        if (found := known.get(self)) is None:
            known[self] = found = self._pack(weight)
        return found

    def _pack(self, weight: Array) -> Array:
        panels = -(-len(self.results) // self.lanes)
        packed = np.empty((self.groups, panels, self.panel), weight.dtype)
        groups = np.arange(self.groups)[:, None, None, None] * self.group
        channels = np.arange(self.channels)[:, None] * self.channel
        numbers, results = weight.reshape(-1), np.array(self.results)[:, None, None]
        for phase, taps in enumerate(self.phases):
            part = np.zeros((self.groups, panels * self.lanes, self.channels, len(taps)), weight.dtype)
            part[:, : len(self.results)] = numbers[groups + results + channels + np.array(taps)]
            part = part.reshape(self.groups, panels, self.lanes, -1).swapaxes(2, 3)
            start = self.start(phase)
            packed[:, :, start : start + math.prod(part.shape[2:])] = part.reshape(self.groups, panels, -1)
        return packed.reshape(self.groups * panels, 1, 1, self.panel)
