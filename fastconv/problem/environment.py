"""The environment variables that fastconv reads, all of them, and the one rule that they obey.

A variable is read at each call that depends on it, so a change of `os.environ` takes effect at the next call. Empty
counts as not set. A value that the variable cannot have raises `ArgumentError` before any work, and the message names
the variable; a backend that exists but cannot run here raises `BackendUnavailableError`. A choice made in Python comes
first, and then the variable is not read. Only calls with a large result depend on `FASTCONV_MEMORY_LIMIT`.

    variable                 values                                               the choices that come first
    FASTCONV_BACKEND         auto, or the name of a backend                       backend=, use_backend, set_backend
    FASTCONV_ALGORITHM       auto, or the name of an algorithm                    algorithm=, use_..., set_algorithm
    FASTCONV_NUM_THREADS     an integer from 1 to 1024                            set_num_threads
    FASTCONV_FLUSH_DENORMAL  1, true, on or yes; 0, false, off or no              set_flush_denormal
    FASTCONV_MEMORY_LIMIT    bytes, an integer from 0                             set_memory_limit
    FASTCONV_ISA             avx512, avx2, neon or baseline, if engine and processor have it
    FASTCONV_COST_MODEL      measured, or default to ignore what `fastconv warmup --measure` found
    FASTCONV_CACHE_DIR       directories for compiled functions and measured constants, separated as in PATH

No value of `FASTCONV_CACHE_DIR` is wrong: a directory that cannot be used costs the time to compile, and is logged.
`OMP_NUM_THREADS` belongs to OpenMP. It limits the number of threads if it is an integer, and is ignored otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any


class Variable:
    """An environment variable, read from `os.environ` each time."""

    def __init__(self, name: str) -> None:
        self.name = name

    def value(self) -> str | None:
        """What it is set to; None if it is not set, or empty."""
        return (os.environ.get(self.name) or None) if _raw(_key(self.name)) else None


# `os.environ.get` raises an exception inside for a variable that is not set, which takes as long as a small
# convolution. The dictionary behind it answers at once, where there is one (CPython).
_behind = getattr(os.environ, "_data", None)
_raw: Callable[[Any], Any] = os.environ.get if _behind is None else _behind.get
_key: Callable[[str], Any] = str if _behind is None else os.environ.encodekey

BACKEND = Variable("FASTCONV_BACKEND")
ALGORITHM = Variable("FASTCONV_ALGORITHM")
NUM_THREADS = Variable("FASTCONV_NUM_THREADS")
FLUSH_DENORMAL = Variable("FASTCONV_FLUSH_DENORMAL")
MEMORY_LIMIT = Variable("FASTCONV_MEMORY_LIMIT")
ISA = Variable("FASTCONV_ISA")
COST_MODEL = Variable("FASTCONV_COST_MODEL")
CACHE_DIR = Variable("FASTCONV_CACHE_DIR")
OMP_NUM_THREADS = Variable("OMP_NUM_THREADS")

#: Those that are ours.
OURS = (BACKEND, ALGORITHM, NUM_THREADS, FLUSH_DENORMAL, MEMORY_LIMIT, ISA, COST_MODEL, CACHE_DIR)

_BACKEND, _ALGORITHM, _NUM_THREADS, _FLUSH_DENORMAL, _ISA, _COST_MODEL = (
    _key(variable.name) for variable in (BACKEND, ALGORITHM, NUM_THREADS, FLUSH_DENORMAL, ISA, COST_MODEL)
)


def of_a_call() -> tuple[Any, ...]:
    """The raw values of the variables that decide how a call is computed: equal values, equal choices.

    It runs in each call, so there is no loop: 0.15 us for all of them.
    """
    return _raw(_BACKEND), _raw(_ALGORITHM), _raw(_NUM_THREADS), _raw(_FLUSH_DENORMAL), _raw(_ISA), _raw(_COST_MODEL)
