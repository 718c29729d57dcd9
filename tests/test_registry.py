"""The registry of kernels: each says why it declines, one place chooses, explain says what runs, and each is right."""

from __future__ import annotations

import ast
import functools
import itertools
import pathlib

import numpy as np
import pytest
from registry import able, assert_computed, empty_caches
from test_contractions import CASES, LARGE

import fastconv as fc
from fastconv.backends.contract import is_tiled
from fastconv.dispatch import backends
from fastconv.planner import registry
from fastconv.planner.registry import KERNELS, Kernel
from fastconv.planner.request import Request
from fastconv.problem import reference

ENGINES = fc.available_backends()
TARGETS = ("small", "large", "weight")
#: Of both kinds of engines one, which choose alike.
KINDS = {is_tiled(backends.loaded(name)): name for name in ENGINES}
ALL = CASES | LARGE


def request_of(engine, problem, target, threads=2):
    lifted = problem.geometry.lifted()
    lifted = lifted.extended() if lifted.padding_mode != "zeros" else lifted
    return Request.of(backends.loaded(engine), lifted, target, 4, threads)


def arrays_of(request, kind):
    """Both factors of a contraction, and its result's shape."""
    rng = np.random.default_rng(0)
    shapes = {target: getattr(request.geometry, f"{target}_shape") for target in ("large", "small", "weight")}
    result = shapes.pop(request.target)
    draw = rng.standard_normal if kind == "normal" else lambda shape: rng.integers(-3, 4, shape)
    return [draw(shape).astype(np.float32) for shape in shapes.values()], result


def computed(engine, request, name, factors, shape):
    """A contraction by one kernel."""
    out = np.full(shape, np.nan, np.float32)
    with registry.only(name), fc.use_backend(engine):
        choice = registry.choose(request)
        assert choice.kernel.name == name
        choice.prepared(backends.loaded(engine))(*factors, None, out)
    return out


@functools.cache
def known(name, target):
    """What a contraction of small integers is."""
    request = request_of("numpy", CASES[name], target)
    return getattr(reference, f"to_{target}")(request.geometry, *arrays_of(request, "integers")[0])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_every_kernel_that_applies_is_right(engine, name):
    """Small integers as the reference gives them; larger problems are in tests/test_tiles.py, between pages."""
    for target in TARGETS:
        request = request_of(engine, CASES[name], target)
        for kernel in able(request):
            found = computed(engine, request, kernel, *arrays_of(request, "integers"))
            assert_computed(found, known(name, target), kernel, target)


@pytest.mark.skipif(True not in KINDS, reason="no tile engine runs here")
@pytest.mark.parametrize("name", ALL)
def test_the_bits_of_every_kernel_do_not_depend_on_threads(name):
    engine = KINDS[True]
    for target in TARGETS:
        one, three = (request_of(engine, ALL[name], target, threads) for threads in (1, 3))
        arrays = arrays_of(one, "normal")
        for kernel in able(one):
            found = [computed(engine, request, kernel, *arrays) for request in (one, three)]
            np.testing.assert_array_equal(*found, err_msg=f"{target}, {kernel}")


@pytest.mark.parametrize("kind", KINDS.values())
def test_a_kernel_that_declines_says_why(kind):
    """In a short sentence without an end, and each does apply to some problem."""
    declining, applying = set(), set()
    for problem, target in itertools.product(ALL.values(), TARGETS):
        request = request_of(kind, problem, target)
        for kernel in KERNELS.values():
            if kernel.tiled is (request.layout is not None) and target in kernel.makes:
                reason = kernel.applies(request)
                if reason is None:
                    applying.add(kernel.name)
                    continue
                declining.add(kernel.name)
                assert 10 < len(reason) < 120
                assert not reason[0].isupper()
                assert not reason.endswith(".")
    tiled = is_tiled(backends.loaded(kind))
    assert applying == {name for name, kernel in KERNELS.items() if kernel.tiled is tiled}
    assert tiled == ({"matmul", "channel_lanes", "interleaved_phases"} <= declining)


@pytest.mark.parametrize("kind", KINDS.values())
@pytest.mark.parametrize("name", CASES)
def test_explain_lists_all_candidates_and_names_the_one_that_runs(kind, name, monkeypatch):
    problem, run = CASES[name], []
    x, w, _, dy = problem.arrays("integers", np.float32)
    for key, kernel in KERNELS.items():

        def prepare(engine, request, *rest, kernel=kernel):
            run.append(kernel.name)
            return kernel.prepare(engine, request, *rest)

        fields = (
            kernel.name,
            kernel.makes,
            kernel.applies,
            kernel.propose,
            kernel.rank,
            kernel.tiled,
            kernel.algorithm,
            kernel.variant,
        )
        monkeypatch.setitem(KERNELS, key, Kernel(*fields, prepare, kernel.workspace))
    calls = {
        "": lambda: problem.forward(x, w),
        "_input": lambda: problem.gradient("input", x.shape, w, dy),
        "_weight": lambda: problem.gradient("weight", x, w.shape, dy),
    }
    maps = ("large", "small") if problem.transposed else ("small", "large")
    for (which, call), target in zip(calls.items(), (*maps, "weight"), strict=True):
        empty_caches(monkeypatch)
        run.clear()
        with fc.use_backend(kind):
            call()
            why = fc.explain(problem.name + which, x.shape, w.shape, **problem.parameters)
        assert why.kernel == run[0]
        tiled = is_tiled(backends.loaded(kind))
        expected = {key for key, kernel in KERNELS.items() if kernel.tiled is tiled and target in kernel.makes}
        assert {why.kernel, *why.kernels_passed_over} == expected
        assert why.kernel in why.predicted
        assert all(time >= 0 for time in why.predicted.values())
        for other, reason in why.kernels_passed_over.items():
            assert f"not {other}" in str(why)
            assert reason in str(why)
        same_rank = [time for other, time in why.predicted.items() if KERNELS[other].rank == KERNELS[why.kernel].rank]
        assert same_rank[0] == pytest.approx(min(same_rank), rel=0.5)  # of those that share their cost alike, the least


def test_explain_of_an_empty_batch_names_no_kernel():
    why = fc.explain("conv2d", (0, 64, 8, 8), (64, 1, 3, 3), groups=64)
    assert (why.kernel, why.kernels_passed_over, why.predicted, why.workspace) == ("none", {}, {}, 0)


def test_one_place_chooses():
    """Only the registry knows the table, only `choose` takes the cheapest, and other floors see only what it gives."""
    package = pathlib.Path(fc.__file__).parent
    kernels = {kernel.propose.__module__.rpartition(".")[2] for kernel in KERNELS.values()} - {"registry"}
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "fastconv.planner"
            for alias in node.names
        }
        if path.parent.name == "planner":
            assert ("KERNELS" in names) is (path.stem == "registry"), path
        else:
            assert "KERNELS" not in names, path
            assert not imported & kernels, path
    functions = {
        node.name: ast.unparse(node)
        for node in ast.walk(ast.parse((package / "planner" / "registry.py").read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    assert [name for name, text in functions.items() if "min(" in text] == ["choose", "_arithmetic"]


def test_an_algorithm_without_a_kernel_that_applies_is_an_error():
    request = request_of(ENGINES[0], CASES["stem"], "small")
    with pytest.raises(fc.ArgumentError, match=r"algorithm='fft' does not apply: "):
        registry.choose(request, "fft")


def test_only_what_is_there_can_be_the_only_one():
    with pytest.raises(KeyError), registry.only("pixel_lane"):
        pass
