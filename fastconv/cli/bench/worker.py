"""A contender in a process of its own, which prepares problems and takes its turns on request: the parent's end.

Between its turns the process is stopped (SIGSTOP) with all its threads: libraries let theirs spin for up to a tenth of
a second after a call, which would take time from the next contender's turn.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import get_context
from typing import Any

from fastconv.cli.bench.chain import Passes
from fastconv.cli.bench.child import Prepared, serve
from fastconv.cli.bench.interface import USUAL, Setup
from fastconv.cli.bench.models import Case
from fastconv.cli.bench.pipelines import Layer, Pipeline
from fastconv.cli.bench.problems import Problem
from fastconv.problem.errors import FastconvError

#: Seconds after which libraries' threads have gone to sleep, where processes cannot be stopped (Windows).
_SPIN = 0.25
#: Variables that set libraries' number of threads when they load.
_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
#: Settings of glibc's malloc by which freed memory stays in the process. By default it may go back to the system and be
#: faulted in again, page by page, by the next call, depending on where a block happens to be, which gives a small
#: layer two speeds. The first number is the largest that glibc accepts.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": 2**25, "MALLOC_TRIM_THRESHOLD_": 2**30, "MALLOC_TOP_PAD_": 2**26}
_REMOVED = ("FASTCONV_NUM_THREADS", "OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")


class ContenderError(FastconvError, RuntimeError):
    """A contender failed at a call, or its process died."""


def said_by(what: str, command: Sequence[str], variables: Mapping[str, str] | None = None) -> str:
    """What a process prints. If it fails, raises `ContenderError` with `what` it was for and its last line."""
    done = subprocess.run(
        command, capture_output=True, text=True, errors="backslashreplace", check=False, env=variables
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ContenderError(f"{what}: {last}")
    return done.stdout


class Worker:
    """The parent's end of one contender's process.

    cold          the bytes that copies of a problem's arrays take together; 0 if every call has the same arrays
    keeps_memory  whether malloc keeps what is freed; else it is as it comes
    """

    def __init__(
        self, name: str, threads: int, dtype: str, cold: int = 0, keeps_memory: bool = True, setup: Setup = USUAL,
    ) -> None:  # fmt: skip
        self.name, self._threads, self._dtype, self._cold, self._setup = name, threads, dtype, cold, setup
        self._malloc = _MALLOC if keeps_memory else {}
        self._start()

    def _start(self) -> None:
        # a fresh interpreter, so that no library has state or threads of the parent
        context = get_context("spawn")
        self._connection, other = context.Pipe()
        arguments = (other, self.name, self._dtype, self._threads, self._cold, self._setup)
        self._process = context.Process(target=serve, args=arguments, daemon=True)
        with environment(self._threads, **self._malloc):
            self._process.start()
        other.close()

    def prepare(self, problem: Problem, which: str) -> Prepared:
        """Build the call and make it once, so that it compiles now. Raises `ContenderError` if that fails."""
        return self._ask("prepare", problem, which)  # type: ignore[no-any-return]

    def turn(self, problem: Problem, which: str, seconds: float) -> float:
        """The seconds of a call: the 10th percentile of the calls made in about `seconds`. Raises `ContenderError` if
        one fails."""
        return self._ask("turn", problem, which, seconds)  # type: ignore[no-any-return]

    def layer(self, layer: Layer) -> Prepared:
        """The result of one layer of a pipeline, on standard numbers. Raises `ContenderError` if that fails."""
        return self._ask("layer", layer)  # type: ignore[no-any-return]

    def passes(self, pipeline: Pipeline, seconds: float) -> Passes:
        """Go through a pipeline again and again for about `seconds`. Raises `ContenderError` if that fails."""
        return self._ask("passes", pipeline, seconds)  # type: ignore[no-any-return]

    def network(self, case: Case) -> Prepared:
        """Build a network; its results. Raises `ContenderError` if that fails."""
        return self._ask("network", case)  # type: ignore[no-any-return]

    def calls(self, case: Case, seconds: float) -> float:
        """The median seconds of a network's calls in about `seconds`. Raises `ContenderError` if one fails."""
        return self._ask("calls", case, seconds)  # type: ignore[no-any-return]

    def forget(self) -> None:
        """Drop what was prepared."""
        self._ask("forget")

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.kill()  # also ends a stopped process
        self._process.join()

    def _ask(self, *request: Any) -> Any:
        try:
            self._signal("SIGCONT")
            self._connection.send(request)
            answer = self._connection.recv()
            self._signal("SIGSTOP")
        except (EOFError, OSError):
            self._process.join(1)
            status = self._process.exitcode
            self.close()
            self._start()
            raise ContenderError(f"its process died, exit status {status}") from None
        if isinstance(answer, Exception):
            raise ContenderError(str(answer))
        return answer

    def _signal(self, name: str) -> None:
        if hasattr(signal, name):
            assert self._process.pid
            os.kill(self._process.pid, getattr(signal, name))
        elif name == "SIGSTOP":
            time.sleep(_SPIN)


@contextlib.contextmanager
def environment(threads: int, **more: int) -> Iterator[None]:
    """Sets variables for a child that is started in this context: every library gets the same number of threads."""
    wanted: dict[str, str | None] = {**dict.fromkeys(_VARIABLES, str(threads)), **dict.fromkeys(_REMOVED)}
    wanted |= {name: str(value) for name, value in more.items()}
    before = {name: os.environ.get(name) for name in wanted}
    try:
        _set(wanted)
        yield
    finally:
        _set(before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
