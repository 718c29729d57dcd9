"""The constants that `python -m fastconv warmup --measure` found on this machine, kept beside the compiled functions.

There is one file for each kind of processor, as a home may be shared by several machines:

    {"version": ..., "processor": ..., "time": ..., "engine": ..., "constants": {layout: {name: number}}}

A file that is missing, damaged, of another version or with a number out of its bounds is passed over, with a line in
the log: then the constants that fastconv comes with are in force.
"""

import logging
import math
import pathlib
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from fastconv.backends import cache_directory
from fastconv.backends.contract import Layout
from fastconv.problem import process, processors
from fastconv.problem.cache_sizes import cache_sizes
from fastconv.version import __version__

#: Increased when the meaning of a measured number changes within a version.
_FORMAT = 1
VERSION = f"{__version__}, format {_FORMAT}"

_log = logging.getLogger("fastconv")


class Measured(NamedTuple):
    """What was measured: when, with whose kernels, and constants by `key` of a layout and name."""

    version: str
    processor: str
    time: str
    engine: str
    constants: Mapping[str, Mapping[str, float]]


def key(layout: Layout) -> str:
    """The name of a layout in the file."""
    return ",".join(map(str, layout)).replace(" ", "")


def processor() -> str:
    """The processor as its system describes it, with its caches."""
    caches = cache_sizes()
    return f"{processors.name()}; {caches.level2} and {caches.last} bytes of cache"


def paths() -> list[pathlib.Path]:
    """The paths where the file of this processor may be, in order."""
    name = f"costs-{zlib.crc32(processor().encode()):08x}.json"
    return [root / name for root in cache_directory.roots()]


def load(bounds: Mapping[str, tuple[float, float]]) -> Measured | None:
    """What was measured on this processor, if there is a file with numbers within `bounds`."""
    for path in paths():
        try:
            with cache_directory.opened(path) as file:
                return _checked(_parsed(file.read()), bounds)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except Exception as error:  # whatever is in the file, or wrong with it
            _log.info("measured constants are not taken from %s: %s: %s", path, type(error).__name__, error)
    return None


def _parsed(content: bytes) -> Measured:
    # Here, as `import fastconv` and a first call without such a file are to be fast. A fork waits for it, as a forked
    # child would wait for ever for an import that another thread of its parent had begun.
    with process.once:
        import json

    return Measured(**json.loads(content))


def _checked(measured: Measured, bounds: Mapping[str, tuple[float, float]]) -> Measured:
    """Raise `ValueError` if another version or processor wrote it, or if a number is out of its bounds."""
    for name, expected in (("version", VERSION), ("processor", processor())):
        if getattr(measured, name) != expected:
            raise ValueError(f"its {name} is {getattr(measured, name)!r}, not {expected!r}")
    for of_layout in measured.constants.values():
        for name, value in of_layout.items():
            least, most = bounds[name]
            if not (math.isfinite(value) and least <= value <= most):
                raise ValueError(f"{name} is {value}, not between {least} and {most}")
    return measured


def keep(measured: Measured) -> pathlib.Path:
    """Write the file of this processor; returns its path. Raises `OSError` if no directory takes it."""
    import json

    found = paths()
    content = json.dumps(measured._asdict(), indent=1).encode()
    return cache_directory.keep((path.parent for path in found), found[0].name if found else "", content)
