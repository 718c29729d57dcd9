"""The registry of backends: which there are, which can run here and why not, and which one a call gets.

A backend is a name and a loader. The loader runs on the first use, in the first thread that needs it, and returns an
`backends.contract.Engine`, or raises `ImportError` or `BackendUnavailableError` with the reason why it cannot run here.
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

from fastconv.backends.contract import PASSES, TILE_PASSES, AnyEngine, is_tiled
from fastconv.dispatch import call_cache
from fastconv.dispatch.settings import Chosen, Setting
from fastconv.problem import process
from fastconv.problem.errors import ArgumentError, BackendUnavailableError, DTypeError, one_line, one_of

Loader: TypeAlias = Callable[[], AnyEngine]

#: The entry-point group through which other packages name their loaders.
ENTRY_POINTS = "fastconv.backends"

_log = logging.getLogger("fastconv")
_setting = Setting("backend")
#: Guards the tables below, never while a loader runs.
_lock = threading.RLock()
process.hold_while_forking(lambda: _lock)
#: Makes the loader of each backend of others run once. Our own run under `process.once`, for which a fork waits.
_loading: dict[str, threading.RLock] = {}


def _numpy() -> AnyEngine:
    return importlib.import_module("fastconv.backends.numpy").NumpyEngine()  # type: ignore[no-any-return]


def _numba() -> AnyEngine:
    return importlib.import_module("fastconv.backends.numba").NumbaEngine()  # type: ignore[no-any-return]


def _cython() -> AnyEngine:
    return importlib.import_module("fastconv.backends.cython").CythonEngine()  # type: ignore[no-any-return]


def _numba_compiling() -> Any:
    """The lock that Numba holds while it compiles, for us or for others; None where Numba is not loaded."""
    module = sys.modules.get("numba.core.compiler_lock")
    return getattr(getattr(module, "global_compiler_lock", None), "_lock", None)


process.hold_while_forking(_numba_compiling)

#: Our own engines, in the order in which `auto` tries them.
_BUILT_IN: Mapping[str, Loader] = {"numba": _numba, "cython": _cython, "numpy": _numpy}

_loaders: dict[str, Loader] = dict(_BUILT_IN)
#: What loading gave: the engine, or the reason why there is none.
_loaded: dict[str, AnyEngine | str] = {}
#: (backend, reason) pairs that `auto` has already logged.
_passed_over: set[tuple[str, str]] = set()
_entry_points_read = False
#: How often a backend was registered.
_registrations = 0


def token() -> tuple[Any, ...]:
    """What decides about the backend of a call, its argument and the dtype aside."""
    return _setting.token(), _registrations


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
    global _registrations
    with _lock:
        _loaders[name] = loader
        _loaded.pop(name, None)
        _registrations += 1
        call_cache.forget()


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
    loaded = {name: _load(name) for name in tuple(_loaders)}
    return {name: engine if isinstance(engine, str) else None for name, engine in loaded.items()}


def loaded(name: str) -> AnyEngine:
    """The engine of a backend that can run here."""
    return _named(name, name)


def get_backend() -> str:
    """The backend asked for in this context: a name, or `auto`, which leaves the choice to each call.

    >>> import fastconv as fc
    >>> with fc.use_backend("numpy"):
    ...     fc.get_backend()
    'numpy'
    """
    return _setting.chosen().name


def current() -> str:
    """As `get_backend`, but raises if what was asked for cannot run here."""
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
        for candidate in _BUILT_IN:
            loaded = _load(candidate)
            reason = loaded if isinstance(loaded, str) else loaded.unsupported(dtype)
            if reason is None:
                return loaded  # type: ignore[return-value]
            _log_once(candidate, reason)
        raise BackendUnavailableError(f"no backend can compute in {dtype}")
    engine = _named(name, origin)
    if (reason := engine.unsupported(dtype)) is not None:
        raise DTypeError(f"{origin} cannot compute in {dtype}: {reason}")
    return engine


def choose(argument: str | None, dtype: np.dtype[Any]) -> tuple[str, AnyEngine, dict[str, str]]:
    """The backend of a call that computes in `dtype`: its name, its engine, and the others with why each was not it.

    A backend that a person named runs or raises; only `auto` passes over one.
    """
    chosen = _setting.chosen(argument)  # once, as another thread may change it meanwhile
    engine = _pick(chosen, dtype)
    if chosen.name != "auto":
        return chosen.name, engine, {other: f"{chosen.origin} was named" for other in _BUILT_IN if other != chosen.name}
    found = next(candidate for candidate in _BUILT_IN if _load(candidate) is engine)
    passed: dict[str, str] = {}
    for candidate in _BUILT_IN:
        loaded = _load(candidate)
        reason = loaded if isinstance(loaded, str) else loaded.unsupported(dtype)
        if candidate != found:
            passed[candidate] = reason or f"{found} comes first"
    return found, engine, passed


def withdraw(engine: AnyEngine, reason: str) -> None:
    """From now on the backend of `engine` cannot run, for a reason that showed only when it was to compute."""
    with _lock:
        for name in [name for name, known in _loaded.items() if known is engine]:
            _loaded[name] = one_line(reason)
        call_cache.forget()


def _log_once(name: str, reason: str) -> None:
    if (name, reason) in _passed_over:
        return
    with _lock:
        is_news = (name, reason) not in _passed_over
        _passed_over.add((name, reason))
    if is_news:
        _log.info("backend %s passed over: %s", name, reason)


def _named(name: str, origin: str) -> AnyEngine:
    """The engine of a backend that a person named at `origin`."""
    if isinstance(name, str) and name not in _loaders:
        _read_entry_points()
    if not isinstance(name, str) or name not in _loaders:
        raise ArgumentError(f"{origin}: there is no such backend; {one_of(name, ['auto', *_loaders])}")
    loaded = _load(name)
    if isinstance(loaded, str):
        raise BackendUnavailableError(
            f"{origin} cannot run here: {loaded}; {one_of(name, ['auto', *available_backends()])}"
        )
    return loaded


def _check(name: str, origin: str) -> None:
    if not isinstance(name, str) or name != "auto":
        _named(name, origin)


def _load(name: str) -> AnyEngine | str:
    """The engine of a registered backend, or the reason why it cannot run; loaded once."""
    if (known := _loaded.get(name)) is not None:
        return known
    with _lock:
        own = process.once if name in _BUILT_IN else _loading.setdefault(name, threading.RLock())
    with own:
        if (known := _loaded.get(name)) is not None:
            return known
        loader = _loaders[name]
        found = _attempt(loader)
        with _lock:
            if _loaders[name] is loader:  # else another one was registered meanwhile
                _loaded[name] = found
        return found


def _forget_locks() -> None:
    """In a forked child: what another thread of the parent was loading, nobody will finish."""
    _loading.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


def _attempt(loader: Loader) -> AnyEngine | str:
    try:
        engine = loader()
    except BackendUnavailableError as error:
        return one_line(str(error))
    except Exception as error:  # a broken installation raises anything; it is a reason, never a crash
        return one_line(f"{type(error).__name__}: {error}")
    if isinstance(engine, type):
        return f"its loader returned the class {engine.__name__}, not an engine"
    passes = TILE_PASSES if is_tiled(engine) else PASSES
    lacking = [name for name in passes if not callable(getattr(engine, name, None))]
    return f"its engine lacks {', '.join(lacking)}" if lacking else engine


def _read_entry_points() -> None:
    """Register what other packages offer, once. Names of our own and names registered by hand stay as they are."""
    global _entry_points_read
    with process.once:
        if _entry_points_read:
            return
        import importlib.metadata  # here, as it would double the time to import fastconv

        for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
            if entry.name != "auto":
                _loaders.setdefault(entry.name, functools.partial(_load_entry, entry))
        _entry_points_read = True


def _load_entry(entry: Any) -> AnyEngine:
    return entry.load()()  # type: ignore[no-any-return]
