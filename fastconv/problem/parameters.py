"""Parses strides, dilations, paddings and sizes, in every form that a caller may write, into plain integers.

Every function takes the argument's name, so that a message can say which argument was wrong.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from fastconv.problem.errors import ArgumentError, one_of

#: Per spatial axis, the padding before and after it.
Pads: TypeAlias = tuple[tuple[int, int], ...]
#: The paddings that have a name. `same` puts an odd pixel at the end, `same_lower` at the start.
NamedPadding: TypeAlias = Literal["valid", "same", "same_lower"]
PaddingMode: TypeAlias = Literal["zeros", "reflect", "replicate", "circular"]
#: The order of a map's axes: (N, C, H, W) or (N, H, W, C).
DataFormat: TypeAlias = Literal["channels_first", "channels_last"]

#: The largest value of a parameter. Engines compute positions on an axis in 64 bits, as sums of products of two
#: parameters, which cannot overflow if each is below 2**31.
LIMIT = 2**31 - 1

#: Bytes of the largest element that NumPy has (complex long double).
_ELEMENT = 32

#: Types whose values are equal only if they mean the same.
PLAIN = frozenset((int, str, type(None)))
#: The most items of a sequence that is read as a parameter; no valid one has more than five.
_MOST_ITEMS = 16

#: Digits, at most, of a number that is read from a text; 64 bits hold it.
_MOST_DIGITS = 18

#: The most characters of a value in a message.
_LINE = 100

_AXES = {1: "(width,)", 2: "(height, width)"}


def fits_64_bits(shape: Sequence[int]) -> bool:
    """Whether an array of `shape`, of the largest elements and not counting that it may be empty, has a size in bytes
    that 64 bits hold."""
    return math.prod(max(1, length) for length in shape) * _ELEMENT < 2**63


def plain(values: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """`values` as Python integers, strings, None and tuples of these, for use as a cache key.

    Lists, arrays and NumPy integers become the tuples and integers that mean the same. None if there is any other
    value, such as 1.0 or True: they are invalid, but compare equal to 1 in Python.

    >>> import numpy as np
    >>> plain(([1, 2], np.int64(3), "same", None)), plain((1.0,)), plain(([True, 1],))
    (((1, 2), 3, 'same', None), None, None)
    """
    try:
        return tuple([value if type(value) in PLAIN else _plain(value, 2) for value in values])
    except (TypeError, OverflowError):  # len() may overflow
        return None


def _plain(value: Any, depth: int) -> Any:
    """`plain` of one value with at most `depth` levels of sequences; raises `TypeError` where `plain` gives None."""
    kind = type(value)
    if kind is not tuple and kind is not list:
        if isinstance(value, np.integer):
            return int(value)
        if isinstance(value, np.ndarray) and 1 <= value.ndim <= depth and value.size <= _MOST_ITEMS:
            return _plain(value.tolist(), depth)
        if isinstance(value, str):
            return str.__str__(value)
        if _is_boolean(value) or isinstance(value, bytes):
            raise TypeError
        if not isinstance(value, Sequence):
            return operator.index(value)
    if not depth or len(value) > _MOST_ITEMS:
        raise TypeError
    if PLAIN.issuperset(map(type, value)):
        return tuple(value)
    return tuple([item if type(item) in PLAIN else _plain(item, depth - 1) for item in value])


def _is_boolean(value: Any) -> bool:
    """Whether `value` is a boolean of Python's or NumPy's, or a tensor whose dtype has such a name."""
    return isinstance(value, bool | np.bool_) or str(getattr(value, "dtype", "")).endswith("bool")


def shown(value: Any) -> str:
    """`value` as text for a message: an array by its shape, anything else cut to one line."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    try:
        text = repr(value)
    except Exception:  # for instance an integer inside with more digits than Python converts
        return f"a {type(value).__name__} that cannot be written"
    return text if len(text) <= _LINE else f"{text[:_LINE]}..."


def written(text: str) -> str:
    """The text of a variable for a message: unchanged if it is short and printable, else as `shown`."""
    return text if text.isprintable() and len(text) <= _LINE else shown(text)


def count(text: str) -> int | None:
    """The number in the text of an environment variable: ASCII digits, perhaps with blanks around them.

    None for anything else. `str.isdigit` and `int` accept more than that (superscripts, digits of other scripts,
    underscores), and `int` raises beyond some thousand digits.

    >>> count("4"), count("+4"), count("²"), count("4,2".partition(",")[0])
    (4, None, None, 4)
    """
    digits = text.strip(" \t\r\n")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS else None


def integer(name: str, value: Any, least: int, most: int = LIMIT, form: str = "an integer", whole: Any = None) -> int:
    """`value` as a Python integer from `least` to `most`; booleans and fractions are refused.

    For messages, `form` describes what the argument may be, and `whole` is the argument that contains `value`.
    """
    if _is_boolean(value):
        raise ArgumentError(f"{name} must be {form}, not the boolean {value}")
    try:
        number = operator.index(value)
    except TypeError:
        raise ArgumentError(f"{name} must be {form}, not {shown(value if whole is None else whole)}") from None
    if not least <= number <= most:
        bound = f"at least {least}" if number < least else f"at most {most}"
        raise ArgumentError(f"{name} must be {bound}, not {shown(number)}")
    return number


def _items(name: str, value: Any, form: str) -> list[Any] | None:
    """The items of a sequence; None if `value` is a single number."""
    if isinstance(value, np.ndarray) and value.ndim <= 2 and value.size <= _MOST_ITEMS:
        value = value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        items = list(itertools.islice(value, _MOST_ITEMS + 1))
        if len(items) > _MOST_ITEMS:
            raise ArgumentError(f"{name} must be {form}, not {shown(value)}")
        return items
    if isinstance(value, str | bytes) or (hasattr(value, "__iter__") and not hasattr(value, "__index__")):
        raise ArgumentError(f"{name} must be {form}, not {shown(value)}")
    return None


def per_axis(name: str, value: Any, spatial: int, least: int, form: str | None = None) -> tuple[int, ...]:
    """One integer for each of the `spatial` axes, from one integer for all or from a sequence."""
    form = form or f"an integer or {_AXES[spatial]}"
    items = _items(name, value, form)
    if items is None:
        items = [value]
    if len(items) == 1:
        items *= spatial
    if len(items) != spatial:
        raise ArgumentError(f"{name} must be {form}, not {len(items)} values: {shown(value)}")
    return tuple(integer(name, item, least, form=form, whole=value) for item in items)


def sizes(name: str, value: Any, lengths: tuple[int, ...], form: str) -> tuple[int, ...]:
    """The non-negative integers of a size such as `input_size`; `form` describes it in messages."""
    if isinstance(value, np.ndarray) and value.ndim != 1:
        raise ArgumentError(f"{name} must be {form}, not {shown(value)}")
    items = _items(name, value, form)
    if items is None:
        raise ArgumentError(f"{name} must be {form}, not {shown(value)}")
    numbers = tuple(integer(name, item, 0, 2**63 - 1, form, value) for item in items)
    if len(numbers) not in lengths:
        of_last = f"; its last are {numbers[-max(lengths) :]}" if len(numbers) > max(lengths) else ""
        raise ArgumentError(f"{name} must be {form}, not {shown(value)}{of_last}")
    return numbers


def padding(value: Any, spatial: int) -> NamedPadding | Pads:
    """A padding: one integer, one for each axis, (before, after) for each axis, or a name."""
    if isinstance(value, str):
        if value not in get_args(NamedPadding):
            raise ArgumentError(f"padding={shown(value)} is no padding: {one_of(value, get_args(NamedPadding))}")
        return value  # type: ignore[return-value]
    both = {1: "((left, right),)", 2: "((top, bottom), (left, right))"}[spatial]
    form = f"an integer, {_AXES[spatial]}, {both}, 'valid', 'same' or 'same_lower'"
    items = _items("padding", value, form)
    if items is not None and any(_items("padding", item, form) is not None for item in items):
        pairs = [_items("padding", item, form) for item in items]
        if len(pairs) != spatial or any(pair is None or len(pair) != 2 for pair in pairs):
            raise ArgumentError(f"padding must be {form}, not {shown(value)}")
        before_after = [[integer("padding", pad, 0, form=form, whole=value) for pad in pair] for pair in pairs if pair]
        return tuple((before, after) for before, after in before_after)
    if items is not None and len(items) == 2 * spatial:
        raise ArgumentError(f"padding must be {form}: write the {2 * spatial} numbers of {shown(value)} as {both}")
    return tuple((pad, pad) for pad in per_axis("padding", value, spatial, 0, form))


def padding_mode(value: Any) -> PaddingMode:
    """One of the padding modes."""
    if not isinstance(value, str) or value not in get_args(PaddingMode):
        raise ArgumentError(f"padding_mode={shown(value)} is no mode: {one_of(value, get_args(PaddingMode))}")
    return value  # type: ignore[return-value]


def data_format(value: Any) -> DataFormat:
    """One of the orders of a map's axes."""
    if not isinstance(value, str) or value not in get_args(DataFormat):
        raise ArgumentError(f"data_format={shown(value)} is no data format: {one_of(value, get_args(DataFormat))}")
    return value  # type: ignore[return-value]
