"""The registry: who is chosen, who is passed over and why, and what a person is told."""

from __future__ import annotations

import asyncio
import contextvars
import importlib.metadata
import logging
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from registry import copied_registry

import fastconv as fc
from fastconv.backends.numpy import NumpyEngine
from fastconv.dispatch import backends

X, W = np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))


class Marked(NumpyEngine):
    """An engine whose results show that it was the one: it adds 100."""

    def correlate(self, windows, weight, out):
        super().correlate(windows, weight, out)
        out += 100


class OnlyFloat64(NumpyEngine):
    def unsupported(self, dtype):
        return None if dtype == np.float64 else "it computes in float64 only"


def broken():
    raise ImportError("libsomething.so.1: cannot open shared object file")


@pytest.fixture
def registry(monkeypatch):
    """The registry, which is as it was after the test, with three backends more."""
    monkeypatch.setattr(backends, "_registry", copied_registry())
    monkeypatch.setattr(backends, "_passed_over", set())
    monkeypatch.setattr(backends, "_entry_points_read", backends._entry_points_read)
    fc.register_backend("marked", Marked)
    fc.register_backend("only64", OnlyFloat64)
    fc.register_backend("broken", broken)
    return monkeypatch


def is_marked(**options):
    return bool(fc.conv2d(X, W, **options).flat[0] == 104)


def test_precedence(registry):
    """Argument, then context, then process, then variable, then auto."""
    assert not is_marked()
    registry.setenv("FASTCONV_BACKEND", "marked")
    assert is_marked()
    assert fc.get_backend() == "marked"
    fc.set_backend("numpy")
    assert not is_marked()
    with fc.use_backend("marked"):
        assert is_marked()
        assert fc.get_backend() == "marked"
        assert not is_marked(backend="numpy")
        with fc.use_backend("numpy"):
            assert not is_marked()
            assert is_marked(backend="marked")
        assert is_marked()
    assert fc.get_backend() == "numpy"
    fc.set_backend(None)
    assert is_marked()
    fc.set_backend("auto")
    assert not is_marked()
    assert fc.get_backend() == "auto"


def test_every_call_obeys_the_choice(registry):
    """Forward, gradients and layers alike."""
    y = fc.conv2d(X, W)
    with fc.use_backend("marked"):
        assert fc.conv_transpose2d(y, W).max() > 100
        assert fc.conv1d(X[0, 0, :1], W[0, :, :1]).min() > 100
        assert fc.grad.conv2d_input(X.shape, W, y).min() > 100
        assert fc.nn.Conv2d(1, 1, 2)(X).min() > 90
        assert fc.explain("conv2d", X.shape, W.shape).backend == "marked"


def test_the_context_is_this_threads_and_this_tasks(registry):
    seen = {}
    with fc.use_backend("marked"):
        thread = threading.Thread(target=lambda: seen.update(thread=fc.get_backend()))
        thread.start()
        thread.join()
        seen["copied"] = contextvars.copy_context().run(fc.get_backend)
    assert seen == {"thread": "auto", "copied": "marked"}

    async def task(name, other_is_inside):
        with fc.use_backend(name):
            await other_is_inside.wait()
            return fc.get_backend()

    async def both():
        inside = asyncio.Event()
        tasks = [asyncio.create_task(task(name, inside)) for name in ("marked", "numpy")]
        await asyncio.sleep(0)
        inside.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(both()) == ["marked", "numpy"]


def test_a_context_ends_with_an_exception(registry):
    with pytest.raises(KeyError), fc.use_backend("marked"):
        raise KeyError
    assert fc.get_backend() == "auto"


def test_auto_takes_the_first_that_runs_and_logs_once_why_another_was_not(registry, caplog):
    integers = X.astype(int), W.astype(int)  # which the NumPy engine alone computes
    with caplog.at_level(logging.INFO, logger="fastconv"):
        fc.conv2d(*integers)
        fc.conv2d(*integers)
    reasons = backends.backend_reasons()
    expected = [
        f"backend {name} passed over: {reasons[name] or 'it computes in float32 and float64'}"
        for name in ("numba", "cython")
    ]
    assert [record.getMessage() for record in caplog.records if "passed over" in record.getMessage()] == expected


def test_nothing_that_was_named_is_replaced(registry):
    named = {
        "argument": lambda name: fc.conv2d(X, W, backend=name),
        "context": lambda name: fc.use_backend(name).__enter__(),
        "process": fc.set_backend,
        "variable": lambda name: (registry.setenv("FASTCONV_BACKEND", name), fc.conv2d(X, W)),
    }
    for how, call in named.items():
        with pytest.raises(
            fc.BackendUnavailableError, match=r"libsomething.*expected one of 'auto'.*'marked'"
        ) as error:
            call("broken")
        assert "broken" in str(error.value), how
        with pytest.raises(fc.ArgumentError, match=r"markd.*did you mean 'marked'"):
            call("markd")
    assert fc.get_backend() == "markd"  # the variable's, the last one
    registry.delenv("FASTCONV_BACKEND")
    assert fc.get_backend() == "auto"


def test_a_named_backend_says_which_dtypes_it_cannot(registry):
    assert fc.conv2d(X, W, backend="only64").dtype == np.float64
    out = np.full((1, 1, 2, 2), 7, np.float32)
    with pytest.raises(fc.DTypeError, match=r"backend='only64' cannot compute in float32: it computes in float64 only"):
        fc.conv2d(X.astype("f"), W.astype("f"), backend="only64", out=out)
    assert (out == 7).all()


def test_available_backends(registry):
    assert fc.available_backends()[-2:] == ("marked", "only64")
    assert "numpy" in fc.available_backends()
    assert "libsomething" in backends.backend_reasons()["broken"]


def test_a_loader_runs_once_and_only_when_needed(registry):
    calls = []
    fc.register_backend("counted", lambda: calls.append(1) or NumpyEngine())
    assert not calls
    for _ in range(3):
        fc.conv2d(X, W, backend="counted")
    assert len(calls) == 1


def test_a_name_registered_again_is_replaced(registry):
    fc.register_backend("twice", NumpyEngine)
    assert not is_marked(backend="twice")
    fc.register_backend("twice", Marked)
    assert is_marked(backend="twice")


def test_a_loader_may_compute_in_a_thread_of_its_own(registry):
    """Nobody holds a lock that it needs, not even for a backend that was never loaded."""
    registry.setitem(backends._registry, "numpy", backends.Registration(backends._BUILT_IN["numpy"]))

    def loader():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(fc.conv2d, X, W, backend="numpy").result(timeout=20)
        return NumpyEngine()

    fc.register_backend("eager", loader)
    assert not is_marked(backend="eager")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_a_backend_loads_computes(registry):
    loading, go_on = threading.Event(), threading.Event()

    def loader():
        loading.set()
        go_on.wait(30)
        return NumpyEngine()

    fc.register_backend("slow", loader)
    thread = threading.Thread(target=fc.conv2d, args=(X, W), kwargs={"backend": "slow"})
    thread.start()
    loading.wait(30)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        go_on.set()
        os._exit(int(fc.conv2d(X, W, backend="slow").max()))
    go_on.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4


def test_a_loader_that_returns_a_class_is_a_reason(registry):
    fc.register_backend("class", lambda: NumpyEngine)
    assert "class" not in fc.available_backends()
    with pytest.raises(fc.BackendUnavailableError, match="returned the class NumpyEngine"):
        fc.conv2d(X, W, backend="class")


@pytest.mark.parametrize("name", [3, np.array(["numpy", "a"]), b"numpy"])
def test_a_name_that_is_no_text(name):
    for call in (lambda: fc.conv2d(X, W, backend=name), lambda: fc.set_backend(name),
                 lambda: fc.conv2d(X, W, algorithm=name), lambda: fc.set_algorithm(name)):  # fmt: skip
        with pytest.raises(fc.ArgumentError):
            call()


def test_an_engine_that_lacks_a_pass_is_a_reason(registry):
    fc.register_backend("half", object)
    with pytest.raises(fc.BackendUnavailableError, match="lacks unsupported, correlate"):
        fc.conv2d(X, W, backend="half")


class Entry:
    def __init__(self, name, loader):
        self.name, self._loader = name, loader

    def load(self):
        return self._loader


def test_entry_points(registry):
    """Other packages' backends are found; a broken one is a reason; our own names are not taken over."""

    def entry_points(*, group):
        assert group == "fastconv.backends"
        return [Entry("theirs", Marked), Entry("numpy", Marked), Entry("bad", broken), Entry("auto", Marked)]

    registry.setattr(importlib.metadata, "entry_points", entry_points)
    registry.setattr(backends, "_entry_points_read", False)
    assert is_marked(backend="theirs")
    assert not is_marked(backend="numpy")
    assert "libsomething" in backends.backend_reasons()["bad"]
    assert "auto" not in fc.available_backends()


def test_algorithms_have_the_same_precedence(monkeypatch):
    fc.set_algorithm("direct")
    assert fc.get_algorithm() == "direct"
    fc.set_algorithm(None)
    monkeypatch.setenv("FASTCONV_ALGORITHM", "winograd")
    with pytest.raises(fc.ArgumentError, match=r"FASTCONV_ALGORITHM=winograd does not apply"):
        fc.conv2d(X, W)
    with fc.use_algorithm("direct"):
        fc.conv2d(X, W)
        with pytest.raises(fc.ArgumentError, match=r"algorithm='fft' does not apply"):
            fc.conv2d(X, W, stride=2, algorithm="fft")
    with fc.use_algorithm("auto"):
        fc.conv2d(X, W)


def test_explain_says_why_each_other_was_passed_over(registry):
    why = fc.explain("conv2d", (1, 3, 8, 8), (4, 3, 3, 3), padding=1)
    assert why.output_shape == (1, 4, 8, 8)
    assert why.flops == 2 * 4 * 3 * 9 * 64
    assert {why.backend, *why.backends_passed_over} == {"numba", "cython", "numpy"}
    assert {why.algorithm, *why.algorithms_passed_over} == {"direct", "winograd", "fft"}
    named = fc.explain("conv2d_weight", (1, 3, 8, 8), (4, 3, 3, 3), backend="only64", dtype="float64")
    assert named.backend == "only64"
    assert named.output_shape == (4, 3, 3, 3)
    text = str(why)
    for part in (why.backend, why.algorithm, *why.backends_passed_over.values(), f"{why.workspace:,}"):
        assert part in text


def test_explain_of_an_empty_batch():
    assert fc.explain("conv2d", (0, 3, 8, 8), (4, 3, 3, 3)).output_shape == (0, 4, 6, 6)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("operation", ["conv2d", "conv2d_input", "conv2d_weight", "conv_transpose2d"])
def test_explained_workspace_bounds_what_is_used(operation, mode, dtype):
    """tracemalloc sees NumPy's allocations: the peak above arguments and result stays within what explain says."""
    import tracemalloc

    fc.set_memory_limit(0)  # NumPy makes all results
    large, small, weight = (4, 24, 60, 60), (4, 16, 60, 60), (16, 24, 3, 3)
    rng = np.random.default_rng(0)
    x, y, w = (rng.standard_normal(shape).astype(dtype) for shape in (large, small, weight))
    options = {"padding": 1, "backend": "numpy"}
    if operation != "conv_transpose2d":
        options["padding_mode"] = mode
    calls = {
        "conv2d": lambda: fc.conv2d(x, w, **options),
        "conv2d_input": lambda: fc.grad.conv2d_input(large, w, y, **options),
        "conv2d_weight": lambda: fc.grad.conv2d_weight(x, weight, y, **options),
        "conv_transpose2d": lambda: fc.conv_transpose2d(y, w, **options),
    }
    shapes = (small, weight) if operation == "conv_transpose2d" else (large, weight)
    explained = fc.explain(operation, *shapes, dtype=dtype, **options).workspace
    result = calls[operation]()
    tracemalloc.start()
    calls[operation]()
    peak = tracemalloc.get_traced_memory()[1] - result.nbytes
    tracemalloc.stop()
    # Python's own objects take a little too
    assert explained / 4 < peak < explained + 50_000
