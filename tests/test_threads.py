"""The number of threads: who decides it, and that BLAS obeys."""

from __future__ import annotations

import os

import numpy as np
import pytest

import fastconv as fc
from fastconv.choice import threads

threadpoolctl = pytest.importorskip("threadpoolctl")


def test_who_decides(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert 1 <= fc.get_num_threads() <= processors
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert fc.get_num_threads() == 1
    monkeypatch.setenv("FASTCONV_NUM_THREADS", "3")
    assert fc.get_num_threads() == 3
    fc.set_num_threads(5)
    assert fc.get_num_threads() == 5
    fc.set_num_threads(None)
    assert fc.get_num_threads() == 3


def test_threadpoolctls_limit_is_respected():
    with threadpoolctl.threadpool_limits(1):
        assert fc.get_num_threads() == 1


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_wrong_variable_is_an_error_that_names_it(monkeypatch, text):
    monkeypatch.setenv("FASTCONV_NUM_THREADS", text)
    with pytest.raises(fc.ArgumentError, match="FASTCONV_NUM_THREADS"):
        fc.conv2d(np.ones((1, 2, 2)), np.ones((1, 1, 1, 1)))


def test_blas_runs_on_the_threads_asked_for():
    """Inside a call the BLAS library is limited; after it, it is as it was."""

    def blas():
        return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}

    before = blas()
    fc.set_num_threads(1)
    with threads.limited():
        assert blas() == {1}
    assert blas() == before


def test_results_do_not_depend_on_the_number(engine):
    rng = np.random.default_rng(0)
    x, w = rng.integers(-3, 4, (2, 8, 20, 20)).astype("f"), rng.integers(-3, 4, (8, 8, 3, 3)).astype("f")
    results = []
    for number in (1, 2, 8):
        fc.set_num_threads(number)
        results.append(fc.conv2d(x, w, padding=1))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
