"""The engine's function for one contraction, prepared at its first call and kept with the geometry.

What surrounds the passes of an engine is done here: padding modes other than zeros, the floating-point mode, and the
context in which window engines compute. So the function takes the arrays of a call as they are.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastconv.backends import memory
from fastconv.backends.contract import AnyEngine, Run, is_tiled
from fastconv.dispatch import backends, denormals, threads
from fastconv.dispatch.finish import FinishedAfter
from fastconv.planner import cost_model
from fastconv.planner.request import Contraction
from fastconv.problem import padding
from fastconv.problem.arrays import Array
from fastconv.problem.errors import BackendUnavailableError
from fastconv.problem.geometry import Geometry
from fastconv.problem.memory_order import C_ORDER, MemoryOrders
from fastconv.problem.recent import Recent

#: FLOP below which a problem runs on one thread: it is over before a second one has started.
_SERIAL = 400_000


class Preparation(NamedTuple):
    """Everything that determines an engine's function for a contraction, except settings such as the number of threads.

    geometry   the problem, lifted
    target     what is computed
    dtype      the dtype of the computation
    algorithm  the chosen algorithm
    backend    the backend that the call names; None for the one that is set
    orders     the memory orders of both maps
    fuses      None: the function is a `Run`. Otherwise it has an epilogue: it is a `PanelRun` if this is true and there
               is one, or else a `FinishedAfter`
    """

    geometry: Geometry
    target: Contraction
    dtype: np.dtype[Any]
    algorithm: Any
    backend: str | None
    orders: MemoryOrders
    fuses: bool | None = None

    @property
    def is_serial(self) -> bool:
        """Whether one thread computes it, whatever the number of threads."""
        return is_serial(self.geometry)

    def function(self) -> tuple[AnyEngine, Any]:
        """The engine that computes it now, and the function; if the engine cannot run after all, `auto` takes the next.

        Raises `BackendUnavailableError` if the engine was named.
        """
        engine = backends.pick(self.backend, self.dtype)
        try:
            return engine, self._on(engine)
        except BackendUnavailableError as error:
            backends.withdraw(engine, str(error))
            return self.function()

    def at_each_call(self, bind: Callable[[Any], Run]) -> Run:
        """A `Run` for later calls, whose settings may differ.

        At each call it looks up the number of threads and the cost model, which are not in the call's key, and binds
        the function for them by `bind`.
        """
        known: Recent[Run] = Recent(2)

        def run(first: Array, second: Array, bias: Array | None, out: Array) -> None:
            settings = threads.get_num_threads(), cost_model.ignores_measured()
            if (bound := known.get(settings)) is None:
                known[settings] = bound = bind(self.function()[1])
            bound(first, second, bias, out)

        return run

    def _on(self, engine: AnyEngine) -> Any:
        """The function of an engine with the settings of now."""
        # these two raise for an invalid environment variable, before anything is written
        threads.requested()
        flushes = denormals.get_flush_denormal()
        is_default = is_tiled(engine) and cost_model.ignores_measured()
        number = threads_for(self.geometry)
        key = (
            engine, self.algorithm, self.target, self.dtype.itemsize, number, self.orders, flushes, is_default,
            self.fuses,
        )  # fmt: skip
        return self.geometry.remembered(key, lambda: self._prepared(engine, number, flushes))

    def _prepared(self, engine: AnyEngine, number: int, flushes: bool) -> Any:
        """The function on at most `number` threads. With `flushes` it is no `PanelRun`: an epilogue flushes nothing."""
        geometry, orders = self.geometry, self.orders
        if not geometry.batch:
            return _nothing if self.fuses is None else FinishedAfter(_nothing)
        if geometry.padding_mode != "zeros":
            geometry, orders = geometry.remembered("extended", geometry.extended), orders._replace(large=None)
        request = engine, geometry, self.target, self.dtype.itemsize, number
        if self.fuses and not flushes and (panel_run := self.algorithm.with_panels(*request, orders)):
            return panel_run.within(lambda run: self._with_padding(engine, flushes, run))
        direct: Run = self.algorithm.prepared(*request, C_ORDER if denormals.are_copied(engine, self.dtype) else orders)
        run: Run = in_context(engine, denormals.in_its_mode(engine, flushes, direct))
        run = denormals.with_flushed_bias(run) if flushes else run
        run = self._with_padding(engine, flushes, run)
        return run if self.fuses is None else FinishedAfter(run)

    def _with_padding(self, engine: AnyEngine, flushes: bool, run: Any) -> Any:
        """A function for maps without padding, made of `run`, whose large map includes its padding."""
        geometry, mode, pads = self.geometry, self.geometry.padding_mode, self.geometry.pads
        if mode == "zeros":
            return run
        shape = geometry.remembered("extended", geometry.extended).large_shape

        def run_extended(first: Array, second: Array, bias: Array | None, out: Array, *finish: Any) -> None:
            extended = memory.empty(shape, first.dtype)
            padding.extend(first, pads, mode, extended)
            run(extended, second, bias, out, *finish)

        def fold(extended: Array, out: Array) -> None:
            with np.errstate(all="ignore"):
                out[...] = padding.fold(extended, pads, mode)

        fold_in_mode = denormals.in_its_mode(engine, flushes, fold)

        def run_folded(first: Array, second: Array, bias: Array | None, out: Array) -> None:
            extended = memory.empty(shape, out.dtype)
            run(first, second, bias, extended)
            fold_in_mode(extended, out)

        return run_folded if self.target == "large" else run_extended


def is_serial(geometry: Geometry) -> bool:
    """Whether one thread computes a problem, whatever the number of threads."""
    return geometry.remembered("is_serial", lambda: geometry.flops < _SERIAL)


def threads_for(geometry: Geometry) -> int:
    """The threads that compute a problem, at most."""
    return 1 if is_serial(geometry) else threads.get_num_threads()


def in_context(engine: AnyEngine, run: Callable[..., None]) -> Callable[..., None]:
    """`run`, for an engine that computes by NumPy, with BLAS on the threads asked for and without the warnings of
    overflow, underflow and NaN, as there are none from any other engine."""
    if is_tiled(engine):
        return run

    def run_quietly(*arrays: Array | None) -> None:
        with threads.limited(), np.errstate(all="ignore"):
            run(*arrays)

    return run_quietly


def _nothing(first: Array, second: Array, bias: Array | None, out: Array) -> None:
    """The contraction of no images."""
    out[...] = 0
