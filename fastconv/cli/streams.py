"""Standard input, output and error, which may be closed, full, or unable to encode a character."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def usable() -> Iterator[None]:
    """A context that prints characters which cannot be encoded as escapes, and replaces a closed standard error.

    Raises `OSError` if standard output is closed.
    """
    _occupy()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (it stays until the process ends)
    if sys.stdout is None:
        raise OSError("standard output is closed")
    before = [(stream, stream.errors) for stream in (sys.stdout, sys.stderr) if hasattr(stream, "reconfigure")]
    for stream, _ in before:
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        finally:
            for stream, errors in before:
                with contextlib.suppress(OSError):
                    stream.reconfigure(errors=errors)


def give_up_output() -> None:
    """Redirect standard output to the null device if it cannot be flushed, so that the interpreter's last flush does
    not fail."""
    with contextlib.suppress(OSError, AttributeError):  # standard output is not a file, or is None
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def line(text: Any) -> str:
    """`str(text)` as one line of printable characters."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in str(text))


def _occupy() -> None:
    """Open the null device in place of each closed standard stream, else the next file would get its number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number
