"""`fastconv info`: everything that a report of a problem should hold."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Iterator

import numpy as np

from fastconv.choice import algorithms, backends, denormals, threads
from fastconv.choice.algorithms import ALGORITHMS
from fastconv.choice.backends import backend_reasons
from fastconv.engines.contract import float_mode
from fastconv.ground.errors import FastconvError
from fastconv.version import __version__

_OPTIONAL = ("numba", "scipy", "threadpoolctl", "scikit-learn", "matplotlib", "tqdm", "torch")
_VARIABLES = ("FASTCONV_BACKEND", "FASTCONV_ALGORITHM", "FASTCONV_NUM_THREADS", "FASTCONV_FLUSH_DENORMAL",
              "FASTCONV_CACHE_DIR", "FASTCONV_ISA", "OMP_NUM_THREADS")  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None: it tells everything."""


def run(options: argparse.Namespace) -> int:
    """Print the report, one fact a line under its heading."""
    for heading, facts in _report():
        print(heading)
        for name, fact in facts.items():
            print(f"  {name:<14} {fact}")
    return 0


def _report() -> Iterator[tuple[str, dict[str, str]]]:
    reasons = backend_reasons()
    yield f"fastconv {__version__}", {}
    yield "engines", {name: _engine(name) if reason is None else f"no: {reason}" for name, reason in reasons.items()}
    yield (
        "algorithms",
        {name: f"no: {algorithm}" if isinstance(algorithm, str) else "runs" for name, algorithm in ALGORITHMS.items()},
    )
    variables = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    yield (
        "chosen",
        {
            "backend": _checked(backends.current),
            "algorithm": _checked(algorithms.current),
            "denormals": _checked(lambda: _denormals(reasons)),
            **variables,
        },
    )
    yield (
        "machine",
        {
            "processor": f"{platform.machine()}, {os.cpu_count()} processors",
            "instructions": _instruction_sets(reasons),
            "threads": _checked(lambda: str(threads.get_num_threads())),
            "system": platform.platform(),
        },
    )
    yield "compiled part", {"compiler": _compiler()}
    yield "caches", _caches()
    yield (
        "versions",
        {
            "python": sys.version.split()[0],
            "numpy": f"{np.__version__}, BLAS {_blas()}",
            **{name: _version(name) for name in _OPTIONAL},
        },
    )


def _checked(fact: Callable[[], str]) -> str:
    """A fact, or what is wrong with it: a report is needed most where something is."""
    try:
        return fact()
    except FastconvError as error:
        return f"ERROR: {error}"


def _engine(name: str) -> str:
    """That it runs, and what it tells of itself."""
    details = getattr(backends.loaded(name), "details", None)
    return "runs" if details is None else _checked(lambda: f"runs: {details()}")


def _denormals(reasons: dict[str, str | None]) -> str:
    """Whether denormal numbers are flushed, and by which engines how."""
    if not denormals.get_flush_denormal():
        return "kept"
    running = [name for name, reason in reasons.items() if reason is None]
    by_processor = [name for name in running if float_mode(backends.loaded(name)) is not None]
    others = [name for name in running if name not in by_processor]
    ways = {"in every operation": by_processor, "in arrays and results alone": others}
    return "flushed " + ", ".join(f"{where} by {' and '.join(names)}" for where, names in ways.items() if names)


def _caches() -> dict[str, str]:
    """Where compiled functions are kept, how many of this version, and their size."""
    if backend_reasons()["numba"] is not None:
        return {"none": "no engine that runs here compiles at run time"}
    compiling = importlib.import_module("fastconv.engines.numba.compiling")

    def kept() -> str:
        files = compiling.files()
        size = sum(file.stat().st_size for file in files) / 2**20
        return f"{compiling.directory()}, {len(files)} functions, {size:.1f} MiB"

    return {"numba": _checked(kept)}


def _compiler() -> str:
    try:
        return str(importlib.import_module("fastconv._machine").compiler())
    except ImportError as error:
        return f"no: {error}"


def _instruction_sets(reasons: dict[str, str | None]) -> str:
    """From the first engine that looks for them, and else what NumPy found."""
    engines = [backends.loaded(name) for name, reason in reasons.items() if reason is None]
    asking = (engine.instruction_sets() for engine in engines if hasattr(engine, "instruction_sets"))
    found = next(asking, None) or np.show_config("dicts")["SIMD Extensions"].get("found", ())
    return ", ".join(found) or "none beyond the platform's baseline"


def _blas() -> str:
    blas = np.show_config("dicts")["Build Dependencies"]["blas"]
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
