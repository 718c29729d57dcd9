"""Where compiled functions are kept between processes.

A file holds one compiled function of one signature. Its name says everything that its machine code depends on: the
engine's own code, Numba's and Python's versions, Numba's configuration, the processor. A file that is missing, damaged,
or cannot be read or written costs the time to compile, and never a result.

To load a file is to run what it says. So one is taken only if nobody but root and this user can have written it, or put
it where it is; see SECURITY.md.
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

import llvmlite
import numba
from numba.core.compiler import CompileResult

from fastconv.backends.numba import llvm, variables
from fastconv.problem.environment import CACHE_DIR
from fastconv.version import __version__

NO_DIRECTORY = f"there is no home directory; {CACHE_DIR.name} may name a directory"
#: What a file is opened with: a pipe would be waited for, and a link has been followed before.
_READING = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
_WRITING = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_HAS_OWNERS = hasattr(os, "geteuid")
_DIGEST = hashlib.sha256
#: The modules that the engine is compiled with, beside its own.
_OTHERS = ("fastconv.backends.instruction_set", "fastconv.backends.abi")
#: What there is to a code object, but for its constants.
_FIELDS = ("co_name", "co_flags", "co_argcount", "co_posonlyargcount", "co_kwonlyargcount", "co_varnames",
           "co_cellvars", "co_freevars", "co_names", "co_code", "co_exceptiontable")  # fmt: skip

_log = logging.getLogger("fastconv")


class UntrustedError(PermissionError):
    """Somebody else can have written a file."""


def directories() -> list[pathlib.Path]:
    """Where compiled functions are looked for, in this order; they are written into the first that can be written.

    Those that `FASTCONV_CACHE_DIR` names, or else the user's cache directory; none for a user without a home.
    """
    named = [pathlib.Path(part) for part in (CACHE_DIR.value() or "").split(os.pathsep) if part]
    return [root / f"numba-{__version__}" for root in named or _default()]


def _default() -> list[pathlib.Path]:
    if sys.platform == "win32":
        return [pathlib.Path(os.environ.get("LOCALAPPDATA", tempfile.gettempdir()), "fastconv")]
    usual = "~/Library/Caches" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return [pathlib.Path(usual).expanduser() / "fastconv"]
    except RuntimeError:  # a user that the system does not know, and no HOME
        return []


def stamp() -> str:
    """A digest of everything but the function's name and signature that its machine code depends on."""
    depends_on = (
        _engine(),
        llvm.machine(),
        *(llvm.machine().layout(size) for size in (4, 8)),
        numba.__version__,
        llvmlite.__version__,
        sys.version,
        sys.platform,
        variables.in_effect(),
    )
    return _DIGEST(repr(depends_on).encode()).hexdigest()[:20]


@functools.cache
def _engine() -> str:
    """A digest of the engine's own text."""
    names = {name for name in sys.modules if name == __package__ or name.startswith(f"{__package__}.")}
    return _DIGEST(repr([(name, _text(name)) for name in sorted(names | {*_OTHERS})]).encode()).hexdigest()


def _text(name: str) -> str:
    """The source of a module, or what its code is where a program comes without sources, or without files."""
    loader: Any = sys.modules[name].__spec__.loader  # type: ignore[union-attr]
    with contextlib.suppress(AttributeError, ImportError, OSError):
        if source := loader.get_source(name):
            return str(source)
    return _content(loader.get_code(name))


def _content(value: Any) -> str:
    """What a constant or code is, but for line numbers and file names; the same text in each process."""
    if isinstance(value, frozenset):
        return repr(sorted(map(_content, value)))
    if isinstance(value, CodeType):
        return repr([*(getattr(value, field) for field in _FIELDS), *map(_content, value.co_consts)])
    return repr(value)


class Files:
    """What Numba asks a dispatcher's cache for, kept in one file a signature."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def cache_path(self) -> str:
        """Where a statistic of Numba's says that it is."""
        return os.pathsep.join(map(str, directories()))

    def load_overload(self, signature: Any, target: Any) -> Any:
        """The compiled function, or None."""
        try:
            file = f"{self.name}-{stamp()}.bin"
        except Exception as error:  # as in `save_overload`, which says so
            _log.debug("compiled function %s is not looked for: %s", self.name, error)
            return None
        for directory in directories():
            path = directory / file
            try:
                content = _taken(path)
                target.refresh()
                return CompileResult._rebuild(target, *pickle.loads(content))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except PermissionError as error:
                _warn(f"compiled functions are not taken from {directory}: {error}")
            except Exception as error:  # whatever an old or broken file does, compiling anew repairs it
                _log.info("compiled function %s is not taken from %s: %s", self.name, path, error)
        return None

    def save_overload(self, signature: Any, overload: Any) -> None:
        """Keep it in the first directory that takes it."""
        try:
            if not variables.is_as_configured():
                raise ValueError("Numba's configuration has changed since it made its code generator")
            content = pickle.dumps(overload._reduce(), protocol=pickle.HIGHEST_PROTOCOL)
            _keep(f"{self.name}-{stamp()}.bin", content)
        except Exception as error:
            _log.info("compiled function %s is not kept: %s", self.name, error)


@functools.cache
def _warn(message: str) -> None:
    """Once, however many functions it concerns."""
    _log.warning("%s", message)


def _taken(path: pathlib.Path) -> bytes:
    """The content of a file that is whole and can be trusted."""
    with _opened(path) as file:
        digest: bytes = file.read(_DIGEST().digest_size)
        content: bytes = file.read()
    if _digest(path.name, content) != digest:
        raise ValueError("it is damaged")
    return content


def _digest(file: str, content: bytes) -> bytes:
    """With the file's name, so that no file is taken for another one."""
    return _DIGEST(file.encode() + b"\0" + content).digest()


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[Any]:
    """A file to read; raises `UntrustedError` with the reason if somebody else can have written it."""
    real = pathlib.Path(os.path.realpath(path))
    check_directory(real.parent)
    with open(os.open(real, _READING), "rb") as file:
        status = os.fstat(file.fileno())  # of what is open, whatever the name stands for by now
        if not stat.S_ISREG(status.st_mode):
            raise UntrustedError(f"{real} is no file")
        _check(real, status)
        yield file


def check_directory(directory: pathlib.Path) -> None:
    """Raise `UntrustedError` with the reason if somebody else can put a file into a directory, or one in its place.

    Whoever can write a directory can rename what is in it, so all above count too. In a directory with the sticky bit,
    such as /tmp, only the owner of a file can.
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
    """Whether root or this user owns it and nobody else can write it. Windows answers neither: there all is taken."""
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
    """The user that the system's own directories seem to belong to in some containers: in a user namespace, users from
    outside show as the overflow user. None where that may be a user of its own."""
    with contextlib.suppress(OSError, ValueError):
        overflow = int(pathlib.Path("/proc/sys/kernel/overflowuid").read_text())
        ranges = [list(map(int, line.split())) for line in pathlib.Path("/proc/self/uid_map").read_text().splitlines()]
        if not any(first <= overflow < first + number for first, _, number in ranges):
            return overflow
    return None


def _is_own_group(group: int) -> bool:
    """Whether this user is the only one in a group, as on systems that give each user a group of its name."""
    grp, pwd = importlib.import_module("grp"), importlib.import_module("pwd")
    try:
        user, known = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return bool(user.pw_gid == group and user.pw_name == known.gr_name and {*known.gr_mem} <= {user.pw_name})


def _keep(file: str, content: bytes) -> None:
    """Write a file into the first directory where that succeeds and from where it would be taken."""
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
    """With no more rights for others than to read, whatever the umask leaves."""
    for folder in reversed((directory, *directory.parents)):
        if not os.path.isdir(folder):
            with contextlib.suppress(FileExistsError):
                folder.mkdir(0o755)


def _write(path: pathlib.Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.stem}-{secrets.token_hex(8)}.part")
    try:
        with open(os.open(temporary, _WRITING, 0o644), "wb") as file:
            file.write(content)
        os.replace(temporary, path)  # others see the whole file or none
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def kept() -> dict[str, str]:
    """Each function of this process that can be taken from a file, and from which."""
    found: dict[str, str] = {}
    for directory in reversed(directories()):
        with contextlib.suppress(OSError):
            found.update({name: str(directory) for name in _files(directory)[0]})
    return found


def described() -> list[str]:
    """Each directory, how much it has for this process, and why it does not serve, if so."""
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
    """The size of each function's file that is for this process, and the reasons why others are not taken."""
    sizes, refused, ending = dict[str, int](), list[str](), f"-{stamp()}.bin"
    for file in sorted(os.listdir(directory)):
        if file.endswith(ending):
            try:
                with _opened(directory / file) as opened:
                    sizes[file.removesuffix(ending)] = os.fstat(opened.fileno()).st_size
            except OSError as error:
                refused.append(str(error))
    return sizes, refused
