"""Memory of results. Large results lie in buffers that are used again, so that the system need not clear new pages.

The first write to each new page of memory stops for the system to find and clear it, which for a large result can take
longer than computing it. So a result of 1 MiB or more gets a *buffer*: memory mapped by itself, aligned to a page, in
huge pages where the system has them. The threads that compute a result also write its new pages first, each those of
its own part.

When the last view of an array is gone, its buffer is *idle*. The next result of that size class takes it. A limit
(`set_memory_limit`) and a time bound the idle buffers; those that were idle longest are freed first. A buffer holds old
data, so whoever takes an array from `allocator` or `empty` must write all of it.

The only state is the idle buffers, in deques, whose operations are atomic. There is no lock and no counter: an array
may die in any thread, in a signal handler, in the garbage collector or beside a fork, and finds nothing half done.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import math
import mmap
import os
from collections import deque
from collections.abc import Callable
from time import monotonic as _now
from typing import Any, TypeAlias

import numpy as np

from fastconv.problem import environment, main_memory
from fastconv.problem.arrays import Array
from fastconv.problem.errors import ArgumentError
from fastconv.problem.parameters import count, integer, written

VARIABLE = environment.MEMORY_LIMIT

#: What makes a new array of a shape and a dtype.
Allocate: TypeAlias = Callable[[tuple[int, ...], Any], Array]

#: Bytes of the smallest result in a buffer. Below, the C library uses memory again by itself.
LEAST = 2**20
#: The largest limit that a person may set.
MOST = 2**63 - 1
#: The default limit: the memory divided by this; and the limit if the memory is unknown.
_SHARE, _UNKNOWN = 8, 2**30
#: Seconds after which an idle buffer is freed, and seconds from one search for such buffers to the next.
_PATIENCE, _INTERVAL = 60.0, 10.0
#: Bytes of a huge page on x86-64 and ARM, and their alignment.
_HUGE = 2**21
#: Memory that is private to the process: a forked child writes to its own copy. Windows has neither forks nor flags.
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}

_requested: int | None = None


def set_memory_limit(bytes: int | None) -> None:
    """Keep at most this many bytes of idle memory for later results; 0 keeps none, None takes the choice back.

    Results of 1 MiB and more lie in buffers. The buffer of an array that is gone stays in the process for the next
    result of its size, as new memory is slow. The limit bounds these idle buffers, and not the arrays that exist.
    Without it, `FASTCONV_MEMORY_LIMIT` decides, or else it is an eighth of the memory that the process may use. Results
    larger than the limit, and with 0 all results, are made by NumPy.

    Raises `ArgumentError` if `bytes` is no integer from 0 to 2**63 - 1.

    >>> import fastconv as fc
    >>> fc.set_memory_limit(2**30)
    >>> fc.get_memory_limit()
    1073741824
    >>> fc.set_memory_limit(None)
    """
    global _requested
    _requested = None if bytes is None else integer("bytes", bytes, 0, MOST)
    if bytes is not None:
        _free(_read_limit())


def get_memory_limit() -> int:
    """The bytes of idle memory that are kept at most: what `set_memory_limit` said, or else `FASTCONV_MEMORY_LIMIT`, or
    else an eighth of the memory that the process may use. Raises `ArgumentError` if the variable is no number of bytes.

    >>> import fastconv as fc
    >>> fc.get_memory_limit() > 0
    True
    """
    if (requested := _requested) is not None:
        return requested
    return _default() if (text := VARIABLE.value()) is None else _of_variable(text)


def release_memory() -> int:
    """Free all idle memory that is kept for later results. Returns how many bytes that were.

    Arrays are not touched: the memory of those that exist becomes idle when they are gone.

    >>> import numpy as np
    >>> import fastconv as fc
    >>> y = fc.conv2d(np.ones((1, 1, 1024, 1024), np.float32), np.ones((1, 1, 1, 1), np.float32))
    >>> del y
    >>> fc.release_memory() >= 4 * 1024 * 1024
    True
    >>> fc.release_memory()
    0
    """
    return _free(0)


def idle_bytes() -> int:
    """The bytes of all idle buffers."""
    return sum([size * len(buffers) for size, buffers in _idle.copy().items()])


def explained() -> str:
    """The limit, what decided it, and what is idle, for `fastconv info`."""
    limit = get_memory_limit()
    if _requested is not None:
        origin = "asked for"
    elif VARIABLE.value() is not None:
        origin = f"by {VARIABLE.name}"
    else:
        memory = main_memory.size()
        origin = "memory of unknown size" if memory is None else f"of {memory // 2**20:,} MiB of memory"
    return f"limit {limit / 2**20:,.0f} MiB, {origin}; {idle_bytes() / 2**20:,.0f} MiB idle"


def allocator(nbytes: int, is_zeroed: bool = False) -> Allocate:
    """What makes arrays of `nbytes` bytes, of zeros if `is_zeroed`, else with any contents.

    Small ones are made by NumPy, by its own function, so that they cost nothing more. Raises `ArgumentError`, here and
    in each call of what it returns, if arrays are large and the variable is wrong.
    """
    by_numpy: Allocate = np.zeros if is_zeroed else np.empty
    if nbytes < LEAST:
        return by_numpy
    _read_limit()
    size = _size_class(nbytes)

    def allocate(shape: tuple[int, ...], dtype: Any) -> Array:
        buffer = None if size > _read_limit() else _take(size)
        if buffer is None:
            return by_numpy(shape, dtype)
        array = np.asarray(_Lease(buffer, shape, dtype))
        if is_zeroed and buffer.was_used:
            array.fill(0)
        return array

    return allocate


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array with any contents, for a single use; see `allocator`."""
    return allocator(math.prod(shape) * dtype.itemsize)(shape, dtype)


class _Buffer:
    """Memory of `size` bytes, which is freed with this object.

    `mates` are the idle buffers of its size class, `idle_since` is the time when it became idle last.
    """

    __slots__ = ("_mapping", "address", "idle_since", "mates", "size", "was_used")

    def __init__(self, size: int, mates: deque[_Buffer]) -> None:
        more = _HUGE if size >= _HUGE else 0
        self._mapping = mmap.mmap(-1, size + more, **_PRIVATE)  # pages of zeros
        start: int = np.frombuffer(self._mapping, np.uint8).__array_interface__["data"][0]
        offset = -start % _HUGE if more else 0
        self.address, self.size, self.mates = start + offset, size, mates
        self.idle_since, self.was_used = 0.0, False
        if more and hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel without huge pages
                self._mapping.madvise(mmap.MADV_HUGEPAGE, offset, size)


class _Lease:
    """The `base` of an array in a buffer. It is gone with the last view of the array, and then the buffer is idle."""

    __slots__ = ("__array_interface__", "_buffer")

    def __init__(self, buffer: _Buffer, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._buffer = buffer
        self.__array_interface__ = {
            "version": 3, "shape": shape, "typestr": dtype.str, "data": (buffer.address, False)
        }  # fmt: skip

    def __del__(self) -> None:
        buffer = getattr(self, "_buffer", None)  # None if a signal interrupted the constructor
        if buffer is not None:
            _give_back(buffer)


#: The idle buffers of each size class, those that were idle longest first.
_idle: dict[int, deque[_Buffer]] = {}
#: The limit in force, and when buffers that are idle for long were last looked for.
_limit, _searched = 0, 0.0


def _size_class(nbytes: int) -> int:
    """`nbytes` rounded up to one of eight sizes in each power of two, by less than an eighth, and to a page."""
    step = max(mmap.PAGESIZE, (1 << nbytes.bit_length()) // 16)
    return -(-nbytes // step) * step


def _take(size: int) -> _Buffer | None:
    """The buffer of this size that became idle last, whose data is in the caches most likely; or a new one.

    None if the system has no more memory to map: NumPy may still find some, or raises.
    """
    buffers = _idle.get(size)
    if buffers is None:
        buffers = _idle.setdefault(size, deque())
    try:
        return buffers.pop()
    except IndexError:
        pass
    try:
        if _at_collection not in gc.callbacks:
            gc.callbacks.append(_at_collection)
        return _Buffer(size, buffers)
    except OSError:
        _free(0)
        return None


def _give_back(buffer: _Buffer) -> None:
    """Make a buffer idle, and free what is beyond the limit or was idle too long."""
    buffer.idle_since, buffer.was_used = _now(), True
    buffer.mates.append(buffer)
    if idle_bytes() > _limit:
        _free(_limit)
    _free_old(buffer.idle_since)


def _read_limit() -> int:
    """The limit, which holds from now on. Where an array dies, no variable is read, as nobody could catch an error."""
    global _limit
    _limit = get_memory_limit()
    return _limit


def _free_old(now: float) -> None:
    """Free the buffers that have been idle for long: a program may have made one huge result and never another."""
    global _searched
    if now >= _searched + _INTERVAL:
        _searched = now
        _free(MOST, now - _PATIENCE)


def _at_collection(phase: str, info: dict[str, int]) -> None:
    """The same at each collection of garbage, for a program that makes no more large results."""
    if phase == "stop":
        _free_old(_now())


def _free(limit: int, before: float = -math.inf) -> int:
    """Free buffers that were idle longest, until none is idle since before `before` and at most `limit` bytes are.

    Returns how many bytes were freed.
    """
    freed = 0
    while (buffer := _longest_idle()) is not None and (buffer.idle_since < before or idle_bytes() > limit):
        with contextlib.suppress(ValueError, IndexError):  # another thread took it
            buffer.mates.remove(buffer)
            freed += buffer.size
    return freed


def _longest_idle() -> _Buffer | None:
    found = []
    for buffers in _idle.copy().values():
        with contextlib.suppress(IndexError):
            found.append(buffers[0])
    return min(found, key=lambda buffer: buffer.idle_since, default=None)


@functools.cache
def _default() -> int:
    memory = main_memory.size()
    return _UNKNOWN if memory is None else memory // _SHARE


@functools.lru_cache(16)
def _of_variable(text: str) -> int:
    limit = count(text)
    if limit is None:
        raise ArgumentError(f"{VARIABLE.name} must be a number of bytes, not {written(text)}")
    return limit


def _end() -> None:
    """At the interpreter's end: arrays that are left free their buffers, as the functions above may be gone by then."""
    del _Lease.__del__
    with contextlib.suppress(ValueError):
        gc.callbacks.remove(_at_collection)


if hasattr(os, "register_at_fork"):
    # a child that writes to its parent's idle buffers would copy each page
    os.register_at_fork(after_in_child=release_memory)
atexit.register(_end)
