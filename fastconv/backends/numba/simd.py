"""The SIMD operations that drivers call, each one intrinsic made of LLVM instructions.

Numba compiles scalar loops well, but keeps the sums of a register tile in memory. So what must stay in vector registers
is emitted as LLVM instructions: the operations here, and the micro-kernels in the modules beside this one.

An address is an integer. Lengths, offsets and leading dimensions (`ld_...`, from one row to the next) count elements. A
vector has `lanes` elements of `size` bytes, as many as a register of the instruction set in use, unless said otherwise.
"""

from __future__ import annotations

from typing import Any

from fastconv.backends.numba.llvm import ELEMENT, I64, Code, make_operation
from fastconv.backends.numba.numba_internals import types

#: Bytes of a cache line, and how far ahead of a load to prefetch where a kernel reads more streams than the hardware
#: prefetcher tracks.
LINE, _AHEAD = 64, 256


def load(size: int) -> Any:
    """load(address): an element"""
    return make_operation(size, 1, "address", lambda code, a: code.builder.load(code.pointer(a)), ELEMENT[size])


def store(size: int) -> Any:
    """store(value, address)"""

    def emit(code: Code, value: Any, address: Any) -> None:
        code.builder.store(value, code.pointer(address))

    return make_operation(size, 1, "value address", emit, scalar="value")


def move(size: int, lanes: int) -> Any:
    """move(target, source): copy one vector"""

    def emit(code: Code, target: Any, source: Any) -> None:
        code.write(code.read(code.pointer(source)), code.pointer(target))

    return make_operation(size, lanes, "target source", emit)


def move_lanes(size: int, lanes: int) -> Any:
    """move_lanes(target, source, count): copy the first `count` lanes of a vector"""

    def emit(code: Code, target: Any, source: Any, count: Any) -> None:
        mask = code.lane_mask(I64(0), count)
        code.masked_store(code.masked_load(code.pointer(source), mask), code.pointer(target), mask)

    return make_operation(size, lanes, "target source count", emit)


def clear(size: int, lanes: int) -> Any:
    """clear(target): store one vector of zeros"""

    def emit(code: Code, target: Any) -> None:
        code.write(code.zeros, code.pointer(target))

    return make_operation(size, lanes, "target", emit)


def splat(size: int, lanes: int) -> Any:
    """splat(value, target): broadcast `value` and store the vector"""

    def emit(code: Code, value: Any, target: Any) -> None:
        code.write(code.broadcast(value), code.pointer(target))

    return make_operation(size, lanes, "value target", emit, scalar="value")


def prefetch_ahead(code: Code, pointer: Any, elements: int) -> None:
    """Prefetch ahead of a load of `elements` elements at `pointer`, from a stream that is read in steps of as many."""
    extent = elements * code.size
    first = max(_AHEAD, extent)
    for byte in range(first, first + extent, LINE):
        code.prefetch(code.at(pointer, I64(byte // code.size)), far=True)


def prefetch_to_write(size: int) -> Any:
    """prefetch_to_write(address): prefetch a cache line, which need not exist, that will be written"""
    return make_operation(size, 1, "address", lambda code, address: code.prefetch(code.pointer(address), True))


def _fetch_add(code: Code, address: Any) -> Any:
    return code.builder.atomic_rmw("add", code.integers(address), I64(1), "monotonic")


#: fetch_add(address): atomically increment the integer there; returns the value before.
fetch_add = make_operation(8, 1, "address", _fetch_add, types.int64)


def _integers(code: Code, address: Any) -> Any:
    return code.integers(address)


#: integers(address): a pointer to 64-bit integers, for `numba.carray`.
integers = make_operation(8, 1, "address", _integers, types.CPointer(types.int64))
