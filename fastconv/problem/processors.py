"""How many processors the process may keep busy: its CPU affinity, and the CPU quota of its container."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import pathlib
import platform

from fastconv.problem import control_groups
from fastconv.problem.control_groups import text

#: The most threads for each processor of the machine. More only wait for each other, and OpenMP ends the process if it
#: cannot start as many as it was told to.
_FOR_EACH = 4
#: What Linux says of a processor's model, on x86 and on ARM.
_MODEL = ("model name", "cpu family", "model", "stepping", "CPU implementer", "CPU part", "CPU variant")


def affinity() -> int:
    """The processors that the process may run on; all of the machine's if the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def most_threads() -> int:
    """The most threads that any engine starts, however many the user asks for. Counting processors takes 20 us."""
    return _FOR_EACH * (os.cpu_count() or 1)


@functools.cache
def quota(system: pathlib.Path = pathlib.Path("/")) -> int | None:
    """How many processors' time the process's control groups allow it, rounded up; None without a limit.

    Reads cgroup v2's `cpu.max` and v1's `cpu.cfs_quota_us` and `cpu.cfs_period_us` below `system`, at the first call
    only. Source: Linux's Documentation/scheduler/sched-bwc.rst.
    """
    limits = []
    for folder in control_groups.folders("cpu", system):
        words = (text(folder / "cpu.max") or " ".join(
            text(folder / f"cpu.cfs_{part}_us") for part in ("quota", "period")
        )).split()  # fmt: skip
        if len(words) == 2 and words[0].isdecimal() and words[1].isdecimal() and int(words[1]):
            limits.append(max(1, math.ceil(int(words[0]) / int(words[1]))))
    return min(limits, default=None)


def name(cpuinfo: pathlib.Path = pathlib.Path("/proc/cpuinfo")) -> str:
    """How the system describes the processor: its model, or at least its architecture."""
    head = ""
    with contextlib.suppress(OSError), open(cpuinfo, encoding="utf-8", errors="replace") as file:
        head = file.read(2048)  # the first processor: the system takes its time for all of them
    known = (line.partition(":") for line in head.partition("\n\n")[0].splitlines())
    fields = {title.strip(): value.strip() for title, _, value in known}
    found = [fields[title] for title in _MODEL if title in fields] or [os.environ.get("PROCESSOR_IDENTIFIER", "")]
    return ", ".join(filter(None, (platform.machine(), *found)))
