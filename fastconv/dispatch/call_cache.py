"""Calls that were made before with arguments of the same kind.

Planning a small convolution takes longer than computing it. So the prepared function of a call is kept under
everything that it depends on; the next such call looks it up, allocates its result and runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy import may_share_memory

from fastconv.backends.memory import Allocate
from fastconv.problem.arrays import Array
from fastconv.problem.parameters import PLAIN, plain
from fastconv.problem.recent import Recent

#: A call of (first, second, bias, out), bias and out may be None, that returns the result.
Call: TypeAlias = Callable[[Array, Array, Array | None, Array | None], Array]

#: Calls by their keys.
Calls: TypeAlias = Recent[Call]

_kept: Calls = Recent(512)


def find(
    operation: Any, first: Array, second: Array, bias: Array | None, out: Any, arguments: tuple[Any, ...],
    choices: tuple[Any, ...], kept: Calls | None = None,
) -> tuple[Any, Call | None]:  # fmt: skip
    """The key of a call, and the function that was kept for it, or None.

    A plan has its own `kept`; those of functions are kept here.

    `operation` names what is called; `choices` are backend, algorithm, threads, denormals and the epoch of the registry
    of backends. Both results are None for a call that is not cached, which is checked and computed in full:
    an array is misaligned or has another dtype, `out` cannot be written or may share memory with an input, or an
    argument is of a type that `plain` does not know. Strides are part of the key if an array is not in C order.
    The shapes of `bias` and `out` are too, so a wrong one finds nothing, and the full call raises.
    """
    if not PLAIN.issuperset(map(type, arguments)):
        known = plain(arguments)
        if known is None:
            return None, None
        arguments = known
    dtype = first.dtype
    if second.dtype is not dtype and second.dtype != dtype:  # an array that was unpickled has a dtype of its own
        return None, None
    flags, others = first.flags, second.flags
    if not (flags.aligned and others.aligned):
        return None, None
    strides: Any = None if flags.c_contiguous and others.c_contiguous else (first.strides, second.strides)
    extra = of_bias = None
    if bias is not None:
        of_bias = bias.flags
        if (bias.dtype is not dtype and bias.dtype != dtype) or not (of_bias.c_contiguous and of_bias.aligned):
            return None, None
        extra = bias.shape
    if out is not None:
        if type(out) is not np.ndarray or (out.dtype is not dtype and out.dtype != dtype):
            return None, None
        of_out = out.flags
        if not of_out.behaved:  # aligned and writeable
            return None, None
        if not of_out.c_contiguous:
            strides = first.strides, second.strides, out.strides
        # arrays that own their memory share none, which is quicker to tell
        if of_out.owndata and flags.owndata and others.owndata and (of_bias is None or of_bias.owndata):
            overlaps = out is first or out is second or out is bias
        else:
            overlaps = may_share_memory(out, first) or may_share_memory(out, second)
            overlaps = overlaps or (bias is not None and may_share_memory(out, bias))
        if overlaps:
            return None, None
        extra = extra, out.shape
    key = operation, first.shape, second.shape, extra, dtype, strides, arguments, choices
    try:
        calls = _kept if kept is None else kept
        return key, calls.new.get(key) or calls.get(key)
    except TypeError:  # a backend or algorithm that cannot be hashed; the full call raises
        return None, None


def keep(
    key: Any, run: Callable[[Array, Array, Array | None, Array], None], shapes: tuple[tuple[int, ...], ...],
    shape: tuple[int, ...], allocate: Allocate, are_last: tuple[bool, ...], kept: Calls | None = None,
) -> None:  # fmt: skip
    """Cache `run`, a function of arrays (first, second, bias, result) of `shapes`, for calls with this `key`.

    Their result has `shape`, and is made by `allocate` where the call has no `out`. `are_last` says which of
    first, second and result are maps whose last axis is their channels; `run` gets views (N, C, H, W) of them. Arrays
    of another byte order are not kept: engines take memory as it is.
    """
    _, of_first, of_second, _, dtype, *_ = key
    if not dtype.isnative:
        return

    def call(first: Array, second: Array, bias: Array | None, out: Array | None) -> Array:
        if out is None:
            out = allocate(shape, dtype)
        run(first, second, bias, out)
        return out

    def call_viewed(first: Array, second: Array, bias: Array | None, out: Array | None) -> Array:
        if out is None:
            out = allocate(shape, dtype)
        run(
            first if view_first is None else view_first(first),
            second if view_second is None else view_second(second),
            bias,
            out if view_result is None else view_result(out),
        )
        return out

    given = of_first, of_second, shape
    view_first, view_second, view_result = map(_view, given, shapes, are_last)
    calls = _kept if kept is None else kept
    calls[key] = call if given == shapes and not any(are_last) else call_viewed


def _view(given: tuple[int, ...], shape: tuple[int, ...], is_last: bool) -> Callable[[Array], Array] | None:
    """The function that views an array of the shape `given` as one of `shape`; `is_last`: its channels are last. None
    if it is the array itself."""
    if not is_last:
        return None if given == shape else lambda array: array.reshape(shape)
    n, c, h, w = shape
    if given == (n, h, w, c):
        return lambda array: array.transpose(0, 3, 1, 2)
    return lambda array: array.reshape(n, h, w, c).transpose(0, 3, 1, 2)


def forget() -> None:
    """Drop the calls of functions, so that they keep no engine alive."""
    _kept.clear()
