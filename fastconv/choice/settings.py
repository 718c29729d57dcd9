"""A choice that a person can make in four places: the argument of a call, a context, the process, a variable."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple


class Chosen(NamedTuple):
    """A name and where it came from, in the words of a message."""

    name: str
    origin: str


def variable(name: str) -> str | None:
    """An environment variable as it is now; None if it is not set.

    Each call asks for three, and `os.environ.get` raises an exception inside for one that is not set: together they
    would take as long as a small convolution. The dictionary behind it answers at once, where there is one.
    """
    if _behind is not None and _key(name) not in _behind:
        return None
    return os.environ.get(name)


_behind = getattr(os.environ, "_data", None)


@functools.cache
def _key(name: str) -> Any:
    return os.environ.encodekey(name)


class Setting:
    """One choice, `auto` unless somebody makes it. The first of the four places that holds a name decides."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.variable = f"FASTCONV_{kind.upper()}"
        self._context: ContextVar[str | None] = ContextVar(f"fastconv_{kind}", default=None)
        self._process: str | None = None

    def chosen(self, argument: str | None = None) -> Chosen:
        """The name in force for a call with this argument; None leaves the choice to the other places."""
        if argument is not None:
            return Chosen(argument, f"{self.kind}={argument!r}")
        if (name := self._context.get()) is not None:
            return Chosen(name, f"use_{self.kind}({name!r})")
        if self._process is not None:
            return Chosen(self._process, f"set_{self.kind}({self._process!r})")
        if name := variable(self.variable):
            return Chosen(name, f"{self.variable}={name}")
        return Chosen("auto", f"{self.kind}='auto'")

    def token(self) -> tuple[str | None, ...]:
        """What decides, the argument aside: two calls with equal tokens choose alike."""
        return self._context.get(), self._process, variable(self.variable)

    def set(self, name: str | None) -> None:
        """Choose for the whole process; None takes the choice back."""
        self._process = name

    @contextlib.contextmanager
    def use(self, name: str) -> Iterator[None]:
        """Choose for the code inside, in this thread or task only."""
        token = self._context.set(name)
        try:
            yield
        finally:
            self._context.reset(token)
