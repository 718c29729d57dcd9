"""Intrinsics that read and set a thread's floating-point mode, see `backends.contract.FloatMode`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fastconv.backends.numba.calls import CALLED
from fastconv.backends.numba.llvm import I32, I64, Code, make_intrinsic, make_operation
from fastconv.backends.numba.numba_internals import architecture, call_at, declared, ir, on_stack, types

_VOID, _BYTES = ir.VoidType(), ir.IntType(8).as_pointer()


class _ControlRegister(NamedTuple):
    """The processor's floating-point control register. Each thread has its own.

    mode    the bits that make up the floating-point mode: rounding, and what happens to denormal numbers
    flush   those of them that flush denormal operands and results to zero
    read, write   emit the instructions
    """

    mode: int
    flush: int
    read: Callable[[Code], Any]
    write: Callable[[Code, Any], None]


def _mxcsr(code: Code, instruction: str, address: Any) -> None:
    function = declared(code.builder, ir.FunctionType(_VOID, [_BYTES]), f"llvm.x86.sse.{instruction}")
    code.builder.call(function, [code.builder.bitcast(address, _BYTES)])


def _read_mxcsr(code: Code) -> Any:
    address = on_stack(code.builder, I32)
    _mxcsr(code, "stmxcsr", address)
    return code.builder.zext(code.builder.load(address), I64)


def _write_mxcsr(code: Code, value: Any) -> None:
    address = on_stack(code.builder, I32)
    code.builder.store(code.builder.trunc(value, I32), address)
    _mxcsr(code, "ldmxcsr", address)


def _read_fpcr(code: Code) -> Any:
    return code.builder.call(declared(code.builder, ir.FunctionType(I64, []), "llvm.aarch64.get.fpcr"), [])


def _write_fpcr(code: Code, value: Any) -> None:
    code.builder.call(declared(code.builder, ir.FunctionType(_VOID, [I64]), "llvm.aarch64.set.fpcr"), [value])


#: x86: flush to zero 0x8000, rounding 0x6000, denormals are zeros 0x0040. ARM: flush to zero 1 << 24, rounding 3 << 22.
_MXCSR = _ControlRegister(0xE040, 0x8040, _read_mxcsr, _write_mxcsr)
_FPCR = _ControlRegister(7 << 22, 1 << 24, _read_fpcr, _write_fpcr)
_NONE = _ControlRegister(0, 0, lambda code: I64(0), lambda code, value: None)
_REGISTER = {"x86_64": _MXCSR, "aarch64": _FPCR, "arm64": _FPCR}.get(architecture(), _NONE)
FLUSH = _REGISTER.flush


def _switch(code: Code, kept: Any, added: Any) -> Any:
    b = code.builder
    control = _REGISTER.read(code)
    before = b.and_(control, I64(_REGISTER.mode))
    after = b.and_(b.or_(b.and_(before, kept), added), I64(_REGISTER.mode))
    with b.if_then(b.icmp_signed("!=", after, before), likely=False):  # a write stalls the pipeline
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


#: switch(kept, added): the mode of this thread becomes (mode & kept) | added; returns the mode before.
switch = make_operation(8, 1, "kept added", _switch, types.int64)

#: call_in_mode(mode, function, ...): `calls.call` in another mode; afterwards the thread has its own mode again. It is
#: one intrinsic because Numba would move calls of `switch` out of a loop.
call_in_mode = make_intrinsic(["mode", *CALLED], _call_in_mode)
