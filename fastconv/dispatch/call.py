"""One call: from arrays and a geometry to the result, in five steps.

    1 check     the result's shape and dtype, `out`, the algorithm, the backend: all errors come before any work
    2 prepare   the engine's function for this contraction, planned at the first call of its kind
    3 convert   the arrays to the dtype and memory order of the engine; extend them for padding modes other than zeros
    4 cache     the function under the call's key, so that the next call of this kind starts at step 5
    5 run       it, fold the padding back, cast, write into `out`

Any two of large map, small map and weight give the third, so this serves forward calls and gradients alike.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from fastconv.backends.contract import AnyEngine, Run, is_tiled
from fastconv.dispatch import algorithms, backends, call_cache, denormals, memory, threads
from fastconv.dispatch.call_cache import Call, Calls
from fastconv.dispatch.finish import Epilogue, FinishedAfter
from fastconv.planner import bias_grad, cost_model
from fastconv.planner.request import Contraction
from fastconv.planner.steps import InitializedRun
from fastconv.problem import environment, padding
from fastconv.problem.arrays import Array, check_out, common_dtype, compute_dtype, prepared
from fastconv.problem.errors import BackendUnavailableError
from fastconv.problem.geometry import Geometry, map_shape
from fastconv.problem.recent import Recent

#: FLOP below which a problem runs on one thread: it is over before a second one has started.
_SERIAL = 400_000


def contract(
    geometry: Geometry,
    *,
    large: Array | None = None,
    small: Array | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    dtype: np.dtype[Any],
    algorithm: str = "auto",
    backend: str | None = None,
    out: Array | None = None,
    key: Any = None,
    kept: Calls | None = None,
    epilogue: Epilogue | None = None,
    residual: Array | None = None,
) -> Array:
    """Compute the one of `large`, `small` and `weight` that is None, plus `bias` on its channels if it is a map.

    The arrays have the shapes that `geometry` says, as the caller has checked; `dtype` is the result's. `key` is the
    call's key in `kept`, see `find_call`; None for a call that is not cached. Calls of plans have an `epilogue` and may
    have a residual. Raises, before any work, `DTypeError` and what else `check_out` and the choice of backend and
    algorithm raise.
    """
    shape = geometry.large_shape if large is None else geometry.small_shape if small is None else geometry.weight_shape
    if out is not None:
        check_out(out, shape, dtype)
    computed = compute_dtype(dtype)
    chosen = algorithms.pick(algorithm, geometry)

    target: Contraction = "large" if large is None else "small" if small is None else "weight"
    fuses = None if epilogue is None else epilogue.packed is not None
    engine, run, lifted = _picked(backend, chosen, geometry, target, computed, fuses)
    is_zeroed = False
    if out is None and bias is None and isinstance(run, InitializedRun):
        # a new array of zeros costs less than setting one: the system's new pages are zeros already
        run, is_zeroed = run.accumulate, True
    target_shape = getattr(lifted, f"{target}_shape")
    allocate = memory.allocator(math.prod(target_shape) * computed.itemsize, is_zeroed)
    given = [
        _converted(array, getattr(geometry.lifted(), f"{role}_shape"), computed, engine)
        for role, array in (("large", large), ("small", small), ("weight", weight))
        if array is not None
    ]
    if bias is not None:
        bias = _converted(bias, bias.shape, computed, engine)
    first, second = given
    mode, pads = geometry.padding_mode, geometry.lifted().pads
    if mode != "zeros" and large is not None:
        extended = memory.empty(lifted.large_shape, computed)
        padding.extend(first, pads, mode, extended)
        first = extended
    if epilogue is not None:
        run = epilogue.bound(run, second, bias, adds=residual is not None)
        second = first if residual is None else _converted(residual, target_shape, computed, engine)
    if out is not None and _can_write_into(out, math.prod(target_shape), computed, (*given, first, second, bias)):
        result = np.asarray(out).reshape(target_shape)
    else:
        result = allocate(target_shape, computed)
    if key is not None and is_tiled(engine) and mode == "zeros" and geometry.batch and dtype == computed:
        cached_run = run
        if not _is_small(lifted):
            cached_run = _planned_at_each_call(engine, backend, chosen, lifted, target, dtype, is_zeroed)
            if epilogue is not None:
                bind = functools.partial(epilogue.bound, weight=given[1], bias=bias, adds=residual is not None)
                cached_run = _bound_at_each_call(backend, chosen, lifted, target, dtype, fuses, bind)
        call_cache.keep(key, cached_run, (first.shape, second.shape, target_shape), shape, allocate, kept)
    with _surroundings(engine, mode == "zeros" and dtype == computed):
        run(first, second, bias, result)
        if mode != "zeros" and target == "large":
            result = _folded(engine, result, geometry.lifted())
        return _delivered(result, shape, dtype, out)


def _picked(
    backend: str | None, chosen: Any, geometry: Geometry, target: Contraction, dtype: np.dtype[Any],
    fuses: bool | None = None,
) -> tuple[AnyEngine, Any, Geometry]:  # fmt: skip
    """The engine of a call and the result of `_prepared`; if it cannot run after all, `auto` takes the next engine."""
    engine = backends.pick(backend, dtype)
    try:
        return engine, *_prepared(engine, chosen, geometry, target, dtype, fuses)
    except BackendUnavailableError as error:
        backends.withdraw(engine, str(error))
        return _picked(backend, chosen, geometry, target, dtype, fuses)


def _prepared(
    engine: AnyEngine, chosen: Any, geometry: Geometry, target: Contraction, dtype: np.dtype[Any],
    fuses: bool | None = None,
) -> tuple[Any, Geometry]:  # fmt: skip
    """The function that computes a contraction, and its geometry: with two axes, and padded with zeros only.

    If `fuses` is not None it has an epilogue: it is a `PanelRun` if `fuses` is true and there is one, otherwise a
    `FinishedAfter`. No `PanelRun` flushes denormal numbers, as an epilogue flushes none.
    """
    threads.requested()  # this line and the next raise here, before anything is written, if their variables are invalid
    flushes = denormals.get_flush_denormal()
    is_default = is_tiled(engine) and cost_model.ignores_measured()
    lifted = geometry.lifted()
    if lifted.padding_mode != "zeros":
        lifted = lifted.remembered("extended", lifted.extended)
    if not lifted.batch:
        return _nothing if fuses is None else FinishedAfter(_nothing), lifted
    number = threads_for(lifted)
    key = engine, chosen, target, dtype.itemsize, number, flushes, is_default, fuses

    def prepare() -> Any:
        if fuses and not flushes and (run := chosen.with_panels(engine, lifted, target, dtype.itemsize, number)):
            return run
        run = denormals.in_its_mode(engine, flushes, chosen.prepared(engine, lifted, target, dtype.itemsize, number))
        run = denormals.with_flushed_bias(run) if flushes else run
        return run if fuses is None else FinishedAfter(run)

    return lifted.remembered(key, prepare), lifted


def _nothing(first: Array, second: Array, bias: Array | None, out: Array) -> None:
    """The contraction of no images."""
    out[...] = 0


def threads_for(geometry: Geometry) -> int:
    """The threads that compute a problem, at most."""
    return 1 if _is_small(geometry) else threads.get_num_threads()


def _is_small(geometry: Geometry) -> bool:
    return geometry.remembered("is_small", lambda: geometry.flops < _SERIAL)


def _planned_at_each_call(
    engine: AnyEngine,
    backend: str | None,
    chosen: Any,
    geometry: Geometry,
    target: Contraction,
    dtype: np.dtype[Any],
    is_zeroed: bool,
) -> Run:
    """The contraction, with the number of threads read at each call; its output holds zeros if `is_zeroed`."""

    def run(first: Array, second: Array, bias: Array | None, out: Array) -> None:
        try:
            current_engine, current_run = engine, _prepared(engine, chosen, geometry, target, dtype)[0]
        except BackendUnavailableError:  # the plan for another number of threads could not be prepared
            current_engine, current_run, _ = _picked(backend, chosen, geometry, target, dtype)
        if is_zeroed and isinstance(current_run, InitializedRun):
            current_run = current_run.accumulate
        with _surroundings(current_engine, True):
            current_run(first, second, bias, out)

    return run


def _bound_at_each_call(
    backend: str | None, chosen: Any, geometry: Geometry, target: Contraction, dtype: np.dtype[Any],
    fuses: bool | None, bind: Callable[[Any], Run],
) -> Run:  # fmt: skip
    """The same for a plan's call, see `Epilogue.bound`.

    It looks up what the key of a call does not have: the number of threads, and which cost model decides.
    """
    known: Recent[Run] = Recent(2)

    def run(first: Array, residual: Array, bias: Array | None, out: Array) -> None:
        key = threads.get_num_threads(), cost_model.ignores_measured()
        if (bound := known.get(key)) is None:
            known[key] = bound = bind(_picked(backend, chosen, geometry, target, dtype, fuses)[1])
        bound(first, residual, bias, out)

    return run


def check_dtypes(backend: str | None, *calls: dict[str, Array]) -> None:
    """Raise what the arrays of any of several calls would raise, before the first of them computes anything."""
    for arrays in calls:
        backends.pick(backend, compute_dtype(common_dtype(**arrays)))


def _folded(engine: AnyEngine, extended: Array, lifted: Geometry) -> Array:
    """The large map of `lifted` from one that includes its padding: a copy, so that the larger one is freed."""
    result = memory.empty(lifted.large_shape, extended.dtype)

    def fold(extended: Array, out: Array) -> None:
        out[...] = padding.fold(extended, lifted.pads, lifted.padding_mode)

    denormals.in_its_mode(engine, denormals.get_flush_denormal(), fold)(extended, result)
    return result


def find_call(
    operation: Any, first: Array, second: Array, bias: Array | None, arguments: tuple[Any, ...], algorithm: str,
    backend: str | None, out: Array | None, kept: Calls | None = None,
) -> tuple[Any, Call | None]:  # fmt: skip
    """The key of a call in `call_cache`, and the cached function or None. Called before an engine is picked, see
    `backends._epoch`."""
    choices = (
        backend, algorithm, backends.token(), algorithms.token(), threads.token(), denormals.token(),
        environment.of_a_call(),
    )  # fmt: skip
    return call_cache.find(operation, first, second, bias, out, arguments, choices, kept)


def sum_pixels(
    name: str, grid: Array, *, spatial: int, algorithm: str = "auto", backend: str | None = None,
    out: Array | None = None,
) -> Array:  # fmt: skip
    """The sum of a map over images and pixels, one number a channel: the gradient of a bias.

    It is the same for every algorithm; one that is named must exist. Calls are cached as those of `contract`.
    """
    key, call = find_call((sum_pixels, spatial), grid, grid, None, (), algorithm, backend, out)
    if call is not None:
        return call(grid, grid, None, out)
    images, channels, extents = map_shape(name, grid.shape, spatial)
    dtype = common_dtype(**{name: grid})
    if out is not None:
        check_out(out, (channels,), dtype)
    computed = compute_dtype(dtype)
    algorithms.check(algorithm)
    height, width = (1, *extents)[-2:]
    shape = 1 if images is None else images, channels, height, width
    engine, run = _picked_to_sum(backend, shape, computed)
    grid = _converted(grid, shape, computed, engine)
    allocate = memory.allocator(channels * computed.itemsize)
    takes = out is not None and _can_write_into(out, channels, computed, (grid,))
    result = np.asarray(out) if takes else allocate((channels,), computed)
    if key is not None and is_tiled(engine) and dtype == computed:

        def again(grid: Array, same: Array, bias: Array | None, out: Array) -> None:
            engine, run = _picked_to_sum(backend, shape, computed)
            with _surroundings(engine, True):
                run(grid, out)

        call_cache.keep(key, again, (shape, shape, (channels,)), (channels,), allocate)
    with _surroundings(engine, dtype == computed):
        run(grid, result)
        return _delivered(result, (channels,), dtype, out)


def _picked_to_sum(
    backend: str | None, shape: tuple[int, int, int, int], dtype: np.dtype[Any]
) -> tuple[AnyEngine, Callable[..., None]]:
    """As `_picked`, for `sum_pixels`."""
    engine, flushes = backends.pick(backend, dtype), denormals.get_flush_denormal()
    number = 1 if math.prod(shape) < bias_grad.SERIAL else threads.get_num_threads()
    try:
        run = bias_grad.prepared(engine, shape, dtype.itemsize, number)
    except BackendUnavailableError as error:
        backends.withdraw(engine, str(error))
        return _picked_to_sum(backend, shape, dtype)
    return engine, denormals.in_its_mode(engine, flushes, run)


def _converted(array: Array, shape: tuple[int, ...], dtype: np.dtype[Any], engine: AnyEngine) -> Array:
    """`array` with the dtype, shape and memory order that the engine takes; copied only if necessary."""
    array = prepared(array, dtype).reshape(shape)
    return np.ascontiguousarray(array) if is_tiled(engine) else array


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The context for engines that compute by NumPy: BLAS on the threads asked for, and no warnings of overflow,
    underflow or NaN, as there are none from any other engine."""
    with threads.limited(), np.errstate(all="ignore"):
        yield


_NOTHING = contextlib.nullcontext()


def _surroundings(engine: AnyEngine, is_plain: bool) -> contextlib.AbstractContextManager[None]:
    """The context of a call. A plain one (zero padding, no cast) on a tile engine needs none: NumPy is not used."""
    if not is_tiled(engine):
        return _quiet()
    return _NOTHING if is_plain else np.errstate(all="ignore")


def _can_write_into(out: Array, elements: int, computed: np.dtype[Any], inputs: Iterable[Array | None]) -> bool:
    """Whether the engine may write into `out`: it has the dtype and size of the computation, is in C order and aligned,
    and shares no memory with an input."""
    return (
        out.dtype == computed
        and out.size == elements
        and out.flags.c_contiguous
        and out.flags.aligned
        and not any(array is not None and np.may_share_memory(np.asarray(out), array) for array in inputs)
    )


def _delivered(result: Array, shape: tuple[int, ...], dtype: np.dtype[Any], out: Array | None) -> Array:
    """The result in its public shape and dtype, in `out` if there is one."""
    if result.shape != shape:
        result = result.reshape(shape)
    if out is None:
        if result.dtype == dtype:
            return result
        out = memory.empty(shape, dtype)
    plain = np.asarray(out)  # a subclass may define assignment in another way
    if not np.may_share_memory(plain, result):
        plain[...] = result
    return out
