"""The algorithms, and which of them a call gets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from fastconv.dispatch.settings import Chosen, Setting
from fastconv.planner.registry import Algorithm
from fastconv.problem import environment
from fastconv.problem.errors import ArgumentError, one_of
from fastconv.problem.geometry import Geometry

#: Every algorithm by its name: its kernels, or the reason why there are none. `auto` takes the first that does not
#: decline.
ALGORITHMS: dict[str, Algorithm | str] = {
    "winograd": "this version of fastconv has no Winograd algorithm yet",
    "fft": "this version of fastconv has no FFT algorithm yet",
    "direct": Algorithm("direct"),
}

_setting = Setting("algorithm", environment.ALGORITHM)
#: The choices of context and process, which decide a call's algorithm together with argument, variable and problem.
token = _setting.token


def set_algorithm(name: str | None) -> None:
    """Choose the algorithm of the whole process; `auto` leaves it to each call, None to `FASTCONV_ALGORITHM`.

    Raises `ArgumentError` if there is no such algorithm, or this version does not have it.

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
    """As `get_algorithm`, but raises if this version has no such algorithm."""
    return check("auto").name


def pick(argument: str, geometry: Geometry) -> Any:
    """The algorithm that computes a problem, see `choose`."""
    name = _setting.chosen(None if isinstance(argument, str) and argument == "auto" else argument).name
    if type(name) is not str:
        return choose(argument, geometry)[1]  # raises, as it is no valid name
    return geometry.remembered(("algorithm", name), lambda: choose(argument, geometry)[1])


def choose(argument: str, geometry: Geometry) -> tuple[str, Any, dict[str, str]]:
    """The algorithm for a problem: its name, its kernels, and for each other one the reason why it was not taken.

    The argument `auto`, which is every function's default, leaves the choice to context, process and variable. An
    algorithm asked for by name that declines is an `ArgumentError` with its reason.
    """
    name, origin = check(argument)
    if name != "auto":
        if reason := _reason(name, geometry):
            raise ArgumentError(f"{origin} does not apply: {reason}")
        return name, ALGORITHMS[name], {other: f"{origin} was named" for other in ALGORITHMS if other != name}
    passed: dict[str, str] = {}
    for candidate, algorithm in ALGORITHMS.items():
        if (reason := _reason(candidate, geometry)) is None:
            later = tuple(ALGORITHMS)[len(passed) + 1 :]
            return candidate, algorithm, passed | dict.fromkeys(later, f"{candidate} comes first")
        passed[candidate] = reason
    raise AssertionError("direct declines nothing")


def check(argument: str) -> Chosen:
    """The name in force for a call with this argument; raises unless it is `auto` or one that this version has."""
    chosen = _setting.chosen(None if isinstance(argument, str) and argument == "auto" else argument)
    _check(*chosen)
    return chosen


def _reason(name: str, geometry: Geometry) -> str | None:
    """Why the algorithm `name` does not apply to a problem; None if it does."""
    algorithm = ALGORITHMS[name]
    return algorithm if isinstance(algorithm, str) else algorithm.declines(geometry)


def _check(name: Any, origin: str) -> None:
    """Raise unless `name` is `auto` or an algorithm that this version has."""
    if not isinstance(name, str) or name not in ("auto", *ALGORITHMS):
        raise ArgumentError(f"{origin}: there is no such algorithm; {one_of(name, ['auto', *ALGORITHMS])}")
    reason = ALGORITHMS.get(name)
    if isinstance(reason, str):
        raise ArgumentError(f"{origin} does not apply: {reason}")
