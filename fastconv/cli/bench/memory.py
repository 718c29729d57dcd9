"""`bench --memory`: the peak of extra memory of a call, each in a fresh process, beside im2col's size."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastconv.cli.bench.problems import Problem
from fastconv.cli.bench.worker import environment, said_by
from fastconv.dispatch import backends

_MEBI = 2**20

#: What a fresh process runs. A library's own memory does not count, so it is loaded and makes a small call first.
_SCRIPT = """
import json, sys
from fastconv.cli.bench import contenders, memory, problems
name, line, which, dtype, threads = sys.argv[1:]
(problem,) = problems.parse(line, "problem")
try:
    memory.load(name)
    contenders.build(name, problem.reduced(), which, dtype, int(threads))()
    call = contenders.build(name, problem, which, dtype, int(threads))
    print(json.dumps(memory.peak_of(call)))
except contenders.Declined as reason:
    print(json.dumps(None))
"""


def peak_of(call: Any) -> int:
    """Bytes by which the resident set rose at its peak during one call, without the result."""
    from fastconv.cli.bench.contenders import as_array

    with open("/proc/self/clear_refs", "w") as control:
        control.write("5")  # the high-water mark starts again from what is resident now
    before = _resident("VmRSS")
    result = as_array(call())
    return max(0, _resident("VmHWM") - before - result.nbytes)


def load(name: str) -> None:
    """Load the compiled functions of an engine of ours, which would load each at its first call."""
    if name in backends.backend_reasons():
        for _, ready in getattr(backends.loaded(name), "functions", list)():
            ready()


def is_supported() -> bool:
    """Whether this system has a process's high-water mark and lets it be reset, as Linux does."""
    try:
        with open("/proc/self/clear_refs", "w"):
            return _resident("VmHWM") > 0
    except OSError:
        return False


def measure(
    cases: Iterable[tuple[Problem, str]], names: Sequence[str], dtype: str, threads: int
) -> Iterator[tuple[Problem, str, dict[str, int | None]]]:
    """The peak of extra bytes of each call by contender, None if it has no such call; a call on each processor."""
    with environment(threads), ThreadPoolExecutor(os.cpu_count()) as pool:

        def row(case: tuple[Problem, str]) -> tuple[Problem, str, dict[str, int | None]]:
            return *case, {name: _measured(name, *case, dtype, threads) for name in names}

        yield from pool.map(row, cases)


def _measured(name: str, problem: Problem, which: str, dtype: str, threads: int) -> int | None:
    command = [sys.executable, "-c", _SCRIPT, name, str(problem), which, dtype, str(threads)]
    return json.loads(said_by(f"{name} on {which} of {problem}", command))  # type: ignore[no-any-return]


def im2col_bytes(problem: Problem, itemsize: int) -> int:
    """What the column buffer of the whole problem would take: C * R * S * P * Q for every image."""
    geometry = problem.geometry
    per_pixel = geometry.large_channels * math.prod(axis.taps for axis in geometry.axes)
    return itemsize * geometry.batch * per_pixel * math.prod(axis.small for axis in geometry.axes)


def table(peaks: Sequence[tuple[Problem, str, dict[str, int | None]]], names: Sequence[str], itemsize: int) -> str:
    """A line for each problem and pass, in MiB."""
    lines = [
        "Peak memory above arguments and result, MiB",
        "".join(f"{name:>12}" for name in names) + f"{'im2col':>12}   pass     problem",
    ]
    for problem, which, found in peaks:
        cells = "".join(
            f"{value / _MEBI:>12.1f}" if (value := found[name]) is not None else f"{'-':>12}" for name in names
        )
        lines.append(f"{cells}{im2col_bytes(problem, itemsize) / _MEBI:>12.1f}   {which:<8} {problem}")
    return "\n".join(lines)


def _resident(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field):
                return 1024 * int(line.split()[1])
    raise OSError(f"no {field} in /proc/self/status")
