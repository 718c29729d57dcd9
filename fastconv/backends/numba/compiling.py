"""Compiled functions: the passes, what they are made of, and what calls them."""

from __future__ import annotations

import inspect
import logging
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numba
from numba.core import targetconfig, types
from numba.core.compiler import compile_internal

from fastconv.backends.abi import COUNTER, Place
from fastconv.backends.numba import variables
from fastconv.backends.numba.cache import Files
from fastconv.backends.numba.calls import call
from fastconv.backends.numba.float_mode import call_in_mode, switch
from fastconv.backends.numba.llvm import machine, made_for, make_intrinsic, once_a_set
from fastconv.backends.numba.places import P
from fastconv.backends.numba.simd import integers, take
from fastconv.problem import process

_FAILED = "a pass of the Numba engine failed, and left its result unfinished"

_log = logging.getLogger("fastconv")


def inline(size: int, result: Any = types.void) -> Callable[[Callable[..., Any]], Any]:
    """A decorator: a part of passes for elements of `size` bytes, compiled into each that calls it.

    Numba would make machine code of each part by itself, which nothing calls, and optimize it again in each function
    that it is a part of. Here it goes into the caller's module, once for each kind of arguments, and all of that is
    optimized and made machine code of together.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        _name(function, f"{function.__qualname__}{size}_{machine().name}")
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
    options = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return compiled(f"{name}{size}", signature, **options)(run)


def entry(dispatcher: Any) -> Callable[..., Any]:
    """A function as Python calls it, for arguments of its types: looking at them takes as long as handing them over."""
    (overload,) = dispatcher.ready().overloads.values()
    return overload.entry_point  # type: ignore[no-any-return]


def address(dispatcher: Any) -> int:
    """Where the machine code of a pass is, which `call` calls as Numba does: it returns whether it failed."""
    (overload,) = dispatcher.ready().overloads.values()
    return int(overload.library.get_pointer_to_function(overload.fndesc.llvm_func_name))


@once_a_set
def callers(size: int) -> tuple[Any, Any]:
    """What calls a pass at an address from Python: on this thread, and on several with a workspace of their own each.

    They are given arrays, which are cheaper to hand over than their addresses; a bias that is empty is none. All
    threads compute in the floating-point mode of the one that calls. They raise if the pass failed. Numba drops what is
    raised inside of a `prange` loop, so each thread leaves beside its counter whether it failed.
    """
    element, workspace = {4: types.float32, 8: types.float64}[size], int(P.WORKSPACE)
    read, short = (types.Array(element, axes, "C", readonly=True) for axes in (4, 1))
    arrays = (types.int64[:, ::1], types.int64[::1], read, read, short, element[:, :, :, ::1])

    def serial(function, plans, tables, source, factor, bias, out, space, counters):
        numba.carray(integers(counters), (1,))[0] = 0
        failed = call(
            function, plans.ctypes.data, plans.shape[0], tables.ctypes.data, source.ctypes.data, factor.ctypes.data,
            bias.ctypes.data if bias.size else 0, out.ctypes.data, space, counters, 0, 1,
        )  # fmt: skip
        if failed:
            raise RuntimeError(_FAILED)

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
            failed = call_in_mode(
                mode, function, at_plans, number, at_tables, at_source, at_factor, at_bias, at_out,
                space + worker * step, counters, worker, workers,
            )  # fmt: skip
            numba.carray(integers(counters + COUNTER * worker), (2,))[1] = failed
        switch(0, mode)
        for worker in range(workers):
            if numba.carray(integers(counters + COUNTER * worker), (2,))[1]:
                raise RuntimeError(_FAILED)

    signature = (types.int64, *arrays, types.int64, types.int64)
    return (
        compiled(f"serial{size}", types.void(*signature), nogil=True)(serial),
        compiled(f"parallel{size}", types.void(*signature, types.int64), nogil=True, parallel=True)(parallel),
    )


@once_a_set
def switcher() -> Any:
    """What sets this thread's floating-point mode: the word `switch`, as Python calls it."""

    def switch_mode(kept, added):
        return switch(kept, added)

    return compiled("switch_mode", types.int64(types.int64, types.int64))(switch_mode)


def compiled(name: str, signature: Any, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator: the function compiled for `signature` only, from its file if there is one, at its first call.

    Its name, which its file and its symbols bear, says its instruction set: a process may have it for several.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        instructions = machine()
        _name(function, f"{name}_{instructions.name}")
        with variables.held_off():
            dispatcher = numba.njit(**options)(function)
        dispatcher._cache = Files(function.__name__)
        dispatcher._can_compile = True

        def ready() -> Any:
            with process.once:
                if not dispatcher.signatures:
                    start = time.perf_counter()
                    with variables.held_off(), made_for(instructions):
                        dispatcher.compile(signature)
                    dispatcher.disable_compile()
                    _log.debug("%s is ready after %.2f s", function.__name__, time.perf_counter() - start)
            return dispatcher

        dispatcher.ready = ready
        return dispatcher

    return decorate
