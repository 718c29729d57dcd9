"""The one owner of the number of threads."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

from fastconv.choice.settings import Variable
from fastconv.ground.errors import ArgumentError, MissingExtraError
from fastconv.ground.extras import require
from fastconv.ground.parameters import integer

VARIABLE = Variable("FASTCONV_NUM_THREADS")

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
    """The number of threads that a call from here may use.

    What `set_num_threads` said, or else `FASTCONV_NUM_THREADS`; without both, the processors that the process may run
    on, or fewer where `OMP_NUM_THREADS` or a limit of threadpoolctl (and so joblib's) says so. The NumPy engine's BLAS
    library may have a lower limit of its own, such as `OPENBLAS_NUM_THREADS`.

    >>> import fastconv as fc
    >>> fc.get_num_threads() >= 1
    True
    """
    return asked() or _default()


def asked() -> int | None:
    """The number that a person asked for; None if nobody did."""
    if _asked is not None:
        return _asked
    if not (text := VARIABLE.value()):
        return None
    try:
        return integer(VARIABLE.name, int(text), 1)
    except ValueError:
        raise ArgumentError(f"{VARIABLE.name} must be a positive integer, not {text!r}") from None


class _Limit:
    """The BLAS limit in force, which is the process's: the first call in sets it, the last one out takes it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._limiter: Any = None

    def enter(self, threads: int) -> None:
        with self._lock:
            if self._calls == 0:
                self._limiter = _controller().limit(limits=threads, user_api="blas")
            self._calls += 1

    def leave(self) -> None:
        with self._lock:
            self._calls -= 1
            if self._calls == 0:
                self._limiter.restore_original_limits()


_limit = _Limit()


def _forget_in_child() -> None:
    """A forked child has none of the parent's calls, and must not wait for a lock that one of them held."""
    global _limit
    _limit = _Limit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """A context in which BLAS libraries use the number of threads that a person asked for, if somebody did.

    Calls that overlap in time share the limit of the first.
    """
    threads = asked()
    limit = _limit
    if threads is not None:
        try:
            limit.enter(threads)
        except MissingExtraError as error:
            _log_once(str(error))
            threads = None
    try:
        yield
    finally:
        if threads is not None:
            limit.leave()


def _default() -> int:
    limits = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    if (text := os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()).isdigit() and int(text):
        limits.append(int(text))
    if "threadpoolctl" in sys.modules:  # without it nobody can have set a limit through it
        limits += [pool.num_threads for pool in _controller().lib_controllers if pool.user_api == "blas"]
    return max(1, min(limits))


@functools.cache
def _controller() -> Any:
    """threadpoolctl's view of the loaded libraries; found once, as NumPy's BLAS is loaded before any call."""
    threadpoolctl = require("threadpoolctl", "threads", "limiting the threads of the NumPy engine's BLAS library")
    return threadpoolctl.ThreadpoolController()


@functools.cache
def _log_once(message: str) -> None:
    _log.warning("%s", message)
