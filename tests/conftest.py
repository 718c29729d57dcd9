"""Fixtures that enumerate the registry, so that a new engine or algorithm is tested by existing."""

from __future__ import annotations

import itertools
import os

import pytest
from registry import TILED, only

import fastconv as fc

# What was measured on this machine, or another one with the same home, must not decide what a test sees.
os.environ["FASTCONV_COST_MODEL"] = "default"

#: Every pair of a backend that runs here and the algorithm that computes everything, by the definition.
ENGINES = [(backend, "direct") for backend in fc.available_backends()]


def pytest_collection_finish(session):
    """Start the processes that run beside all tests, of the modules that have some."""
    if session.config.option.collectonly:
        return
    functions = [item for item in session.items if isinstance(item, pytest.Function)]
    for module, items in itertools.groupby(functions, lambda item: item.module):
        if hasattr(module, "start_processes"):
            module.start_processes(list(items))


@pytest.fixture(params=TILED)
def tiled(request):
    """Each tile engine."""
    with fc.use_backend(request.param):
        yield request.param


@pytest.fixture
def kernel(request):
    """The kernel of a test's parameter, which runs wherever it applies."""
    with only(request.param):
        yield request.param


@pytest.fixture(params=ENGINES, ids="-".join)
def engine(request):
    """Backend and algorithm in force during the test; for each pair of them."""
    backend, algorithm = request.param
    with fc.use_backend(backend), fc.use_algorithm(algorithm):
        yield request.param


@pytest.fixture(autouse=True)
def choices_are_left_as_they_were(monkeypatch):
    """No test sees a choice of the environment's, or leaves one of its own."""
    for name in ("BACKEND", "ALGORITHM", "NUM_THREADS", "FLUSH_DENORMAL", "MEMORY_LIMIT"):
        monkeypatch.delenv(f"FASTCONV_{name}", raising=False)
    yield
    fc.set_backend(None)
    fc.set_algorithm(None)
    fc.set_num_threads(None)
    fc.set_flush_denormal(None)
    fc.set_memory_limit(None)
