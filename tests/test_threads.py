"""The number of threads: who decides it, and that BLAS obeys."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from registry import copied_registry
from scripts import python

import fastconv as fc
from fastconv.backends.numpy import NumpyEngine
from fastconv.dispatch import backends, threads
from fastconv.problem import processors

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


#: Prints the number of threads of a call by its engine: what it says, and how many the process has beside before.
COUNTED = """
import os, sys, numpy as np, fastconv as fc, threadpoolctl
x, w = np.ones((1, 16, 60, 60), "f"), np.ones((16, 16, 3, 3), "f")
with threadpoolctl.threadpool_limits(int(sys.argv[2]), user_api=sys.argv[3]):
    before = len(os.listdir("/proc/self/task"))
    fc.conv2d(x, w, backend=sys.argv[1])
    print(fc.get_num_threads(), len(os.listdir("/proc/self/task")) - before)
"""
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
with_openmp = pytest.mark.skipif(threads._openmp_threads is None, reason="fastconv was built without OpenMP")


@on_linux
@with_openmp
def test_a_limit_of_openmp_is_obeyed_from_the_first_call_on():
    for limit in (1, 2):
        done = python(COUNTED, "cython", str(limit), "openmp")
        assert done.stdout.split() == [str(limit), str(limit - 1)], done.stderr
    for name in fc.available_backends():
        assert python(COUNTED, name, "1", "openmp").stdout.split()[0] == "1"


@on_linux
@with_openmp
def test_a_blas_library_has_a_number_of_its_own():
    """Whoever imported what: it limits no other engine than NumPy's."""
    assert python(COUNTED, "numpy", "1", "blas").stdout.split()[0] == str(processors.affinity())
    code = "{}\nimport fastconv; print(fastconv.get_num_threads())"
    counts = {
        python(code.format(before), OPENBLAS_NUM_THREADS="1").stdout.strip()
        for before in ("", "import threadpoolctl", "import numpy, threadpoolctl; threadpoolctl.threadpool_info()")
    }
    assert counts == {str(processors.affinity())}


def test_what_threadpoolctl_limits_where_there_is_no_openmp(monkeypatch):
    """What a variable says of a library is no limit of the other engines'."""
    monkeypatch.setattr(threads, "_openmp_threads", None)
    monkeypatch.setattr(processors, "affinity", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    number = fc.get_num_threads()
    with threadpoolctl.threadpool_limits(1):
        assert fc.get_num_threads() == 1
        for name in ("OPENBLAS", "MKL", "BLIS", "OMP"):
            monkeypatch.setenv(f"{name}_NUM_THREADS", "1")
        monkeypatch.setattr(processors, "affinity", lambda: 1)
        assert threads._limit_of_pools() is None
    assert number in (1, 2)
    threads._controller.cache_clear()  # libraries that other tests load are not in it


def group(root, path, **files):
    """A control group below `root` with files of these contents."""
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.mark.parametrize(
    ("member_of", "groups", "expected"),
    [
        ("0::/\n", {".": {"cpu__max": "200000 100000\n"}}, 2),
        ("0::/a/b\n", {"a": {"cpu__max": "150000 100000\n"}, "a/b": {"cpu__max": "max 100000\n"}}, 2),
        ("0::/a/b\n", {"a": {"cpu__max": "400000 100000\n"}, "a/b": {"cpu__max": "50000 100000\n"}}, 1),
        ("0::/../outside\n", {".": {"cpu__max": "300000 100000"}}, 3),
        ("0::/\n", {".": {"cpu__max": "max 100000\n"}}, None),
        ("0::/\n", {}, None),
        ("", {".": {"cpu__max": "200000 100000\n"}}, None),
        (
            "3:cpuset:/\n1:cpu,cpuacct:/docker/x\n",
            {"cpu": {"cpu__cfs_quota_us": "250000\n", "cpu__cfs_period_us": "100000\n"}},
            3,
        ),
        ("1:cpu:/x\n", {"cpu/x": {"cpu__cfs_quota_us": "-1\n", "cpu__cfs_period_us": "100000\n"}}, None),
        ("1:cpu:/x\n", {"cpu/x": {"cpu__cfs_quota_us": "100000\n"}}, None),
        ("1:cpu:/x\n0::/x\n", {"cpu/x": {"cpu__cfs_quota_us": "100\n", "cpu__cfs_period_us": "0\n"}}, None),
    ],
)
def test_a_containers_quota(tmp_path, monkeypatch, member_of, groups, expected):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(member_of)
    for path, files in groups.items():
        group(tmp_path, path, **files)
    assert processors.quota(tmp_path) == expected
    monkeypatch.setattr(processors, "affinity", lambda: 64)
    monkeypatch.setattr(processors, "quota", lambda: expected)
    monkeypatch.setattr(threads, "_openmp_threads", lambda: 64)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert fc.get_num_threads() == (expected or 64)


@pytest.mark.parametrize(
    "text", ["0", "-1", "two", "1.5", "\u00b2", "\uff12", "1_0", "0x2", "9" * 5000, "100000", "1025", "\udc80"]
)
def test_a_wrong_variable_is_an_error_that_names_it(monkeypatch, text):
    monkeypatch.setenv("FASTCONV_NUM_THREADS", text)
    for bias in (None, np.zeros(1)):
        with pytest.raises(fc.ArgumentError, match="FASTCONV_NUM_THREADS") as caught:
            fc.conv2d(np.ones((1, 2, 2)), np.ones((1, 1, 1, 1)), bias)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["", "0", "-1", "two", "\u00b2", "9" * 5000, "0x2", ",1", "\udc80"])
def test_an_odd_number_of_openmp_is_ignored(monkeypatch, text):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    expected = fc.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert fc.get_num_threads() == expected


@pytest.mark.parametrize("number", [0, -1, 1025, 100_000, 2**31, 10**400])
def test_a_number_out_of_bounds(number):
    with pytest.raises(fc.ArgumentError, match="threads must be"):
        fc.set_num_threads(number)


def test_as_many_threads_as_there_may_be(engine):
    fc.set_num_threads(threads.MOST)
    x, w = np.ones((4, 32, 60, 60), "f"), np.ones((32, 32, 3, 3), "f")
    y = fc.conv2d(x, w)
    assert (y == 288).all()
    assert fc.grad.conv2d_weight(x, w.shape, y).any()


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
    monkeypatch.setattr(backends, "_registry", copied_registry())
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
