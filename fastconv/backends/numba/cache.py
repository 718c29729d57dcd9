"""Where compiled functions are kept between processes.

A file holds one compiled function of one signature. Its name says everything that its machine code depends on: the
engine's own code, Numba's and Python's versions, Numba's configuration, the processor. A file that is missing, damaged,
or cannot be read or written costs the time to compile, and never a result.

To load a file is to run what it says, so files of others are refused (`backends.cache_directory`).
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

import llvmlite
import numba
from numba.core.compiler import CompileResult

from fastconv.backends import cache_directory
from fastconv.backends.numba import llvm, variables
from fastconv.version import __version__

_DIGEST = hashlib.sha256
#: The packages and the module whose text compiled functions are made from.
_SOURCES = (__package__, "fastconv.kernels", "fastconv.backends.instruction_set")
#: What there is to a code object, but for its constants.
_FIELDS = ("co_name", "co_flags", "co_argcount", "co_posonlyargcount", "co_kwonlyargcount", "co_varnames",
           "co_cellvars", "co_freevars", "co_names", "co_code", "co_exceptiontable")  # fmt: skip

_log = logging.getLogger("fastconv")


def directories() -> list[pathlib.Path]:
    """Where compiled functions are looked for, in this order; they are written into the first that can be written."""
    return [root / f"numba-{__version__}" for root in cache_directory.roots()]


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
    names = sorted(name for name in sys.modules if any(f"{name}.".startswith(f"{source}.") for source in _SOURCES))
    return _DIGEST(repr([(name, _text(name)) for name in names]).encode()).hexdigest()


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
    with cache_directory.opened(path) as file:
        digest: bytes = file.read(_DIGEST().digest_size)
        content: bytes = file.read()
    if _digest(path.name, content) != digest:
        raise ValueError("it is damaged")
    return content


def _digest(file: str, content: bytes) -> bytes:
    """With the file's name, so that no file is taken for another one."""
    return _DIGEST(file.encode() + b"\0" + content).digest()


def _keep(file: str, content: bytes) -> None:
    """Write a file that `_taken` takes."""
    cache_directory.keep(directories(), file, _digest(file, content) + content)


def kept() -> dict[str, str]:
    """Each function of this process that can be taken from a file, and from which."""
    found: dict[str, str] = {}
    for directory in reversed(directories()):
        with contextlib.suppress(OSError):
            found.update({name: str(directory) for name in _files(directory)[0]})
    return found


def described() -> list[str]:
    """Each directory, how much it has for this process, and why it does not serve, if so."""
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
    """The size of each function's file that is for this process, and the reasons why others are not taken."""
    sizes, refused, ending = dict[str, int](), list[str](), f"-{stamp()}.bin"
    for file in sorted(os.listdir(directory)):
        if file.endswith(ending):
            try:
                with cache_directory.opened(directory / file) as opened:
                    sizes[file.removesuffix(ending)] = os.fstat(opened.fileno()).st_size
            except OSError as error:
                refused.append(str(error))
    return sizes, refused
