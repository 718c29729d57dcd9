"""The short way of a call that was made before with arguments of the same kind.

A small convolution takes less time than it takes to find out how to compute it. What a call worked out is kept under
everything that it depended on, which leaves to the next one a look into a table, an empty result, and the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastconv.problem.arrays import Array
from fastconv.problem.parameters import PLAIN, plain

_kept: dict[Any, Callable[[Array, Array], Array]] = {}
#: Calls that are kept; beyond it all are forgotten.
_MOST = 512


def find(
    call: Any, first: Array, second: Array, arguments: tuple[Any, ...], choices: tuple[Any, ...]
) -> tuple[Any, Callable[[Array, Array], Array] | None]:
    """What a call depends on, and the function of both arrays that was kept for such a call, or None.

    `call` stands for what is called, `choices` for backend, algorithm, threads and denormal numbers. Both results are
    None for a call that cannot be kept: its arrays are not in order in memory, or an argument is of a kind that is none
    of `plain`'s.
    """
    if not PLAIN.issuperset(map(type, arguments)):
        known = plain(arguments)
        if known is None:
            return None, None
        arguments = known
    dtype = first.dtype
    if second.dtype is not dtype:
        return None, None
    flags, others = first.flags, second.flags
    if not (flags.c_contiguous and flags.aligned and others.c_contiguous and others.aligned):
        return None, None
    key = call, first.shape, second.shape, dtype, arguments, choices
    try:
        return key, _kept.get(key)
    except TypeError:  # a backend or algorithm that is no text, which the long way refuses
        return None, None


def keep(
    key: Any, function: Callable[[Array, Array, Array | None, Array], None], shapes: tuple[tuple[int, ...], ...],
    shape: tuple[int, ...], allocate: Callable[..., Array],
) -> None:  # fmt: skip
    """Keep `function` of arrays (first, second, None, result) of `shapes` for calls like this one, whose result has
    `shape` and is made by `allocate`; not for arrays of another byte order."""
    dtype = key[3]
    if not dtype.isnative:
        return
    of_first, of_second, of_result = shapes

    def apply(first: Array, second: Array) -> Array:
        result = allocate(shape, dtype)
        function(first, second, None, result)
        return result

    def apply_to_others(first: Array, second: Array) -> Array:
        result = allocate(of_result, dtype)
        function(first.reshape(of_first), second.reshape(of_second), None, result)
        return result.reshape(shape)

    if len(_kept) >= _MOST:
        _kept.clear()
    _kept[key] = apply if (key[1], key[2], shape) == shapes else apply_to_others


def forget() -> None:
    """Forget all: a backend may be another one now."""
    _kept.clear()
