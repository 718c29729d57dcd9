"""Kernels in transformed tiles, by Winograd's convolution and by spectra: bits, plans, infinities and memory."""

from __future__ import annotations

import itertools
import pathlib
import pickle

import numpy as np
import pytest
import test_fft_tiles
import test_winograd
from registry import TILED, only
from test_memory_order import ORDERS, first, last
from test_plans import ACTIVATIONS, activation_of, after, plan_of
from test_tiles import compute
from transformed import MAPS, assert_same_bits, each, expected_maps, kernels_and_problems, maps

import fastconv as fc
from fastconv.cli.bench import problems
from fastconv.dispatch import backends
from fastconv.planner import registry
from fastconv.planner.request import Request

BENCH = pathlib.Path(__file__).parent.parent / "bench" / "shapes"
FAMILIES = test_winograd, test_fft_tiles
pytestmark = pytest.mark.skipif(not TILED, reason="no tile engine runs here")

#: The pixels of a side of the tiles that each kernel reads.
SIZES = {kernel: size for family in FAMILIES for kernel, size in family.KERNELS.items()}
#: Kernels of weight gradients, each with a problem.
GRADIENTS = [
    *((kernel, test_winograd.WEIGHTS["several images"]) for kernel in test_winograd.GRADIENTS),
    (test_fft_tiles.GRADIENT, test_fft_tiles.PROBLEMS["several tiles"]),
]


def pairs(*names):
    """Kernels of both families, each with those of its family's problems that are named here."""
    found = []
    for family in FAMILIES:
        named = [name for name in names if name in family.PROBLEMS]
        found += kernels_and_problems(family.KERNELS, family.PROBLEMS, named)
    return found


def problem_of(kernel, name):
    """The problem of a kernel's family."""
    (family,) = (family for family in FAMILIES if kernel in family.KERNELS)
    return family.PROBLEMS[name]


SOME = [pair for family in FAMILIES for pair in family.pairs(family.SOME)]


# ---- the same bits


@each(SOME)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_bits_do_not_depend_on_threads_or_the_engine(tiled, kernel, name, threads, monkeypatch):
    problem = problem_of(kernel, name)
    expected = expected_maps(kernel, problem)
    monkeypatch.setattr("fastconv.dispatch.preparation._SERIAL", 0)  # small problems on all threads
    fc.set_num_threads(threads)
    assert_same_bits(maps(problem, *problem.arrays("normal", np.float32)), expected)


@each(pairs("many images of few tiles", "padding 1", "several tiles", "transposed", "5x5", "up k4s2", "up k10s2"))
def test_the_bits_do_not_depend_on_the_other_images(tiled, kernel, name):
    problem = problem_of(kernel, name)
    expected = expected_maps(kernel, problem)
    x, w, bias, dy = problem.arrays("normal", np.float32)
    for images in (slice(0, 1), slice(1, None), slice(0, None, 2), slice(None, None, -1)):
        found = maps(problem, x[images], w, bias, dy[images])
        assert_same_bits(found, [one[images] for one in expected])


@each(SOME)
def test_the_bits_do_not_depend_on_the_memory_order(tiled, kernel, name):
    """Channels last, and any other strides, of what is read and of what is written."""
    problem = problem_of(kernel, name)
    expected = expected_maps(kernel, problem)
    x, w, bias, dy = problem.arrays("normal", np.float32)
    options, x_last, dy_last = {"data_format": "channels_last"}, last(x, 2), last(dy, 2)
    found = problem.forward(x_last, w, bias, **options), problem.gradient("input", x_last.shape, w, dy_last, **options)
    assert_same_bits([first(one, 2) for one in found], expected)
    for lay in ORDERS.values():
        for which, one in zip(MAPS, expected, strict=True):
            out = lay(np.full_like(one, np.nan))
            assert compute(problem, which, lay(x), w, bias, lay(dy), out=out) is out
            np.testing.assert_array_equal(out, one)


# ---- plans


@each(SOME)
def test_a_plan_has_the_bits_of_the_function(tiled, kernel, name):
    """With each activation, a residual or none, a bias or none, and for inputs of several shapes."""
    problem = problem_of(kernel, name)
    x, w, b, _ = problem.arrays("normal", np.float32)
    larger = np.concatenate([x, x[:, :, ::-1]], -1)
    for form, bias in zip(ACTIVATIONS, itertools.cycle((None, b))):
        activation = activation_of(form, len(b), np.float32)
        plan = plan_of(problem, w, bias, activation)
        for input in (x, x[:1], larger):
            y = problem.forward(input, w, bias)
            residual = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
            np.testing.assert_array_equal(plan(input, residual), after(y, residual, activation))
        np.testing.assert_array_equal(
            pickle.loads(pickle.dumps(plan))(x), after(problem.forward(x, w, bias), None, activation)
        )
    plan = plan_of(problem, w, b, None)
    by_last = plan_of(problem, w, b, None, data_format="channels_last")
    np.testing.assert_array_equal(first(by_last(last(x, 2)), 2), plan(x))


@each(pairs("padding 1", "several tiles", "many channels", "5x5", "up k4s2", "up k10s2"))
def test_a_plan_transforms_its_weight_once(tiled, kernel, name):
    """For all input shapes and both memory orders. Winograd's convolution may leave it to the pass of the map."""
    problem = problem_of(kernel, name)
    x, w, b, _ = problem.arrays("normal", np.float32)
    plan = plan_of(problem, w, b, None)
    for input in (x, x[:1], x[:, :, : x.shape[2] // 2 + 6], np.asfortranarray(x)):
        plan(input)
    (constants,) = plan._converted.values()
    kinds = [key[0] for key in constants.packed if key[0] in ("winograd", "fft")]
    assert kinds in ([["fft"]] if kernel in test_fft_tiles.KERNELS else [["winograd"], []])


# ---- infinities and NaNs


def tiles_that_read(problem, size, *pixel):
    """Which outputs of the forward map of a convolution belong to tiles that read a pixel."""
    axes = []
    for axis, at in zip(problem.geometry.axes, pixel, strict=True):
        outputs = 1 if axis.taps == 1 else size + 1 - axis.taps
        tile = np.arange(axis.small) // outputs * outputs
        axes.append((tile <= at + axis.pad_before) & (at + axis.pad_before < tile + outputs + axis.taps - 1))
    return np.logical_and.outer(*axes)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@each(pairs("padding 1", "several tiles", "padding that differs", "groups", "5x5", "11x11", "3x1"))
def test_a_pixel_that_is_not_finite_reaches_the_tiles_that_read_it(tiled, kernel, name, value):
    """And at least what the definition says; all else keeps its bits."""
    problem = problem_of(kernel, name)
    x, w, bias, _ = problem.arrays("normal", np.float32)
    tame = problem.forward(x, w, bias)
    groups = problem.parameters.get("groups", 1)
    for row, col in ((0, 0), (3, 4), (x.shape[2] - 1, x.shape[3] - 1)):
        odd = x.copy()
        odd[1, 1, row, col] = value
        found = problem.forward(odd, w, bias)
        reached = np.zeros(found.shape, bool)
        reached[1, : len(w) // groups] = tiles_that_read(problem, SIZES[kernel], row, col)
        np.testing.assert_array_equal(found[~reached], tame[~reached])
        by_definition = problem.forward(odd, w, bias, algorithm="direct", backend="numpy")
        assert not np.isfinite(found[~np.isfinite(by_definition)]).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@each(pairs("padding 1", "padding 0", "several tiles", "groups", "transposed", "5x5", "up k4s2", "up k10s2"))
def test_a_weight_that_is_not_finite_reaches_its_result_alone(tiled, kernel, name, value):
    """All pixels of it, as padding times infinity is NaN; in functions and in plans."""
    problem = problem_of(kernel, name)
    x, w, bias, _ = problem.arrays("normal", np.float32)
    tame = problem.forward(x, w, bias)
    odd = w.copy()
    odd[2, 1, 0, 2] = value
    groups = problem.parameters.get("groups", 1)
    result = 1 + 2 // (len(w) // groups) * w.shape[1] if problem.transposed else 2
    for found in (problem.forward(x, odd, bias), plan_of(problem, odd, bias, None)(x)):
        others = np.arange(found.shape[1]) != result
        np.testing.assert_array_equal(found[:, others], tame[:, others])
        by_definition = problem.forward(x, odd, bias, algorithm="direct", backend="numpy")
        assert not np.isfinite(found[~np.isfinite(by_definition)]).any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("gradient", "problem"), GRADIENTS, ids=[name for name, _ in GRADIENTS])
def test_a_pixel_that_is_not_finite_reaches_the_taps_of_its_channel(tiled, gradient, problem, value):
    """In both maps: all taps of its channel, and all of its result."""
    x, w, _, dy = problem.arrays("normal", np.float32)
    odd_x, odd_dy = x.copy(), dy.copy()
    odd_x[1, 2, 4, 5] = odd_dy[1, 3, 4, 5] = value
    with only(gradient):
        tame = problem.gradient("weight", x, w.shape, dy)
        for maps, where in (((odd_x, dy), np.s_[:, 2]), ((x, odd_dy), np.s_[3])):
            found, reached = problem.gradient("weight", maps[0], w.shape, maps[1]), np.zeros(w.shape, bool)
            reached[where] = True
            np.testing.assert_array_equal(found[~reached], tame[~reached])
            assert not np.isfinite(found[reached]).any()


# ---- memory


@pytest.mark.skipif(not BENCH.exists(), reason="the layers of the benchmark are in the repository only")
@pytest.mark.parametrize("target", ["small", "large", "weight"])
@pytest.mark.parametrize(
    ("kernels", "least"),
    [
        ([*test_winograd.KERNELS, *test_winograd.GRADIENTS], {"small": 100, "large": 100, "weight": 100}),
        ([*test_fft_tiles.KERNELS, test_fft_tiles.GRADIENT], {"small": 30, "large": 30, "weight": 15}),
    ],
    ids=["winograd", "fft"],
)
def test_a_thread_takes_little_memory(kernels, least, target):
    """Less than 2 MiB beside the transformed weight, for every layer of the benchmark."""
    number = 0
    for path in sorted(BENCH.glob("*.txt")):
        for problem in problems.parse(path.read_text(), path.name):
            request = Request.of(backends.loaded(TILED[0]), problem.geometry.lifted(), target, 4, 2)
            for kernel in (registry.KERNELS[name] for name in kernels):
                if target in kernel.makes and kernel.applies(request) is None:
                    plans = kernel.choice(request).proposal.plans()
                    assert 4 * max(plan.workspace for plan in plans) < 2**21, (kernel.name, problem)
                    number += 1
    assert number > least[target]
