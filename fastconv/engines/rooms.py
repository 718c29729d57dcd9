"""What the threads of tile engines work in: a workspace for each thread that calls, and what a fork leaves of them."""

from __future__ import annotations

import os
import threading

import numpy as np

from fastconv.engines.plans import COUNTER

_is_child = False


def _in_child() -> None:
    global _is_child
    _is_child = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def is_child() -> bool:
    """Whether this process was forked: it has none of its parent's worker threads, and as no library of threads can be
    relied on to start them anew, it runs serially."""
    return _is_child


#: A workspace and counters of nobody: their size and number, and the addresses.
_NONE = (-1, 0, 0, 0)


class Rooms:
    """A workspace and counters for each thread of Python that calls; it grows to the largest ever asked for."""

    def __init__(self) -> None:
        self._own = threading.local()

    def room(self, size: int, workers: int) -> tuple[int, int]:
        """Addresses of `size` bytes, aligned to a cache line, and of a counter for each worker: this thread's own."""
        held: tuple[int, int, int, int] = getattr(self._own, "held", _NONE)
        if held[0] < size or held[1] < workers:
            size, workers = max(size, held[0]), max(workers, held[1])
            self._own.room = np.empty(size + COUNTER * (workers + 1), np.uint8)
            start = self._own.room.__array_interface__["data"][0]
            counters = start + -start % COUNTER
            self._own.held = held = (size, workers, counters + COUNTER * workers, counters)
        return held[2:]
