"""This process: whether it was forked, and what a fork and the interpreter's end must wait for.

A forked child has one thread. Locks that other threads of its parent held stay locked, and thread pools (OpenMP's,
Numba's) are gone, though they may still count as running. Two rules follow: a forked child computes on one thread, and
our locks are free at a fork, because the fork waits for them.
"""

from __future__ import annotations

import atexit
import logging  # noqa: F401  (before our hook is registered, so that a fork takes logging's lock after it has waited for ours)
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.problem.arrays import Array

#: The kernel's flag of a process that was forked and has not executed a program since (linux/sched.h, PF_FORKNOEXEC).
_FORKED = 0x40
#: Seconds that a fork or the interpreter's end waits at most, so that a lock that is never released cannot stop them.
_PATIENCE = 30.0

#: Guards what a process makes once, such as loaded engines and compiled functions.
once = threading.RLock()


def _has_flag() -> bool:
    """Whether the kernel says that this process was forked and did not exec; False where it does not say."""
    try:
        with open("/proc/self/stat", "rb") as file:
            # the second field, the program's name, may hold spaces and brackets; the flags are the ninth
            return bool(int(file.read().rpartition(b")")[2].split()[6]) & _FORKED)
    except (OSError, ValueError, IndexError):
        return False


_pid, _is_forked = os.getpid(), _has_flag()


def was_forked() -> bool:
    """Whether this process was forked and did not exec, whoever forked it, before or after fastconv was imported."""
    global _pid, _is_forked
    if os.getpid() != _pid:  # also after a fork that ran none of Python's hooks
        _pid, _is_forked = os.getpid(), True
    return _is_forked


class Gate:
    """A context that any number of threads may be in at once, unless a thread closes it.

    `close` waits until no other thread is inside, and keeps others out until `open`. The thread that closed the gate,
    and threads that are inside already, still pass. After `end` no thread waits; entering returns whether it may pass.
    """

    def __init__(self) -> None:
        # reentrant, as a signal handler may compute or fork anywhere
        self._changed = threading.Condition(threading.RLock())
        self._inside: dict[int, int] = {}
        self._closed_by: int | None = None
        self._has_ended = False

    def __enter__(self) -> bool:
        me = threading.get_ident()
        with self._changed:
            while not (self._closed_by in (None, me) or me in self._inside or self._has_ended):
                self._changed.wait()
            self._inside[me] = self._inside.get(me, 0) + 1
            return not self._has_ended or self._closed_by == me

    def __exit__(self, *_: object) -> None:
        me = threading.get_ident()
        with self._changed:
            self._inside[me] -= 1
            if not self._inside[me]:
                del self._inside[me]
            if self._closed_by is not None:
                self._changed.notify_all()

    def close(self) -> None:
        """Let no other thread in, and wait for a bounded time until none is inside."""
        me = threading.get_ident()
        with self._changed:
            self._closed_by = me
            self._changed.wait_for(lambda: not self._inside.keys() - {me}, _PATIENCE)

    def open(self) -> None:
        """Let all threads in again."""
        with self._changed:
            self._closed_by = None
            self._changed.notify_all()

    def end(self) -> None:
        """Close the gate for good: from now on only this thread may pass, and entering tells the others so."""
        self.close()
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()


#: Entered around each BLAS product. OpenBLAS hangs where the process forks or ends during a product of another thread.
products = Gate()


def product(a: Array, b: Array, out: Array | None = None) -> Array:
    """a @ b for stacks of matrices, in `out` if there is one; a fork and the interpreter's end wait for it.

    Threads that still compute at the end go on without BLAS, as user code may be waiting for them.
    """
    with products as may_use_blas:
        return np.matmul(a, b, out=out) if may_use_blas else np.einsum("...ij,...jk->...ik", a, b, out=out)


_locks: list[Callable[[], Any]] = [lambda: once]
#: The locks that the forking thread holds, and those that it could not get.
_taken: list[Any] = []
_missed: list[Any] = []


def hold_while_forking(lock: Callable[[], Any]) -> None:
    """Make every fork hold the lock that `lock()` returns, so that it is free in the child; none if that is None.

    Locks are taken in the order of these calls.
    """
    _locks.append(lock)


def _before_fork() -> None:
    taken: list[Any] = []
    missed: list[Any] = []
    for find in _locks:
        if (lock := find()) is not None:
            (taken if lock.acquire(timeout=_PATIENCE) else missed).append(lock)
    # only now, as another thread that forks meanwhile holds the first lock
    _taken[:], _missed[:] = taken, missed
    products.close()


def _in_parent() -> None:
    products.open()
    _release()


def _release() -> None:
    for lock in reversed(_taken):
        lock.release()


def _in_child() -> None:
    products.__init__()  # type: ignore[misc]  # the threads that were inside, or waited, are gone
    _release()
    for lock in _missed:
        lock._at_fork_reinit()  # whoever holds it is gone


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
atexit.register(products.end)
