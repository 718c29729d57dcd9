"""A choice that a person can make in four places: the argument of a call, a context, the process, a variable."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

from fastconv.problem import parameters


class Chosen(NamedTuple):
    """A name and where it came from, in the words of a message."""

    name: str
    origin: str


class Variable:
    """An environment variable, as `os.environ` has it at each look.

    Every call looks at four, and `os.environ.get` raises an exception inside for one that is not set: together they
    would take as long as a small convolution. The dictionary behind it answers at once, where there is one.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        behind = getattr(os.environ, "_data", None)
        #: Something that is another if the variable is another; None if it is not set.
        self.token: Callable[[], Any] = (
            functools.partial(os.environ.get, name)
            if behind is None
            else functools.partial(behind.get, os.environ.encodekey(name))
        )

    def value(self) -> str | None:
        """What it is set to; None if it is not."""
        return None if self.token() is None else os.environ.get(self.name)


class Setting:
    """One choice, `auto` unless somebody makes it. The first of the four places that holds a name decides."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.variable = Variable(f"FASTCONV_{kind.upper()}")
        self._token_of_variable = self.variable.token
        self._context: ContextVar[str | None] = ContextVar(f"fastconv_{kind}", default=None)
        self._process: str | None = None

    def chosen(self, argument: str | None = None) -> Chosen:
        """The name in force for a call with this argument; None leaves the choice to the other places."""
        if argument is not None:
            return Chosen(argument, f"{self.kind}={parameters.shown(argument)}")
        if (name := self._context.get()) is not None:
            return Chosen(name, f"use_{self.kind}({parameters.shown(name)})")
        if (name := self._process) is not None:  # read once, as another thread may take it back
            return Chosen(name, f"set_{self.kind}({name!r})")
        if name := self.variable.value():
            return Chosen(name, f"{self.variable.name}={parameters.written(name)}")
        return Chosen("auto", f"{self.kind}='auto'")

    def token(self) -> tuple[Any, ...]:
        """What decides, the argument aside: two calls with equal tokens choose alike."""
        return self._context.get(), self._process, self._token_of_variable()

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
