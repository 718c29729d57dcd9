"""Compiled functions and where they are kept between processes.

A file holds one compiled function of one signature, with a digest of itself in front. Its name says everything that it
depends on: this package's version and the text of the engine, Numba's version, Python's, the processor. A file that is
missing, damaged, or cannot be read or written costs the time to compile, and never a result.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import logging
import os
import pathlib
import pickle
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import llvmlite
import llvmlite.binding
import numba
from numba.core import targetconfig, types
from numba.core.compiler import CompileResult, compile_internal

from fastconv.engines import instructions
from fastconv.engines.numba import code
from fastconv.engines.numba.code import make_intrinsic
from fastconv.engines.numba.modes import call_in_mode, switch
from fastconv.engines.numba.places import P
from fastconv.engines.numba.vectors import call, integers, take
from fastconv.engines.plans import COUNTER, Place
from fastconv.ground import process
from fastconv.version import __version__

#: The variable that names another directory for the compiled functions.
VARIABLE = "FASTCONV_CACHE_DIR"

_log = logging.getLogger("fastconv")


def directory() -> pathlib.Path:
    """Where compiled functions are kept: `FASTCONV_CACHE_DIR`, or else the user's cache directory."""
    if named := os.environ.get(VARIABLE):
        root = pathlib.Path(named)
    elif sys.platform == "win32":
        root = pathlib.Path(os.environ.get("LOCALAPPDATA", tempfile.gettempdir()), "fastconv")
    elif sys.platform == "darwin":
        root = pathlib.Path("~/Library/Caches/fastconv").expanduser()
    else:
        root = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fastconv"
    return root / f"numba-{__version__}"


@functools.cache
def _stamp() -> str:
    """A digest of everything but the function's name and signature that its machine code depends on."""
    digest = hashlib.sha256()
    here = pathlib.Path(__file__).parent
    for path in (*sorted(here.glob("*.py")), here.parent / "plans.py", here.parent / "instructions.py"):
        digest.update(path.read_bytes())
    parts = (
        code.machine(),
        instructions.takes_two_steps(),
        numba.__version__,
        llvmlite.__version__,
        sys.version,
        sys.platform,
        llvmlite.binding.get_host_cpu_name(),
    )
    digest.update(repr((*parts, llvmlite.binding.get_host_cpu_features().flatten())).encode())
    return digest.hexdigest()[:20]


def files() -> list[pathlib.Path]:
    """The files of this version, engine and processor."""
    return sorted(directory().glob(f"*-{_stamp()}.bin"))


class _Files:
    """What Numba asks a dispatcher's cache for, kept in one file a signature."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.hits = 0

    @property
    def path(self) -> pathlib.Path:
        return directory() / f"{self.name}-{_stamp()}.bin"

    cache_path = property(lambda self: str(directory()))

    def load_overload(self, signature: Any, target: Any) -> Any:
        try:
            content = self.path.read_bytes()
            if hashlib.sha256(content[32:]).digest() != content[:32]:
                raise ValueError("it is damaged")
            target.refresh()
            overload = CompileResult._rebuild(target, *pickle.loads(content[32:]))
        except FileNotFoundError:
            return None
        except Exception as error:  # whatever an old or broken file does, compiling anew repairs it
            _log.info("compiled function %s is not taken from %s: %s", self.name, self.path, error)
            return None
        self.hits += 1
        return overload

    def save_overload(self, signature: Any, overload: Any) -> None:
        try:
            content = pickle.dumps(overload._reduce(), protocol=pickle.HIGHEST_PROTOCOL)
            path = self.path
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=self.name)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(content).digest() + content)
                os.replace(temporary, path)  # others see the whole file or none
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except Exception as error:
            _log.info("compiled function %s is not kept: %s", self.name, error)


def inline(size: int, result: Any = types.void) -> Callable[[Callable[..., Any]], Any]:
    """A decorator: a part of passes for elements of `size` bytes, compiled into each that calls it.

    Numba would make machine code of each part by itself, which nothing calls, and optimize it again in each function
    that it is a part of. Here it goes into the caller's module, once for each kind of arguments, and all of that is
    optimized and made machine code of together.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        _name(function, f"{function.__qualname__}{size}")
        within: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()

        def compile_within(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            library = context.active_code_library
            known = within.setdefault(library, {})
            if signature not in known:
                flags = targetconfig.ConfigStack().top().copy()
                flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
                part = compile_internal(context.typing_context, context, library, function, signature.args,
                                        signature.return_type, flags, {})  # fmt: skip
                # what is inlined wherever it is called is not needed by itself
                library._final_module.get_function(part.fndesc.mangled_name).linkage = "linkonce_odr"
                known[signature] = part.fndesc
            return context.call_internal(builder, known[signature], signature, values)

        def typed(typing_context: Any, *arguments: Any) -> Any:
            return result(*map(types.unliteral, arguments)), compile_within

        return make_intrinsic(inspect.signature(function).parameters, typed)

    return decorate


def chosen(size: int, name: str, kernels: Mapping[int, Any], arguments: str) -> Any:
    """name(number, ...): that of `kernels` of this number, which takes `arguments`."""
    scope = {f"kernel{number}": kernel for number, kernel in kernels.items()}
    calls = "\n".join(
        f"    {'elif' if i else 'if'} number == {number}: kernel{number}({arguments})"
        for i, number in enumerate(kernels)
    )
    exec(f"def {name}(number, {arguments}):\n{calls}", scope)
    return inline(size)(scope[name])


def _name(function: Callable[..., Any], name: str) -> None:
    # of two functions of one name that come from files of two processes, only one would be kept when they are linked
    function.__name__ = function.__qualname__ = name


def all_plans(name: str, size: int, piece: Any) -> Any:
    """The pass `name`: a thread takes pieces of its own part, then what is left of the others' parts.

    It takes a piece of each plan of a group at a time. The parts are the same at each call, so that what a thread reads
    and writes again is in its own caches. The plans of a run write different elements, those of a group neighbouring
    ones, which are in the cache then. All arguments are integers, most of them addresses, see `callers`.
    """
    places = len(Place)

    def run(at_plans, number, at_tables, source, factor, bias, out, space, counters, worker, workers):
        plans = numba.carray(integers(at_plans), (number, places))
        tables = numba.carray(integers(at_tables), (1,))
        group, most = plans[0, P.GROUP], 0
        for i in range(number):
            most = max(most, plans[i, P.ITEMS])
        total = most * (number // group)
        for offset in range(workers):
            part = (worker + offset) % workers
            while True:
                taken = total * part // workers + take(counters + COUNTER * part)
                if taken >= total * (part + 1) // workers:
                    break
                item, first = taken % most, taken // most * group
                for i in range(first, first + group):
                    if item < plans[i, P.ITEMS]:
                        piece(plans[i], tables, source, factor, bias, out, space, item)

    signature = types.void(*(types.int64,) * 11)
    return compiled(f"{name}{size}", signature, nogil=True, error_model="numpy", no_cpython_wrapper=True)(run)


def entry(dispatcher: Any) -> Callable[..., Any]:
    """A function as Python calls it, for arguments of its types: looking at them takes as long as handing them over."""
    (overload,) = dispatcher.ready().overloads.values()
    return overload.entry_point  # type: ignore[no-any-return]


def address(dispatcher: Any) -> int:
    """Where the machine code of a pass is."""
    (overload,) = dispatcher.ready().overloads.values()
    return int(overload.library.get_pointer_to_function(overload.fndesc.llvm_cfunc_wrapper_name))


@functools.cache
def callers(size: int) -> tuple[Any, Any]:
    """What calls a pass at an address from Python: on this thread, and on several with a workspace of their own each.

    They are given arrays, which are cheaper to hand over than their addresses; a bias that is empty is none. All
    threads compute in the floating-point mode of the one that calls.
    """
    element, workspace = {4: types.float32, 8: types.float64}[size], int(P.WORKSPACE)
    read, short = (types.Array(element, axes, "C", readonly=True) for axes in (4, 1))
    arrays = (types.int64[:, ::1], types.int64[::1], read, read, short, element[:, :, :, ::1])

    def serial(function, plans, tables, source, factor, bias, out, space, counters):
        numba.carray(integers(counters), (1,))[0] = 0
        call(function, plans.ctypes.data, plans.shape[0], tables.ctypes.data, source.ctypes.data, factor.ctypes.data,
             bias.ctypes.data if bias.size else 0, out.ctypes.data, space, counters, 0, 1)  # fmt: skip

    def parallel(function, plans, tables, source, factor, bias, out, space, counters, workers):
        at_plans, number, at_tables = plans.ctypes.data, plans.shape[0], tables.ctypes.data
        at_source, at_factor, at_out = source.ctypes.data, factor.ctypes.data, out.ctypes.data
        at_bias = bias.ctypes.data if bias.size else 0
        step = plans[0, workspace] * size
        for worker in range(workers):
            numba.carray(integers(counters + COUNTER * worker), (1,))[0] = 0
        # a thread that starts inherits this one's mode for good, and other libraries use the same threads
        mode = switch(0, 0)
        for worker in numba.prange(workers):
            call_in_mode(mode, function, at_plans, number, at_tables, at_source, at_factor, at_bias, at_out,
                         space + worker * step, counters, worker, workers)  # fmt: skip
        switch(0, mode)

    signature = (types.int64, *arrays, types.int64, types.int64)
    return (
        compiled(f"serial{size}", types.void(*signature), nogil=True)(serial),
        compiled(f"parallel{size}", types.void(*signature, types.int64), nogil=True, parallel=True)(parallel),
    )


@functools.cache
def switcher() -> Any:
    """What sets this thread's floating-point mode: the word `switch`, as Python calls it."""

    def switch_mode(kept, added):
        return switch(kept, added)

    return compiled("switch_mode", types.int64(types.int64, types.int64))(switch_mode)


def compiled(name: str, signature: Any, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator: the function compiled for `signature` only, from its file if there is one, at its first call."""

    def decorate(function: Callable[..., Any]) -> Any:
        _name(function, name)
        dispatcher = numba.njit(**options)(function)
        dispatcher._cache = _Files(name)
        dispatcher._can_compile = True

        def ready() -> Any:
            with process.once:
                if not dispatcher.signatures:
                    start = time.perf_counter()
                    dispatcher.compile(signature)
                    dispatcher.disable_compile()
                    _log.debug("%s is ready after %.2f s", name, time.perf_counter() - start)
            return dispatcher

        dispatcher.ready = ready
        return dispatcher

    return decorate
