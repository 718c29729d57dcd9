"""A contender in a process of its own: the child's end, which answers the parent's requests."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from fastconv.cli.bench import contenders, model_contenders
from fastconv.cli.bench.chain import Chain, Passes, layer_result
from fastconv.cli.bench.interface import USUAL, Contender, Declined, Setup, Timed
from fastconv.cli.bench.models import Case
from fastconv.cli.bench.pipelines import Layer, Pipeline
from fastconv.cli.bench.problems import Problem

#: The fewest calls of a turn.
_CALLS = 3
#: The fewest calls of a network in a turn; a training step takes long.
_LEAST_CALLS = {"inference": _CALLS, "training": 1}
#: A turn counts by this quantile of its calls' times. A neighbour's bursts are shorter than a turn and may slow half of
#: its calls, so the median would have two values: 0.19 and 0.45 ms for a depthwise layer of torch's.
_FASTER = 0.1


class Prepared(NamedTuple):
    """A contender's answer to a problem.

    result    an array; of a network, arrays by name
    declined  why it has none
    seconds   that a network's preparation took
    """

    result: Any
    declined: str | None
    seconds: float = 0.0


def serve(connection: Connection, name: str, dtype: str, threads: int, cold: int, setup: Setup) -> None:
    """Answer requests until the parent hangs up. A request is the name of a method of `Child` and its arguments."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: else it stays stopped if the parent is killed
    child = Child(name, dtype, threads, cold, setup)
    while True:
        try:
            kind, *arguments = connection.recv()
        except (EOFError, OSError):
            return
        answer: Any
        try:
            answer = getattr(child, kind)(*arguments)
        except Declined as reason:
            answer = Prepared(None, str(reason))
        except Exception as error:  # the parent reports it
            answer = RuntimeError(f"{type(error).__name__}: {error}")
        with contextlib.suppress(OSError):
            connection.send(answer)


class Child:
    """One contender, and the calls that it has prepared."""

    def __init__(self, name: str, dtype: str, threads: int, cold: int, setup: Setup = USUAL) -> None:
        self._name, self._dtype, self._threads, self._cold, self._setup = name, dtype, threads, cold, setup
        self._everywhere = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
        self._prepared: dict[tuple[Problem, str], Iterator[Timed]] = {}
        self._chains: dict[Pipeline, Chain] = {}
        self._networks: dict[Case, Timed] = {}

    def prepare(self, problem: Problem, which: str) -> Prepared:
        """Build the calls and make one."""
        self._unbind()
        library = self._library()
        calls = contenders.rotation(library, problem, which, self._dtype, self._cold, fused=self._setup.fused)
        self._prepared[problem, which] = itertools.cycle(calls)
        result = contenders.result(library, which, calls[-1]())
        _bind_threads(self._threads)
        return Prepared(result, None)

    def turn(self, problem: Problem, which: str, seconds: float) -> float:
        """The seconds of a call."""
        if (problem, which) not in self._prepared:  # it was prepared by a process that has died
            self.prepare(problem, which)
        calls = self._prepared[problem, which]
        _seconds(calls, seconds / 2, 1, bool(self._cold))  # wake the threads; hot: bring the data back into the caches
        times = sorted(_seconds(calls, seconds, _CALLS, bool(self._cold)))
        return times[int(_FASTER * len(times))]

    def layer(self, layer: Layer) -> Prepared:
        """The result of one layer of a pipeline, on standard numbers."""
        self._unbind()
        return Prepared(layer_result(self._library(), layer, self._dtype, self._setup), None)

    def passes(self, pipeline: Pipeline, seconds: float) -> Passes:
        """Go through a pipeline again and again for about `seconds`."""
        if pipeline not in self._chains:
            self._unbind()
            chain = self._chains[pipeline] = Chain(self._library(), pipeline, self._dtype, self._setup)
            chain.run()
            _bind_threads(self._threads)
        return self._chains[pipeline].passes(seconds)

    def network(self, case: Case) -> Prepared:
        """Build a network and call it until all is compiled."""
        self._unbind()
        start = time.perf_counter()
        self._networks[case], results = model_contenders.timed(self._name, case, self._threads)
        seconds = time.perf_counter() - start
        _bind_threads(self._threads)
        return Prepared(results, None, seconds)

    def calls(self, case: Case, seconds: float) -> float:
        """The median seconds of a network's call or training step."""
        calls = itertools.repeat(self._networks[case])
        _seconds(calls, 0, 1, False)
        return statistics.median(_seconds(calls, seconds, _LEAST_CALLS[case.kind], False))

    def forget(self) -> None:
        """Drop what was prepared."""
        self._prepared.clear()
        self._chains.clear()
        self._networks.clear()

    def _library(self) -> Contender:
        return contenders.contender(self._name, self._threads, self._setup.channels_last)

    def _unbind(self) -> None:
        """Let this thread run everywhere again: a library's new threads inherit it."""
        if self._everywhere is not None:
            os.sched_setaffinity(0, self._everywhere)


def _bind_threads(threads: int) -> None:
    """Give each thread a processor of its own, on Linux. After a pause the scheduler may leave two threads on one for a
    whole turn, which doubles the time."""
    if threads == 1 or not os.path.isdir("/proc/self/task"):
        return
    processors = sorted(os.sched_getaffinity(os.getpid()))[:threads]
    main = os.getpid()
    others = sorted({int(task) for task in os.listdir("/proc/self/task")} - {main})
    if len(processors) < threads:
        return
    os.sched_setaffinity(main, {processors[0]})
    for number, task in enumerate(others):
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(task, {processors[1 + number % (threads - 1)]})


def _seconds(calls: Iterator[Timed], seconds: float, least: int, is_cold: bool) -> list[float]:
    """The seconds of each call, of as many as fit in `seconds`, but at least `least`.

    On cold data a result is dropped when the next one is there, as in a pipeline; else at once, so that the next result
    is written to the same memory.
    """
    times: list[float] = []
    end = time.perf_counter() + seconds
    now = 0.0
    result = None
    while now < end or len(times) < least:
        timed = next(calls)
        start = time.perf_counter()
        result = timed()
        if not is_cold:
            result = None
        now = time.perf_counter()
        times.append(now - start)
    del result
    return times
