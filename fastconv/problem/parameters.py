"""What a person may write for a stride, a dilation, a padding or a size, turned into plain integers.

Every function takes the argument's name, so that a message can say which argument was wrong.
"""

from __future__ import annotations

import itertools
import math
import operator
import re
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from fastconv.problem.errors import ArgumentError, one_of

#: Per spatial axis, the padding before and after it.
Pads: TypeAlias = tuple[tuple[int, int], ...]
#: The paddings that have a name. `same` puts the odd one at the end, `same_lower` at the start.
NamedPadding: TypeAlias = Literal["valid", "same", "same_lower"]
PaddingMode: TypeAlias = Literal["zeros", "reflect", "replicate", "circular"]

#: Bound of one parameter. The engines hold positions on an axis in 64 bits as the sum of products of two
#: parameters, each below 2**31, so that none can wrap.
LIMIT = 2**31 - 1

#: Bytes of the largest element that NumPy has (complex long double).
_ELEMENT = 32

#: Types whose values are equal only if they mean the same.
PLAIN = frozenset((int, str, type(None)))
#: Of a sequence that is a parameter; a shape has five at most.
_MOST_ITEMS = 16

#: A number of at most 18 digits, which 64 bits hold.
_COUNT = re.compile(r"[ \t\r\n]*([0-9]{1,18})[ \t\r\n]*")

#: Characters of a value in a message.
_LINE = 100

_AXES = {1: "(width,)", 2: "(height, width)"}


def fits_64_bits(shape: Sequence[int]) -> bool:
    """Whether an array of `shape`, of the largest elements and not counting that it may be empty, has a size in bytes
    that 64 bits hold."""
    return math.prod(max(1, length) for length in shape) * _ELEMENT < 2**63


def plain(values: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """`values` as Python integers, texts and None, and tuples of these: a key under which what they gave is kept.

    Lists, arrays and NumPy integers mean the same as tuples and integers, so a call with either finds the other's
    result. None if there is anything else, such as 1.0 and True, which Python takes to be equal to 1 and which are
    errors.

    >>> import numpy as np
    >>> plain(([1, 2], np.int64(3), "same", None)), plain((1.0,)), plain(([True, 1],))
    (((1, 2), 3, 'same', None), None, None)
    """
    try:
        return tuple([value if type(value) in PLAIN else _plain(value, 2) for value in values])
    except (TypeError, OverflowError):  # an OverflowError is of a length
        return None


def _plain(value: Any, depth: int) -> Any:
    """One value of `plain`, which holds at most `depth` levels of sequences; raises `TypeError` for what is not one."""
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
    """Whether it is a boolean of Python's, of NumPy's, or of a library that names its dtypes alike (a tensor)."""
    return isinstance(value, bool | np.bool_) or str(getattr(value, "dtype", "")).endswith("bool")


def shown(value: Any) -> str:
    """`value` in a message: an array by its shape, and nothing longer than a line."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    try:
        text = repr(value)
    except Exception:  # such as an integer somewhere inside that has too many digits to be written
        return f"a {type(value).__name__} that cannot be written"
    return text if len(text) <= _LINE else f"{text[:_LINE]}..."


def written(text: str) -> str:
    """The text of a variable in a message: as it is if that is short and can be printed, or else as `shown`."""
    return text if text.isprintable() and len(text) <= _LINE else shown(text)


def count(text: str) -> int | None:
    """The number that the text of an environment variable writes: ASCII digits, with blanks around them at most.

    None for anything else. `str.isdigit` and `int` take more than people mean (superscripts, digits of other scripts,
    underscores), and `int` raises beyond some thousand digits.

    >>> count("4"), count("+4"), count("²"), count("4,2".partition(",")[0])
    (4, None, None, 4)
    """
    match = _COUNT.fullmatch(text)
    return None if match is None else int(match[1])


def integer(name: str, value: Any, least: int, most: int = LIMIT, form: str = "an integer", whole: Any = None) -> int:
    """`value` as a Python integer from `least` to `most`; booleans and fractions are refused.

    A message shows `form`, what the argument may be, and the `whole` argument that the value stands in.
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
    """One integer for each of the `spatial` axes, from an integer (or a sequence of one) or a sequence."""
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
    """The non-negative integers of a size such as `input_size`; `form` shows how it is written."""
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
    """A padding: an integer, one an axis, (before, after) for each axis, or one of the names."""
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
