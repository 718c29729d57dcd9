"""The disk cache of compiled functions.

A file holds one compiled function for one signature. Its name contains a digest of everything that the machine code
depends on: the engine's source, the versions of Numba and Python, Numba's configuration, the processor. If a file is
missing, damaged or unreadable, or cannot be written, the function is compiled again; results never depend on the cache.

Loading a file runs code from it, so files that others may have written are refused (`backends.cache_directory`).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import pathlib
import pickle
import sys
from types import CodeType
from typing import Any

from fastconv.backends import cache_directory
from fastconv.backends.numba import llvm, numba_internals, variables
from fastconv.kernels import IMPORTED_AT
from fastconv.version import __version__

_DIGEST = hashlib.sha256
#: The packages and the module whose text compiled functions are made from.
_SOURCES = (__package__, "fastconv.kernels", "fastconv.backends.instruction_set")
#: The attributes of a code object that matter, except its constants.
_FIELDS = ("co_name", "co_flags", "co_argcount", "co_posonlyargcount", "co_kwonlyargcount", "co_varnames",
           "co_cellvars", "co_freevars", "co_names", "co_code", "co_exceptiontable")  # fmt: skip

_log = logging.getLogger("fastconv")


def directories() -> list[pathlib.Path]:
    """The cache directories, in the order of search; files are written to the first one that is writable."""
    return [root / f"numba-{__version__}" for root in cache_directory.roots()]


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
    """A digest of the engine's own text.

    Raises `OSError` if a file has changed since it was imported: machine code of the old text must not be kept
    under the digest of the new one.
    """
    names = sorted(name for name in sys.modules if any(f"{name}.".startswith(f"{source}.") for source in _SOURCES))
    for name in names:
        if _changed_at(name) > IMPORTED_AT:
            raise OSError(f"the file of {name} has changed since fastconv was imported")
    return _DIGEST(repr([(name, _text(name)) for name in names]).encode()).hexdigest()


def _changed_at(name: str) -> float:
    """When the file of a module was written or replaced; 0 if the module has no file."""
    with contextlib.suppress(OSError, TypeError):
        found = os.stat(sys.modules[name].__spec__.origin)  # type: ignore[union-attr, arg-type]
        return max(found.st_ctime, found.st_mtime)
    return 0.0


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
    with cache_directory.opened(path) as file:
        digest: bytes = file.read(_DIGEST().digest_size)
        content: bytes = file.read()
    if _digest(path.name, content) != digest:
        raise ValueError("it is damaged")
    return content


def _digest(file: str, content: bytes) -> bytes:
    """A digest of name and content, so that a renamed file is not taken for another one."""
    return _DIGEST(file.encode() + b"\0" + content).digest()


def _keep(file: str, content: bytes) -> None:
    """Write a file that `_taken` accepts."""
    cache_directory.keep(directories(), file, _digest(file, content) + content)


def kept() -> dict[str, str]:
    """The functions that this process can load from disk, and the directory of each."""
    found: dict[str, str] = {}
    for directory in reversed(directories()):
        with contextlib.suppress(OSError):
            found.update({name: str(directory) for name in _files(directory)[0]})
    return found


def described() -> list[str]:
    """For each directory a line: what it holds for this process, and why it cannot be used, if so."""
    return [_described(directory) for directory in directories()] or [f"none: {cache_directory.NO_DIRECTORY}"]


def _described(directory: pathlib.Path) -> str:
    notes, refused = list[str](), list[str]()
    try:
        sizes, refused = _files(directory)
        notes.append(f"{len(sizes)} functions, {sum(sizes.values()) / 2**20:.1f} MiB")
        cache_directory.check_directory(directory)
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
                with cache_directory.opened(directory / file) as opened:
                    sizes[file.removesuffix(ending)] = os.fstat(opened.fileno()).st_size
            except OSError as error:
                refused.append(str(error))
    return sizes, refused
