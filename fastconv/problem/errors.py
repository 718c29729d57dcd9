"""The exceptions that fastconv raises, and helpers for their messages."""

from __future__ import annotations

from collections.abc import Iterable


class FastconvError(Exception):
    """The base of every error that fastconv raises on purpose."""


class ShapeError(FastconvError, ValueError):
    """An array or a size has a shape that does not fit the problem."""


class ArgumentError(FastconvError, ValueError):
    """An argument has an invalid value."""


class DTypeError(FastconvError, TypeError):
    """An array has a dtype that cannot be computed, or cannot be computed by the engine named."""


class BackendUnavailableError(FastconvError, RuntimeError):
    """A backend was named that cannot run here; the message says why."""


class UsageError(FastconvError, RuntimeError):
    """A call came in an order that cannot work, such as `backward` before any forward call."""


class MissingExtraError(FastconvError, ImportError):
    """A function needs an optional package that is not installed; the message says which to install."""


def one_line(message: str) -> str:
    """A message of several lines as one line, for use inside another message or a table.

    >>> one_line("No threading layer could be loaded.\\nHINT:\\n  install tbb")
    'No threading layer could be loaded. HINT: install tbb'
    """
    return " ".join(message.split())


def one_of(name: str, choices: Iterable[str]) -> str:
    """The tail of a message about a name that is not among `choices`: the valid names and the nearest one.

    >>> one_of("cyton", ["numpy", "cython"])
    "expected one of 'cython', 'numpy'; did you mean 'cython'?"
    """
    # imported here, as difflib is slow to import and errors are few; a fork waits for the import
    from fastconv.problem.process import once

    with once:
        import difflib

    valid = sorted(choices)
    listed = ", ".join(repr(choice) for choice in valid)
    nearest = difflib.get_close_matches(str(name).lower(), valid, n=1)
    return f"expected one of {listed}" + (f"; did you mean {nearest[0]!r}?" if nearest else "")
