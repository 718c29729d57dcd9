"""Arrays that stand flush against pages which nobody may touch: an access outside one ends the process."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

_libc = ctypes.CDLL(None, use_errno=True)


def guarded(shape, dtype, at_end: bool) -> np.ndarray:
    """An array of zeros between two protected pages, its last byte before the second or its first after the first."""
    dtype = np.dtype(dtype)
    page = mmap.PAGESIZE
    size = int(np.prod(shape)) * dtype.itemsize
    inner = -(-max(size, 1) // page) * page
    area = mmap.mmap(-1, inner + 2 * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    for protected in (start, start + page + inner):
        if _libc.mprotect(ctypes.c_void_p(protected), ctypes.c_size_t(page), mmap_none):
            raise OSError(ctypes.get_errno(), "mprotect")
    offset = page + (inner - size if at_end else 0)
    return np.frombuffer(area, np.uint8, size, offset).view(dtype).reshape(shape)


mmap_none = 0  # PROT_NONE


def copied(array, at_end: bool) -> np.ndarray:
    """A copy of `array` in C order between protected pages."""
    copy = guarded(array.shape, array.dtype, at_end)
    copy[...] = array
    return copy
