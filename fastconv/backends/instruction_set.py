"""The instruction sets that tile engines are written for, and how one is chosen."""

import contextlib
import copy
import functools
import itertools
import os
from collections.abc import Collection
from typing import NamedTuple, Self

from fastconv.backends.contract import Layout
from fastconv.kernels.abi import BANDS, DOTS, HALVED, PAIRED, RUN, SPAN, TAPS, TILES
from fastconv.problem import parameters
from fastconv.problem.environment import ISA
from fastconv.problem.errors import ArgumentError, one_of


class InstructionSet(NamedTuple):
    """An instruction set.

    name        as `FASTCONV_ISA` names it
    bytes       of a vector register
    registers   how many there are
    fused       whether a multiply-add is one instruction, which rounds once
    """

    name: str
    bytes: int
    registers: int
    fused: bool

    @property
    def kind(self) -> tuple[int, bool]:
        """What its register tiles depend on: the key of the tables in `kernels.abi`."""
        return self.registers, self.fused

    @property
    def has_halves(self) -> bool:
        """Whether there are micro-kernels for half a register."""
        return self.bytes == HALVED

    @property
    def has_pairs(self) -> bool:
        """Whether there are micro-kernels for two vectors of results."""
        return self.registers >= PAIRED

    @property
    def run(self) -> int:
        """The longest run of neighbouring taps for which there are micro-kernels."""
        return RUN if self.has_pairs else 1

    def layout(self, itemsize: int) -> Layout:
        """Its lanes and register tiles for elements of `itemsize` bytes, on this processor."""
        lanes, kind = self.bytes // itemsize, self.kind
        # where a register is processed as two halves, half vectors save time, and loads keep up with a single vector
        pipes = 1 if self.has_halves and takes_two_steps() else 2
        halves = lanes // 2 if pipes == 1 else 0
        pairs = lanes + 1 if pipes == 2 and self.has_pairs else 0
        return Layout(
            lanes, *TILES[kind], DOTS[kind], BANDS[kind], SPAN[kind], TAPS[kind], pipes, halves, pairs, self.run
        )


#: All of them, the best first. Every processor has `baseline`.
ALL = {
    known.name: known
    for known in (
        InstructionSet("avx512", 64, 32, True),
        InstructionSet("avx2", 32, 16, True),
        InstructionSet("neon", 16, 32, True),
        InstructionSet("baseline", 16, 16, False),
    )
}


@functools.cache
def takes_two_steps() -> bool:
    """Whether this processor issues operations on 64-byte registers as two halves."""
    described = os.environ.get("PROCESSOR_IDENTIFIER", "")  # Windows
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        described = file.read(400)
    return are_two_steps(described)


def are_two_steps(described: str) -> bool:
    """Whether a processor with this description of the system's does so: AMD's family 25 (Zen 4) does, and any other is
    taken not to."""
    said = described.lower().replace(":", " ").split()
    return "AuthenticAMD" in described and ("family", "25") in itertools.pairwise(said)


def chosen(found: Collection[str], name: str | None = None) -> InstructionSet:
    """The instruction set `name` of those in `found`, None for the best; raises `ArgumentError` for another."""
    if name is None:
        return next(known for known in ALL.values() if known.name in found)
    if name not in found:
        raise ArgumentError(f"{ISA.name}={parameters.written(name)} cannot be used here; {one_of(name, list(found))}")
    return ALL[name]


class OnInstructionSet:
    """The base of engines with several instruction sets: each engine object plans and computes with one of them.

    So whatever is cached for an engine object belongs to one instruction set. Each call reads `FASTCONV_ISA`, but the
    set cannot change between planning and the pass.
    """

    def __init__(self) -> None:
        #: The engine object on its best instruction set, which the registry of backends holds.
        self.base = self
        self._name: str | None = None
        self._others: dict[str, Self] = {}

    def instruction_sets(self) -> tuple[str, ...]:
        """The instruction sets that the engine has on this processor, the best first."""
        raise NotImplementedError

    @property
    def instructions(self) -> InstructionSet:
        """The instruction set in use; raises `ArgumentError` if the engine does not have the named one."""
        return chosen(self.instruction_sets(), self._name)

    def on(self, name: str | None) -> Self:
        """This engine on the instruction set `name`, None for the best: the same object for the same name."""
        if name is None:
            return self
        if (known := self._others.get(name)) is not None:
            return known
        other = copy.copy(self)
        other._name = name
        return self._others.setdefault(name, other) if name in ALL else other
