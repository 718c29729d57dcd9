"""The Numba engine: passes over tiles, compiled for this processor at their first use and kept on disk.

    places      where a plan's integers stand, as Numba takes them
    code        LLVM instructions on vector registers
    vectors     the words made of them: loops over vector registers
    calls       words that call a pass at its address
    modes       how a thread rounds, and whether it flushes denormal numbers
    fields      copies of strips, zero-padded
    pieces      where a piece of work lies
    dense       correlations of many channels, a lane for each pixel
    results     the same, a lane for each result
    weights     their weight's gradient, a lane for each tap, and for each result
    dots        the same, a lane for each pixel
    depthwise   correlations of one channel each
    rows        those of small kernels
    compiling   what is compiled
    cache       where it is kept
    variables   what Numba's configuration may change of it

Each pass is one function that takes pieces of work from counters until none is left. A small problem calls it once; a
larger one calls it from a `prange` loop, once for each thread, which has a counter and a workspace of its own.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numba
import numpy as np

from fastconv.backends.contract import FloatMode, Layout, Plan
from fastconv.backends.numba import (
    cache,
    channel_lanes,
    depthwise_channelwise,
    depthwise_rowwise,
    variables,
    weight_grad,
)
from fastconv.backends.numba.compiling import address, callers, entry, switcher
from fastconv.backends.numba.drivers import compiled_pass
from fastconv.backends.numba.float_mode import FLUSH
from fastconv.backends.numba.llvm import found, machine
from fastconv.backends.numpy import sum_pixels
from fastconv.backends.workspace import Rooms, workers_of
from fastconv.kernels.drivers import PASSES
from fastconv.problem import process
from fastconv.problem.arrays import Array

_PASSES: dict[str, Callable[[int], Any]] = {
    "correlate_weight": weight_grad.correlate_weight,
    "correlate_channels": depthwise_channelwise.correlate_channels,
    "correlate_channels_weight": depthwise_channelwise.correlate_channels_weight,
    "correlate_rows": depthwise_rowwise.correlate_rows,
    "spread_rows": depthwise_rowwise.spread_rows,
    "correlate_results": channel_lanes.correlate_results,
    "correlate_results_weight": weight_grad.correlate_results_weight,
    "correlate_rows_weight": depthwise_rowwise.correlate_rows_weight,
    **{driver.__name__: functools.partial(compiled_pass, driver) for driver in PASSES},
}
#: Numba's simplest threading layer, `workqueue`, ends the process when two threads launch at once. Which layer there is
#: shows after the first launch.
_launching: contextlib.AbstractContextManager[Any] = threading.Lock()


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """Numba's number of threads, which is this thread's own, as it was before in the end."""
    before = numba.get_num_threads()
    numba.set_num_threads(number)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def _look_at_layer() -> None:
    """After a launch: other layers than `workqueue` take launches from many threads at once."""
    global _launching
    if isinstance(_launching, contextlib.nullcontext) or numba.threading_layer() == "workqueue":
        return
    _launching = contextlib.nullcontext()


@functools.cache
def _compiled_switch() -> Callable[[int, int], int]:
    with process.once:
        return entry(switcher())


def _switch(kept: int, added: int) -> int:
    """See `contract.FloatMode`; compiled at its first call, as few calls need it."""
    return _compiled_switch()(kept, added)


class NumbaEngine:
    """Float32 and float64 over tiles; the passes are those of `backends.contract.TileEngine`.

    Raises `BackendUnavailableError` if Numba cannot run as it is configured, and so does `prepared` if it cannot
    compile.
    """

    def __init__(self) -> None:
        variables.check()
        self._rooms = Rooms()
        self.float_mode = FloatMode(_switch, FLUSH) if FLUSH else None

    def unsupported(self, dtype: np.dtype[Any]) -> str | None:
        """Everything but float32 and float64."""
        return None if dtype.char in "fd" else "it computes in float32 and float64"

    def layout(self, itemsize: int) -> Layout:
        """Lanes and tiles of this machine."""
        with variables.failures_are_reasons():
            return machine().layout(itemsize)

    def prepared(self, plan: Plan, threads: int) -> Callable[[Array, Array, Array | None, Array], None]:
        """The pass of a plan over arrays in C order."""
        vector, tables, room = plan.vector, plan.tables, self._rooms.room
        workers = workers_of(plan, threads)
        # under the lock, as threads that come at the same time share what one of them compiles
        with variables.failures_are_reasons(), process.once:
            function = address(_PASSES[plan.name](plan.itemsize))
            serial, parallel = callers(plan.itemsize)
            alone = entry(serial)
            if workers > 1:
                parallel.ready()
        size = (plan.workspace * workers + 16) * plan.itemsize
        nothing = np.empty(0, f"f{plan.itemsize}")
        launched = min(workers, numba.config.NUMBA_NUM_THREADS)

        def run(source: Array, factor: Array, bias: Array | None, out: Array) -> None:
            own = room(size, workers)
            if bias is None:
                bias = nothing
            if workers == 1:
                alone(function, vector, tables, source, factor, bias, out, own[2], own[3])
            else:
                with _launching, _threads(launched):
                    parallel(function, vector, tables, source, factor, bias, out, own[2], own[3], workers)
                _look_at_layer()

        return run

    def sum_pixels(self, grid: Array, out: Array) -> None:
        """As NumPy's engine does: it is one pass over memory."""
        sum_pixels(grid, out)

    def instruction_sets(self) -> tuple[str, ...]:
        """Those that Numba makes code for on this processor, the best first."""
        return found()

    def details(self) -> str:
        """What it runs on, for `fastconv info`; raises if it cannot compile, which shows only when it does."""
        with variables.failures_are_reasons():
            entry(callers(4)[0])  # the smallest function
        return f"{machine().name} (of {', '.join(found())}), threads: Numba's"

    def caches(self) -> list[str]:
        """Where compiled functions are kept, how many and how much, for `fastconv info`."""
        return cache.described()

    def kept(self) -> Collection[str]:
        """The names of those functions of `functions` that are on disk."""
        return cache.kept()

    @variables.failures_are_reasons()
    def functions(self) -> list[tuple[str, Callable[[], Any]]]:
        """The name of everything that is ever compiled, each with a function that compiles it or takes it from disk."""
        with process.once:
            passes = [make(size) for size in (4, 8) for make in _PASSES.values()]
            every = [*passes, *callers(4), *callers(8), switcher()]
        return [(function.py_func.__name__, variables.failures_are_reasons()(function.ready)) for function in every]
