"""The short way of a call that was made before with arguments of the same kind.

A small convolution takes less time than it takes to find out how to compute it. What a call worked out is kept under
everything that it depended on, which leaves to the next one a look into a table, an empty result, and the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.ground.arrays import Array

_kept: dict[Any, Callable[[Array, Array], Array]] = {}
_PLAIN = frozenset((int, str, type(None)))
#: Calls that are kept; beyond it all are forgotten.
_MOST = 512


def key(call: str, first: Array, second: Array, arguments: tuple[Any, ...], choices: tuple[Any, ...]) -> Any:
    """What a call depends on, or None if it cannot be kept: its arrays are not in order in memory, or its arguments are
    such that others compare equal to them (1, 1.0 and True do). `choices` stand for backend, algorithm and threads.
    """
    dtype, kinds = first.dtype, tuple(map(type, arguments))
    if second.dtype is not dtype or (not _PLAIN.issuperset(kinds) and not all(map(_is_plain, arguments))):
        return None
    flags, others = first.flags, second.flags
    if not (flags.c_contiguous and flags.aligned and others.c_contiguous and others.aligned):
        return None
    return call, first.shape, second.shape, dtype, arguments, kinds, choices


def _is_plain(value: Any) -> bool:
    return all(map(_is_plain, value)) if type(value) is tuple else type(value) in _PLAIN


def find(key: Any) -> Callable[[Array, Array], Array] | None:
    """The function of both arrays that was kept for such a call."""
    return _kept.get(key)


def keep(
    key: Any, function: Callable[[Array, Array, Array | None, Array], None], shapes: tuple[tuple[int, ...], ...],
    shape: tuple[int, ...],
) -> None:  # fmt: skip
    """Keep `function` of arrays (first, second, None, result) of `shapes` for calls like this one, whose result has
    `shape`."""
    dtype = key[3]
    of_first, of_second, of_result = shapes

    def apply(first: Array, second: Array) -> Array:
        result = np.empty(shape, dtype)
        function(first, second, None, result)
        return result

    def apply_to_others(first: Array, second: Array) -> Array:
        result = np.empty(of_result, dtype)
        function(first.reshape(of_first), second.reshape(of_second), None, result)
        return result.reshape(shape)

    if len(_kept) >= _MOST:
        _kept.clear()
    _kept[key] = apply if (key[1], key[2], shape) == shapes else apply_to_others


def forget() -> None:
    """Forget all: a backend may be another one now."""
    _kept.clear()
