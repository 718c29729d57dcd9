"""Words for the floating-point mode of a thread, see `backends.contract.FloatMode`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import llvmlite.binding
from llvmlite import ir
from numba.core import cgutils, types

from fastconv.backends.numba.calls import CALLED, call_at
from fastconv.backends.numba.llvm import I32, I64, Code, make_intrinsic, make_word

_VOID, _BYTES = ir.VoidType(), ir.IntType(8).as_pointer()


class _Register(NamedTuple):
    """The processor's control register of floating-point operations, which each thread has for itself.

    mode    its bits that are a floating-point mode
    flush   those of them that flush denormal numbers to zero
    read, write
    """

    mode: int
    flush: int
    read: Callable[[Code], Any]
    write: Callable[[Code, Any], None]


def _mxcsr(code: Code, instruction: str, place: Any) -> None:
    kind = ir.FunctionType(_VOID, [_BYTES])
    function = cgutils.get_or_insert_function(code.builder.module, kind, f"llvm.x86.sse.{instruction}")
    code.builder.call(function, [code.builder.bitcast(place, _BYTES)])


def _read_mxcsr(code: Code) -> Any:
    place = cgutils.alloca_once(code.builder, I32)
    _mxcsr(code, "stmxcsr", place)
    return code.builder.zext(code.builder.load(place), I64)


def _write_mxcsr(code: Code, value: Any) -> None:
    place = cgutils.alloca_once(code.builder, I32)
    code.builder.store(code.builder.trunc(value, I32), place)
    _mxcsr(code, "ldmxcsr", place)


def _read_fpcr(code: Code) -> Any:
    function = ir.FunctionType(I64, [])
    return code.builder.call(cgutils.get_or_insert_function(code.builder.module, function, "llvm.aarch64.get.fpcr"), [])


def _write_fpcr(code: Code, value: Any) -> None:
    function = ir.FunctionType(_VOID, [I64])
    code.builder.call(cgutils.get_or_insert_function(code.builder.module, function, "llvm.aarch64.set.fpcr"), [value])


#: x86: flush to zero 0x8000, rounding 0x6000, denormals are zeros 0x0040. ARM: flush to zero 1 << 24, rounding 3 << 22.
_MXCSR = _Register(0xE040, 0x8040, _read_mxcsr, _write_mxcsr)
_FPCR = _Register(7 << 22, 1 << 24, _read_fpcr, _write_fpcr)
_NONE = _Register(0, 0, lambda code: I64(0), lambda code, value: None)
_ARCHITECTURE = llvmlite.binding.get_process_triple().partition("-")[0]
_REGISTER = {"x86_64": _MXCSR, "aarch64": _FPCR, "arm64": _FPCR}.get(_ARCHITECTURE, _NONE)
FLUSH = _REGISTER.flush


def _switch(code: Code, kept: Any, added: Any) -> Any:
    b = code.builder
    control = _REGISTER.read(code)
    before = b.and_(control, I64(_REGISTER.mode))
    after = b.and_(b.or_(b.and_(before, kept), added), I64(_REGISTER.mode))
    with b.if_then(b.icmp_signed("!=", after, before), likely=False):  # to write it takes long
        _REGISTER.write(code, b.or_(b.xor(control, before), after))
    return before


def _call_in_mode(typing_context: Any, mode: Any, function: Any, *arguments: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        code = Code(builder, 8, 1)
        own = _switch(code, I64(0), values[0])
        failed = call_at(context, builder, values[1], values[2:])
        _switch(code, I64(0), own)
        return failed

    return types.boolean(types.int64, types.int64, *(types.int64,) * len(arguments)), codegen


#: switch(kept, added): of its mode this thread keeps the bits `kept` and gets the bits `added`; the mode before.
switch = make_word(8, 1, "kept added", _switch, types.int64)

#: call_in_mode(mode, function, ...): as `calls.call`, in that mode; this thread's own is put back. It is one word, as
#: Numba would take a call of `switch` out of a loop.
call_in_mode = make_intrinsic(["mode", *CALLED], _call_in_mode)
