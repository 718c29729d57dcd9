"""A contender in a process of its own, which prepares a problem and takes its turns when it is asked to."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from fastconv.cli.bench import contenders
from fastconv.cli.bench.problems import Problem
from fastconv.ground.arrays import Array


class Prepared(NamedTuple):
    """A contender's answer to a problem: its result, or why it has none."""

    result: Array | None
    declined: str | None


class Worker:
    """The parent's end of one contender's process."""

    def __init__(self, name: str, threads: int, dtype: str) -> None:
        self.name = name
        # a fresh interpreter: no library is loaded twice, none has threads of the parent's
        context = get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, name, dtype), daemon=True)
        # bound threads: else two of a contender may share a processor for a whole turn, while another one idles
        with _environment(OMP_NUM_THREADS=str(threads), OMP_PROC_BIND="true"):
            self._process.start()
        other.close()

    def prepare(self, problem: Problem, which: str) -> Prepared:
        """Build the call, and make it once: what compiles does so now."""
        return self._ask("prepare", problem, which)  # type: ignore[no-any-return]

    def turn(self, seconds: float) -> float:
        """The seconds of the fastest call of about `seconds` of calls; afterwards the process's threads are at rest."""
        return self._ask("turn", seconds)  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(2)
        if self._process.is_alive():
            self._process.kill()

    def _ask(self, *request: Any) -> Any:
        self._connection.send(request)
        try:
            answer = self._connection.recv()
        except EOFError:
            raise RuntimeError(f"the process of {self.name} died; exit status {self._process.exitcode}") from None
        if isinstance(answer, Exception):
            raise RuntimeError(f"{self.name}: {type(answer).__name__}: {answer}")
        return answer


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Variables that a child sees from its first instruction; libraries read them when they load."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(connection: Connection, name: str, dtype: str) -> None:
    """The child's loop: answer requests until the parent hangs up."""
    timed: Callable[[], Any] = _nothing
    while True:
        try:
            kind, *arguments = connection.recv()
        except EOFError:
            return
        try:
            if kind == "turn":
                answer: Any = _turn(timed, *arguments)
            else:
                try:
                    problem, which = arguments
                    timed = contenders.build(name, problem, which, dtype)
                    answer = Prepared(contenders.as_array(timed()), None)
                except contenders.Declined as reason:
                    answer = Prepared(None, str(reason))
        except Exception as error:  # the parent tells of it
            answer = type(error)(str(error)) if isinstance(error, ValueError | TypeError) else RuntimeError(repr(error))
        connection.send(answer)


def _nothing() -> None:
    """What is timed before anything is prepared."""


#: Calls of a turn, at least.
_CALLS = 3


def _turn(timed: Callable[[], Any], seconds: float) -> float:
    # wakes the threads and brings the data back into the caches
    _calls(timed, seconds / 2, 1)
    times = _calls(timed, seconds, _CALLS)
    _rest()
    # what disturbs a call from outside only adds to it; what differs between turns is left to the median over rounds
    return min(times)


def _calls(timed: Callable[[], Any], seconds: float, least: int) -> list[float]:
    """The seconds of each of as many calls as fit in `seconds`, or of `least` calls."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    now = 0.0
    while now < end or len(times) < least:
        start = time.perf_counter()
        timed()
        now = time.perf_counter()
        times.append(now - start)
    return times


def _rest(least: float = 0.002, most: float = 0.5) -> None:
    """Wait until this process's threads have stopped spinning, so that the next contender has the processors."""
    end = time.perf_counter() + most
    while time.perf_counter() < end:
        busy = time.process_time()
        time.sleep(least)
        if time.process_time() - busy < least / 10:
            return
