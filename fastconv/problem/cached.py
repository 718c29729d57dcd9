"""Properties that are computed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class CachedProperty(Generic[T]):
    """As `functools.cached_property`, without its lock.

    Before Python 3.12 that has one lock for all instances, which a forked child finds held for ever if another thread
    was computing. Here threads that ask at once may each compute the value.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute, self.__doc__ = compute, compute.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        value = self._compute(instance)
        instance.__dict__[self._compute.__name__] = value  # which later reads find, as this class has no `__set__`
        return value
