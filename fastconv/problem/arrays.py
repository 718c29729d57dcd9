"""Turns what a caller passed into NumPy arrays that engines can use, and checks dtypes and `out`."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from fastconv.problem import parameters
from fastconv.problem.errors import ArgumentError, DTypeError, ShapeError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

#: Levels of nested lists that are searched for masked arrays: one more than any array here has axes.
_DEEPEST = 5

#: Kinds of dtype that are numbers: signed and unsigned integers, floats, complex.
_NUMBERS = "iufc"


def as_array(name: str, value: Any) -> Array:
    """`value` as an array of numbers; not a copy if it is an array already or shares its memory (DLPack).

    Only the numbers count:

    subclasses of `numpy.ndarray`  (matrix, memmap, arrays with units) are used as their plain data
    masked arrays                  are used as their data if nothing is masked; else they are refused, inside lists
                                   too, as the numbers behind a mask mean nothing
    tables, tensors, others        are converted by NumPy or DLPack. They are refused if the result is not an array of
                                   numbers (objects, records, sparse matrices), or if the conversion raises (tensors
                                   that need a gradient, have a conjugate bit or are on another device)

    Raises `ArgumentError` if it cannot be read or is masked, `DTypeError` if it holds no numbers.
    """
    if type(value) is np.ndarray and value.dtype.kind == "f":
        return value
    try:
        if hasattr(value, "__array__"):
            array = np.asanyarray(value)
            is_masked = _is_masked(array)
        elif hasattr(value, "__dlpack__"):
            array, is_masked = np.from_dlpack(value), False
        else:
            is_masked = _holds_masked(value)
            with np.errstate(all="ignore"):  # numbers of several dtypes in a list are cast
                array = np.asarray(() if is_masked else value)
    except Exception as error:  # any error of a foreign array type: the message says which argument it was
        raise ArgumentError(f"{name} could not be read as an array: {error}") from error
    if is_masked:
        raise ArgumentError(f"{name} has masked elements, which have no numbers: fill them first, as with filled(0)")
    if array.dtype.kind not in _NUMBERS and array.dtype.kind != "b":
        what = "" if hasattr(value, "dtype") else f" of a {type(value).__name__}"
        hint = "; make it dense first, with toarray()" if hasattr(value, "toarray") else ""
        raise DTypeError(f"{name} must hold numbers, not dtype {array.dtype}{what}{hint}")
    return np.asarray(array)


def _is_masked(array: Array) -> bool:
    """Whether `array` is a masked array with something masked."""
    if type(array) is np.ndarray or "numpy.ma" not in sys.modules:  # NumPy imports it on first use
        return False
    return bool(np.ma.is_masked(array))


def _holds_masked(value: Any) -> bool:
    """Whether nested lists, tuples or other sequences hold a masked array with something masked."""
    if "numpy.ma" not in sys.modules:
        return False
    level = [value]
    for _ in range(_DEEPEST):
        kinds = set(map(type, level))  # mostly a single type
        if any(issubclass(kind, np.ndarray) for kind in kinds) and any(map(np.ma.is_masked, level)):
            return True
        if not any(map(_is_nested, kinds)):
            break
        nested = level if kinds <= {list, tuple} else [item for item in level if _is_nested(type(item))]
        level = list(itertools.chain.from_iterable(nested))
    return False


def _is_nested(kind: type) -> bool:
    """Whether values of this type are sequences of numbers, or of sequences."""
    return issubclass(kind, Sequence) and not issubclass(kind, str | bytes | bytearray | memoryview)


def common_dtype(**arrays: Array | None) -> np.dtype[Any]:
    """The dtype of a result, `numpy.result_type` of the arguments, in native byte order.

    >>> import numpy as np
    >>> common_dtype(input=np.ones(2, np.float16), weight=np.ones(2, np.float32), bias=None)
    dtype('float32')
    """
    dtypes = {array.dtype for array in arrays.values() if array is not None}
    if len(dtypes) == 1 and (only := dtypes.pop()).kind == "f" and only.isnative:
        return only
    given = {name: array for name, array in arrays.items() if array is not None}
    return check_numbers(" and ".join(given), np.result_type(*(array.dtype for array in given.values())))


def check_numbers(name: str, dtype: Any) -> np.dtype[Any]:
    """`dtype` in native byte order; raises `DTypeError` if it is not a dtype of numbers."""
    try:
        given: np.dtype[Any] = np.dtype(dtype)
        native = given if given.isnative else given.newbyteorder("=")  # which makes another object, slower to compare
    except Exception:  # NumPy may raise anything when it parses a string
        raise DTypeError(f"{name} must be a dtype of numbers, not {parameters.shown(dtype)}") from None
    if native.kind == "b":
        raise DTypeError(f"{name}: booleans alone cannot be convolved; cast one of them to a number")
    if native.kind not in _NUMBERS:
        raise DTypeError(f"{name} must be a dtype of numbers, not {native}")
    return native


def compute_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype to compute in: float32 for float16, which is rounded once at the end, otherwise `dtype` itself."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def cast(array: Array, dtype: np.dtype[Any]) -> Array:
    """`array` in `dtype`; a copy only if the dtype differs.

    Overflow, underflow and signalling NaNs raise nothing, whatever `numpy.seterr` says.
    """
    if array.dtype == dtype:
        return array
    with np.errstate(all="ignore"):
        return array.astype(dtype)


def prepared(array: Array, dtype: np.dtype[Any]) -> Array:
    """`array` in the native `dtype`, aligned, with any strides; a copy only if necessary."""
    array = cast(array, dtype)
    return array if array.flags.aligned else array.copy()


def check_shape(name: str, array: Array, shape: tuple[int, ...], origin: str) -> None:
    """Raise `ShapeError` unless `array` has `shape`, which `origin` explains."""
    if array.shape != shape:
        raise ShapeError(f"{name} must have shape {shape}, {origin}, not {array.shape}")


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise unless `out` is an array that can take a result of `shape` and `dtype`."""
    if not isinstance(out, np.ndarray):
        raise ArgumentError(f"out must be a numpy.ndarray, not a {type(out).__name__}")
    check_shape("out", out, shape, "the result's")
    if out.dtype != dtype:
        raise DTypeError(f"out must have the result's dtype, {dtype}, not {out.dtype}")
    check_writeable("out", out)


def check_writeable(name: str, array: Array) -> None:
    """Raise `ArgumentError` unless `array` can be written."""
    if _is_masked(array):
        raise ArgumentError(f"{name} must have no masked elements: what is written there would stay hidden")
    if not array.flags.writeable:
        raise ArgumentError(f"{name} must be writeable, and it is read-only")
    if _may_overlap_itself(array):
        raise ArgumentError(f"{name} must not overlap itself in memory, as it may with strides {array.strides}")


def _may_overlap_itself(array: Array) -> bool:
    """Whether two elements may share memory. Not if each stride is at least the extent of all smaller ones, as in every
    slice or transposition of an ordinary array, or if there is no element."""
    if not array.size:
        return False
    reach = array.itemsize
    for stride, length in sorted(
        (abs(stride), length) for stride, length in zip(array.strides, array.shape, strict=True)
    ):
        if length > 1:
            if stride < reach:
                return True
            reach += stride * (length - 1)
    return False
