"""Side by side: contenders take turns on one problem, round by round, and ratios are formed within a round.

So a drift of the machine, or a neighbour's burst, falls on all contenders of a round alike. A process is stopped
between its turns, so that no library's waiting threads take another's time. All rows of a batch have their first round,
then all their second: a slow phase of seconds costs many rows one round, and no row all of its rounds. A round in which
a contender was slower than it can be does not count. If there is no other, the times of each one's own fast rounds are
compared.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastconv.cli.bench.child import Prepared
from fastconv.cli.bench.machine import Pair
from fastconv.cli.bench.problems import Problem, multiply_adds
from fastconv.cli.bench.worker import ContenderError, Worker
from fastconv.problem.arrays import Array

#: In an undisturbed round a contender has at least this part of the speed of its fastest round.
_LEAST = 0.9
#: Undisturbed rounds that a row needs, and the extra time that is spent on them, as a part of the time of all rounds.
_ENOUGH, _MORE = 3, 0.3
#: Seconds between checks whether processors that were moved apart are near each other again.
_PAUSE = 0.01


class Compared:
    """What contenders took side by side, and why some did not take part.

    times     seconds of a call in each round, by contender
    declined  why a contender has no such call, by contender
    failed    how a contender failed, by contender
    differs   how far a contender's result is from the first one's, by contender; only if that is too far
    """

    times: dict[str, list[float]]
    declined: dict[str, str]
    failed: dict[str, str]
    differs: dict[str, str]

    @property
    def title(self) -> str:
        """What it is in messages."""
        raise NotImplementedError

    def undisturbed(self, *names: str) -> list[bool]:
        """For each round, whether all these contenders were about as fast as in their fastest round."""
        times = [self.times[name] for name in names]
        return [
            all(_LEAST * taken <= min(of_one) for taken, of_one in zip(taken_by, times, strict=True))
            for taken_by in zip(*times, strict=True)
        ]

    def seconds(self, name: str) -> float | None:
        """The median seconds of a call over the undisturbed rounds; None if the contender was not timed."""
        if name not in self.times:
            return None
        return statistics.median(itertools.compress(self.times[name], self.undisturbed(name)))

    def ratios(self, ours: str, theirs: str) -> list[float]:
        """Their time over ours in each round in which neither was disturbed; if there is none, their `seconds` over
        ours, each of other rounds; empty if one of them was not timed."""
        our_seconds, their_seconds = self.seconds(ours), self.seconds(theirs)
        if our_seconds is None or their_seconds is None:
            return []
        found = [their / our for our, their in zip(self.times[ours], self.times[theirs], strict=True)]
        undisturbed = list(itertools.compress(found, self.undisturbed(ours, theirs)))
        return undisturbed or [their_seconds / our_seconds]


@dataclass
class Row(Compared):
    """What was measured of one pass of one problem.

    footprint  the bytes that were read before an array was read again; 0 if every call had the same arrays
    trips      seconds of a cache line from one processor to another and back after each round, if known
    """

    problem: Problem
    which: str
    threads: int
    dtype: str
    footprint: int = 0
    times: dict[str, list[float]] = field(default_factory=dict)
    trips: list[float] = field(default_factory=list)
    declined: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    differs: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """Whether calls found their arrays in a cache."""
        return "cold" if self.footprint else "hot"

    @property
    def flops(self) -> int:
        """Floating-point operations by the definition, whatever a contender does."""
        return self.problem.geometry.flops

    def least(self, peak: float, bandwidths: Mapping[int, float]) -> float:
        """The least seconds of a direct convolution on a machine with this peak (FLOP/s) and bandwidths (bytes/s).

        That is the time of its multiply-adds off the padding, or of reading input, weight and result, if longer.
        `bandwidths` are by the number of bytes that are read again and again, as caches hold few: those of the arrays,
        or of all their copies.
        """
        problem = self.problem
        geometry = problem.geometry
        size = sum(map(math.prod, problem.shapes)) * np.dtype(self.dtype).itemsize
        rate = np.interp(
            math.log(max(size, self.footprint)), [math.log(known) for known in bandwidths], list(bandwidths.values())
        )
        return max(2 * multiply_adds(geometry) / peak, size / float(rate))

    @property
    def title(self) -> str:
        """What it is in messages."""
        return f"{self.which} of {self.problem}"

    def difference(self, first: Array, other: Array) -> str | None:
        """How two results differ, if by more than rounding explains; else None."""
        return difference(first, other, self.problem)


#: The most bytes of the arrays of a batch of rows, all of which each contender holds at the same time; and so many rows
#: of cold data even if they exceed that.
_BATCH = 2**28
_COLD_ROWS = 4


def parted(cases: Sequence[tuple[Problem, str]], dtype: str, cold: int = 0) -> Iterator[list[tuple[Problem, str]]]:
    """The cases in order, cut into lists whose arrays fit in memory together."""
    batch: list[tuple[Problem, str]] = []
    taken = 0
    for problem, which in cases:
        elements = sum(map(math.prod, problem.shapes))
        size = cold + 2 * elements * np.dtype(dtype).itemsize  # arguments, and result and workspace
        if batch and taken + size > max(_BATCH, _COLD_ROWS * cold):
            yield batch
            batch, taken = [], 0
        batch.append((problem, which))
        taken += size
    if batch:
        yield batch


@dataclass
class _Match:
    """A row and the contenders that take part in it."""

    row: Row
    running: Sequence[Worker]
    pair: Pair | None

    def play(self, seconds: float) -> None:
        """One more round; a contender that fails ends the row."""
        if "a turn" in self.row.failed:
            return
        number = max(map(len, self.row.times.values()), default=0)
        shift = number % max(1, len(self.running))  # each contender is first equally often
        order = [*self.running[shift:], *self.running[:shift]]
        try:
            taken = {worker.name: worker.turn(self.row.problem, self.row.which, seconds) for worker in order}
        except ContenderError as error:
            self.row.failed["a turn"] = str(error)
            self.row.times.clear()
            return
        for name, value in taken.items():
            self.row.times.setdefault(name, []).append(value)
        if self.pair is not None and (trip := self.pair.seconds()) is not None:
            self.row.trips.append(trip)

    @property
    def undisturbed(self) -> int:
        """The rounds in which nobody was disturbed and the processors were as near each other as they can be."""
        passed = self.row.undisturbed(*self.row.times)
        if self.pair is not None and self.row.trips:
            passed = [good and self.pair.is_near(trip) for good, trip in zip(passed, self.row.trips, strict=True)]
        return sum(passed)


class Batch:
    """Rows that are measured together: all are prepared, then all have a round, then all the next.

    Each contender holds the calls of one batch.
    """

    def __init__(
        self, workers: Sequence[Worker], threads: int, dtype: str, pair: Pair | None = None, cold: int = 0
    ) -> None:
        self._workers, self._threads, self._dtype, self._pair, self._cold = workers, threads, dtype, pair, cold
        self._matches: list[_Match] = []
        for worker in workers:
            with contextlib.suppress(ContenderError):  # a new process has nothing to forget
                worker.forget()

    def prepare(self, problem: Problem, which: str) -> None:
        """Have each contender make the call once, and compare the results with the first one's."""
        row = Row(problem, which, self._threads, self._dtype, self._cold)
        running = compare_results(row, self._workers, lambda worker: worker.prepare(problem, which), row.difference)
        self._matches.append(_Match(row, running, self._pair))

    def measure(self, rounds: int, seconds: float, done: Callable[[Row], object]) -> None:
        """Measure `rounds` rounds of every row, in turns of about `seconds`, and call `done` after each.

        Then measure more of the rows with the fewest undisturbed rounds, while there is time.
        """
        start = time.monotonic()
        for _ in range(rounds):
            for match in self._matches:
                match.play(seconds)
                done(match.row)
        now = time.monotonic()
        until = now + _MORE * (now - start)
        while missing := [match for match in self._matches if match.row.times and match.undisturbed < _ENOUGH]:
            for match in sorted(missing, key=lambda match: match.undisturbed):
                if time.monotonic() >= until:
                    return
                if self._pair is None or self._pair.is_near(self._pair.seconds()):
                    match.play(seconds)
                else:
                    time.sleep(_PAUSE)

    def measured(self) -> list[Row]:
        """The rows, without those that have had no round yet."""
        return [match.row for match in self._matches if match.row.times or match.row.failed or not match.running]


def compare_results(
    row: Compared,
    workers: Sequence[Worker],
    compute: Callable[[Worker], Prepared],
    difference: Callable[[Any, Any], str | None],
) -> list[Worker]:
    """The contenders that compute the first one's result; `row` says why each other one does not."""
    agreeing: list[Worker] = []
    for worker in workers:
        try:
            result, declined, _ = compute(worker)
        except ContenderError as error:
            row.failed[worker.name] = str(error)
            continue
        if declined is not None:
            row.declined[worker.name] = declined
            continue
        if not agreeing:
            first = result
        elif (how := difference(first, result)) is not None:
            row.differs[worker.name] = how
            continue
        agreeing.append(worker)
    return agreeing


def difference(first: Array, other: Array, problem: Problem) -> str | None:
    """How two results differ, if by more than rounding explains; else None.

    A sum of K terms of standard normal numbers has the size sqrt(K), and a rounding error of about sqrt(K) * eps times
    that, whatever the order; FFT and Winograd have several times as much.
    """
    if first.shape != other.shape or first.dtype != other.dtype:
        return f"{other.dtype} {other.shape} instead of {first.dtype} {first.shape}"
    geometry = problem.geometry
    terms = geometry.flops // 2 // min(first.size, geometry.flops // 2 or 1)
    allowed = 16 * np.finfo(first.dtype).eps * np.sqrt(max(1, terms)) * float(np.abs(first).max(initial=0))
    worst = float(np.abs(first - other).max(initial=0))
    return None if worst <= allowed else f"off by {worst:.3g}, where rounding explains {allowed:.3g}"
