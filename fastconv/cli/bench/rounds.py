"""Side by side: contenders take turns on one problem, round by round, and ratios are formed within a round.

So a drift of the machine, or a neighbour's burst, falls on all contenders of a round alike, and no library's waiting
threads take another's time, as a process is stopped between its turns. A row's rounds are far apart: every row of a
batch has its first round, then each its second. A slow phase of seconds costs many rows a round, and none all of its;
and what was measured in one does not count where enough else was.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from fastconv.cli.bench.machine import Watch
from fastconv.cli.bench.problems import Problem
from fastconv.cli.bench.worker import ContenderError, Worker
from fastconv.ground.arrays import Array


@dataclass
class Row:
    """What was measured of one pass of one problem.

    times      seconds a call in each round that counts, by contender
    declined   why a contender has no call for it, by contender
    failed     how a contender failed at it, by contender
    differs    contenders whose result is not the first one's, with how far off it is
    disturbed  rounds that count although the machine was slowed in them, as there are few others
    """

    problem: Problem
    which: str
    threads: int
    dtype: str
    times: dict[str, list[float]] = field(default_factory=dict)
    declined: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    differs: dict[str, str] = field(default_factory=dict)
    disturbed: int = 0

    @property
    def flops(self) -> int:
        """Floating-point operations by the definition, whatever a contender does."""
        return self.problem.geometry.flops

    def seconds(self, name: str) -> float | None:
        """The median seconds of a call; None if the contender has none."""
        return statistics.median(self.times[name]) if name in self.times else None

    def ratios(self, ours: str, theirs: str) -> list[float]:
        """Their time over ours, round by round; empty if one of them has none."""
        if ours not in self.times or theirs not in self.times:
            return []
        return [their / our for our, their in zip(self.times[ours], self.times[theirs], strict=True)]


#: Of the time that all rounds took, how much taking disturbed ones again may take; seconds between looks meanwhile.
_AGAIN, _PAUSE = 0.3, 0.01
#: Undisturbed rounds that are enough to do without the others.
_ENOUGH = 3
#: Bytes of the arrays of a batch of rows, which each contender keeps at the same time.
_BATCH = 2**28


def parted(cases: Sequence[tuple[Problem, str]], dtype: str) -> Iterator[list[tuple[Problem, str]]]:
    """The cases in their order, in lists whose arrays fit in memory together."""
    batch: list[tuple[Problem, str]] = []
    taken = 0
    for problem, which in cases:
        elements = sum(map(math.prod, (problem.input_shape, problem.weight_shape, problem.geometry.output_shape)))
        size = 2 * elements * np.dtype(dtype).itemsize  # arguments, and result and workspace
        if batch and taken + size > _BATCH:
            yield batch
            batch, taken = [], 0
        batch.append((problem, which))
        taken += size
    if batch:
        yield batch


@dataclass
class _Match:
    """A row, the contenders that run in it, and looks at the machine before and after each of its rounds."""

    row: Row
    running: Sequence[Worker]
    looks: list[tuple[list[float], list[float]]] = field(default_factory=list)

    def play(self, number: int, seconds: float) -> bool:
        """A round, the first of that number or in its place; whether nobody failed, which ends the row."""
        if "a turn" in self.row.failed:
            return False
        shift = number % max(1, len(self.running))  # everybody is first equally often
        order = [*self.running[shift:], *self.running[:shift]]
        try:
            taken = {worker.name: worker.turn(self.row.problem, self.row.which, seconds) for worker in order}
        except ContenderError as error:
            self.row.failed["a turn"] = str(error)
            self.row.times.clear()
            return False
        for name, value in taken.items():
            self.row.times.setdefault(name, [])[number : number + 1] = [value]
        return True

    def undisturbed(self, watch: Watch) -> list[bool]:
        """Of each round, whether it was undisturbed, by what is known of the machine now."""
        return [watch.is_undisturbed(*looks) for looks in self.looks]

    def settle(self, watch: Watch) -> None:
        """Leave out the disturbed rounds if enough others are there, and else count them."""
        passed = self.undisturbed(watch)
        if sum(passed) < _ENOUGH:
            self.row.disturbed = passed.count(False)
            return
        for name, times in self.row.times.items():
            self.row.times[name] = list(itertools.compress(times, passed))


class Batch:
    """Rows that are measured together: prepared one after the other, then round after round of all of them.

    Each contender keeps the calls of one batch.
    """

    def __init__(self, workers: Sequence[Worker], watch: Watch, threads: int, dtype: str) -> None:
        self._workers, self._watch, self._threads, self._dtype = workers, watch, threads, dtype
        self._matches: list[_Match] = []
        for worker in workers:
            with contextlib.suppress(ContenderError):  # a new process has nothing to forget
                worker.forget()

    def prepare(self, problem: Problem, which: str) -> None:
        """Have each contender make the call once, and compare the results with the first one's."""
        row, running = Row(problem, which, self._threads, self._dtype), []
        first: Array | None = None
        for worker in self._workers:
            try:
                result, declined = worker.prepare(problem, which)
            except ContenderError as error:
                row.failed[worker.name] = str(error)
                continue
            if declined is not None:
                row.declined[worker.name] = declined
                continue
            assert result is not None
            if first is None:
                first = result
            elif (how := difference(first, result, problem)) is not None:
                row.differs[worker.name] = how
                continue
            running.append(worker)
        self._matches.append(_Match(row, running))

    def measure(self, rounds: int, seconds: float, done: Callable[[Row], object]) -> None:
        """`rounds` rounds of every row, of turns of about `seconds` each; `done` is called after each.

        One in which the machine was disturbed, by its watch before or after, is taken again after all others.
        """
        start = time.monotonic()
        before = self._watch.look()
        for number in range(rounds):
            for match in self._matches:
                if match.play(number, seconds):
                    after = self._watch.look()
                    match.looks.append((before, after))
                    before = after
                done(match.row)
        now = time.monotonic()
        self._take_again(seconds, until=now + _AGAIN * (now - start))
        for match in self._matches:
            match.settle(self._watch)

    def _take_again(self, seconds: float, until: float) -> None:
        """Take disturbed rounds again in undisturbed moments, while there is time; first where few others are."""
        missing = []
        for match in self._matches:
            passed = match.undisturbed(self._watch)
            disturbed = [number for number, good in enumerate(passed) if not good]
            missing += [(sum(passed) + order, match, number) for order, number in enumerate(disturbed)]
        missing.sort(key=lambda one: one[0])
        waiting = deque((match, number) for _, match, number in missing)
        while waiting and time.monotonic() < until:
            before = self._watch.look()
            if not self._watch.is_undisturbed(before):
                time.sleep(_PAUSE)
                continue
            match, number = waiting.popleft()
            if match.play(number, seconds):
                match.looks[number] = before, self._watch.look()
                if not self._watch.is_undisturbed(*match.looks[number]):
                    waiting.append((match, number))

    def measured(self) -> list[Row]:
        """The rows, but for those that have had no round yet."""
        return [match.row for match in self._matches if match.row.times or match.row.failed or not match.running]


def difference(first: Array, other: Array, problem: Problem) -> str | None:
    """How two results differ by more than rounding does; None if they do not.

    Sums of K terms of standard normal numbers, of size sqrt(K), have rounding errors of about sqrt(K) * eps of their
    size, whatever the order; FFT and Winograd have several times that.
    """
    if first.shape != other.shape or first.dtype != other.dtype:
        return f"{other.dtype} {other.shape} instead of {first.dtype} {first.shape}"
    geometry = problem.geometry
    terms = geometry.flops // 2 // min(first.size, geometry.flops // 2 or 1)
    allowed = 16 * np.finfo(first.dtype).eps * np.sqrt(max(1, terms)) * float(np.abs(first).max(initial=0))
    worst = float(np.abs(first - other).max(initial=0))
    return None if worst <= allowed else f"off by {worst:.3g}, where rounding explains {allowed:.3g}"
