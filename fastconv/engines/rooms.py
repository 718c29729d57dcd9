"""What the threads of tile engines work in: a workspace for each thread that calls, and what a fork leaves of them."""

from __future__ import annotations

import os
import threading
from typing import NamedTuple

import numpy as np

from fastconv.engines.plans import COUNTER
from fastconv.ground.arrays import Array

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


class _Room(NamedTuple):
    """Bytes and counters, how many there are, and where they are in an array."""

    size: int
    workers: int
    space: int
    counters: int
    array: Array | None


_NONE = _Room(-1, 0, 0, 0, None)


class Rooms:
    """A workspace and counters for each thread of Python that calls; it grows to the largest ever asked for."""

    def __init__(self) -> None:
        self._own = threading.local()

    def room(self, size: int, workers: int) -> tuple[int, int]:
        """Addresses of `size` bytes, aligned to a cache line, and of a counter for each worker: this thread's own."""
        held: _Room = getattr(self._own, "held", _NONE)
        if held[0] < size or held[1] < workers:  # by number, which is quicker than by name
            size, workers = max(size, held.size), max(workers, held.workers)
            array = np.empty(size + COUNTER * (workers + 1), np.uint8)
            start: int = array.__array_interface__["data"][0]
            counters = start + -start % COUNTER
            self._own.held = held = _Room(size, workers, counters + COUNTER * workers, counters, array)
        return held[2], held[3]
