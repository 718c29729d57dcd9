"""Arrays at the border: what a person passed becomes NumPy arrays that the floors below can take as they are."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastconv.ground.errors import ArgumentError, DTypeError, ShapeError

Array: TypeAlias = NDArray[Any]

#: Kinds of dtype that are numbers: signed and unsigned integers, floats, complex.
_NUMBERS = "iufc"


def as_array(name: str, value: Any) -> Array:
    """`value` as an array of numbers, without a copy where it is one already or shares its memory (DLPack).

    Raises `ArgumentError` if it cannot be read, `DTypeError` if it holds no numbers.
    """
    if type(value) is np.ndarray and value.dtype.kind == "f":
        return value
    try:
        if hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray) and not hasattr(value, "__array__"):
            array = np.from_dlpack(value)
        else:
            array = np.asarray(value)
    except Exception as error:  # whatever a foreign array type raises, the caller should learn which argument it was
        raise ArgumentError(f"{name} could not be read as an array: {error}") from error
    if array.dtype.kind not in _NUMBERS and array.dtype.kind != "b":
        what = "" if hasattr(value, "dtype") else f" of a {type(value).__name__}"
        raise DTypeError(f"{name} must hold numbers, not dtype {array.dtype}{what}")
    return array


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
    """`dtype` as one of numbers in native byte order; raises `DTypeError` if it is none."""
    try:
        native: np.dtype[Any] = np.dtype(dtype).newbyteorder("=")
    except TypeError as error:
        raise DTypeError(f"{name} must be a dtype of numbers: {error}") from None
    if native.kind == "b":
        raise DTypeError(f"{name}: booleans alone cannot be convolved; cast one of them to a number")
    if native.kind not in _NUMBERS:
        raise DTypeError(f"{name} must be a dtype of numbers, not {native}")
    return native


def compute_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype to compute in: float32 for float16, which is rounded once at the end, and else the dtype itself."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def prepared(array: Array, dtype: np.dtype[Any]) -> Array:
    """`array` in the native `dtype`, aligned, of any strides; a copy only where it is not so already."""
    array = array.astype(dtype, copy=False)
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
    if not out.flags.writeable:
        raise ArgumentError("out must be writeable, and it is read-only")
    if _may_overlap_itself(out):
        raise ArgumentError(f"out must not overlap itself in memory, as it may with strides {out.strides}")


def _may_overlap_itself(array: Array) -> bool:
    """Whether two elements may share memory: true unless each stride steps over all that the smaller ones reach,
    which holds for every slice and transposition of an ordinary array."""
    reach = array.itemsize
    for stride, length in sorted(
        (abs(stride), length) for stride, length in zip(array.strides, array.shape, strict=True)
    ):
        if length > 1:
            if stride < reach:
                return True
            reach += stride * (length - 1)
    return False
