"""The disk cache of compiled functions.

A file holds one compiled function for one signature. Its name contains a digest of everything that the machine code
depends on: the engine's source, the versions of Numba and Python, Numba's configuration, the processor. If a file is
missing, damaged or unreadable, or cannot be written, the function is compiled again; results never depend on the cache.

Loading a file runs code from it. So a file is loaded only if nobody but root and this user can have written it or put
it there; see SECURITY.md.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import logging
import os
import pathlib
import pickle
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterator
from types import CodeType
from typing import Any

from fastconv.backends.numba import llvm, numba_internals, variables
from fastconv.problem.environment import CACHE_DIR
from fastconv.version import __version__

NO_DIRECTORY = f"there is no home directory; {CACHE_DIR.name} may name a directory"
#: Flags for opening a file: do not wait for a pipe, and do not follow a link, as links were resolved before.
_READING = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
_WRITING = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_HAS_OWNERS = hasattr(os, "geteuid")
_DIGEST = hashlib.sha256
#: The packages and the module whose text compiled functions are made from.
_SOURCES = (__package__, "fastconv.kernels", "fastconv.backends.instruction_set")
#: The attributes of a code object that matter, except its constants.
_FIELDS = ("co_name", "co_flags", "co_argcount", "co_posonlyargcount", "co_kwonlyargcount", "co_varnames",
           "co_cellvars", "co_freevars", "co_names", "co_code", "co_exceptiontable")  # fmt: skip

_log = logging.getLogger("fastconv")


class UntrustedError(PermissionError):
    """Somebody other than root and this user may have written a file."""


def directories() -> list[pathlib.Path]:
    """The cache directories, in the order of search; files are written to the first one that is writable.

    They are those that `FASTCONV_CACHE_DIR` names, or the user's cache directory; none for a user without a home.
    """
    named = [pathlib.Path(name) for name in (CACHE_DIR.value() or "").split(os.pathsep) if name]
    return [root / f"numba-{__version__}" for root in named or _default()]


def _default() -> list[pathlib.Path]:
    if sys.platform == "win32":
        return [pathlib.Path(os.environ.get("LOCALAPPDATA", tempfile.gettempdir()), "fastconv")]
    usual = "~/Library/Caches" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return [pathlib.Path(usual).expanduser() / "fastconv"]
    except RuntimeError:  # no HOME, and the system does not know the user
        return []


def stamp() -> str:
    """A digest of everything that machine code depends on, except the function's name and signature."""
    depends_on = (
        _engine(),
        llvm.machine(),
        *(llvm.machine().layout(size) for size in (4, 8)),
        *numba_internals.versions(),
        sys.version,
        sys.platform,
        variables.in_effect(),
    )
    return _DIGEST(repr(depends_on).encode()).hexdigest()[:20]


@functools.cache
def _engine() -> str:
    """A digest of the engine's own text."""
    names = sorted(name for name in sys.modules if any(f"{name}.".startswith(f"{source}.") for source in _SOURCES))
    return _DIGEST(repr([(name, _text(name)) for name in names]).encode()).hexdigest()


def _text(name: str) -> str:
    """The source of a module, or its code where an application was packed without sources or without files."""
    loader: Any = sys.modules[name].__spec__.loader  # type: ignore[union-attr]
    with contextlib.suppress(AttributeError, ImportError, OSError):
        if source := loader.get_source(name):
            return str(source)
    return _content(loader.get_code(name))


def _content(value: Any) -> str:
    """A constant or code object as text, without line numbers and file names; the same in each process."""
    if isinstance(value, frozenset):
        return repr(sorted(map(_content, value)))
    if isinstance(value, CodeType):
        return repr([*(getattr(value, field) for field in _FIELDS), *map(_content, value.co_consts)])
    return repr(value)


class Files:
    """The cache of one dispatcher, with the methods that Numba calls: one file for each signature."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def cache_path(self) -> str:
        """The directories, as Numba's statistics of a dispatcher report them."""
        return os.pathsep.join(map(str, directories()))

    def load_overload(self, signature: Any, target: Any) -> Any:
        """The compiled function from disk, or None."""
        try:
            file = f"{self.name}-{stamp()}.bin"
        except Exception as error:  # `save_overload` raises it too, and logs it where it is seen
            _log.debug("compiled function %s is not looked for: %s", self.name, error)
            return None
        for directory in directories():
            path = directory / file
            try:
                content = _taken(path)
                return numba_internals.rebuilt(target, pickle.loads(content))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except PermissionError as error:
                _warn(f"compiled functions are not taken from {directory}: {error}")
            except Exception as error:  # whatever a broken file raises, compiling again repairs it
                _log.info("compiled function %s is not taken from %s: %s", self.name, path, error)
        return None

    def save_overload(self, signature: Any, overload: Any) -> None:
        """Write a compiled function to the first directory that is writable."""
        try:
            if not variables.is_as_configured():
                raise ValueError("Numba's configuration has changed since it made its code generator")
            content = pickle.dumps(numba_internals.dismantled(overload), protocol=pickle.HIGHEST_PROTOCOL)
            _keep(f"{self.name}-{stamp()}.bin", content)
        except Exception as error:
            _log.info("compiled function %s is not kept: %s", self.name, error)


@functools.cache
def _warn(message: str) -> None:
    """Log a warning once, however many functions it concerns."""
    _log.warning("%s", message)


def _taken(path: pathlib.Path) -> bytes:
    """The content of a file, whose owner and digest are checked."""
    with _opened(path) as file:
        digest: bytes = file.read(_DIGEST().digest_size)
        content: bytes = file.read()
    if _digest(path.name, content) != digest:
        raise ValueError("it is damaged")
    return content


def _digest(file: str, content: bytes) -> bytes:
    """A digest of name and content, so that a renamed file is not taken for another one."""
    return _DIGEST(file.encode() + b"\0" + content).digest()


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[Any]:
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


def _keep(file: str, content: bytes) -> None:
    """Write a file to the first directory that is writable and trusted."""
    failed = []
    for directory in directories():
        try:
            _make(directory)
            check_directory(directory)
            _write(directory / file, _digest(file, content) + content)
        except OSError as error:
            failed.append(str(error))
        else:
            return
    raise OSError("; ".join(failed) or NO_DIRECTORY)


def _make(directory: pathlib.Path) -> None:
    """Make a directory and its parents, not writable for others whatever the umask allows."""
    for folder in reversed((directory, *directory.parents)):
        if not os.path.isdir(folder):
            with contextlib.suppress(FileExistsError):
                folder.mkdir(0o755)


def _write(path: pathlib.Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.stem}-{secrets.token_hex(8)}.part")
    try:
        with open(os.open(temporary, _WRITING, 0o644), "wb") as file:
            file.write(content)
        os.replace(temporary, path)  # atomic: other processes see the whole file or none
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def kept() -> dict[str, str]:
    """The functions that this process can load from disk, and the directory of each."""
    found: dict[str, str] = {}
    for directory in reversed(directories()):
        with contextlib.suppress(OSError):
            found.update({name: str(directory) for name in _files(directory)[0]})
    return found


def described() -> list[str]:
    """For each directory a line: what it holds for this process, and why it cannot be used, if so."""
    return [_described(directory) for directory in directories()] or [f"none: {NO_DIRECTORY}"]


def _described(directory: pathlib.Path) -> str:
    notes, refused = list[str](), list[str]()
    try:
        sizes, refused = _files(directory)
        notes.append(f"{len(sizes)} functions, {sum(sizes.values()) / 2**20:.1f} MiB")
        check_directory(directory)
    except FileNotFoundError:
        notes.append("nothing yet")
    except OSError as error:
        refused.append(str(error))
    notes += [f"not taken: {reason}" for reason in dict.fromkeys(refused)]
    there = next(folder for folder in (directory, *directory.absolute().parents) if os.path.lexists(folder))
    if not (os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK)):
        notes.append("not writable")
    return f"{directory}, {', '.join(notes)}"


def _files(directory: pathlib.Path) -> tuple[dict[str, int], list[str]]:
    """The sizes of this process's files by function, and the reasons why some are not trusted."""
    sizes, refused, ending = dict[str, int](), list[str](), f"-{stamp()}.bin"
    for file in sorted(os.listdir(directory)):
        if file.endswith(ending):
            try:
                with _opened(directory / file) as opened:
                    sizes[file.removesuffix(ending)] = os.fstat(opened.fileno()).st_size
            except OSError as error:
                refused.append(str(error))
    return sizes, refused
