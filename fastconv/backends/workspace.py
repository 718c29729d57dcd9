"""What the threads of tile engines work in: how many there are, and a workspace for each thread that calls."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np

from fastconv.backends.contract import Plan
from fastconv.kernels.abi import COUNTER
from fastconv.problem import processors
from fastconv.problem.arrays import Array


def workers_of(plan: Plan, threads: int) -> int:
    """The threads that run a plan, of at most `threads`: none without a piece of work."""
    return max(1, min(threads, plan.items, processors.most_threads()))


class Room(NamedTuple):
    """A workspace and counters.

    size      bytes of the workspace
    workers   how many counters there are
    space     address of the workspace, aligned to a cache line
    counters  address of the counters
    array     what holds both; whoever uses the addresses keeps a reference to it
    """

    size: int
    workers: int
    space: int
    counters: int
    array: Array | None


_NONE = Room(-1, 0, 0, 0, None)


class Rooms:
    """A workspace and counters for each thread of Python that calls; it grows to the largest ever asked for."""

    def __init__(self) -> None:
        self._own = threading.local()

    def room(self, size: int, workers: int) -> Room:
        """At least `size` bytes, and a counter for each worker: this thread's own.

        The caller must keep the result until the pass is over: at the interpreter's end, values of threads are freed
        while daemon threads still compute.
        """
        held: Room = getattr(self._own, "held", _NONE)
        if held[0] < size or held[1] < workers:  # by number, which is quicker than by name
            size, workers = max(size, held.size), max(workers, held.workers)
            array = np.empty(size + COUNTER * (workers + 1), np.uint8)
            start: int = array.__array_interface__["data"][0]
            counters = start + -start % COUNTER
            self._own.held = held = Room(size, workers, counters + COUNTER * workers, counters, array)
        return held
