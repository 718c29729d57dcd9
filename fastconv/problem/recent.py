"""A mapping of bounded size that keeps what was used last."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """Keeps the values of at least the `size` keys that were used last, and of at most twice as many.

    There are two generations of entries. A key is written to the new one; when that is full, it becomes the old one,
    and what was the old one is dropped. A key that is found in the old generation moves to the new one. So the usual
    hit is one lookup in a dictionary, without a lock and without writing, and takes as long as with a plain dictionary.
    `functools.lru_cache` takes longer, and cannot look a key up without computing its value.

    Threads may use it at once. Those that find the new generation full at the same time replace the same one; what one
    of them wrote meanwhile may be lost, and is then computed again.
    """

    __slots__ = ("_old", "_size", "new")

    def __init__(self, size: int) -> None:
        self._size = size
        #: The new generation. A caller in a hurry may look here first, and call `get` if the key is not there.
        self.new: dict[Any, T] = {}
        self._old: dict[Any, T] = {}

    def get(self, key: Any) -> T | None:
        """The value of a key; None if it is not there."""
        value = self.new.get(key)
        if value is None and (value := self._old.get(key)) is not None:
            self[key] = value
        return value

    def __setitem__(self, key: Any, value: T) -> None:
        new = self.new
        if len(new) >= self._size:
            self._old, self.new = new, {}
        self.new[key] = value

    def __len__(self) -> int:
        return len(self.new.keys() | self._old.keys())

    def clear(self) -> None:
        """Drop everything."""
        self.new, self._old = {}, {}
