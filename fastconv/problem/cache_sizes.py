"""The sizes of this processor's data caches, as the system describes them.

Linux tells by sysfs, macOS by sysctl, Windows by kernel32. Reading never fails: what is not told has a default.
"""

import ctypes
import functools
import pathlib
import struct
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

#: Where Linux describes the caches of the first processor.
_SYSFS = pathlib.Path("/sys/devices/system/cpu/cpu0")
#: SYSTEM_LOGICAL_PROCESSOR_INFORMATION of a 64-bit system: mask, relationship; level, associativity, line, size, type.
_RECORD = struct.Struct("=QI4xBBHII4x")
_RELATION_CACHE, _INSTRUCTION = 2, 1
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


class CacheSizes(NamedTuple):
    """Bytes of the data caches.

    level2   of one core; its part, where several cores share one
    last     of the last level, which several cores may share
    """

    level2: int
    last: int


#: Zen 5, on which the constants were tuned.
DEFAULT = CacheSizes(2**20, 2**25)


@functools.cache
def cache_sizes() -> CacheSizes:
    """Those of this machine, read at the first call."""
    readers: dict[str, Callable[[], CacheSizes]] = {"linux": from_sysfs, "darwin": from_sysctl, "win32": from_windows}
    reader = readers.get(sys.platform)
    try:
        return reader() if reader else DEFAULT
    except Exception:  # whatever a system says that nobody expects: sizes decide about speed alone
        return DEFAULT


def _sizes(levels: dict[int, int], core_level2: int | None = None) -> CacheSizes:
    """The sizes from bytes by level; without a third level the whole second one is the last."""
    level2 = core_level2 or levels.get(2) or DEFAULT.level2
    last = levels[max(levels)] if levels and max(levels) > 1 else DEFAULT.last
    return CacheSizes(level2, max(level2, last))


def from_sysfs(cpu: pathlib.Path = _SYSFS) -> CacheSizes:
    """Those that a folder of sysfs describes."""
    levels: dict[int, int] = {}
    cores = 1
    folder = cpu / "cache"
    for index in sorted(folder.iterdir()) if folder.is_dir() else ():  # what is no cache has no size
        level = int(_read(index / "level") or 0)
        size = _bytes(_read(index / "size")) if level > 1 else 0  # nothing follows the first level
        if size and _read(index / "type") != "Instruction":
            levels[level] = size
            if level == 2:
                siblings = _read(cpu / "topology/thread_siblings_list")
                cores = max(1, _count(_read(index / "shared_cpu_list")) // max(1, _count(siblings)))
    return _sizes(levels, levels[2] // cores if 2 in levels else None)


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _bytes(size: str) -> int:
    """A size such as 1024K; 0 for anything else."""
    number, unit = (size[:-1], size[-1:]) if size[-1:].isalpha() else (size, "")
    return int(number) * _UNITS[unit] if number.isdecimal() and unit in _UNITS else 0


def _count(cpus: str) -> int:
    """How many processors a list such as 0-3,8 names; 0 for what is no list."""
    count = 0
    for part in cpus.split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and (not last or last.isdecimal()):
            count += int(last or first) - int(first) + 1
    return count


def from_sysctl(ask: Callable[[str], int] | None = None) -> CacheSizes:
    """Those that macOS tells of its performance cores, or of all cores; `ask` gives 0 for a name that is unknown."""
    ask = ask or _sysctl
    level2 = ask("hw.perflevel0.l2cachesize") or ask("hw.l2cachesize")
    levels = {level: size for level, size in ((2, level2), (3, ask("hw.l3cachesize"))) if size}
    return _sizes(levels, level2 // max(1, ask("hw.perflevel0.cpusperl2")))


def _sysctl(name: str) -> int:
    value, size = ctypes.c_uint64(0), ctypes.c_size_t(8)
    library = ctypes.CDLL(None)
    failed = library.sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0))
    return 0 if failed else value.value


def from_windows() -> CacheSizes:
    """Those that Windows describes."""
    kernel32: Any = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore]
    length = ctypes.c_uint32(0)
    kernel32.GetLogicalProcessorInformation(None, ctypes.byref(length))
    buffer = ctypes.create_string_buffer(length.value)
    if not kernel32.GetLogicalProcessorInformation(buffer, ctypes.byref(length)):
        return DEFAULT
    return from_records(buffer.raw[: length.value])


def from_records(records: bytes) -> CacheSizes:
    """Those that the records of `GetLogicalProcessorInformation` describe: the first cache of each level."""
    levels: dict[int, int] = {}
    for _, relationship, level, _, _, size, kind in _RECORD.iter_unpack(records):
        if relationship == _RELATION_CACHE and kind != _INSTRUCTION and size:
            levels.setdefault(level, size)
    return _sizes(levels)
