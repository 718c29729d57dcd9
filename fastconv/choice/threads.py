"""The one owner of the number of threads."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
from typing import Any

from fastconv.ground.errors import ArgumentError, MissingExtraError
from fastconv.ground.extras import require
from fastconv.ground.parameters import integer

VARIABLE = "FASTCONV_NUM_THREADS"

_log = logging.getLogger("fastconv")
_asked: int | None = None


def set_num_threads(threads: int | None) -> None:
    """Use this many threads in every later call of the process; None takes the choice back.

    `threads` is a positive integer; more than there are processors is allowed. The threads of the NumPy engine are
    those of its BLAS library, which threadpoolctl limits: `pip install "fastconv[threads]"`. Raises `ArgumentError`
    if it is no positive integer.

    >>> import fastconv as fc
    >>> fc.set_num_threads(1)
    >>> fc.get_num_threads()
    1
    >>> fc.set_num_threads(None)
    """
    global _asked
    _asked = None if threads is None else integer("threads", threads, 1)


def get_num_threads() -> int:
    """The number of threads that a call from here uses.

    What `set_num_threads` said, or else `FASTCONV_NUM_THREADS`; without both, the processors that the process may run
    on, or fewer where `OMP_NUM_THREADS` or a limit of threadpoolctl (and so joblib's) says so.

    >>> import fastconv as fc
    >>> fc.get_num_threads() >= 1
    True
    """
    return asked() or _default()


def asked() -> int | None:
    """The number that a person asked for; None if nobody did."""
    if _asked is not None:
        return _asked
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    try:
        return integer(VARIABLE, int(text), 1)
    except ValueError:
        raise ArgumentError(f"{VARIABLE} must be a positive integer, not {text!r}") from None


def limited() -> contextlib.AbstractContextManager[Any]:
    """A context in which BLAS libraries use the number of threads that a person asked for, if somebody did."""
    threads = asked()
    if threads is None:
        return contextlib.nullcontext()
    try:
        controller = _controller()
    except MissingExtraError as error:
        _log_once(str(error))
        return contextlib.nullcontext()
    return controller.limit(limits=threads, user_api="blas")  # type: ignore[no-any-return]


def _default() -> int:
    limits = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    if (text := os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()).isdigit() and int(text):
        limits.append(int(text))
    if "threadpoolctl" in sys.modules:  # without it nobody can have set a limit through it
        limits += [pool["num_threads"] for pool in sys.modules["threadpoolctl"].threadpool_info()]
    return max(1, min(limits))


@functools.cache
def _controller() -> Any:
    """threadpoolctl's view of the loaded libraries; found once, as NumPy's BLAS is loaded before any call."""
    threadpoolctl = require("threadpoolctl", "threads", "limiting the threads of the NumPy engine's BLAS library")
    return threadpoolctl.ThreadpoolController()


@functools.cache
def _log_once(message: str) -> None:
    _log.warning("%s", message)
