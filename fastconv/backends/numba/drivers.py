"""The drivers of `fastconv.kernels`, compiled by Numba with this machine's primitives."""

from __future__ import annotations

import functools
import inspect
from types import FunctionType
from typing import Any, get_args, get_type_hints

from fastconv.backends.contract import dtype_of
from fastconv.backends.numba.compiling import all_items, inline
from fastconv.backends.numba.llvm import ELEMENT, I64, make_operation, per_instruction_set
from fastconv.backends.numba.numba_internals import from_dtype, ir, types
from fastconv.backends.numba.primitives import primitives
from fastconv.kernels.primitives import Element


@functools.cache
def record(structure: type) -> Any:
    """Numba's type of a structure of arguments."""
    return from_dtype(dtype_of(structure))


@functools.cache
def structure_at(structure: type) -> Any:
    """structure_at(address): the structure at an address."""

    def emit(code: Any, address: Any) -> Any:
        return code.builder.inttoptr(address, ir.ArrayType(ir.IntType(8), dtype_of(structure).itemsize).as_pointer())

    return make_operation(8, 1, "address", emit, record(structure))


@functools.cache
def _row_of(structure: type) -> Any:
    """row_of(tables, start, number): row `number` of the table of structures that starts at entry `start`."""
    length = dtype_of(structure).itemsize

    def emit(code: Any, tables: Any, start: Any, number: Any) -> Any:
        b = code.builder
        address = b.add(tables, b.add(b.mul(start, I64(8)), b.mul(number, I64(length))))
        return b.inttoptr(address, ir.ArrayType(ir.IntType(8), length).as_pointer())

    return make_operation(8, 1, "tables start number", emit, record(structure))


@per_instruction_set
def bound(function: FunctionType, size: int) -> Any:
    """A function of `fastconv.kernels` for elements of `size` bytes, compiled into its callers."""
    result = get_type_hints(function).get("return", type(None))
    integers = len(get_args(result))
    single = {type(None): types.void, Element: ELEMENT[size]}.get(result, types.int64)
    kind = types.UniTuple(types.int64, integers) if integers else single
    return inline(size, kind)(with_primitives(function, size))


def with_primitives(function: FunctionType, size: int) -> FunctionType:
    """The same function, with this machine's primitives and bound functions in place of the declared ones."""
    scope = dict(function.__globals__)
    own = primitives(size)
    for name in set(function.__code__.co_names) & set(scope):
        value = scope[name]
        if name in own:
            scope[name] = own[name]
        elif inspect.isfunction(value):
            result = get_type_hints(value).get("return")
            scope[name] = _row_of(result) if hasattr(result, "_fields") else bound(value, size)
    copy = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
    copy.__qualname__ = function.__qualname__
    return copy


@per_instruction_set
def compiled_pass(driver: FunctionType, size: int) -> Any:
    """The pass of a driver for elements of `size` bytes."""
    structure = get_type_hints(driver)[next(iter(inspect.signature(driver).parameters))]
    return all_items(driver.__name__, size, bound(driver, size), structure_at(structure), dtype_of(structure).itemsize)
