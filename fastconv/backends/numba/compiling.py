"""Compiling: the passes, the functions that are inlined into them, and the functions that call them from Python."""

from __future__ import annotations

import functools
import inspect
import logging
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numba

from fastconv.backends.numba import numba_internals, variables
from fastconv.backends.numba.cache import Files
from fastconv.backends.numba.calls import call
from fastconv.backends.numba.float_mode import call_in_mode, switch
from fastconv.backends.numba.llvm import machine, made_for, make_intrinsic, per_instruction_set
from fastconv.backends.numba.numba_internals import types
from fastconv.backends.numba.simd import fetch_add, integers
from fastconv.kernels.abi import COUNTER
from fastconv.kernels.arguments import Header, names
from fastconv.problem import process

_FAILED = "a pass of the Numba engine failed, and left its result unfinished"

_log = logging.getLogger("fastconv")


def inline(size: int, result: Any = types.void) -> Callable[[Callable[..., Any]], Any]:
    """A decorator for functions on elements of `size` bytes that are compiled into each pass that calls them.

    `result` is the type of what the function returns. With `numba.njit` each function would be optimized and emitted by
    itself, though nobody calls it there, and optimized again in every pass. Here it becomes LLVM code in the module of
    its caller, once for each signature, and the module is optimized and emitted as a whole.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        _name(function, f"{function.__qualname__}{size}_{machine().name}")
        within: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()

        def compile_within(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            known = within.setdefault(numba_internals.library_of(context), {})
            if signature not in known:
                known[signature] = numba_internals.compile_into(context, function, signature)
            return numba_internals.call_compiled(context, builder, known[signature], signature, values)

        def typed(typing_context: Any, *arguments: Any) -> Any:
            return result(*map(types.unliteral, arguments)), compile_within

        return make_intrinsic(inspect.signature(function).parameters, typed)

    return decorate


def chosen(size: int, name: str, kernels: Mapping[int, Any], arguments: str) -> Any:
    """The function `name(number, ...)`, which calls `kernels[number]` with `arguments`.

    It is a chain of comparisons, as Numba has no tables of functions of different types.
    """
    scope = {f"kernel{number}": kernel for number, kernel in kernels.items()}
    calls = "\n".join(
        f"    {'elif' if i else 'if'} number == {number}: kernel{number}({arguments})"
        for i, number in enumerate(kernels)
    )
    exec(f"def {name}(number, {arguments}):\n{calls}", scope)
    return inline(size)(scope[name])


def _name(function: Callable[..., Any], name: str) -> None:
    # A symbol is made of the name and a number that starts anew in each process. Two functions of one name, from files
    # that two processes wrote, would have the same symbol, and the linker would keep only one of them.
    function.__name__ = function.__qualname__ = name


def all_items(name: str, size: int, driver: Any, arguments_at: Any, length: int) -> Any:
    """The pass `name`: a thread takes work items of its own share, then what is left of the others' shares.

    The shares are the same at each call, so that the data that a thread reads and writes again is in its own caches.
    The `number` plans of a call write different elements. Those of a group write neighbouring ones, so a thread does an
    item of each plan of a group in turn, while the cache lines are in its cache. A structure of arguments is `length`
    bytes long. All arguments of the pass are integers, most of them addresses, see `callers`.
    """

    def run(at_plans, number, tables, source, factor, bias, out, finish, space, counters, worker, workers):
        first = arguments_at(at_plans)
        group, items = first.group, 0
        for i in range(number):
            items = max(items, arguments_at(at_plans + i * length).items)
        total = items * (number // group)
        for offset in range(workers):
            share = (worker + offset) % workers
            while True:
                taken = total * share // workers + fetch_add(counters + COUNTER * share)
                if taken >= total * (share + 1) // workers:
                    break
                item, start = taken % items, taken // items * group
                for i in range(start, start + group):
                    plan = arguments_at(at_plans + i * length)
                    if item < plan.items:
                        driver(plan, tables, source, factor, bias, out, finish, space, item)

    signature = types.void(*(types.int64,) * 12)
    options = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return compiled(f"{name}{size}", signature, **options)(run)


@functools.cache  # Numba looks for what it compiled by types, which takes longer than planning
def entry(dispatcher: Any) -> Callable[..., Any]:
    """The compiled function without Numba's dispatch by types, which would double the time of a call.

    The arguments must have the right types.
    """
    return numba_internals.entry_point(dispatcher.ready())  # type: ignore[no-any-return]


@functools.cache
def address(dispatcher: Any) -> int:
    """The address of a pass's machine code, for `calls.call`."""
    return numba_internals.address_of(dispatcher.ready())


@per_instruction_set
def callers(size: int) -> tuple[Any, Any]:
    """Two functions that call a pass from Python: on this thread, and on several threads, each with its own workspace.

    They take arrays, which Numba unpacks faster than Python finds their addresses; an empty array stands for none. All
    threads compute in the floating-point mode of the calling thread. Both functions raise if the pass raised. Numba
    drops exceptions inside of a `prange` loop, so each thread stores beside its counter whether the pass raised.
    """
    record = _record_of()
    element, workspace = {4: types.float32, 8: types.float64}[size], names(Header).index("workspace")
    read, short = types.Array(element, 4, "A", readonly=True), types.Array(element, 1, "C", readonly=True)
    arrays = (types.int64[:, ::1], types.int64[::1], read, read, short, element[:, :, :, :], read, short)

    def serial(function, plans, tables, source, factor, bias, out, residual, slopes, activation, space, counters):
        numba.carray(integers(counters), (1,))[0] = 0
        finish = record(out, residual, slopes, activation, counters)
        failed = call(
            function, plans.ctypes.data, plans.shape[0], tables.ctypes.data, source.ctypes.data, factor.ctypes.data,
            bias.ctypes.data if bias.size else 0, out.ctypes.data, finish, space, counters, 0, 1,
        )  # fmt: skip
        if failed:
            raise RuntimeError(_FAILED)

    def parallel(
        function, plans, tables, source, factor, bias, out, residual, slopes, activation, space, counters, workers,
    ):  # fmt: skip
        at_plans, number, at_tables = plans.ctypes.data, plans.shape[0], tables.ctypes.data
        at_source, at_factor, at_out = source.ctypes.data, factor.ctypes.data, out.ctypes.data
        at_bias = bias.ctypes.data if bias.size else 0
        finish = record(out, residual, slopes, activation, counters)
        step = plans[0, workspace] * size
        for worker in range(workers):
            numba.carray(integers(counters + COUNTER * worker), (1,))[0] = 0
        # a thread that starts here inherits this thread's mode for good, and other libraries use the same threads
        mode = switch(0, 0)
        for worker in numba.prange(workers):
            failed = call_in_mode(
                mode, function, at_plans, number, at_tables, at_source, at_factor, at_bias, at_out, finish,
                space + worker * step, counters, worker, workers,
            )  # fmt: skip
            numba.carray(integers(counters + COUNTER * worker), (2,))[1] = failed
        switch(0, mode)
        for worker in range(workers):
            if numba.carray(integers(counters + COUNTER * worker), (2,))[1]:
                raise RuntimeError(_FAILED)

    signature = (types.int64, *arrays, types.int64, types.int64, types.int64)
    return (
        compiled(f"serial{size}", types.void(*signature), nogil=True)(serial),
        compiled(f"parallel{size}", types.void(*signature, types.int64), nogil=True, parallel=True)(parallel),
    )


@per_instruction_set
def _record_of() -> Any:
    """record(out, residual, slopes, activation, counters): the address of a `Finish`, behind a counter and its flag; 0
    if nothing is to be done."""

    @inline(8, types.int64)
    def record(out, residual, slopes, activation, counters):
        if activation == 0 and residual.size == 0:
            return 0
        how = numba.carray(integers(counters), (5,))
        how[2], how[3], how[4] = activation, 0, 0
        if residual.size:  # no expression: Numba would make a floating number of an address or a zero
            how[3] = residual.ctypes.data - out.ctypes.data
        if slopes.size:
            how[4] = slopes.ctypes.data
        return counters + 16

    return record


@per_instruction_set
def switcher() -> Any:
    """The function that sets this thread's floating-point mode from Python, see `float_mode.switch`."""

    def switch_mode(kept, added):
        return switch(kept, added)

    return compiled("switch_mode", types.int64(types.int64, types.int64))(switch_mode)


def compiled(name: str, signature: Any, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator: a dispatcher for one signature, whose `ready()` loads the function from disk or compiles it.

    `ready` returns the dispatcher. Nothing is compiled before.

    Its name, that of its file and of its symbols, ends in the instruction set: a process may have it for several.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        instructions = machine()
        _name(function, f"{name}_{instructions.name}")
        with variables.held_off():
            dispatcher = numba.njit(**options)(function)
        numba_internals.keep_in(dispatcher, Files(function.__name__))

        is_ready = False

        def ready() -> Any:
            nonlocal is_ready
            with process.once:
                if not is_ready:
                    start = time.perf_counter()
                    with variables.held_off(), made_for(instructions):
                        numba_internals.compile_for(dispatcher, signature)
                    is_ready = True
                    _log.debug("%s is ready after %.2f s", function.__name__, time.perf_counter() - start)
            return dispatcher

        dispatcher.ready = ready
        return dispatcher

    return decorate
