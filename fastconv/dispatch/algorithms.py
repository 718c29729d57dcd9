"""The algorithms, and which of them a call gets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastconv.dispatch.settings import Chosen, Setting
from fastconv.planner.registry import Algorithm
from fastconv.problem import environment
from fastconv.problem.errors import ArgumentError, one_of

#: Every algorithm that a person can name.
ALGORITHMS = ("direct", "winograd", "fft")

_setting = Setting("algorithm", environment.ALGORITHM)
#: The choices of context and process, which decide a call's algorithm together with argument, variable and problem.
token = _setting.token


def set_algorithm(name: str | None) -> None:
    """Choose the algorithm of the whole process; `auto` leaves it to each call, None to `FASTCONV_ALGORITHM`.

    `direct` computes by the definition alone, whose rounding errors are smallest. Raises `ArgumentError` if there is no
    such algorithm.

    >>> import fastconv as fc
    >>> fc.set_algorithm("direct")
    >>> fc.set_algorithm(None)
    """
    if name is not None:
        _check(name, f"set_algorithm({name!r})")
    _setting.set(name)


def get_algorithm() -> str:
    """The algorithm asked for in this context: a name, or `auto`.

    >>> import fastconv as fc
    >>> with fc.use_algorithm("direct"):
    ...     fc.get_algorithm()
    'direct'
    """
    return _setting.chosen().name


@contextlib.contextmanager
def use_algorithm(name: str) -> Iterator[None]:
    """A context in which calls of this thread or task use the algorithm `name`; raises as `set_algorithm`.

    >>> import fastconv as fc
    >>> with fc.use_algorithm("direct"):
    ...     fc.conv2d([[[1.0, 2.0]]], [[[[1.0, 1.0]]]])
    array([[[3.]]])
    """
    _check(name, f"use_algorithm({name!r})")
    with _setting.use(name):
        yield


def current() -> str:
    """As `get_algorithm`, but raises if there is no such algorithm."""
    return check("auto").name


def pick(argument: str, dtype: np.dtype[Any]) -> Algorithm:
    """The algorithm of a call with this argument: one, or all of them, among which the registry chooses. Integers and
    complex numbers are computed by `direct` alone.

    The argument `auto`, which is every function's default, leaves the choice to context, process and variable.
    """
    name, origin = check(argument)
    if dtype.kind != "f":
        if name not in ("auto", "direct"):
            raise ArgumentError(f"{origin} does not apply: {dtype} is computed by direct alone")
        return Algorithm("direct")
    return Algorithm(None) if name == "auto" else Algorithm(name, origin)


def check(argument: str) -> Chosen:
    """The name in force for a call with this argument; raises unless it is `auto` or an algorithm."""
    chosen = _setting.chosen(None if isinstance(argument, str) and argument == "auto" else argument)
    _check(*chosen)
    return chosen


def _check(name: Any, origin: str) -> None:
    """Raise unless `name` is `auto` or an algorithm."""
    if not isinstance(name, str) or name not in ("auto", *ALGORITHMS):
        raise ArgumentError(f"{origin}: there is no such algorithm; {one_of(name, ['auto', *ALGORITHMS])}")
