"""The waist of the package: any two of large map, small map and weight give the third.

Here, and nowhere else, arrays meet geometry: dtypes are settled, padding modes other than zeros are applied and
folded back, a backend and an algorithm are chosen, and the result is written where the caller wants it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from fastconv.choice import algorithms, backends, threads
from fastconv.ground import padding
from fastconv.ground.arrays import Array, check_out, common_dtype, compute_dtype, prepared
from fastconv.ground.geometry import Geometry, map_shape


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
) -> Array:
    """The one of `large`, `small` and `weight` that is None, plus `bias` on its channels if it is a map.

    The arrays have the shapes that `geometry` says, as the caller has checked; `dtype` is the result's. Raises, before
    any work, `DTypeError` and what else `check_out` and the choice of backend and algorithm raise.
    """
    shape = geometry.large_shape if large is None else geometry.small_shape if small is None else geometry.weight_shape
    if out is not None:
        check_out(out, shape, dtype)
    computed = compute_dtype(dtype)
    _, engine, _ = backends.choose(backend, computed)
    _, method, _ = algorithms.choose(algorithm, geometry)

    lifted = geometry.lifted()
    mode, pads = lifted.padding_mode, lifted.pads
    inputs = {"large": large, "small": small, "weight": weight}
    given = {
        role: prepared(array, computed).reshape(getattr(lifted, f"{role}_shape"))
        for role, array in inputs.items()
        if array is not None
    }
    if mode != "zeros":
        lifted = lifted.extended()
        if "large" in given:
            given["large"] = padding.extend(given["large"], pads, mode)
    (target,) = inputs.keys() - given.keys()
    target_shape = getattr(lifted, f"{target}_shape")

    number = threads.get_num_threads()  # raises, if its variable is wrong, before anything is written
    if bias is not None:
        bias = prepared(bias, computed)
    if out is not None and _takes(out, math.prod(target_shape), computed, given.values()):
        result = out.reshape(target_shape)
    else:
        result = np.empty(target_shape, computed)
    # infinities, NaNs and what is too small go their way through sums and rounding as in any engine, without a warning
    with threads.limited(), np.errstate(all="ignore"):
        if not geometry.batch:
            result[...] = 0
        elif target == "weight":
            method.to_weight(engine, lifted, *given.values(), result, number)
        else:
            getattr(method, f"to_{target}")(engine, lifted, *given.values(), bias, result, number)
        if mode != "zeros" and target == "large":
            result = padding.fold(result, pads, mode).copy()  # nobody should keep the padded field alive
        return _delivered(result, shape, dtype, out)


def sum_pixels(
    name: str, grid: Array, *, spatial: int, algorithm: str = "auto", backend: str | None = None,
    out: Array | None = None,
) -> Array:  # fmt: skip
    """The sum of a map over images and pixels, one number a channel: the gradient of a bias.

    Every algorithm computes it alike; one asked for must exist.
    """
    images, channels, extents = map_shape(name, grid.shape, spatial)
    dtype = common_dtype(**{name: grid})
    if out is not None:
        check_out(out, (channels,), dtype)
    computed = compute_dtype(dtype)
    _, engine, _ = backends.choose(backend, computed)
    algorithms.check(algorithm)
    lifted = (1 if images is None else images, channels, *(1,) * (2 - spatial), *extents)
    result = np.zeros(channels, computed)
    with threads.limited(), np.errstate(all="ignore"):
        engine.sum_pixels(prepared(grid, computed).reshape(lifted), result)
        return _delivered(result, (channels,), dtype, out)


def _takes(out: Array, elements: int, computed: np.dtype[Any], inputs: Iterable[Array]) -> bool:
    """Whether the engine may write into `out` itself: it has the dtype and size of the computation, is in C order, aligned, and
    shares no memory with what is read."""
    return (
        out.dtype == computed
        and out.size == elements
        and out.flags.c_contiguous
        and out.flags.aligned
        and not any(np.may_share_memory(out, array) for array in inputs)
    )


def _delivered(result: Array, shape: tuple[int, ...], dtype: np.dtype[Any], out: Array | None) -> Array:
    """The result in its public shape and dtype, in `out` if there is one."""
    result = result.reshape(shape)
    if out is None:
        return result.astype(dtype, copy=False)
    if not np.may_share_memory(out, result):
        out[...] = result
    return out
