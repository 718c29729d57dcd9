"""What tests of kernels in transformed tiles have in common: those of Winograd's convolution and of spectra."""

from __future__ import annotations

import numpy as np
import pytest
from problems import Problem
from registry import TILED, able, only
from test_registry import request_of
from test_tiles import compute

import fastconv as fc

MAPS = ("forward", "input")


def applies(kernel, problem, which="forward"):
    """Whether a kernel computes a map of a problem."""
    target = "large" if problem.transposed is (which == "forward") else "small"
    return kernel in able(request_of(TILED[0], problem, target))


def kernels_and_problems(kernels, problems, names):
    """Kernels and the names of the problems whose forward map they compute."""
    return [(kernel, name) for kernel in kernels for name in names if TILED and applies(kernel, problems[name])]


def each(pairs):
    """A parameter for tests: each of these pairs of a kernel, which runs wherever it applies, and a problem."""
    return pytest.mark.parametrize(("kernel", "name"), pairs, indirect=["kernel"])


def maps(problem: Problem, x, w, bias, dy, **options):
    """Both maps of a problem."""
    return [compute(problem, which, x, w, bias, dy, **options) for which in MAPS]


def assert_same_bits(some, others):
    """Arrays are the same in pairs."""
    for one, other in zip(some, others, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


_found: dict[tuple[str, str], list[np.ndarray]] = {}


def expected_maps(kernel, problem):
    """Both maps from normal numbers, by one thread of one engine, all images at once; computed once."""
    key = kernel, repr(problem)
    if key not in _found:
        before = fc.get_num_threads()
        fc.set_num_threads(1)
        with only(kernel), fc.use_backend(TILED[0]):
            _found[key] = maps(problem, *problem.arrays("normal", np.float32))
        fc.set_num_threads(before)
    return _found[key]
