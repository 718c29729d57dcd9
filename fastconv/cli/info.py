"""`fastconv info`: everything that a report of a problem should hold."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastconv.choice import algorithms, backends, threads
from fastconv.choice.algorithms import ALGORITHMS
from fastconv.choice.backends import backend_reasons
from fastconv.ground.errors import FastconvError
from fastconv.version import __version__

_OPTIONAL = ("numba", "scipy", "threadpoolctl", "scikit-learn", "matplotlib", "tqdm", "torch")
_VARIABLES = ("FASTCONV_BACKEND", "FASTCONV_ALGORITHM", "FASTCONV_NUM_THREADS", "FASTCONV_CACHE_DIR", "OMP_NUM_THREADS")


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
    yield "engines", {name: "runs" if reason is None else f"no: {reason}" for name, reason in reasons.items()}
    yield (
        "algorithms",
        {name: f"no: {algorithm}" if isinstance(algorithm, str) else "runs" for name, algorithm in ALGORITHMS.items()},
    )
    variables = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    yield "chosen", {"backend": _checked(backends.current), "algorithm": _checked(algorithms.current), **variables}
    yield (
        "machine",
        {
            "processor": f"{platform.machine()}, {os.cpu_count()} processors",
            "instructions": _instruction_sets(),
            "threads": _checked(lambda: str(threads.get_num_threads())),
            "system": platform.platform(),
        },
    )
    yield "compiled part", {"_machine": _compiled_part()}
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


def _machine() -> Any:
    """The compiled module, which a machine without a C compiler has not."""
    return importlib.import_module("fastconv._machine")


def _caches() -> dict[str, str]:
    """Where compiled functions are kept, how many of this version, and their size."""
    if backend_reasons()["numba"] is not None:
        return {"none": "no engine that runs here compiles at run time"}
    compiling = importlib.import_module("fastconv.engines.numba.compiling")
    files = compiling.files()
    size = sum(file.stat().st_size for file in files) / 2**20
    return {"numba": f"{compiling.directory()}, {len(files)} functions, {size:.1f} MiB"}


def _compiled_part() -> str:
    try:
        return f"built by {_machine().compiler()}"
    except ImportError as error:
        return f"no: {error}"


def _instruction_sets() -> str:
    """From the compiled part where there is one that knows, and else what NumPy found."""
    try:
        found = _machine().instruction_sets()
    except ImportError:
        found = ()
    found = found or np.show_config("dicts")["SIMD Extensions"].get("found", ())
    return ", ".join(found) or "none beyond the platform's baseline"


def _blas() -> str:
    blas = np.show_config("dicts")["Build Dependencies"]["blas"]
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
