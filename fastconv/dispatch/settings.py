"""A choice that a person can make in four places: the argument of a call, a context, the process, a variable."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

from fastconv.problem import parameters
from fastconv.problem.environment import Variable


class Chosen(NamedTuple):
    """A name and where it came from, as a message shows it."""

    name: str
    origin: str


class Setting:
    """One choice, `auto` unless somebody makes it. The first of the four places that holds a name decides.

    `kind` is the argument's name, `variable` the environment variable.
    """

    def __init__(self, kind: str, variable: Variable) -> None:
        self.kind = kind
        self.variable = variable
        self._context: ContextVar[str | None] = ContextVar(f"fastconv_{kind}", default=None)
        self._process: str | None = None

    def chosen(self, argument: str | None = None) -> Chosen:
        """The name in force for a call with this argument; None leaves the choice to the other places."""
        if argument is not None:
            return Chosen(argument, f"{self.kind}={parameters.shown(argument)}")
        if (name := self._context.get()) is not None:
            return Chosen(name, f"use_{self.kind}({parameters.shown(name)})")
        if (name := self._process) is not None:  # read once, as another thread may reset it
            return Chosen(name, f"set_{self.kind}({name!r})")
        if (name := self.variable.value()) is not None:
            return Chosen(name, f"{self.variable.name}={parameters.written(name)}")
        return Chosen("auto", f"{self.kind}='auto'")

    def token(self) -> tuple[Any, ...]:
        """The choices of context and process: calls with equal tokens, arguments and variables choose the same."""
        return self._context.get(), self._process

    def set(self, name: str | None) -> None:
        """Choose for the whole process; None resets the choice."""
        self._process = name

    @contextlib.contextmanager
    def use(self, name: str) -> Iterator[None]:
        """Choose for the code inside, in this thread or task only."""
        token = self._context.set(name)
        try:
            yield
        finally:
            self._context.reset(token)
