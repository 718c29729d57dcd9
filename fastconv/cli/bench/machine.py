"""What the machine can do, measured with compiled kernels: multiply-adds a second, and bytes a second from memory."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
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
