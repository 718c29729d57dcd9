"""One call: from arrays and a geometry to the result, in five steps.

    1 check     the result's shape and dtype, `out`, the algorithm, the backend: all errors come before any work
    2 convert   the arrays to the dtype of the engine; extend them for padding modes other than zeros
    3 prepare   the engine's function for this contraction and these memory orders, planned at the first such call
    4 cache     the function under the call's key, so that the next call of this kind starts at step 5
    5 run       it, fold the padding back, cast, write into `out`

Any two of large map, small map and weight give the third, so this serves forward calls and gradients. Maps
are passed on as views (N, C, H, W), whatever their memory order; the kernels read and write them where they are.
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
from fastconv.problem import environment, memory_order, padding, parameters
from fastconv.problem.arrays import Array, check_out, common_dtype, compute_dtype, prepared
from fastconv.problem.errors import BackendUnavailableError
from fastconv.problem.geometry import Geometry, map_shape
from fastconv.problem.memory_order import C_ORDER, MemoryOrders, has_whole_strides, strides_of
from fastconv.problem.recent import Recent

#: The arrays that may have any strides. Tile engines take the others in C order.
MAPS = MemoryOrders._fields

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
    engine = backends.pick(backend, computed)
    roles = {"large": large, "small": small, "weight": weight}
    given = {
        role: _converted(_lifted(geometry, role, array), role, computed, engine)
        for role, array in roles.items()
        if array is not None
    }
    if bias is not None:
        bias = _converted(bias, "bias", computed, engine)
    mode, extended = geometry.padding_mode, geometry.lifted().extended()
    if mode != "zeros" and large is not None:
        padded = memory.empty(extended.large_shape, computed)
        padding.extend(given["large"], geometry.lifted().pads, mode, padded)
        given["large"] = padded
    if epilogue is not None:  # what finishes sums takes them in C order
        given = {role: _contiguous(array, engine) for role, array in given.items()}
    first, second = given.values()
    added = None
    if residual is not None:
        added = _contiguous(_converted(_lifted(geometry, target, residual), target, computed, engine), engine)
    folds, copies = mode != "zeros" and target == "large", epilogue is not None and geometry.channels_last
    takes = (
        out is not None
        and not folds
        and (epilogue is None or out.flags.c_contiguous)
        and _can_write_into(out, target, computed, (first, second, bias, added))
    )
    orders = C_ORDER if copies else memory_order.standard(geometry)
    found = {role: strides_of(array) for role, array in given.items() if role != "weight"}
    if folds:
        found["large"] = None
    elif takes and target != "weight" and not copies:
        found[target] = strides_of(_lifted(geometry, target, np.asarray(out)))
    orders = orders._replace(**found)

    engine, run, lifted = _picked(backend, chosen, geometry, target, computed, orders, fuses)
    is_zeroed = False
    if out is None and bias is None and isinstance(run, InitializedRun):
        # a new array of zeros costs less than setting one: the system's new pages are zeros already
        run, is_zeroed = run.accumulate, True
    target_shape = getattr(lifted, f"{target}_shape")
    allocate = memory.allocator(math.prod(target_shape) * computed.itemsize, is_zeroed)
    if epilogue is not None:
        run = epilogue.bound(run, second, bias, adds=residual is not None)
        second = first if added is None else added
    if folds:
        result = written = allocate(target_shape, computed)
    else:
        result = np.asarray(out) if takes else allocate(shape, computed)
        written = memory.empty(target_shape, computed) if copies else _lifted(geometry, target, result)
    is_plain = is_tiled(engine) and mode == "zeros" and dtype == computed
    if key is not None and is_plain and geometry.batch and not copies:
        cached_run = run
        if not _is_small(lifted):
            cached_run = _planned_at_each_call(engine, backend, chosen, lifted, target, dtype, orders, is_zeroed)
            if epilogue is not None:
                bind = functools.partial(epilogue.bound, weight=given["weight"], bias=bias, adds=residual is not None)
                cached_run = _bound_at_each_call(backend, chosen, lifted, target, dtype, fuses, bind)
        are_last = tuple(geometry.channels_last and role != "weight" for role in (*given, target))
        call_cache.keep(key, cached_run, (first.shape, second.shape, written.shape), shape, allocate, are_last, kept)
    with _surroundings(engine, mode == "zeros" and dtype == computed):
        run(first, second, bias, written)
        if folds:
            result = _folded(engine, result, geometry)
        elif copies:
            _lifted(geometry, target, result)[...] = written
        return _delivered(result, dtype, out)


def _lifted(geometry: Geometry, role: str, array: Array) -> Array:
    """An array of the problem as one of `Geometry.lifted`, which is a view of it."""
    return array.reshape(geometry.lifted().weight_shape) if role == "weight" else geometry.lifted_map(array)


def _picked(
    backend: str | None, chosen: Any, geometry: Geometry, target: Contraction, dtype: np.dtype[Any],
    orders: MemoryOrders, fuses: bool | None = None,
) -> tuple[AnyEngine, Any, Geometry]:  # fmt: skip
    """The engine of a call and the result of `_prepared`; if it cannot run after all, `auto` takes the next engine."""
    engine = backends.pick(backend, dtype)
    try:
        return engine, *_prepared(engine, chosen, geometry, target, dtype, orders, fuses)
    except BackendUnavailableError as error:
        backends.withdraw(engine, str(error))
        return _picked(backend, chosen, geometry, target, dtype, orders, fuses)


def _prepared(
    engine: AnyEngine, chosen: Any, geometry: Geometry, target: Contraction, dtype: np.dtype[Any],
    orders: MemoryOrders, fuses: bool | None = None,
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
    key = engine, chosen, target, dtype.itemsize, number, orders, flushes, is_default, fuses

    def prepare() -> Any:
        if fuses and not flushes and (run := chosen.with_panels(engine, lifted, target, dtype.itemsize, number)):
            return run
        read = C_ORDER if denormals.are_copied(engine, dtype) else orders
        run = chosen.prepared(engine, lifted, target, dtype.itemsize, number, read)
        run = denormals.in_its_mode(engine, flushes, run)
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
    orders: MemoryOrders,
    is_zeroed: bool,
) -> Run:
    """The contraction, with the number of threads read at each call; its output holds zeros if `is_zeroed`."""

    def run(first: Array, second: Array, bias: Array | None, out: Array) -> None:
        try:
            current_engine, current_run = engine, _prepared(engine, chosen, geometry, target, dtype, orders)[0]
        except BackendUnavailableError:  # the plan for another number of threads could not be prepared
            current_engine, current_run, _ = _picked(backend, chosen, geometry, target, dtype, orders)
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
            known[key] = bound = bind(_picked(backend, chosen, geometry, target, dtype, C_ORDER, fuses)[1])
        bound(first, residual, bias, out)

    return run


def check_dtypes(backend: str | None, *calls: dict[str, Array]) -> None:
    """Raise what the arrays of any of several calls would raise, before the first of them computes anything."""
    for arrays in calls:
        backends.pick(backend, compute_dtype(common_dtype(**arrays)))


def _folded(engine: AnyEngine, extended: Array, geometry: Geometry) -> Array:
    """The large map of `geometry` from one that includes its padding: a copy, so that the larger one is freed."""
    result, lifted = memory.empty(geometry.large_shape, extended.dtype), geometry.lifted()

    def fold(extended: Array, out: Array) -> None:
        out[...] = padding.fold(extended, lifted.pads, lifted.padding_mode)

    denormals.in_its_mode(engine, denormals.get_flush_denormal(), fold)(extended, geometry.lifted_map(result))
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
    name: str, grid: Array, *, spatial: int, data_format: Any = "channels_first", algorithm: str = "auto",
    backend: str | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """The sum of a map over images and pixels, one number a channel: the gradient of a bias.

    It is the same for every algorithm; one that is named must exist. Calls are cached as those of `contract`.
    """
    key, call = find_call((sum_pixels, spatial), grid, grid, None, (data_format,), algorithm, backend, out)
    if call is not None:
        return call(grid, grid, None, out)
    is_last = parameters.data_format(data_format) == "channels_last"
    images, channels, extents = map_shape(name, grid.shape, spatial, is_last)
    dtype = common_dtype(**{name: grid})
    if out is not None:
        check_out(out, (channels,), dtype)
    computed = compute_dtype(dtype)
    algorithms.check(algorithm)
    height, width = (1, *extents)[-2:]
    shape = 1 if images is None else images, channels, height, width
    if is_last:  # each pixel counts as an image of one pixel, whose channels are contiguous
        shape = shape[0] * height * width, channels, 1, 1
    engine, run = _picked_to_sum(backend, shape, computed)
    grid = _contiguous(prepared(grid, computed).reshape(shape), engine)
    allocate = memory.allocator(channels * computed.itemsize)
    takes = out is not None and _can_write_into(out, "bias", computed, (grid,))
    result = np.asarray(out) if takes else allocate((channels,), computed)
    if key is not None and is_tiled(engine) and dtype == computed:

        def again(grid: Array, same: Array, bias: Array | None, out: Array) -> None:
            engine, run = _picked_to_sum(backend, shape, computed)
            with _surroundings(engine, True):
                run(grid, out)

        call_cache.keep(key, again, (shape, shape, (channels,)), (channels,), allocate, (False,) * 3)
    with _surroundings(engine, dtype == computed):
        run(grid, result)
        return _delivered(result, dtype, out)


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


def _converted(array: Array, role: str, dtype: np.dtype[Any], engine: AnyEngine) -> Array:
    """`array` with the dtype and strides that the engine takes; copied only if necessary."""
    array = prepared(array, dtype)
    return array if role in MAPS and has_whole_strides(array) else _contiguous(array, engine)


def _contiguous(array: Array, engine: AnyEngine) -> Array:
    """`array` in C order if the engine needs that; copied only if necessary."""
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


def _can_write_into(out: Array, role: str, computed: np.dtype[Any], inputs: Iterable[Array | None]) -> bool:
    """Whether the engine may write into `out`: it has the dtype of the computation and strides that the engine takes,
    is aligned, and shares no memory with an input."""
    return (
        out.dtype == computed
        and out.flags.aligned
        and (out.flags.c_contiguous or (role in MAPS and has_whole_strides(out)))
        and not any(array is not None and np.may_share_memory(np.asarray(out), array) for array in inputs)
    )


def _delivered(result: Array, dtype: np.dtype[Any], out: Array | None) -> Array:
    """The result in its public dtype, in `out` if there is one."""
    if out is None:
        if result.dtype == dtype:
            return result
        out = memory.empty(result.shape, dtype)
    plain = np.asarray(out)  # a subclass may define assignment in another way
    if not np.may_share_memory(plain, result):
        plain[...] = result
    return out
