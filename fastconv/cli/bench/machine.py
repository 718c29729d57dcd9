"""What the machine can do, measured with compiled kernels: multiply-adds a second, and bytes a second from memory."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import math
import os
import platform
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from fastconv.ground.extras import require
from fastconv.version import __version__

#: Repeats of a measurement, of which the best counts: what is measured is a bound.
_REPEATS = 5
#: float64 elements of each array of the triad: 128 MiB, beyond most last-level caches.
_TRIAD = 2**24
#: What a watch hashes: a millisecond's work.
_HASHED = bytes(2**19)


def fma_peak(dtype: str, threads: int) -> float | None:
    """FLOP/s of multiply-adds in `dtype` on so many threads at once; None without the compiled part."""
    machine = _compiled()
    itemsize = np.dtype(dtype).itemsize
    if machine is None or not machine.multiply_adds(itemsize, 1):
        return None
    return _best(threads, lambda _: float(machine.multiply_adds(itemsize, 2_000_000)))


def memory_bandwidth(threads: int) -> float | None:
    """Bytes/s of the STREAM triad on so many threads at once; None without the compiled part."""
    machine = _compiled()
    if machine is None:
        return None
    a, b, c = (np.ones(_TRIAD) for _ in range(3))
    parts = [slice(_TRIAD * i // threads, _TRIAD * (i + 1) // threads) for i in range(threads)]
    return _best(threads, lambda i: float(machine.triad(a[parts[i]], b[parts[i]], c[parts[i]])))


class Watch:
    """Tells whether the machine is undisturbed: whether all threads run as fast as they do at their best.

    Neighbours on a shared machine slow its processors for seconds at a time, and one of several threads more than the
    others. One on a core's other hardware thread takes half of some units and nothing of others, so two kinds of work
    are looked at: multiply-adds, and integer instructions of which a core runs several a cycle, those of a hash. The
    first are left out without the compiled part.
    """

    #: Of the best rate of all looks, what an undisturbed moment reaches.
    LEAST = 0.9

    def __init__(self, threads: int) -> None:
        machine = _compiled()
        self._work: list[Callable[[], object]] = [lambda: hashlib.sha3_256(_HASHED)]
        if machine is not None and machine.multiply_adds(4, 1):
            self._work.append(lambda: machine.multiply_adds(4, 200_000))
        self._best = [math.inf] * len(self._work)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)
        self._start = threading.Barrier(threads)

    def look(self) -> list[float]:
        """The slowest thread's seconds for each kind of work, a millisecond or two in all."""
        seconds = [max(self._pool.map(self._seconds, [work] * self._threads)) for work in self._work]
        self._best = list(map(min, self._best, seconds))
        return seconds

    def is_undisturbed(self, *looks: list[float]) -> bool:
        """Whether each look shows the machine near its best, which it may have reached since."""
        return all(self.LEAST * taken <= best for seen in looks for taken, best in zip(seen, self._best, strict=True))

    def _seconds(self, work: Callable[[], object]) -> float:
        self._start.wait()  # one measurement on each thread, all at once
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    def close(self) -> None:
        """End its threads."""
        self._pool.shutdown()


def description() -> dict[str, Any]:
    """The machine and the versions that a result depends on."""
    versions = {"python": sys.version.split()[0], "fastconv": __version__, "numpy": np.__version__}
    for name in ("numba", "torch", "onnxruntime"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    info = require("cpuinfo", "bench", "the benchmark").get_cpu_info()
    return {
        "processor": info.get("brand_raw", platform.processor()),
        "processors": os.cpu_count(),
        "system": platform.platform(),
        "versions": versions,
    }


def _compiled() -> Any:
    try:
        return importlib.import_module("fastconv._machine")
    except ImportError:
        return None


def _best(threads: int, work: Callable[[int], float]) -> float:
    """The most that `threads` threads, each calling `work` with its number, get done a second together."""
    rates = []
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))  # the processor's clock takes a moment to rise
        for _ in range(_REPEATS):
            start = time.perf_counter()
            done = sum(pool.map(work, range(threads)))
            rates.append(done / (time.perf_counter() - start))
    return max(rates)
