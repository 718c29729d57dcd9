"""The registry of backends: which exist, which can run here and why others cannot, and which one a call gets.

A backend is a name and a loader. The loader runs on the first use, in the first thread that needs it. It returns an
engine, see `fastconv.backends.contract`, or raises with the reason why the backend cannot run here.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from fastconv.backends.contract import PASSES, TILE_PASSES, AnyEngine, base_of, is_tiled, on_instruction_set
from fastconv.dispatch import call_cache
from fastconv.dispatch.settings import Chosen, Setting
from fastconv.problem import environment, process
from fastconv.problem.errors import ArgumentError, BackendUnavailableError, DTypeError, one_line, one_of

Loader: TypeAlias = Callable[[], AnyEngine]

#: The entry-point group through which other packages name their loaders.
ENTRY_POINTS = "fastconv.backends"

_log = logging.getLogger("fastconv")
_setting = Setting("backend", environment.BACKEND)
#: Guards the tables below, never while a loader runs.
_lock = threading.RLock()
process.hold_while_forking(lambda: _lock)


class Registration:
    """A registered loader, and its result: the engine, or the reason why there is none.

    Each registration keeps its own result. So a loader that is still running when its name is registered again cannot
    set the result of the new registration.
    """

    def __init__(self, loader: Loader, lock: Any = None) -> None:
        self.loader = loader
        self.found: AnyEngine | str | None = None
        #: Makes the loader run once. That of our own backends is `process.once`, for which a fork waits.
        self.lock = lock or threading.RLock()

    def load(self) -> AnyEngine | str:
        """The engine, or the reason why there is none; the loader runs once."""
        if (found := self.found) is not None:
            return found
        with self.lock:
            if self.found is None:
                self.found = _attempt(self.loader)
            return self.found


def _numpy() -> AnyEngine:
    return importlib.import_module("fastconv.backends.numpy").NumpyEngine()  # type: ignore[no-any-return]


def _numba() -> AnyEngine:
    return importlib.import_module("fastconv.backends.numba").NumbaEngine()  # type: ignore[no-any-return]


def _cython() -> AnyEngine:
    return importlib.import_module("fastconv.backends.cython").CythonEngine()  # type: ignore[no-any-return]


def _numba_compiling() -> Any:
    """Numba's compiler lock, which it holds whenever anybody compiles; None if Numba is not loaded."""
    module = sys.modules.get("numba.core.compiler_lock")
    return getattr(getattr(module, "global_compiler_lock", None), "_lock", None)


process.hold_while_forking(_numba_compiling)

#: fastconv's own backends, in the order in which `auto` tries them.
_BUILT_IN: Mapping[str, Loader] = {"numba": _numba, "cython": _cython, "numpy": _numpy}

_registry: dict[str, Registration] = {name: Registration(loader, process.once) for name, loader in _BUILT_IN.items()}
#: (backend, reason) pairs that `auto` has already logged.
_passed_over: set[tuple[str, str]] = set()
_entry_points_read = False
#: Increased whenever a name may mean another engine than before. It is part of the key under which a call is cached,
#: and is read before the engine is picked: so no call finds an engine that was picked before a change.
_epoch = 0


def _next_epoch() -> None:
    """To be called under `_lock`, after the registry has changed."""
    global _epoch
    _epoch += 1
    call_cache.forget()


def token() -> tuple[Any, ...]:
    """The choices and the epoch: with argument, variables and dtype they decide the backend of a call."""
    return _setting.token(), _epoch


def register_backend(name: str, loader: Loader) -> None:
    """Add the backend `name`. `loader()` returns its engine, or raises with the reason why it cannot run here.

    The loader runs on the first use. A name registered before, other than fastconv's own, is replaced. Raises
    `ArgumentError` for a name that cannot be used, or a loader that cannot be called.

    >>> import fastconv as fc
    >>> from fastconv.backends.numpy import NumpyEngine
    >>> fc.register_backend("mine", NumpyEngine)
    >>> fc.conv2d([[[1, 2], [3, 4]]], [[[[10]]]], backend="mine")
    array([[[10, 20],
            [30, 40]]])
    """
    if not isinstance(name, str) or not name or name == "auto" or name in _BUILT_IN:
        raise ArgumentError(
            f"name={name!r} cannot be registered: it must be a text other than 'auto' and our own names"
        )
    if not callable(loader):
        raise ArgumentError(f"loader must be callable, not {loader!r}")
    with _lock:
        _registry[name] = Registration(loader)
        _next_epoch()


def available_backends() -> tuple[str, ...]:
    """The names of the backends that can run here, in the order in which `auto` tries our own, then the others'.

    >>> import fastconv as fc
    >>> "numpy" in fc.available_backends()
    True
    """
    return tuple(name for name, reason in backend_reasons().items() if reason is None)


def backend_reasons() -> dict[str, str | None]:
    """Every registered backend with the reason why it cannot run here; None if it can."""
    _read_entry_points()
    found = {name: registered.load() for name, registered in tuple(_registry.items())}
    return {name: engine if isinstance(engine, str) else None for name, engine in found.items()}


def loaded(name: str) -> AnyEngine:
    """The engine of a backend that can run here, on its best instruction set."""
    return _named(name, name)


def in_use(name: str) -> AnyEngine:
    """The engine of a backend that can run here, as calls get it: on the instruction set that `FASTCONV_ISA` names."""
    return on_instruction_set(loaded(name), environment.ISA.value())


def get_backend() -> str:
    """The backend asked for in this context: a name, or `auto`, which leaves the choice to each call.

    >>> import fastconv as fc
    >>> with fc.use_backend("numpy"):
    ...     fc.get_backend()
    'numpy'
    """
    return _setting.chosen().name


def current() -> str:
    """As `get_backend`; raises if the backend asked for cannot run here."""
    name, origin = _setting.chosen()
    _check(name, origin)
    return name


def set_backend(name: str | None) -> None:
    """Choose the backend of the whole process; `auto` leaves it to each call, None to `FASTCONV_BACKEND`.

    Raises `ArgumentError` if there is no such backend, `BackendUnavailableError` if it cannot run here.

    >>> import fastconv as fc
    >>> fc.set_backend("numpy")
    >>> fc.get_backend()
    'numpy'
    >>> fc.set_backend(None)
    """
    if name is not None:
        _check(name, f"set_backend({name!r})")
    _setting.set(name)


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """A context in which calls of this thread or task use the backend `name`; raises as `set_backend`.

    >>> import fastconv as fc
    >>> with fc.use_backend("numpy"):
    ...     fc.conv2d([[[1.0, 2.0]]], [[[[1.0, 1.0]]]])
    array([[[3.]]])
    """
    _check(name, f"use_backend({name!r})")
    with _setting.use(name):
        yield


def pick(argument: str | None, dtype: np.dtype[Any]) -> AnyEngine:
    """The engine of a call that computes in `dtype`, see `choose`."""
    return _pick(_setting.chosen(argument), dtype)


def _pick(chosen: Chosen, dtype: np.dtype[Any]) -> AnyEngine:
    name, origin = chosen
    if isinstance(name, str) and name == "auto":
        engine = _first(dtype)
    else:
        engine = _named(name, origin)
        if (reason := engine.unsupported(dtype)) is not None:
            raise DTypeError(f"{origin} cannot compute in {dtype}: {reason}")
    return on_instruction_set(engine, environment.ISA.value())


def _first(dtype: np.dtype[Any]) -> AnyEngine:
    """The first of our own backends that computes in `dtype`; why others do not is logged once."""
    for candidate in _BUILT_IN:
        found = _registry[candidate].load()
        reason = found if isinstance(found, str) else found.unsupported(dtype)
        if reason is None:
            return found  # type: ignore[return-value]
        _log_once(candidate, reason)
    raise BackendUnavailableError(f"no backend can compute in {dtype}")


def choose(argument: str | None, dtype: np.dtype[Any]) -> tuple[str, AnyEngine, dict[str, str]]:
    """The backend of a call that computes in `dtype`: its name, its engine, and why each other one was not taken.

    A backend that a person named runs or raises; only `auto` passes over one.
    """
    chosen = _setting.chosen(argument)  # once, as another thread may change it meanwhile
    engine = _pick(chosen, dtype)
    if chosen.name != "auto":
        return chosen.name, engine, {other: f"{chosen.origin} was named" for other in _BUILT_IN if other != chosen.name}
    name = next(candidate for candidate in _BUILT_IN if _registry[candidate].found is base_of(engine))
    passed: dict[str, str] = {}
    for candidate in _BUILT_IN:
        found = _registry[candidate].load()
        reason = found if isinstance(found, str) else found.unsupported(dtype)
        if candidate != name:
            passed[candidate] = reason or f"{name} comes first"
    return name, engine, passed


def withdraw(engine: AnyEngine, reason: str) -> None:
    """Mark the backend of `engine` as unable to run, for a reason that was found only when it had to compute."""
    with _lock:
        for registered in _registry.values():
            if registered.found is base_of(engine):
                registered.found = one_line(reason)
        _next_epoch()


def _log_once(name: str, reason: str) -> None:
    if (name, reason) in _passed_over:
        return
    with _lock:
        is_new = (name, reason) not in _passed_over
        _passed_over.add((name, reason))
    if is_new:
        _log.info("backend %s passed over: %s", name, reason)


def _named(name: str, origin: str) -> AnyEngine:
    """The backend that a person named at `origin`."""
    if isinstance(name, str) and name not in _registry:
        _read_entry_points()
    if not isinstance(name, str) or name not in _registry:
        raise ArgumentError(f"{origin}: there is no such backend; {one_of(name, ['auto', *_registry])}")
    found = _registry[name].load()
    if isinstance(found, str):
        raise BackendUnavailableError(
            f"{origin} cannot run here: {found}; {one_of(name, ['auto', *available_backends()])}"
        )
    return found


def _check(name: str, origin: str) -> None:
    if not isinstance(name, str) or name != "auto":
        _named(name, origin)


def _forget_locks() -> None:
    """In a forked child, new locks: a parent's thread that was loading a backend is not here to release its lock."""
    for registered in _registry.values():
        if registered.lock is not process.once:
            registered.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


def _attempt(loader: Loader) -> AnyEngine | str:
    try:
        engine = loader()
    except BackendUnavailableError as error:
        return one_line(str(error))
    except Exception as error:  # a broken installation may raise anything; that is a reason, not a crash
        return one_line(f"{type(error).__name__}: {error}")
    if isinstance(engine, type):
        return f"its loader returned the class {engine.__name__}, not an engine"
    passes = TILE_PASSES if is_tiled(engine) else PASSES
    lacking = [name for name in passes if not callable(getattr(engine, name, None))]
    return f"its engine lacks {', '.join(lacking)}" if lacking else engine


def _read_entry_points() -> None:
    """Register the backends that other packages offer as entry points, once; names that exist keep their loaders."""
    global _entry_points_read
    with process.once:
        if _entry_points_read:
            return
        import importlib.metadata  # imported here, as it would double the time to import fastconv

        for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
            if entry.name != "auto":
                _registry.setdefault(entry.name, Registration(functools.partial(_load_entry, entry)))
        _entry_points_read = True


def _load_entry(entry: Any) -> AnyEngine:
    return entry.load()()  # type: ignore[no-any-return]
