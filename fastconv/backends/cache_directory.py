"""Where fastconv keeps files between processes: compiled functions, and measured constants of the cost model.

Loading a compiled function runs code from its file. So a file is loaded only if nobody but root and this user can have
written it or put it there; see SECURITY.md.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import pathlib
import stat
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from fastconv.problem.environment import CACHE_DIR

NO_DIRECTORY = f"there is no home directory; {CACHE_DIR.name} may name a directory"
#: Flags for opening a file: do not wait for a pipe, and do not follow a link, as links were resolved before.
_READING = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
_WRITING = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_HAS_OWNERS = hasattr(os, "geteuid")


class UntrustedError(PermissionError):
    """Somebody other than root and this user may have written a file."""


def roots() -> list[pathlib.Path]:
    """The directories, in the order of search; files are written to the first one that is writable.

    They are those that `FASTCONV_CACHE_DIR` names, or the user's cache directory; none for a user without a home.
    """
    return [pathlib.Path(part) for part in (CACHE_DIR.value() or "").split(os.pathsep) if part] or _default()


def _default() -> list[pathlib.Path]:
    if sys.platform == "win32":
        usual = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        usual = "~/Library/Caches"
    else:
        usual = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return [pathlib.Path(usual).expanduser() / "fastconv"]
    except RuntimeError:  # no HOME, and the system does not know the user
        return []


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[Any]:
    """Open a file for reading; raises `UntrustedError` with the reason if somebody else may have written it."""
    real = pathlib.Path(os.path.realpath(path))
    check_directory(real.parent)
    with open(os.open(real, _READING), "rb") as file:
        status = os.fstat(file.fileno())  # of the open file, as the name may be another file's by now
        if not stat.S_ISREG(status.st_mode):
            raise UntrustedError(f"{real} is no file")
        _check(real, status)
        yield file


def check_directory(directory: pathlib.Path) -> None:
    """Raise `UntrustedError` with the reason if somebody else can add files to a directory or replace it.

    Whoever can write to a directory can rename its entries, so all parent directories are checked too. In one with the
    sticky bit, such as /tmp, only the owner of an entry can rename it.
    """
    if not _HAS_OWNERS:
        return
    real = pathlib.Path(os.path.realpath(directory))
    for folder in (real, *real.parents):
        status = os.lstat(folder)
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(f"{folder} is no directory")
        _check(folder, status)


def _check(path: pathlib.Path, status: os.stat_result) -> None:
    """Raise `UntrustedError` unless root or this user owns it and nobody else can write to it.

    Windows has no such owners and modes; there every file is accepted.
    """
    if not _HAS_OWNERS:
        return
    is_directory = stat.S_ISDIR(status.st_mode)
    if status.st_uid not in (0, os.geteuid()) and not (is_directory and status.st_uid == _unmapped()):
        raise UntrustedError(f"{path} belongs to user {status.st_uid}")
    if is_directory and status.st_mode & stat.S_ISVTX:
        return
    if status.st_mode & stat.S_IWOTH:
        raise UntrustedError(f"{path} can be written by everybody")
    if status.st_mode & stat.S_IWGRP and not _is_own_group(status.st_gid):
        raise UntrustedError(f"{path} can be written by group {status.st_gid}")


@functools.cache
def _unmapped() -> int | None:
    """The overflow user, if the system's own directories may belong to it here; otherwise None.

    In a user namespace, as some containers have, files of users from outside appear to belong to the overflow user. It
    is not trusted where the namespace also has a real user of that number.
    """
    with contextlib.suppress(OSError, ValueError):
        overflow = int(pathlib.Path("/proc/sys/kernel/overflowuid").read_text())
        ranges = [list(map(int, line.split())) for line in pathlib.Path("/proc/self/uid_map").read_text().splitlines()]
        if not any(first <= overflow < first + number for first, _, number in ranges):
            return overflow
    return None


def _is_own_group(group: int) -> bool:
    """Whether a group has this user only, as on systems where each user has a group of the same name."""
    grp, pwd = importlib.import_module("grp"), importlib.import_module("pwd")
    try:
        user, known = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return bool(user.pw_gid == group and user.pw_name == known.gr_name and {*known.gr_mem} <= {user.pw_name})


def keep(directories: Iterable[pathlib.Path], file: str, content: bytes) -> pathlib.Path:
    """Write a file to the first directory that is writable and trusted; returns its path.

    Raises `OSError` with the reason for each directory if there is none.
    """
    failed = []
    for directory in directories:
        try:
            _make(directory)
            check_directory(directory)
            _write(directory / file, content)
        except OSError as error:
            failed.append(str(error))
        else:
            return directory / file
    raise OSError("; ".join(failed) or NO_DIRECTORY)


def _make(directory: pathlib.Path) -> None:
    """Make a directory and its parents, not writable for others whatever the umask allows."""
    for folder in reversed((directory, *directory.parents)):
        if not os.path.isdir(folder):
            with contextlib.suppress(FileExistsError):
                folder.mkdir(0o755)


def _write(path: pathlib.Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.stem}-{os.urandom(8).hex()}.part")
    try:
        with open(os.open(temporary, _WRITING, 0o644), "wb") as file:
            file.write(content)
        os.replace(temporary, path)  # atomic: other processes see the whole file or none
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
