"""One call: from arrays and a geometry to the result, in five steps.

    1 check     the result's shape and dtype, `out`, the algorithm, the backend: all errors come before any work
    2 convert   the arrays to the dtype and the strides that the engine takes
    3 prepare   the engine's function for this contraction and these memory orders (`preparation`)
    4 cache     the function under the call's key, so that the next call of this kind starts at step 5
    5 run       it, cast, write into `out`

Any two of large map, small map and weight give the third, so this serves forward calls and gradients. Maps
are passed on as views (N, C, H, W), whatever their memory order; the kernels read and write them where they are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from fastconv.backends import memory
from fastconv.backends.contract import AnyEngine, Run, is_tiled
from fastconv.dispatch import algorithms, backends, call_cache, denormals, threads
from fastconv.dispatch.call_cache import Call, Calls
from fastconv.dispatch.finish import Epilogue
from fastconv.dispatch.preparation import Preparation, in_context
from fastconv.planner import bias_grad
from fastconv.planner.request import Contraction
from fastconv.planner.steps import InitializedRun
from fastconv.problem import environment, memory_order, parameters
from fastconv.problem.arrays import Array, check_out, common_dtype, compute_dtype, prepared
from fastconv.problem.errors import BackendUnavailableError
from fastconv.problem.geometry import Geometry, map_shape
from fastconv.problem.memory_order import MemoryOrders, has_whole_strides, strides_of

#: The arrays that may have any strides. Tile engines take the others in C order.
MAPS = MemoryOrders._fields


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
    target: Contraction = "large" if large is None else "small" if small is None else "weight"
    shape = getattr(geometry, f"{target}_shape")
    if out is not None:
        check_out(out, shape, dtype)
    computed = compute_dtype(dtype)
    chosen = algorithms.pick(algorithm, computed)
    engine = backends.pick(backend, computed)

    given = {
        role: _converted(_lifted(geometry, role, array), role, computed, engine)
        for role, array in {"large": large, "small": small, "weight": weight}.items()
        if array is not None
    }
    first, second = given.values()
    bias = None if bias is None else _converted(bias, "bias", computed, engine)
    added = residual
    if added is not None:
        added = _converted(_lifted(geometry, target, added), target, computed, engine)
    is_taken = out is not None and _can_write_into(out, target, computed, (first, second, bias, added))
    known = given | {target: _lifted(geometry, target, np.asarray(out))} if is_taken else given
    orders = {role: strides_of(array) for role, array in known.items() if role in MAPS}

    wanted = Preparation(
        geometry.lifted(), target, computed, chosen, backend,
        memory_order.standard(geometry)._replace(**orders), None if epilogue is None else epilogue.packed is not None,
    )  # fmt: skip
    engine, run = wanted.function()
    bind: Callable[[Any], Run] = _unchanged
    is_zeroed = False
    if epilogue is not None:
        bind = functools.partial(epilogue.bound, weight=second, bias=bias, adds=residual is not None)
    elif out is None and bias is None and isinstance(run, InitializedRun):
        # a new array of zeros costs less than setting one: the system's new pages are zeros already
        is_zeroed, bind = True, _accumulating
    allocate = memory.allocator(math.prod(shape) * computed.itemsize, is_zeroed)
    result = np.asarray(out) if is_taken else allocate(shape, computed)
    written = _lifted(geometry, target, result)
    if epilogue is not None:
        second = first if added is None else memory_order.with_strides_of(written, added)
    bound = bind(run)
    # a cached run is given the caller's own arrays, so calls that had to copy one are not cached
    came = [array for array in (large, small, weight, residual) if array is not None]
    used = [*given.values(), *([] if added is None else [second])]
    is_plain = dtype == computed and (out is None or is_taken) and all(map(np.may_share_memory, came, used))
    if key is not None and is_tiled(engine) and geometry.batch and is_plain:
        cached = bound if wanted.is_serial else wanted.at_each_call(bind)
        of_first, of_second = given if epilogue is None else (target, target)
        are_last = tuple(geometry.channels_last and role in MAPS for role in (of_first, of_second, target))
        call_cache.keep(key, cached, (first.shape, second.shape, written.shape), shape, allocate, are_last, kept)
    bound(first, second, bias, written)
    return _delivered(result, dtype, out)


def _lifted(geometry: Geometry, role: str, array: Array) -> Array:
    """An array of the problem as one of `Geometry.lifted`, which is a view of it."""
    return array.reshape(geometry.lifted().weight_shape) if role == "weight" else geometry.lifted_map(array)


def _unchanged(run: Run) -> Run:
    return run


def _accumulating(run: Run) -> Run:
    """The run for an output of zeros."""
    return run.accumulate if isinstance(run, InitializedRun) else run


def check_dtypes(backend: str | None, *calls: dict[str, Array]) -> None:
    """Raise what the arrays of any of several calls would raise, before the first of them computes anything."""
    for arrays in calls:
        backends.pick(backend, compute_dtype(common_dtype(**arrays)))


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
    came, grid = grid, _contiguous(prepared(grid, computed).reshape(shape), engine)
    allocate = memory.allocator(channels * computed.itemsize)
    takes = out is not None and _can_write_into(out, "bias", computed, (grid,))
    result = np.asarray(out) if takes else allocate((channels,), computed)
    is_plain = dtype == computed and (out is None or takes) and np.may_share_memory(came, grid)
    if key is not None and is_tiled(engine) and is_plain:

        def again(grid: Array, same: Array, bias: Array | None, out: Array) -> None:
            _picked_to_sum(backend, shape, computed)[1](grid, out)

        call_cache.keep(key, again, (shape, shape, (channels,)), (channels,), allocate, (False,) * 3)
    run(grid, result)
    return _delivered(result, dtype, out)


def _picked_to_sum(
    backend: str | None, shape: tuple[int, int, int, int], dtype: np.dtype[Any]
) -> tuple[AnyEngine, Callable[..., None]]:
    """As `Preparation.function`, for `sum_pixels`."""
    engine, flushes = backends.pick(backend, dtype), denormals.get_flush_denormal()
    number = 1 if math.prod(shape) < bias_grad.SERIAL else threads.get_num_threads()
    try:
        run = bias_grad.prepared(engine, shape, dtype.itemsize, number)
    except BackendUnavailableError as error:
        backends.withdraw(engine, str(error))
        return _picked_to_sum(backend, shape, dtype)
    return engine, in_context(engine, denormals.in_its_mode(engine, flushes, run))


def _converted(array: Array, role: str, dtype: np.dtype[Any], engine: AnyEngine) -> Array:
    """`array` with the dtype and strides that the engine takes; copied only if necessary."""
    array = prepared(array, dtype)
    return array if role in MAPS and has_whole_strides(array) else _contiguous(array, engine)


def _contiguous(array: Array, engine: AnyEngine) -> Array:
    """`array` in C order if the engine needs that; copied only if necessary."""
    return np.ascontiguousarray(array) if is_tiled(engine) else array


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
        with np.errstate(all="ignore"):
            plain[...] = result
    return out
