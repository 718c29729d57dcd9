"""Environment variables: one rule for all of them, see `fastconv.problem.environment`."""

from __future__ import annotations

import os
import pathlib
import re

import numpy as np
import pytest

import fastconv as fc
from fastconv.backends import contract
from fastconv.dispatch import backends, threads
from fastconv.planner import cost_model
from fastconv.problem import environment

PACKAGE = pathlib.Path(fc.__file__).parent
X, W, B = np.full((1, 1, 4, 4), 1e-40, "f"), np.ones((1, 1, 2, 2), "f"), np.zeros(1, "f")
#: The engines that have several instruction sets, and the names of these, the best first.
SETS = {
    name: engine.instruction_sets()
    for name, engine in ((name, backends.loaded(name)) for name in fc.available_backends())
    if hasattr(engine, "on")
}


def backend_in_use():
    return fc.explain("conv2d", X.shape, W.shape).backend


def instruction_set_in_use():
    return {backends.pick(name, X.dtype).instructions.name for name in SETS}


def cache_directories():
    cache = pytest.importorskip("fastconv.backends.numba.cache")
    return [str(directory.parent) for directory in cache.directories()]


#: For each variable: what shows that it is in force, a value and what is shown then, and values that it cannot have.
VARIABLES = {
    "FASTCONV_BACKEND": (backend_in_use, "numpy", "numpy", ["npy", "numpy,numba", "\udc80"]),
    "FASTCONV_ALGORITHM": (fc.get_algorithm, "direct", "direct", ["x", "winogard"]),
    "FASTCONV_NUM_THREADS": (fc.get_num_threads, "7", 7, ["all", "0", "-1", "1.5", "1025"]),
    "FASTCONV_FLUSH_DENORMAL": (lambda: not fc.conv2d(X, W).any(), "on", True, ["2", "maybe"]),
    # only calls with a large result depend on it: tests/test_memory.py has the values that it cannot have
    "FASTCONV_MEMORY_LIMIT": (fc.get_memory_limit, "12345", 12345, []),
    "FASTCONV_ISA": (instruction_set_in_use, "baseline", {"baseline"}, ["avx3", "AVX2", "avx2,avx512"]),
    "FASTCONV_COST_MODEL": (cost_model.ignores_measured, "default", True, ["nominal", "DEFAULT"]),
    "FASTCONV_CACHE_DIR": (cache_directories, os.sep + "somewhere", [os.sep + "somewhere"], []),
}


def needs_sets(variable):
    if variable == "FASTCONV_ISA" and not all("baseline" in found for found in SETS.values()):
        pytest.skip("this processor has one instruction set")


def test_every_variable_is_listed():
    assert VARIABLES.keys() == {variable.name for variable in environment.OURS}
    assert all(f"    {name} " in environment.__doc__ for name in VARIABLES)


def test_every_variable_that_is_named_is_a_row_of_the_table():
    """No other module reads one of ours, or names one that is not there."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert set(re.findall(r"FASTCONV_[A-Z_]*[A-Z]", text)) <= VARIABLES.keys(), path
        assert not re.search(r"(environ(\.get\(|\[)|getenv\()\s*[\"']FASTCONV", text), path


@pytest.mark.parametrize("name", VARIABLES)
def test_a_change_takes_effect_at_the_next_call(monkeypatch, name):
    needs_sets(name)
    shown, value, expected, _ = VARIABLES[name]
    monkeypatch.delenv(name, raising=False)
    before = shown()
    assert before != expected
    for _ in range(2):
        monkeypatch.setenv(name, value)
        assert shown() == expected
        monkeypatch.setenv(name, "")
        assert shown() == before
        monkeypatch.delenv(name)
        assert shown() == before


@pytest.mark.parametrize("bias", [None, B])
@pytest.mark.parametrize("backend", [None, *SETS])
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, row in VARIABLES.items() for value in row[3]])
def test_a_wrong_value_is_an_error_before_any_work(monkeypatch, name, value, backend, bias):
    """Of a call that was made before too, and where the choice is not made in Python."""
    if name == "FASTCONV_BACKEND" and backend is not None:
        pytest.skip("the argument comes first")
    if name == "FASTCONV_ISA" and not SETS:
        pytest.skip("no engine has instruction sets")
    out = np.full((1, 1, 3, 3), 7, "f")
    for given in (None, out.copy()):
        fc.conv2d(X, W, bias, out=given, backend=backend)
    monkeypatch.setenv(name, value)
    for given in (None, out):
        with pytest.raises(fc.ArgumentError, match=name):
            fc.conv2d(X, W, bias, out=given, backend=backend)
    assert (out == 7).all()


def test_a_choice_made_in_python_comes_first(monkeypatch):
    for name, row in VARIABLES.items():
        for value in row[3][:1]:
            monkeypatch.setenv(name, value)
    fc.set_num_threads(1)
    fc.set_flush_denormal(False)
    with fc.use_backend("numpy"), fc.use_algorithm("direct"):
        assert fc.conv2d(X, W).any()


@pytest.mark.parametrize("text", ["0", "-1", "many"])
def test_another_librarys_variable_is_no_error(monkeypatch, text):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert fc.conv2d(X, W).any()


def bits_by_set(monkeypatch, name, sets):
    """The bits that an engine gives with each of some instruction sets, in this process."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 9, 9, 9)).astype("f"), rng.standard_normal((7, 9, 3, 3)).astype("f")
    found = {}
    for each in (*sets, None, *sets):
        monkeypatch.setenv("FASTCONV_ISA", each or "")
        y = fc.conv2d(x, w, padding=1, backend=name)
        np.testing.assert_array_equal(found.setdefault(each or sets[0], y), y)
    monkeypatch.delenv("FASTCONV_ISA")
    return found


@pytest.mark.skipif("cython" not in SETS, reason="the cython engine is not there")
def test_an_engine_computes_with_the_set_that_is_named(monkeypatch):
    """They round differently: a set without fused multiply-adds, and those that have them."""
    found = bits_by_set(monkeypatch, "cython", SETS["cython"])
    if found.keys() >= {"baseline", "avx2"}:
        assert (found["baseline"] != found["avx2"]).any()


@pytest.mark.slow
@pytest.mark.skipif(len(SETS) < 2, reason="there is one such engine")
def test_both_engines_have_the_same_bits_with_each_set_in_one_process(monkeypatch):
    """What compiles at run time compiles for each set, so this takes a while."""
    sets = [each for each in SETS["cython"] if each in SETS["numba"]]
    ours, theirs = (bits_by_set(monkeypatch, name, sets) for name in ("cython", "numba"))
    for each in sets:
        np.testing.assert_array_equal(ours[each], theirs[each])


def test_an_engine_is_the_same_object_for_the_same_set():
    """So that what is remembered under it is found again; one that is not there is an error when it is to plan."""
    for name, sets in SETS.items():
        engine = backends.loaded(name)
        assert contract.on_instruction_set(engine, None) is engine
        for each in sets:
            assert engine.on(each) is engine.on(each)
            assert engine.on(each).layout(4).lanes * 4 in (16, 32, 64)
        with pytest.raises(fc.ArgumentError, match="FASTCONV_ISA=avx3"):
            engine.on("avx3").layout(4)
    numpy = backends.loaded("numpy")
    assert contract.on_instruction_set(numpy, "avx3") is numpy


def test_the_number_of_threads_is_read_where_threads_are_limited(monkeypatch):
    monkeypatch.setenv("FASTCONV_NUM_THREADS", "3")
    assert threads.requested() == 3
