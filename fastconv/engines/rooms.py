"""What the threads of tile engines work in: a workspace for each thread that calls, and what a fork leaves of them."""

from __future__ import annotations

import os
import threading

import numpy as np

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


class Rooms:
    """A workspace and a counter for each thread of Python that calls; it grows to the largest ever asked for."""

    def __init__(self) -> None:
        self._own = threading.local()

    def room(self, size: int) -> tuple[int, int]:
        """Addresses of `size` bytes, aligned to a cache line, and of a counter at 0; both are this thread's own."""
        own = self._own
        if getattr(own, "size", -1) < size:
            own.size, own.space = size, np.empty(size + 128, np.uint8)
            start = own.space.__array_interface__["data"][0]
            own.counter = start + -start % 64
            own.number = own.space[-start % 64 :][:8].view(np.int64)
        own.number[0] = 0
        return own.counter + 64, own.counter
