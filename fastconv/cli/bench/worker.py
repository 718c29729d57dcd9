"""A contender in a process of its own, which prepares problems and takes its turns on request.

Between its turns the process is stopped (SIGSTOP) with all its threads: libraries let theirs spin for up to a tenth of
a second after a call, which would take time from the next contender's turn.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from fastconv.cli.bench import contenders
from fastconv.cli.bench.problems import Problem
from fastconv.problem.arrays import Array
from fastconv.problem.errors import FastconvError

#: The fewest calls of a turn.
_CALLS = 3
#: A turn counts by this quantile of its calls' times. A neighbour's bursts are shorter than a turn and may slow half of
#: its calls, so the median would have two values: 0.19 and 0.45 ms for a depthwise layer of torch's.
_FASTER = 0.1
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


class Prepared(NamedTuple):
    """A contender's answer to a problem: its result, or why it has none."""

    result: Array | None
    declined: str | None


class Worker:
    """The parent's end of one contender's process."""

    def __init__(self, name: str, threads: int, dtype: str) -> None:
        self.name, self._threads, self._dtype = name, threads, dtype
        self._start()

    def _start(self) -> None:
        # a fresh interpreter, so that no library has state or threads of the parent
        context = get_context("spawn")
        self._connection, other = context.Pipe()
        arguments = (other, self.name, self._dtype, self._threads)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        with environment(self._threads, **_MALLOC):
            self._process.start()
        other.close()

    def prepare(self, problem: Problem, which: str) -> Prepared:
        """Build the call and make it once, so that it compiles now. Raises `ContenderError` if that fails."""
        return self._ask("prepare", problem, which)  # type: ignore[no-any-return]

    def turn(self, problem: Problem, which: str, seconds: float) -> float:
        """The seconds of a call: the 10th percentile of the calls made in about `seconds`. Raises `ContenderError` if
        one fails."""
        return self._ask("turn", problem, which, seconds)  # type: ignore[no-any-return]

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


def _serve(connection: Connection, name: str, dtype: str, threads: int) -> None:
    """The child's loop: answer requests until the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: else it stays stopped if the parent is killed
    everywhere = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    prepared: dict[tuple[Problem, str], Callable[[], Any]] = {}

    def ready(problem: Problem, which: str) -> Array:
        if everywhere is not None:
            os.sched_setaffinity(0, everywhere)  # a library's new threads inherit it
        timed = prepared[problem, which] = contenders.build(name, problem, which, dtype, threads)
        result = contenders.as_array(timed())
        _part_threads(threads)
        return result

    while True:
        try:
            kind, *arguments = connection.recv()
        except (EOFError, OSError):
            return
        answer: Any = None
        try:
            if kind == "prepare":
                answer = Prepared(ready(*arguments), None)
            elif kind == "turn":
                problem, which, seconds = arguments
                if (problem, which) not in prepared:  # it was prepared by a process that has died
                    ready(problem, which)
                answer = _turn(prepared[problem, which], seconds)
            else:
                prepared.clear()
        except contenders.Declined as reason:
            answer = Prepared(None, str(reason))
        except Exception as error:  # the parent reports it
            answer = RuntimeError(f"{type(error).__name__}: {error}")
        with contextlib.suppress(OSError):
            connection.send(answer)


def _part_threads(threads: int) -> None:
    """Give each thread a processor of its own, on Linux. After a pause the scheduler may leave two threads on one for a
    whole turn, which doubles the time."""
    if threads == 1 or not os.path.isdir("/proc/self/task"):
        return
    processors = sorted(os.sched_getaffinity(os.getpid()))[:threads]
    main = os.getpid()
    others = sorted({int(task) for task in os.listdir("/proc/self/task")} - {main})
    if len(processors) < threads:
        return
    os.sched_setaffinity(main, {processors[0]})
    for number, task in enumerate(others):
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(task, {processors[1 + number % (threads - 1)]})


def _turn(timed: Callable[[], Any], seconds: float) -> float:
    # wake the threads and bring the data back into the caches
    _calls(timed, seconds / 2, 1)
    times = sorted(_calls(timed, seconds, _CALLS))
    return times[int(_FASTER * len(times))]


def _calls(timed: Callable[[], Any], seconds: float, least: int) -> list[float]:
    """The seconds of each call, of as many as fit in `seconds`, but at least `least`."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    now = 0.0
    while now < end or len(times) < least:
        start = time.perf_counter()
        timed()
        now = time.perf_counter()
        times.append(now - start)
    return times
