"""`fastconv info`: everything that a bug report should contain."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeAlias

import numpy as np

from fastconv.backends import memory
from fastconv.backends.contract import float_mode
from fastconv.cli.streams import line
from fastconv.dispatch import algorithms, backends, denormals, threads
from fastconv.dispatch.algorithms import ALGORITHMS
from fastconv.dispatch.backends import backend_reasons
from fastconv.planner import cost_model, measured_costs
from fastconv.planner.registry import Algorithm
from fastconv.problem.cache_sizes import cache_sizes
from fastconv.problem.environment import COST_MODEL
from fastconv.problem.errors import BackendUnavailableError, FastconvError, one_line
from fastconv.problem.parameters import written
from fastconv.version import __version__

_OPTIONAL = ("numba", "scipy", "threadpoolctl", "scikit-learn", "matplotlib", "tqdm", "torch")
_VARIABLES = ("FASTCONV_", "NUMBA_", "OMP_NUM_THREADS")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(options: argparse.Namespace) -> int:
    """Print the report, one fact a line under its heading."""
    for heading, facts in _report():
        print(heading)
        for name, fact in facts:
            print(f"  {name:<14} {line(_checked(fact))}")
    return 0


Fact: TypeAlias = Callable[[], str]


def _report() -> Iterator[tuple[str, Iterable[tuple[str, Fact]]]]:
    reasons = backend_reasons()
    yield f"fastconv {__version__}", ()
    yield "engines", [(name, partial(_engine, name, reason)) for name, reason in reasons.items()]
    yield "algorithms", [(name, partial(_algorithm, name)) for name in ALGORITHMS]
    variables = sorted(name for name in os.environ if name.startswith(_VARIABLES))
    yield (
        "chosen",
        [
            ("backend", backends.current),
            ("algorithm", algorithms.current),
            ("denormals", partial(_denormals, reasons)),
            *((name, partial(written, os.environ[name])) for name in variables),
        ],
    )
    yield (
        "machine",
        [
            ("processor", lambda: f"{platform.machine()}, {os.cpu_count()} processors"),
            ("instructions", partial(_instruction_sets, reasons)),
            ("threads", threads.explained),
            ("memory", memory.explained),
            ("cost model", _cost_model),
            ("system", platform.platform),
        ],
    )
    yield "compiled part", [("compiler", _compiler)]
    yield "caches", _caches(reasons)
    yield (
        "versions",
        [
            ("python", lambda: sys.version.split()[0]),
            ("numpy", lambda: f"{np.__version__}, BLAS {_blas()}"),
            *((name, partial(_version, name)) for name in _OPTIONAL),
        ],
    )


def _checked(fact: Fact) -> str:
    """A fact on one line, or the error that it raised: a report is needed most when something is broken."""
    try:
        return one_line(fact())
    except FastconvError as error:
        return one_line(f"ERROR: {error}")
    except Exception as error:
        return one_line(f"ERROR: {type(error).__name__}: {error}")


def _engine(name: str, reason: str | None) -> str:
    """That an engine runs, with its own details, or why it does not."""
    if reason is not None:
        return f"no: {reason}"
    details = getattr(backends.in_use(name), "details", None)
    try:
        return "runs" if details is None else f"runs: {details()}"
    except BackendUnavailableError as error:
        return f"no: {error}"


def _denormals(reasons: dict[str, str | None]) -> str:
    """Whether denormal numbers are flushed, and how, by which engines."""
    if not denormals.get_flush_denormal():
        return "kept"
    running = [name for name, reason in reasons.items() if reason is None]
    by_processor = [name for name in running if float_mode(backends.loaded(name)) is not None]
    others = [name for name in running if name not in by_processor]
    ways = {"in every operation": by_processor, "in arrays and results alone": others}
    return "flushed " + ", ".join(f"{where} by {' and '.join(names)}" for where, names in ways.items() if names)


def _algorithm(name: str) -> str:
    """The kernels of an algorithm."""
    return ", ".join(Algorithm(name).kernels()) or "no kernel"


def _caches(reasons: dict[str, str | None]) -> list[tuple[str, Fact]]:
    """For each engine that compiles at run time: where it keeps its functions, how many they are, and their size."""
    engines = {name: backends.loaded(name) for name, reason in reasons.items() if reason is None}
    keeping = {name: engine.caches for name, engine in engines.items() if hasattr(engine, "caches")}
    if not keeping:
        return [("none", lambda: "no engine that runs here compiles at run time")]
    return [(name, partial(_kept, caches)) for name, caches in keeping.items()]


def _kept(caches: Callable[[], list[str]]) -> str:
    return "; then ".join(caches())


def _compiler() -> str:
    try:
        return str(importlib.import_module("fastconv._machine").compiler())
    except ImportError as error:
        return f"no: {error}"


def _instruction_sets(reasons: dict[str, str | None]) -> str:
    """The instruction sets that the first engine with such a list found; without one, those that NumPy found."""
    engines = [backends.loaded(name) for name, reason in reasons.items() if reason is None]
    asking = (engine.instruction_sets() for engine in engines if hasattr(engine, "instruction_sets"))
    found = next(asking, None) or np.show_config("dicts")["SIMD Extensions"].get("found", ())
    return ", ".join(found) or "none beyond the platform's baseline"


def _cost_model() -> str:
    """Which constants the planner follows, and the cache sizes that its block sizes come from."""
    caches = "caches of {:,} and {:,} KiB".format(*(size // 1024 for size in cache_sizes()))
    if cost_model.ignores_measured():
        return f"default, as {COST_MODEL.name} says; {caches}"
    measured = measured_costs.load(cost_model.MEASURED)
    if measured is None:
        return f"default; {caches}; `python -m fastconv warmup --measure` fits it to this machine"
    return f"measured {measured.time} with {measured.engine}; {caches}"


def _blas() -> str:
    blas = np.show_config("dicts")["Build Dependencies"]["blas"]
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
