"""Side by side: contenders take turns on one problem, round by round, and ratios are formed within a round.

So a drift of the machine, or a neighbour's burst, falls on all contenders of a round alike, and no library's waiting
threads take another's time, as a process is stopped between its turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fastconv.cli.bench.machine import Watch
from fastconv.cli.bench.problems import Problem
from fastconv.cli.bench.worker import ContenderError, Worker
from fastconv.ground.arrays import Array


@dataclass
class Row:
    """What was measured of one pass of one problem.

    times      seconds a call in each round, by contender
    declined   why a contender has no call for it, by contender
    failed     how a contender failed at it, by contender
    differs    contenders whose result is not the first one's, with how far off it is
    disturbed  rounds that stand although the machine was slowed in each attempt at them
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


#: Attempts at a round before it stands as it is; looks at the machine before an attempt, and seconds between them.
_ATTEMPTS, _LOOKS, _PAUSE = 2, 5, 0.01


def measure(
    workers: Sequence[Worker], watch: Watch, problem: Problem, which: str, threads: int, dtype: str,
    rounds: int, seconds: float,
) -> Row:  # fmt: skip
    """Prepare everywhere, compare the results, then take `rounds` rounds of turns of about `seconds` each.

    A round in which the machine was disturbed, by its watch before and after, is taken again.
    """
    row = Row(problem, which, threads, dtype)
    running = []
    first: Array | None = None
    for worker in workers:
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
    for number in range(rounds):
        # everybody is first equally often
        shift = number % max(1, len(running))
        order = running[shift:] + running[:shift]
        for attempt in range(1, _ATTEMPTS + 1):
            _wait(watch)
            try:
                times = {worker.name: worker.turn(seconds) for worker in order}
            except ContenderError as error:
                row.failed["a turn"] = str(error)
                row.times.clear()
                return row
            if watch.is_undisturbed():
                break
            row.disturbed += attempt == _ATTEMPTS
        for name, taken in times.items():
            row.times.setdefault(name, []).append(taken)
    return row


def _wait(watch: Watch) -> None:
    """Give a disturbance a moment to pass."""
    for _ in range(_LOOKS):
        if watch.is_undisturbed():
            return
        time.sleep(_PAUSE)


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
