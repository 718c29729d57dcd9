"""What the machine can do, measured with compiled kernels: multiply-adds, bytes, and how far apart processors are."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import math
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv.problem.arrays import Array
from fastconv.problem.extras import require
from fastconv.version import __version__

#: Repeats of a measurement, of which the best counts, as a neighbour can only lower it.
_REPEATS = 5
#: float64 elements of each array of the triad: 128 MiB, beyond most last-level caches.
_TRIAD = 2**24
#: Bytes of an array that is read, from a first-level cache to beyond most last-level ones; and bytes that a thread
#: reads in one measurement, so many that its start does not count.
_FOOTPRINTS = tuple(2**exponent for exponent in range(15, 29))
_TURN = 2**28
#: The length of an array that is read is a multiple of this.
_WHOLE = 64


@dataclass(frozen=True)
class Rates:
    """What a number of threads do together.

    peak        multiply-adds, in FLOP/s
    bandwidth   the STREAM triad, in bytes/s
    bandwidths  reading a shared array again and again, in bytes/s, by the array's bytes

    Without the compiled part the first two are None and the last is empty.
    """

    peak: float | None
    bandwidth: float | None
    bandwidths: Mapping[int, float]

    @classmethod
    def measured(cls, dtype: str, threads: int) -> Rates:
        """The rates as measured now."""
        return cls(fma_peak(dtype, threads), memory_bandwidth(threads), bandwidths(threads))

    def or_higher(self, other: Rates) -> Rates:
        """The higher one of each rate."""
        return Rates(
            self.peak and other.peak and max(self.peak, other.peak),
            self.bandwidth and other.bandwidth and max(self.bandwidth, other.bandwidth),
            {size: max(rate, other.bandwidths[size]) for size, rate in self.bandwidths.items()},
        )


def fma_peak(dtype: str, threads: int) -> float | None:
    """FLOP/s of multiply-adds in `dtype` on `threads` threads together; None without the compiled part."""
    machine = _compiled()
    itemsize = np.dtype(dtype).itemsize
    if machine is None or not machine.multiply_adds(itemsize, 1):
        return None
    return _best(threads, lambda _: float(machine.multiply_adds(itemsize, 2_000_000)))


def memory_bandwidth(threads: int) -> float | None:
    """Bytes/s of the STREAM triad on `threads` threads together; None without the compiled part."""
    machine = _compiled()
    if machine is None:
        return None
    a, b, c = (np.ones(_TRIAD) for _ in range(3))
    parts = [slice(_TRIAD * i // threads, _TRIAD * (i + 1) // threads) for i in range(threads)]
    return _best(threads, lambda i: float(machine.triad(a[parts[i]], b[parts[i]], c[parts[i]])))


def bandwidths(threads: int) -> dict[int, float]:
    """Bytes/s at which `threads` threads together read a shared array again and again, by the array's bytes.

    Empty without the compiled part.
    """
    machine = _compiled()
    if machine is None or not machine.read(np.ones(_WHOLE), 1)[0]:
        return {}
    array = np.ones(_FOOTPRINTS[-1] // 8 + 8)
    array = array[-array.ctypes.data % 64 // 8 :]  # aligned, so that no vector crosses a cache line
    found = {}
    for footprint in _FOOTPRINTS:
        length = footprint // 8 // threads // _WHOLE * _WHOLE
        if length:
            found[footprint] = _best(threads, functools.partial(_read, machine, array, length))
    return found


def _read(machine: Any, array: Array, length: int, thread: int) -> float:
    """Read a thread's part of an array, `length` elements, again and again; returns the bytes that were read."""
    part = array[thread * length : (thread + 1) * length]
    return float(machine.read(part, max(1, _TURN // part.nbytes))[0])


class Pair:
    """Measures how far apart two processors are: how long a cache line takes from one to the other and back.

    A virtual machine's processors may be moved at any time, from cores that share a cache to cores that do not. What a
    library's threads exchange in a small layer then takes several times as long.
    """

    #: Round trips of a measurement, and measurements, of which the best counts.
    TURNS, REPEATS = 3000, 2
    #: Up to this multiple of the least time so far, the processors are as near each other as they can be.
    MOST = 2

    def __init__(self) -> None:
        ours = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._machine: Any = _compiled() if len(ours) > 1 else None
        self._least = math.inf
        self._pool = ThreadPoolExecutor(2)
        if self._machine is not None:
            barrier = threading.Barrier(2)

            def settle(processor: int) -> None:
                os.sched_setaffinity(0, {processor})  # of this thread
                barrier.wait()

            list(self._pool.map(settle, ours[:2]))

    def seconds(self) -> float | None:
        """Seconds of a round trip; None if threads cannot be bound to processors, or without the compiled part."""
        if self._machine is None:
            return None
        taken = min(map(self._measured, range(self.REPEATS)))
        self._least = min(self._least, taken)
        return taken

    def is_near(self, taken: float | None) -> bool:
        """Whether a round trip of `taken` seconds is about the fastest that was measured so far."""
        return taken is None or taken <= self.MOST * self._least

    def _measured(self, _: int) -> float:
        numbers, start = np.zeros((2, 8), np.longlong), threading.Barrier(2)

        def take_turns(me: int) -> float:
            start.wait()
            self._machine.take_turns(numbers[0], me, 10)  # wakes both threads
            begun = time.perf_counter()
            self._machine.take_turns(numbers[1], me, self.TURNS)  # if one thread is late, the other waits for it
            return (time.perf_counter() - begun) / self.TURNS

        return max(self._pool.map(take_turns, range(2)))

    def close(self) -> None:
        """End its threads."""
        self._pool.shutdown()


def description() -> dict[str, Any]:
    """The machine and the versions that a result depends on."""
    versions = {"python": sys.version.split()[0], "fastconv": __version__, "numpy": np.__version__}
    for name in ("numba", "torch", "onnxruntime", "openvino", "ncnn"):
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
    """The highest rate at which `threads` threads, each calling `work` with its number, work together."""
    rates = []
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))  # the processor's clock takes a moment to rise
        for _ in range(_REPEATS):
            start = time.perf_counter()
            done = sum(pool.map(work, range(threads)))
            rates.append(done / (time.perf_counter() - start))
    return max(rates)
