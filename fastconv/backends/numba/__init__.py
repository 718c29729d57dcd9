"""The Numba engine: passes over register tiles, compiled for this processor at their first use and kept on disk.

    numba_internals   everything used of Numba beyond its documented interface
    variables         how Numba's configuration affects the engine
    llvm              LLVM instructions on vector registers
    simd, transpose, pad_rows   the SIMD operations and memory operations that drivers call
    pixel_lanes, channel_lanes  the micro-kernels of many channels, with pixels or output channels as lanes
    weight_grad, weight_grad_pixel_lanes   those of the weight gradient
    winograd, spectra  the transforms of tiles, and products of spectra
    depthwise_channelwise, depthwise_in_place, depthwise_rowwise   those of depthwise convolution
    bias_grad         that of the bias gradient
    finish            residuals and activations
    primitives        all of these, by the names that drivers call them by
    drivers           binds the drivers of `fastconv.kernels` to these primitives
    compiling         how functions are compiled
    calls             an intrinsic that calls a pass at its address
    float_mode        reads and sets a thread's floating-point mode
    cache             the disk cache of compiled functions

Each pass is one function that takes work items from counters until none is left. A small problem calls it once. A
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

from fastconv.backends.contract import FinishingRun, FloatMode, Layout, Plan
from fastconv.backends.instruction_set import OnInstructionSet
from fastconv.backends.numba import cache, numba_internals, variables
from fastconv.backends.numba.compiling import address, callers, entry, switcher
from fastconv.backends.numba.drivers import compiled_pass
from fastconv.backends.numba.float_mode import FLUSH
from fastconv.backends.numba.llvm import found, made_for
from fastconv.backends.workspace import Workspaces, workers_of
from fastconv.kernels.drivers import FLOAT32_ONLY, PASSES
from fastconv.problem import process
from fastconv.problem.arrays import Array

_PASSES: dict[str, Callable[[int], Any]] = {
    driver.__name__: functools.partial(compiled_pass, driver) for driver in PASSES
}
#: Held during a launch, because Numba's simplest threading layer, `workqueue`, ends the process when two threads launch
#: at once. Numba tells which layer it has only after the first launch.
_launching: contextlib.AbstractContextManager[Any] = threading.Lock()


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """A context with another number of threads for launches from this thread."""
    before = numba.get_num_threads()
    numba.set_num_threads(number)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def _look_at_layer() -> None:
    """After a launch: drop the lock unless the layer is `workqueue`."""
    global _launching
    if isinstance(_launching, contextlib.nullcontext) or numba.threading_layer() == "workqueue":
        return
    _launching = contextlib.nullcontext()


def _described_layer() -> str:
    """Numba's threading layer, with a warning if another user of Numba can end the process with it."""
    layer, is_in_force = variables.threading_layer()
    described = f"Numba's, layer {layer}" + ("" if is_in_force else " when they start")
    if layer != "workqueue":
        return described
    return (
        f"{described}. WARNING: this layer ends the process if other code launches Numba's threads during a call of"
        " fastconv's; install tbb or an OpenMP library, and Numba takes that"
    )


@functools.cache
def _compiled_switch() -> Callable[[int, int], int]:
    with variables.failures_are_reasons(), process.once:
        return entry(switcher())


def _switch(kept: int, added: int) -> int:
    """See `contract.FloatMode`; compiled at its first call, as few programs need it."""
    return _compiled_switch()(kept, added)


class NumbaEngine(OnInstructionSet):
    """A tile engine for float32 and float64, see `backends.contract.TileEngine`.

    If Numba cannot run as it is configured, the constructor raises `BackendUnavailableError`. If it cannot compile or
    start threads, that shows later, and every method that needs to raises the same, before anything is computed.
    """

    #: Its passes have an epilogue.
    finishes = True

    def __init__(self) -> None:
        super().__init__()
        variables.check()
        self._workspaces = Workspaces()
        self.float_mode = FloatMode(_switch, FLUSH) if FLUSH else None

    def unsupported(self, dtype: np.dtype[Any]) -> str | None:
        """Everything but float32 and float64."""
        return None if dtype.char in "fd" else "it computes in float32 and float64"

    def layout(self, itemsize: int) -> Layout:
        """The lanes and register tiles of the instruction set in use."""
        with variables.failures_are_reasons():
            return self.instructions.layout(itemsize)

    def prepared(self, plan: Plan, threads: int) -> FinishingRun:
        """The pass of a plan over arrays with its strides."""
        vector, tables, workspace = plan.vector, plan.tables, self._workspaces.workspace
        workers = workers_of(plan, threads)
        # under the lock, so that threads that come at the same time compile each function once
        with variables.failures_are_reasons(), process.once, made_for(self.instructions):
            function = address(_PASSES[plan.name](plan.itemsize))
            serial, parallel = callers(plan.itemsize)
            alone = entry(serial)
            if workers > 1:
                parallel.ready()
                numba_internals.start_threads()
        size = (plan.workspace * workers + 16) * plan.itemsize
        nothing, no_map = np.empty(0, f"f{plan.itemsize}"), np.empty((0, 0, 0, 0), f"f{plan.itemsize}")
        launched = min(workers, numba.config.NUMBA_NUM_THREADS)

        def run(
            source: Array, factor: Array, bias: Array | None, out: Array, residual: Array | None = None,
            slopes: Array | None = None, activation: int = 0,
        ) -> None:  # fmt: skip
            own = workspace(size, workers)
            if bias is None:
                bias = nothing
            how = (no_map if residual is None else residual, nothing if slopes is None else slopes, activation)
            if workers == 1:
                alone(function, vector, tables, source, factor, bias, out, *how, own[2], own[3])
            else:
                with _launching, _threads(launched):
                    parallel(function, vector, tables, source, factor, bias, out, *how, own[2], own[3], workers)
                _look_at_layer()

        return run

    def instruction_sets(self) -> tuple[str, ...]:
        """Those that Numba generates code for on this processor, the best first."""
        with variables.failures_are_reasons():
            return found()

    def details(self) -> str:
        """What it runs on, for `fastconv info`. Compiles a function, as only that shows whether it can."""
        with variables.failures_are_reasons(), made_for(self.instructions):
            entry(callers(4)[0])  # the smallest function
        return f"{self.instructions.name} (of {', '.join(found())}), threads: {_described_layer()}"

    def caches(self) -> list[str]:
        """The directories of compiled functions and how much is there, for `fastconv info`."""
        return cache.described()

    def kept(self) -> Collection[str]:
        """The names of those of `functions` that are on disk."""
        return cache.kept()

    @variables.failures_are_reasons()
    def functions(self) -> list[tuple[str, Callable[[], Any]]]:
        """Every function that the engine ever compiles: its name, and a call that compiles it or loads it from disk."""
        with process.once, made_for(self.instructions):
            passes = [
                make(size) for size in (4, 8) for name, make in _PASSES.items() if size == 4 or name not in FLOAT32_ONLY
            ]
            every = [*passes, *callers(4), *callers(8), switcher()]
        return [(function.py_func.__name__, variables.failures_are_reasons()(function.ready)) for function in every]
