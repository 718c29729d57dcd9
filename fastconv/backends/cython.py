"""The Cython engine: passes over tiles, compiled when the package is built, for each instruction set of the platform.

The kernels are C (`_cython/*.h`, over one vocabulary of vector words), the threads are OpenMP's where the compiler had
it. They follow the same plans as the Numba engine's, and the same order of additions: on one instruction set both give
the same bits.
"""

from __future__ import annotations

import importlib
import pathlib
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from fastconv.backends.contract import FloatMode, Layout, Plan
from fastconv.backends.instruction_set import OnInstructionSet
from fastconv.backends.workspace import Rooms, workers_of
from fastconv.kernels import drivers
from fastconv.problem.arrays import Array
from fastconv.problem.errors import BackendUnavailableError

#: Where the build leaves the compiler's reason, if it could not make the module. In a frozen program there is no file.
REASON = pathlib.Path(globals().get("__file__", "")).parent.parent / "_tiles.txt"


class CythonEngine(OnInstructionSet):
    """Float32 and float64 over tiles; the passes are those of `backends.contract.TileEngine`.

    Raises `BackendUnavailableError` if the compiled module is not there, with the compiler's reason, or is of another
    version.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            self._tiles = importlib.import_module("fastconv._tiles")
        except ImportError as error:
            raise BackendUnavailableError(_why_not(error)) from error
        if drivers.signature() != self._tiles.SIGNATURE:
            raise BackendUnavailableError("its compiled module is of another version; install fastconv anew")
        self._rooms = Rooms()
        self.float_mode = FloatMode(self._tiles.switch, self._tiles.FLUSH) if self._tiles.FLUSH else None

    def unsupported(self, dtype: np.dtype[Any]) -> str | None:
        """Everything but float32 and float64."""
        return None if dtype.char in "fd" else "it computes in float32 and float64"

    def layout(self, itemsize: int) -> Layout:
        """Lanes and tiles of this machine; raises `ArgumentError` if `FASTCONV_ISA` names what it has not."""
        return self.instructions.layout(itemsize)

    def prepared(self, plan: Plan, threads: int) -> Callable[[Array, Array, Array | None, Array], None]:
        """The pass of a plan over arrays in C order."""
        room = self._rooms.room
        workers = workers_of(plan, threads) if self._tiles.HAS_THREADS else 1
        compute = self._tiles.Pass(self.instructions.name, plan.name, plan.itemsize, plan.vector, plan.tables)
        size = (plan.workspace * workers + 16) * plan.itemsize

        def run(source: Array, factor: Array, bias: Array | None, out: Array) -> None:
            own = room(size, workers)
            compute(source, factor, bias, out, own[2], own[3], workers)

        return run

    def instruction_sets(self) -> tuple[str, ...]:
        """Those that it was compiled for and this processor has, the best first."""
        return self._tiles.instruction_sets()  # type: ignore[no-any-return]

    def details(self) -> str:
        """What it runs on, for `fastconv info`."""
        threads = "OpenMP" if self._tiles.HAS_THREADS else "none, as its compiler had no OpenMP"
        return f"{self.instructions.name} (of {', '.join(self.instruction_sets())}), threads: {threads}"


def _why_not(error: ImportError) -> str:
    """Why the compiled module is not there: what the build left beside where it would be, or the loader's reason."""
    try:
        # the package may be inside of an archive, out of which its loader reads
        said = cast("Any", __spec__).loader.get_data(str(REASON)).decode(errors="replace")
    except (OSError, AttributeError):
        return f"its compiled module does not load: {error}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return f"it was not compiled when fastconv was installed: {'; '.join(lines[:8])}"
