"""The instruction sets that tile engines are written for, and which of them this process uses."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import NamedTuple

from fastconv.engines.contract import Layout
from fastconv.engines.plans import BANDS, HALVED, SPAN, TAPS, TILES
from fastconv.ground.errors import ArgumentError, one_of

#: The variable that names one of those that the processor has.
VARIABLE = "FASTCONV_ISA"


class InstructionSet(NamedTuple):
    """What follows from an instruction set.

    name        as `FASTCONV_ISA` names it
    bytes       of a vector register
    registers   how many there are
    fused       whether a multiply-add rounds once, or a product and then a sum
    """

    name: str
    bytes: int
    registers: int
    fused: bool

    @property
    def kind(self) -> tuple[int, bool]:
        """What its tiles depend on: the key of `plans.TILES`, and of the others beside it."""
        return self.registers, self.fused

    @property
    def halves(self) -> bool:
        """Whether there are micro-kernels for half a register."""
        return self.bytes == HALVED

    def layout(self, itemsize: int) -> Layout:
        """Its lanes and tiles for elements of `itemsize` bytes."""
        lanes, kind = self.bytes // itemsize, self.kind
        return Layout(lanes, *TILES[kind], BANDS[kind], SPAN[kind], TAPS[kind], self.halves)


#: All of them, the best first. `baseline` is what a processor without any of the others has.
ALL = {
    known.name: known
    for known in (
        InstructionSet("avx512", 64, 32, True),
        InstructionSet("avx2", 32, 16, True),
        InstructionSet("neon", 16, 32, True),
        InstructionSet("baseline", 16, 16, False),
    )
}


def chosen(found: Collection[str]) -> InstructionSet:
    """The best of those that an engine found, or the one that `FASTCONV_ISA` names.

    Raises `ArgumentError` if it names another.
    """
    name = os.environ.get(VARIABLE)
    if not name:
        return next(known for known in ALL.values() if known.name in found)
    if name not in found:
        raise ArgumentError(f"{VARIABLE}={name} cannot be used here; {one_of(name, list(found))}")
    return ALL[name]
