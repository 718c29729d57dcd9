"""Threads for kernels that are made of NumPy's functions, which let other threads run while they compute."""

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastconv.backends.contract import FloatMode
from fastconv.problem import processors

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor


class Workers(NamedTuple):
    """At most `threads` threads, which compute in the floating-point mode of the calling thread.

    mode  how a thread's mode is read and set; None: all threads compute in the default mode
    """

    threads: int
    mode: FloatMode | None = None

    def share(self, work: Callable[[slice], None], count: int) -> None:
        """Call `work` with slices that together are range(count), one for each thread; the last is this thread's."""
        parts = max(1, min(self.threads, count, processors.most_threads()))
        bounds = [count * i // parts for i in range(parts + 1)]
        *others, own = map(slice, bounds, bounds[1:])
        mode = self.mode.switch(-1, 0) if self.mode and others else 0
        futures = []
        for part in others:
            try:
                futures.append(_pool(os.getpid(), parts - 1).submit(self._run, work, part, mode))
            except RuntimeError:  # the interpreter ends, and starts no more threads
                work(part)
        try:
            work(own)
        finally:
            errors = [future.exception() for future in futures]  # arrays are in use until all have ended
        for error in filter(None, errors):
            raise error

    def _run(self, work: Callable[[slice], None], part: slice, mode: int) -> None:
        """On another thread, which has neither the mode nor the error state of the one that calls."""
        before = self.mode.switch(0, mode) if self.mode else 0
        try:
            with np.errstate(all="ignore"):
                work(part)
        finally:
            if self.mode:
                self.mode.switch(0, before)


@functools.lru_cache(4)
def _pool(process: int, threads: int) -> "ThreadPoolExecutor":
    """The threads of a process; those of a parent are not in its forked child."""
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(threads, "fastconv")
