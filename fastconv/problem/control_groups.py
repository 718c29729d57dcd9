"""The control groups of this process (Linux): a container's limits stand in their files.

A group's limit holds for all groups inside it, so the least one counts. Source: Linux's
Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator


def folders(controller: str, system: pathlib.Path) -> Iterator[pathlib.Path]:
    """The folders, below `system`, of the process's groups in which `controller` may have a limit."""
    for line in text(system / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        name = controller if controller in controllers.split(",") else "."
        if name == "." and controllers:
            continue
        # in a container the path may be the host's, while the container's own group is at the root
        inside = pathlib.PurePosixPath(path.lstrip("/"))
        for group in (inside, *inside.parents):
            yield system / "sys/fs/cgroup" / name / group


def text(path: pathlib.Path) -> str:
    """The text of a file; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
