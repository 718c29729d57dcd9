"""The option --shapes, and a test for each contender of each problem and pass."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv.cli.bench import contenders, machine, problems
from fastconv.dispatch import threads

CONTENDERS = [name for name, reason in contenders.reasons().items() if reason is None]


def pytest_addoption(parser):
    parser.addoption("--shapes", default="quick", help="a shape file, or the name of one in bench/shapes")


def pytest_generate_tests(metafunc):
    if {"problem", "which"} <= set(metafunc.fixturenames):
        chosen = problems.read(metafunc.config.getoption("shapes"))
        metafunc.parametrize("problem", chosen, ids=str)
        metafunc.parametrize("which", problems.PASSES)
        metafunc.parametrize("contender", CONTENDERS)


@pytest.fixture(scope="session")
def described():
    """The machine, with its measured peak for the number of threads that calls get."""
    count = threads.get_num_threads()
    return machine.description() | {"threads": count, "peak": machine.fma_peak("float32", count)}


@pytest.fixture(scope="session")
def first_results():
    """The first contender's result of the problem and pass under way, which the others' are compared with."""
    return {}


@pytest.fixture
def compared(first_results):
    """A check of a result against the first contender's of the same problem and pass."""
    from fastconv.cli.bench.rounds import difference

    def check(problem, which, result: np.ndarray) -> None:
        key = (problem, which)
        if key not in first_results:
            first_results.clear()
            first_results[key] = result
        assert difference(first_results[key], result, problem) is None

    return check
