"""The Cython engine: passes over tiles, compiled when the package is built, for each instruction set of the platform.

The micro-kernels are C (`_cython/*.h`), the drivers are printed as C from `fastconv.kernels`, and the threads are
OpenMP's if the compiler had it. Plans, drivers and the order of additions are those of the Numba engine, so on one
instruction set both engines give the same bits.
"""

from __future__ import annotations

import importlib
import pathlib
from typing import Any, cast

import numpy as np

from fastconv.backends.contract import FinishingRun, FloatMode, Layout, Plan
from fastconv.backends.instruction_set import OnInstructionSet
from fastconv.backends.workspace import Workspaces, workers_of
from fastconv.kernels import drivers
from fastconv.problem.arrays import Array
from fastconv.problem.errors import BackendUnavailableError

#: The file in which the build leaves the compiler's reason if the module does not compile. A frozen program has none.
REASON = pathlib.Path(globals().get("__file__", "")).parent.parent / "_tiles.txt"


class CythonEngine(OnInstructionSet):
    """A tile engine for float32 and float64, see `backends.contract.TileEngine`.

    The constructor raises `BackendUnavailableError` if the compiled module is missing, with the compiler's reason, or
    is of another version.
    """

    #: Its passes have an epilogue.
    finishes = True

    def __init__(self) -> None:
        super().__init__()
        try:
            self._tiles = importlib.import_module("fastconv._tiles")
        except ImportError as error:
            raise BackendUnavailableError(_why_not(error)) from error
        if drivers.signature() != self._tiles.SIGNATURE:
            raise BackendUnavailableError("its compiled module is of another version; install fastconv anew")
        self._workspaces = Workspaces()
        self.float_mode = FloatMode(self._tiles.switch, self._tiles.FLUSH) if self._tiles.FLUSH else None

    def unsupported(self, dtype: np.dtype[Any]) -> str | None:
        """Everything but float32 and float64."""
        return None if dtype.char in "fd" else "it computes in float32 and float64"

    def layout(self, itemsize: int) -> Layout:
        """The lanes and register tiles of the instruction set in use."""
        return self.instructions.layout(itemsize)

    def prepared(self, plan: Plan, threads: int) -> FinishingRun:
        """The pass of a plan over arrays in C order."""
        workspace = self._workspaces.workspace
        workers = workers_of(plan, threads) if self._tiles.HAS_THREADS else 1
        compute = self._tiles.Pass(self.instructions.name, plan.name, plan.itemsize, plan.vector, plan.tables)
        size = (plan.workspace * workers + 16) * plan.itemsize

        def run(
            source: Array, factor: Array, bias: Array | None, out: Array, residual: Array | None = None,
            slopes: Array | None = None, activation: int = 0,
        ) -> None:  # fmt: skip
            own = workspace(size, workers)
            compute(source, factor, bias, out, own[2], own[3], workers, residual, slopes, activation)

        return run

    def instruction_sets(self) -> tuple[str, ...]:
        """Those that the module was compiled for and this processor has, the best first."""
        return self._tiles.instruction_sets()  # type: ignore[no-any-return]

    def details(self) -> str:
        """What it runs on, for `fastconv info`."""
        threads = "OpenMP" if self._tiles.HAS_THREADS else "none, as its compiler had no OpenMP"
        return f"{self.instructions.name} (of {', '.join(self.instruction_sets())}), threads: {threads}"


def _why_not(error: ImportError) -> str:
    """Why the compiled module is missing: the reason that the build left in `REASON`, or else the loader's."""
    try:
        # the package may be inside an archive, which its loader reads
        said = cast("Any", __spec__).loader.get_data(str(REASON)).decode(errors="replace")
    except (OSError, AttributeError):
        return f"its compiled module does not load: {error}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return f"it was not compiled when fastconv was installed: {'; '.join(lines[:8])}"
