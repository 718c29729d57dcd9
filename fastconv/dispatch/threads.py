"""The number of threads of a call: what decides it, and how it limits the BLAS library of the NumPy engine."""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from fastconv.problem import environment, process, processors
from fastconv.problem.errors import ArgumentError, MissingExtraError
from fastconv.problem.extras import require
from fastconv.problem.parameters import count, integer, shown

VARIABLE, _OMP = environment.NUM_THREADS, environment.OMP_NUM_THREADS

#: The most threads that the BLAS library in NumPy's wheels takes.
_OF_BLAS = 64
#: The largest number that a person may ask for. Each thread has a workspace of up to 2 MiB.
MOST = 1024

_FORKED = "this process was forked and did not exec, and thread pools do not survive that"

_log = logging.getLogger("fastconv")
_requested: int | None = None


def set_num_threads(threads: int | None) -> None:
    """Use this many threads in every later call of the process; None takes the choice back.

    `threads` is an integer from 1 to 1024; more than there are processors is allowed, though no engine starts more than
    four for each. In a process that was forked and did not exec, calls stay on one thread. The threads of the NumPy
    engine are those of its BLAS library, which threadpoolctl limits: `pip install "fastconv[threads]"`. Raises
    `ArgumentError` if it is no such integer.

    >>> import fastconv as fc
    >>> fc.set_num_threads(1)
    >>> fc.get_num_threads()
    1
    >>> fc.set_num_threads(None)
    """
    global _requested
    _requested = None if threads is None else integer("threads", threads, 1, MOST)


def get_num_threads() -> int:
    """The number of threads that a call from here may use.

    What `set_num_threads` said, or else `FASTCONV_NUM_THREADS`; without both the least of

        the processors that the process may run on (its CPU affinity)
        the CPU quota of its control group (a container's), rounded up
        `OMP_NUM_THREADS`
        the number of threads of OpenMP for the calling thread, which `threadpoolctl.threadpool_limits`, joblib and
        `torch.set_num_threads` set (or, where fastconv was built without OpenMP, what threadpoolctl has limited)

    It is 1 in a process that was forked and did not exec. The number of a BLAS library, such as
    `OPENBLAS_NUM_THREADS`, holds for that library, and so for the NumPy engine alone.

    >>> import fastconv as fc
    >>> fc.get_num_threads() >= 1
    True
    """
    if process.was_forked():
        _tell_of_fork(requested())
        return 1
    return requested() or min(filter(None, _limits()))


def explained() -> str:
    """The number of threads, and what decided it, for `fastconv info`."""
    number, wanted = get_num_threads(), requested()
    if process.was_forked():
        return f"1: {_FORKED}" + (f"; {wanted} were asked for" if wanted else "")
    if wanted:
        return f"{number}: asked for"
    return f"{number}: " + ", ".join(f"{limit} {what}" for what, limit in zip(_LIMITS, _limits(), strict=True) if limit)


def requested() -> int | None:
    """The number that a person asked for; None if nobody did."""
    if (threads := _requested) is not None:
        return threads
    return None if (text := VARIABLE.value()) is None else _of_variable(text)


def token() -> int | None:
    """What `set_num_threads` set; with the variable, it decides the result of `requested`."""
    return _requested


@functools.lru_cache(16)
def _of_variable(text: str) -> int:
    """The number in `FASTCONV_NUM_THREADS`; cached, as each call needs it several times."""
    number = count(text)
    if number is None or not 1 <= number <= MOST:
        raise ArgumentError(f"{VARIABLE.name} must be an integer from 1 to {MOST}, not {shown(text)}")
    return number


#: What sets each of `_limits`.
_LIMITS = "by the CPU affinity", "by the container's CPU quota", f"by {_OMP.name}", "by OpenMP"


def _limits() -> tuple[int | None, ...]:
    """The limits of the number of threads; None or 0 where there is none."""
    return (
        processors.affinity(),
        processors.quota(),
        _of_openmp_variable(_OMP.value()),
        _limit_of_pools() if _openmp_threads is None else _openmp_threads(),
    )


@functools.lru_cache(16)
def _of_openmp_variable(text: str | None) -> int | None:
    """The number for the outermost parallel region in `OMP_NUM_THREADS`; None if it is no list of numbers."""
    return None if text is None else count(text.partition(",")[0])


def _limit_of_pools() -> int | None:
    """The smallest number to which threadpoolctl has limited a library, for a build without OpenMP, which would tell.

    A library counts as limited if it has fewer threads than it takes by itself. None if there is no such library, or
    nobody has imported threadpoolctl.
    """
    if "threadpoolctl" not in sys.modules:
        return None
    limits = []
    for pool in _controller().lib_controllers:
        variables = {_OMP.name, f"{pool.internal_api.upper()}_NUM_THREADS"} - {"OPENMP_NUM_THREADS"}
        asked_for = [count(os.environ.get(name, "").partition(",")[0]) for name in variables]
        if pool.num_threads < min(processors.affinity(), _OF_BLAS, *filter(None, asked_for)):
            limits.append(pool.num_threads)
    return min(limits, default=None)


def _load_openmp() -> Callable[[], int] | None:
    """Load the compiled module with its OpenMP library, and return the function that gives OpenMP's number of threads.

    This happens when fastconv is imported, as threadpoolctl limits only libraries that are loaded. It happens on Linux
    only: elsewhere a second OpenMP library can end the process.
    """
    if sys.platform == "linux":
        with contextlib.suppress(Exception):  # the Cython engine reports why it cannot be loaded
            tiles = importlib.import_module("fastconv._tiles")
            return tiles.openmp_threads if tiles.HAS_THREADS else None
    return None


_openmp_threads = _load_openmp()


@functools.cache
def _tell_of_fork(wanted: int | None) -> None:
    """Log once why there is one thread; it is a warning if a person asked for more."""
    level = logging.WARNING if wanted and wanted > 1 else logging.INFO
    _log.log(level, "computing on one thread: %s", _FORKED)


class _Limit:
    """The limit of BLAS's threads, which the whole process shares: the first of the calls that overlap in time sets it,
    and the last one to end restores what was before."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # reentrant, as a signal handler may compute while its thread holds it
        self._calls = 0
        self._limiter: Any = None

    def enter(self, threads: int) -> None:
        with self.lock:
            self._calls += 1  # first, so that a call in a signal handler does not set a limit too
            if self._calls == 1:
                try:
                    self._limiter = _controller().limit(limits=threads, user_api="blas")
                except BaseException:
                    self._calls = 0
                    raise

    def leave(self) -> None:
        with self.lock:
            if self._calls == 1:
                self._limiter.restore_original_limits()
            if self._calls:  # else the process was forked meanwhile, see `forget`
                self._calls -= 1

    def forget(self) -> None:
        """In a forked child: the parent's other threads do not exist here, so their calls never leave."""
        if self._calls and self._limiter is not None:
            self._limiter.restore_original_limits()
        self._calls = 0


_limit = _Limit()
process.hold_while_forking(lambda: _limit.lock)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_limit.forget)


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """A context in which BLAS libraries use the number of threads that a person asked for, if anybody did; one thread
    in a forked process. Calls that overlap in time share the limit of the first."""
    wanted = requested()
    threads = 1 if process.was_forked() else wanted
    if threads is not None:
        try:
            _limit.enter(min(threads, processors.most_threads()))
        except MissingExtraError as error:
            if wanted is not None:
                _log_once(str(error))
            threads = None
    try:
        yield
    finally:
        if threads is not None:
            _limit.leave()


@functools.cache
def _controller() -> Any:
    """threadpoolctl's list of the loaded libraries; made once, as NumPy's BLAS is loaded before any call."""
    threadpoolctl = require("threadpoolctl", "threads", "limiting the threads of the NumPy engine's BLAS library")
    return threadpoolctl.ThreadpoolController()


@functools.cache
def _log_once(message: str) -> None:
    _log.warning("%s", message)
