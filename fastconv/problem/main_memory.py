"""How much memory the process may use: the machine's, or less in a container."""

from __future__ import annotations

import functools
import os
import pathlib

from fastconv.problem import control_groups


@functools.cache
def size(system: pathlib.Path = pathlib.Path("/")) -> int | None:
    """The bytes of memory that the process may use; None if the system does not say. Read at the first call only."""
    return min(filter(None, (_of_machine(), *_limits(system))), default=None)


def _of_machine() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf, other systems other names
        return None


def _limits(system: pathlib.Path) -> list[int]:
    """The limits of the control groups: cgroup v2's `memory.max` and v1's `memory.limit_in_bytes`."""
    limits = (
        control_groups.text(folder / file).strip()
        for folder in control_groups.folders("memory", system)
        for file in ("memory.max", "memory.limit_in_bytes")
    )
    return [int(limit) for limit in limits if limit.isdecimal()]
