"""The threads of tile engines: how many run a plan, and the workspaces that they work in."""

import threading
from typing import NamedTuple

import numpy as np

from fastconv.backends.contract import Plan
from fastconv.kernels.abi import COUNTER
from fastconv.problem import processors
from fastconv.problem.arrays import Array


def workers_of(plan: Plan, threads: int) -> int:
    """How many threads run a plan, at most `threads`: no more than there are work items."""
    return max(1, min(threads, plan.items, processors.most_threads()))


class Workspace(NamedTuple):
    """The memory of all threads of a pass, and their counters of work items.

    size      bytes of the workspace
    workers   how many counters there are
    space     address of the workspace, aligned to a cache line
    counters  address of the counters
    array     holds both; whoever uses the addresses must keep a reference to it
    """

    size: int
    workers: int
    space: int
    counters: int
    array: Array | None


_NONE = Workspace(-1, 0, 0, 0, None)


class Workspaces:
    """A workspace for each Python thread that calls; it grows to the largest ever needed."""

    def __init__(self) -> None:
        self._own = threading.local()

    def workspace(self, size: int, workers: int) -> Workspace:
        """The calling thread's workspace, of at least `size` bytes, with a counter for each worker.

        The caller must keep the result until the pass is over: when the interpreter ends, the values of threads are
        freed while daemon threads still compute.
        """
        held: Workspace = getattr(self._own, "held", _NONE)
        if held[0] < size or held[1] < workers:  # by number, which is quicker than by name
            size, workers = max(size, held.size), max(workers, held.workers)
            array = np.empty(size + COUNTER * (workers + 1), np.uint8)
            start: int = array.__array_interface__["data"][0]
            counters = start + -start % COUNTER
            self._own.held = held = Workspace(size, workers, counters + COUNTER * workers, counters, array)
        return held
