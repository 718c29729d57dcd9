"""Denormal numbers: whether calls flush them to zero, and in which floating-point mode an engine computes.

Denormal numbers are those next to zero: below 1.2e-38 in float32, 2.2e-308 in float64.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.backends.contract import AnyEngine, FloatMode, Run, float_mode
from fastconv.problem import environment
from fastconv.problem.arrays import Array
from fastconv.problem.errors import ArgumentError, one_of
from fastconv.problem.parameters import shown, written

VARIABLE = environment.FLUSH_DENORMAL

_VALUES = {"1": True, "true": True, "on": True, "yes": True, "0": False, "false": False, "off": False, "no": False}
#: Numbers that are flushed at a time, so that NumPy's temporary arrays stay in the cache.
_STEP = 2**15
_requested: bool | None = None


def set_flush_denormal(mode: bool | None) -> bool:
    """Flush denormal numbers to zero in every later call of the process, or keep them exact, as is the default.

    `mode` is a boolean; None leaves the choice to the variable `FASTCONV_FLUSH_DENORMAL`, 1 or 0. Denormal numbers are
    those next to zero. A layer that decayed or sound that faded is full of them, and many processors take up to 200
    times as long for an operation on one. Flushed, they take no longer than others.

    - Numba and Cython engine: the processor flushes operands and results of every operation, on all threads of the
      call. After it each thread has the mode that it had before.
    - NumPy engine, and engines of other packages, whose threads have modes of their own: denormal numbers are flushed
      in copies of the arrays and in the results. What is denormal in between stays exact, and slow.

    A floating-point mode of the calling thread's own, by `torch.set_flush_denormal` or another rounding, holds on all
    threads of a call on the Numba or the Cython engine. The others compute in the default mode (if the compiled module
    is there; without it, in that of each thread).

    Returns True: calls can flush on every machine. Raises `ArgumentError` for another `mode`.

    >>> import numpy as np
    >>> import fastconv as fc
    >>> x, w = np.full((1, 1, 1), 1e-310), np.ones((1, 1, 1, 1))
    >>> fc.conv2d(x, w)
    array([[[1.e-310]]])
    >>> fc.set_flush_denormal(True)
    True
    >>> fc.conv2d(x, w)
    array([[[0.]]])
    >>> fc.set_flush_denormal(None)
    True
    """
    global _requested
    if mode is not None and not isinstance(mode, bool | np.bool_):
        raise ArgumentError(f"mode must be True, False or None, not {shown(mode)}")
    _requested = None if mode is None else bool(mode)
    return True


def get_flush_denormal() -> bool:
    """Whether calls flush denormal numbers to zero: what `set_flush_denormal` said, or else `FASTCONV_FLUSH_DENORMAL`,
    which is 1 or 0. Raises `ArgumentError` if the variable is something else.

    >>> import fastconv as fc
    >>> fc.get_flush_denormal()
    False
    """
    if (requested := _requested) is not None:
        return requested
    if (text := VARIABLE.value()) is None:
        return False
    if (value := _VALUES.get(text.strip().lower())) is None:
        raise ArgumentError(f"{VARIABLE.name}={written(text)} is neither 1 nor 0; {one_of(text, _VALUES)}")
    return value


def token() -> bool | None:
    """What `set_flush_denormal` said: with the variable, it decides whether a call flushes."""
    return _requested


def in_its_mode(engine: AnyEngine, flushes: bool, compute: Callable[..., None]) -> Callable[..., None]:
    """`compute`, a function of arrays or None that writes the last one, in the floating-point mode for this engine."""
    mode = float_mode(engine)
    if mode is not None:
        return _in_mode(mode, -1, mode.flush, compute) if flushes else compute
    if flushes:
        compute = _between_flushed(compute)
    default = _of_this_thread()
    return compute if default is None else _in_mode(default, 0, 0, compute)


def with_flushed_bias(run: Run) -> Run:
    """`run` with a bias that is flushed: a pixel to which no tap is linked is the bias itself, without an operation."""

    def run_flushed(first: Array, second: Array, bias: Array | None, out: Array) -> None:
        run(first, second, None if bias is None else flushed(bias), out)

    return run_flushed


def are_copied(engine: AnyEngine, dtype: np.dtype[Any]) -> bool:
    """Whether a call copies its arrays to flush denormal numbers in the copies."""
    return get_flush_denormal() and float_mode(engine) is None and _has_denormals(dtype)


def _has_denormals(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "fc"


@functools.cache
def _of_this_thread() -> FloatMode | None:
    """The function that sets the calling thread's mode, for engines that set none; None without the compiled module."""
    try:
        tiles = importlib.import_module("fastconv._tiles")
        return FloatMode(tiles.switch, tiles.FLUSH)
    except (ImportError, AttributeError):  # not compiled, or from another version
        return None


def _in_mode(mode: FloatMode, kept: int, added: int, compute: Callable[..., None]) -> Callable[..., None]:
    switch = mode.switch
    switch(-1, 0)  # changes nothing; an engine that cannot compile it raises here, while `auto` can still take another

    def in_mode(*arrays: Array | None) -> None:
        before = switch(kept, added)
        try:
            compute(*arrays)
        finally:
            switch(0, before)

    return in_mode


def _between_flushed(compute: Callable[..., None]) -> Callable[..., None]:
    def between_flushed(*arrays: Any) -> None:
        *given, out = arrays
        written = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
        compute(*(None if array is None else flushed(array) for array in given), written)
        _flush(written)
        if written is not out:
            out[...] = written

    return between_flushed


def flushed(array: Array) -> Array:
    """A copy of `array` with its denormal numbers set to zero; an array of integers itself."""
    if not _has_denormals(array.dtype):
        return array
    copy = np.array(array, order="C")
    _flush(copy)
    return copy


def _flush(array: Array) -> None:
    """Set the denormal numbers of an array in C order to zero."""
    if not _has_denormals(array.dtype):
        return
    limits = np.finfo(array.dtype)
    numbers = array.reshape(-1).view(limits.dtype)
    for start in range(0, numbers.size, _STEP):
        some = numbers[start : start + _STEP]
        some[np.abs(some) < limits.tiny] = 0
