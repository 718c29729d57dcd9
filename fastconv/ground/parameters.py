"""What a person may write for a stride, a dilation, a padding or a size, turned into plain integers.

Every function takes the argument's name, so that a message can say which argument was wrong.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from fastconv.ground.errors import ArgumentError, one_of

#: Per spatial axis, the padding before and after it.
Pads: TypeAlias = tuple[tuple[int, int], ...]
#: The paddings that have a name. `same` puts the odd one at the end, `same_lower` at the start.
NamedPadding: TypeAlias = Literal["valid", "same", "same_lower"]
PaddingMode: TypeAlias = Literal["zeros", "reflect", "replicate", "circular"]

#: Bound of one parameter. The engines hold positions on an axis in 64 bits as the sum of products of two
#: parameters, each below 2**31, so that none can wrap.
LIMIT = 2**31 - 1

_AXES = {1: "(width,)", 2: "(height, width)"}


def integer(name: str, value: Any, least: int, most: int = LIMIT) -> int:
    """`value` as a Python integer from `least` to `most`; booleans and fractions are refused."""
    if isinstance(value, bool | np.bool_):
        raise ArgumentError(f"{name} must be an integer, not the boolean {value}")
    try:
        number = operator.index(value)
    except TypeError:
        raise ArgumentError(f"{name} must be an integer, not {value!r}") from None
    if not least <= number <= most:
        bound = f"at least {least}" if number < least else f"at most {most}"
        raise ArgumentError(f"{name} must be {bound}, not {number}")
    return number


def _items(name: str, value: Any, form: str) -> list[Any] | None:
    """The items of a sequence; None if `value` is a single number."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, str | bytes):
        raise ArgumentError(f"{name} must be {form}, not {value!r}")
    if isinstance(value, Sequence):
        return list(value)
    if hasattr(value, "__iter__") and not hasattr(value, "__index__"):
        raise ArgumentError(f"{name} must be {form}, not a {type(value).__name__}")
    return None


def per_axis(name: str, value: Any, spatial: int, least: int) -> tuple[int, ...]:
    """One integer for each of the `spatial` axes, from an integer (or a sequence of one) or a sequence."""
    form = f"an integer or {_AXES[spatial]}"
    items = _items(name, value, form)
    if items is None:
        items = [value]
    if len(items) == 1:
        items *= spatial
    if len(items) != spatial:
        raise ArgumentError(f"{name} must be {form}, not {len(items)} values: {value!r}")
    return tuple(integer(name, item, least) for item in items)


def sizes(name: str, value: Any, lengths: tuple[int, ...], form: str) -> tuple[int, ...]:
    """The non-negative integers of a size such as `input_size`; `form` shows how it is written."""
    items = _items(name, value, form)
    if items is None or len(items) not in lengths:
        raise ArgumentError(f"{name} must be {form}, not {value!r}")
    return tuple(integer(name, item, 0, 2**63 - 1) for item in items)


def padding(value: Any, spatial: int) -> NamedPadding | Pads:
    """A padding: an integer, one an axis, (before, after) for each axis, or one of the names."""
    name = "padding"
    if isinstance(value, str):
        if value not in get_args(NamedPadding):
            raise ArgumentError(f"padding={value!r} is no padding: {one_of(value, get_args(NamedPadding))}")
        return value  # type: ignore[return-value]
    both = {1: "((left, right),)", 2: "((top, bottom), (left, right))"}[spatial]
    form = f"an integer, {_AXES[spatial]}, {both}, 'valid', 'same' or 'same_lower'"
    items = _items(name, value, form)
    if items is not None and any(_items(name, item, form) is not None for item in items):
        pairs = [_items(name, item, form) for item in items]
        if len(pairs) != spatial or any(pair is None or len(pair) != 2 for pair in pairs):
            raise ArgumentError(f"padding must be {form}, not {value!r}")
        return tuple((integer(name, pair[0], 0), integer(name, pair[1], 0)) for pair in pairs if pair)
    if items is not None and len(items) == 2 * spatial:
        raise ArgumentError(f"padding must be {form}: write the {2 * spatial} numbers of {value!r} as {both}")
    return tuple((pad, pad) for pad in per_axis(name, value, spatial, 0))


def padding_mode(value: Any) -> PaddingMode:
    """One of the padding modes."""
    if not isinstance(value, str) or value not in get_args(PaddingMode):
        raise ArgumentError(f"padding_mode={value!r} is no mode: {one_of(value, get_args(PaddingMode))}")
    return value  # type: ignore[return-value]
