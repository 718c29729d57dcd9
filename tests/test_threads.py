"""The number of threads: who decides it, and that BLAS obeys."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastconv as fc
from fastconv.choice import backends, threads
from fastconv.engines.numpy import NumpyEngine

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


def blas():
    """The thread counts of the BLAS libraries of the process."""
    return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}


class Watching(NumpyEngine):
    """Notes how many threads BLAS has while it computes."""

    def __init__(self):
        self.seen = []

    def correlate(self, windows, weight, out):
        self.seen.append(blas())
        super().correlate(windows, weight, out)

    def sum_pixels(self, grid, out):
        self.seen.append(blas())
        super().sum_pixels(grid, out)


X, W = np.ones((1, 16, 30, 30), "f"), np.ones((16, 16, 3, 3), "f")


def test_blas_runs_on_the_threads_asked_for(monkeypatch):
    """Inside a call the BLAS library is limited; after it, it is as it was."""
    monkeypatch.setattr(backends, "_loaders", dict(backends._loaders))
    monkeypatch.setattr(backends, "_loaded", dict(backends._loaded))
    engine = Watching()
    fc.register_backend("watching", lambda: engine)
    before = blas()
    for number in (1, 3):
        fc.set_num_threads(number)
        fc.conv2d(X, W, backend="watching")
        fc.grad.conv2d_bias(X, backend="watching")
        assert engine.seen == [{number}] * 2
        engine.seen.clear()
        assert blas() == before


def test_calls_that_overlap_leave_blas_as_it_was():
    before = blas()
    fc.set_num_threads(1)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: fc.conv2d(X, W, backend="numpy"), range(200)))
    assert blas() == before


def test_a_call_that_fails_leaves_blas_as_it_was():
    before = blas()
    fc.set_num_threads(1)
    with pytest.raises(MemoryError):
        fc.conv_transpose2d(np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1)), stride=2**24)
    assert blas() == before


def test_without_threadpoolctl_a_limit_is_told_of_and_not_obeyed(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    threads._controller.cache_clear()
    threads._log_once.cache_clear()
    fc.set_num_threads(1)
    for _ in range(2):
        assert fc.conv2d(X, W, backend="numpy").max() == 144
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert 'pip install "fastconv[threads]"' in caplog.text
    threads._controller.cache_clear()


def test_results_do_not_depend_on_the_number(engine):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 8, 20, 20)).astype("f"), rng.standard_normal((8, 8, 3, 3)).astype("f")
    results = []
    for number in (1, 2, 8):
        fc.set_num_threads(number)
        results.append(fc.conv2d(x, w, padding=1))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
