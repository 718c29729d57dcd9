"""Winograd's convolution: exact where nothing is rounded, rounding errors, bits, infinities, errors and the choice."""

from __future__ import annotations

import functools
import itertools
import math
import pathlib
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from problems import Problem
from registry import TILED, able, empty_caches, only
from scripts import python
from test_memory_order import ORDERS
from test_plans import plan_of
from test_registry import request_of
from test_tiles import SETS, anew, compute, with_costs  # noqa: F401 - `anew` is a fixture
from transformed import applies, assert_same_bits, each, expected_maps, kernels_and_problems, maps

import fastconv as fc
from fastconv.kernels.abi import WINOGRAD
from fastconv.kernels.toom_cook import program, scales, transforms
from fastconv.planner import registry

BENCH = pathlib.Path(__file__).parent.parent / "bench" / "shapes"

#: Its kernels of maps, with the pixels of a side of the tiles that each reads; and of weight gradients.
MINE = {name: kernel for name, kernel in registry.KERNELS.items() if kernel.algorithm == "winograd"}
KERNELS = {name: int(name.split("_")[-1]) for name, kernel in MINE.items() if "small" in kernel.makes}
GRADIENTS = [name for name, kernel in MINE.items() if "weight" in kernel.makes]
pytestmark = pytest.mark.skipif(not TILED, reason="no tile engine runs here")

PROBLEMS = {
    "padding 0": Problem(False, 2, (1, 3, 6, 6), (4, 3, 3, 3)),
    "padding 1": Problem(False, 2, (2, 20, 9, 11), (19, 20, 3, 3), {"padding": 1}),
    "padding 2": Problem(False, 2, (1, 17, 5, 8), (33, 17, 3, 3), {"padding": 2}),
    "padding 3": Problem(False, 2, (1, 5, 4, 3), (6, 5, 3, 3), {"padding": 3}),
    "padding that differs": Problem(False, 2, (2, 6, 7, 10), (5, 6, 3, 3), {"padding": ((0, 2), (3, 1))}),
    "same": Problem(False, 2, (1, 4, 10, 13), (3, 4, 3, 3), {"padding": "same"}),
    "one pixel of input": Problem(False, 2, (3, 9, 1, 1), (7, 9, 3, 3), {"padding": 1}),
    "one row": Problem(False, 2, (2, 4, 1, 30), (5, 4, 3, 3), {"padding": 1}),
    "one column": Problem(False, 2, (2, 4, 30, 1), (5, 4, 3, 3), {"padding": (1, 2)}),
    "whole tiles": Problem(False, 2, (1, 16, 8, 12), (16, 16, 3, 3), {"padding": 1}),
    "many images of few tiles": Problem(False, 2, (9, 24, 7, 7), (16, 24, 3, 3), {"padding": 1}),
    "one channel": Problem(False, 2, (1, 1, 20, 33), (9, 1, 3, 3), {"padding": 1}),
    "one result": Problem(False, 2, (1, 9, 20, 33), (1, 9, 3, 3), {"padding": 1}),
    "many channels": Problem(False, 2, (1, 150, 9, 10), (20, 150, 3, 3), {"padding": 1}),
    "groups": Problem(False, 2, (2, 12, 9, 7), (21, 4, 3, 3), {"padding": 1, "groups": 3}),
    "groups of vectors": Problem(False, 2, (1, 34, 6, 6), (32, 17, 3, 3), {"padding": 1, "groups": 2}),
    "reflected": Problem(False, 2, (1, 5, 9, 9), (6, 5, 3, 3), {"padding": 2, "padding_mode": "reflect"}),
    "unbatched": Problem(False, 2, (5, 9, 9), (6, 5, 3, 3), {"padding": 1}),
    "transposed": Problem(True, 2, (2, 20, 9, 11), (20, 19, 3, 3), {"padding": 1}),
    "transposed, no padding": Problem(True, 2, (1, 7, 5, 5), (7, 18, 3, 3)),
    "transposed, padding that differs": Problem(True, 2, (1, 7, 9, 5), (7, 3, 3, 3), {"padding": ((2, 0), (1, 2))}),
    "transposed, groups": Problem(True, 2, (2, 6, 4, 9), (6, 5, 3, 3), {"padding": 2, "groups": 2}),
    "5x5": Problem(False, 2, (2, 18, 9, 8), (17, 18, 5, 5), {"padding": 2}),
    "1x3": Problem(False, 2, (2, 18, 5, 19), (17, 18, 1, 3), {"padding": (0, 1)}),
    "3x1": Problem(False, 2, (2, 18, 19, 5), (17, 18, 3, 1), {"padding": (1, 0)}),
    "one axis": Problem(False, 1, (2, 18, 33), (17, 18, 3), {"padding": 1}),
    "up k4s2": Problem(True, 2, (2, 18, 7, 9), (18, 17, 4, 4), {"stride": 2, "padding": 1}),
    "up k5s2": Problem(True, 2, (1, 18, 7, 9), (18, 17, 5, 5), {"stride": 2, "padding": 2, "output_padding": 1}),
    "up k6s2": Problem(True, 2, (2, 18, 6, 9), (18, 17, 6, 6), {"stride": 2, "padding": 2}),
    "stride 2": Problem(False, 2, (2, 18, 12, 15), (17, 18, 4, 4), {"stride": 2, "padding": 1}),
    "stride 2, 6x6": Problem(False, 2, (1, 18, 13, 14), (17, 18, 6, 6), {"stride": 2, "padding": ((3, 1), (0, 2))}),
    "stride 3": Problem(False, 2, (1, 6, 20, 19), (8, 3, 9, 9), {"stride": 3, "padding": 4, "groups": 2}),
    "stride of one axis": Problem(False, 2, (1, 18, 13, 14), (17, 18, 4, 2), {"stride": (2, 1), "padding": 1}),
    "dilation 2": Problem(False, 2, (2, 18, 11, 14), (17, 18, 3, 3), {"dilation": 2, "padding": 2}),
    "dilation that differs": Problem(False, 2, (1, 6, 12, 9), (5, 6, 3, 3), {"dilation": (3, 1), "padding": (1, 4)}),
    "dilation 3, 5x5": Problem(False, 2, (1, 5, 15, 17), (6, 5, 5, 5), {"dilation": 3}),
    "up k6s3": Problem(True, 2, (1, 6, 6, 9), (6, 5, 6, 6), {"stride": 3, "padding": ((1, 2), (0, 2)), "groups": 2}),
}  # fmt: skip
#: Of these, those that have several tiles, channels, results and images, for what takes longer.
SOME = ("padding that differs", "groups", "many images of few tiles", "transposed", "5x5", "1x3", "up k5s2", "stride 2",
        "dilation 2")  # fmt: skip


@pytest.fixture(params=KERNELS)
def kernel(request):
    """Each kernel of the algorithm, which runs wherever it applies."""
    with only(request.param):
        yield request.param


def pairs(names):
    """Kernels and the problems whose forward map they compute."""
    return kernels_and_problems(KERNELS, PROBLEMS, names)


# ---- the matrices


@pytest.mark.parametrize(("outputs", "taps"), sorted({axis for axes in WINOGRAD for axis in axes} | {(3, 2), (3, 4)}))
def test_the_matrices_are_a_correlation(outputs, taps):
    """Of random fractions, exactly: on one axis, and on two."""
    rng = np.random.default_rng(0)
    matrices = transforms(outputs, taps)
    to_input, to_output = np.array(matrices.input), np.array(matrices.output)
    to_weight = np.array(matrices.weight) / np.array(matrices.divisors)[:, None]
    x, g = (
        np.array([[Fraction(int(rng.integers(-9, 10)), int(rng.integers(1, 9))) for _ in range(n)] for _ in range(n)])
        for n in (outputs + taps - 1, taps)
    )
    row = to_output @ ((to_weight @ g[0]) * (to_input @ x[0]))
    assert row.tolist() == [sum(g[0][j] * x[0][i + j] for j in range(taps)) for i in range(outputs)]
    products = (to_weight @ g @ to_weight.T) * (to_input @ x @ to_input.T)
    tile = to_output @ products @ to_output.T
    for i, j in np.ndindex(outputs, outputs):
        assert tile[i, j] == (g * x[i : i + taps, j : j + taps]).sum()


@pytest.mark.parametrize(("outputs", "taps"), sorted({axis for axes in WINOGRAD for axis in axes}))
def test_a_program_is_its_matrix(outputs, taps):
    """With coefficients that are exact in float32."""
    for matrix in (getattr(transforms(outputs, taps), name) for name in ("input", "weight", "output")):
        vector = [Fraction(1000**number) for number in range(len(matrix[0]))]
        values, steps = [*vector], program(matrix)
        for terms in steps.sums:
            assert all(float(np.float32(coefficient)) == coefficient for coefficient, _ in terms)
            values.append(sum(Fraction(coefficient) * values[element] for coefficient, element in terms))
        assert [values[number] for number in steps.results] == (np.array(matrix) @ np.array(vector)).tolist()


# ---- exact numbers


@functools.cache
def exact_taps(size):
    """The least number whose transforms are exact in float32, at any place of any kernel if the other taps are 0.

    Transforms divide, by 9 for example, which is a multiplication by a rounded reciprocal. So it is a multiple of what
    is divided by, and one for which each product with a reciprocal rounds to the quotient.
    """
    least, single = 1, []
    for rows, cols in ((transforms(*axis) for axis in axes) for axes in WINOGRAD if size in map(read_pixels, axes)):
        factors = np.array(scales(rows, cols), np.float32).reshape(len(rows.weight), -1)
        for r, s in np.ndindex(len(rows.weight[0]), len(cols.weight[0])):
            sums = np.array([[a[r] * b[s] for b in cols.weight] for a in rows.weight])
            quotients = sums / np.outer(rows.divisors, cols.divisors)
            single.append((sums.astype(np.float32), factors, quotients))
            least = math.lcm(least, *(odd_factor(one.denominator) for one in quotients.flat))
    return next(
        tap
        for tap in range(least, 100 * least, least)
        if all((np.float32(tap) * sums * factors == (tap * quotients).astype(float)).all()
               for sums, factors, quotients in single)
    )  # fmt: skip


def odd_factor(number):
    return number // (number & -number)


def read_pixels(axis):
    """Pixels that a tile reads on an axis (outputs, taps)."""
    return sum(axis) - 1


def exact_arrays(problem, size, seed=0):
    """Input, weight, bias and output gradient for which no intermediate number is rounded in float32: every fourth
    pixel is 1 or -1, and each result has one tap."""
    rng = np.random.default_rng(seed)
    x, _, bias, dy = (rng.choice((-1, 0, 0, 0, 0, 0, 0, 1), one.shape).astype(np.float32) for one in problem.arrays())
    w = np.zeros(problem.weight_shape, np.float32)
    for k in range(len(w)):
        w[(k, *(rng.integers(extent) for extent in w.shape[1:]))] = rng.choice((-1, 1)) * exact_taps(size)
    return x, w, bias, dy


def check_exact(engine, kernel, name):
    """All maps of a problem, bit for bit as by the definition."""
    problem = PROBLEMS[name]
    x, w, bias, dy = exact_arrays(problem, KERNELS[kernel])
    for which, b in (("forward", None), ("forward", bias), ("input", None)):
        with only(kernel), fc.use_backend(engine):
            found = compute(problem, which, x, w, b, dy)
        expected = compute(problem, which, *(np.float64(array) for array in (x, w)), b, np.float64(dy), backend="numpy")
        np.testing.assert_array_equal(found, expected.astype(np.float32), err_msg=f"{name}, {which}", strict=True)


@each(pairs(PROBLEMS))
def test_what_is_not_rounded_is_what_the_definition_says(tiled, kernel, name):
    check_exact(tiled, kernel, name)


def test_it_applies_to_the_problems_above():
    """So that tests of them are tests of it."""
    assert {name for _, name in pairs(PROBLEMS)} == {*PROBLEMS}
    square = {name for name, problem in PROBLEMS.items() if problem.weight_shape[2:] == (3, 3)}
    assert {("winograd_size_6", name) for name in square} | {("winograd_size_4", name) for name in square} == {
        *pairs(square)
    }
    backwards = {name for kernel in KERNELS for name in PROBLEMS if applies(kernel, PROBLEMS[name], "input")}
    # of one pixel, only one tap links a pixel; and the stride of the input's gradient does not divide 5 taps
    assert {*PROBLEMS} - backwards == {"one pixel of input", "up k5s2"}


@pytest.mark.parametrize(("name", "instructions"), [one for one in SETS if one[0] == "cython"])
def test_the_same_on_each_instruction_set(name, instructions):
    """The other engine is compiled for each set in tests/test_tiles.py."""
    code = (
        "import test_winograd as here\n"
        "for kernel, problem in here.pairs(here.PROBLEMS):\n"
        f"    here.check_exact({name!r}, kernel, problem)"
    )
    done = python(code, FASTCONV_ISA=instructions)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- rounding

#: The most that the rms error may be of direct convolution's, by the size of tiles.
OF_DIRECT = {4: 3, 5: 5, 6: 10}
#: The most that an error may be of gamma_n times the sum of the absolute values of the n products of an element, where
#: n is not small.
OF_BOUND = 1


@pytest.mark.parametrize("layer", [(64, 64, 28, 3), (256, 32, 14, 3), (16, 16, 40, 5), (32, 64, 28, 2)], ids=str)
def test_rounding_errors(kernel, layer):
    channels, results, extent, taps = layer
    problem = Problem(False, 2, (1, channels, extent, extent), (results, channels, taps, taps), {"padding": taps // 2})
    if not applies(kernel, problem):
        pytest.skip("it does not apply")
    x, w, _, dy = problem.arrays("normal", np.float32)
    wide = [array.astype(np.float64) for array in (x, w, dy)]
    for which, n in (("forward", taps**2 * channels), ("input", taps**2 * results)):
        exact, magnitude = (
            compute(problem, which, first, second, None, third, backend="numpy")
            for first, second, third in (wide, [np.abs(array) for array in wide])
        )
        off, of_direct = (
            compute(problem, which, x, w, None, dy, backend=TILED[-1], algorithm=algorithm) - exact
            for algorithm in ("winograd", "direct")
        )
        rms, rms_of_direct = (np.sqrt(np.mean(one**2)) for one in (off, of_direct))
        assert rms <= OF_DIRECT[KERNELS[kernel]] * rms_of_direct
        unit = n * 2.0**-24
        assert (np.abs(off) <= OF_BOUND * unit / (1 - unit) * magnitude).all()


# ---- the same bits


@each(pairs([*SOME, "many channels", "groups of vectors"]))
@pytest.mark.parametrize(
    "costs",
    [
        {"winograd_tiles": 1},
        {"winograd_tiles": 5, "winograd_bytes": 40_000},
        {"winograd_bytes": 20_000},
        {"winograd_weight_channels": 16},
    ],
    ids=str,
)
def test_the_bits_do_not_depend_on_blocks(tiled, kernel, anew, name, costs):  # noqa: F811
    """Strips of tiles, blocks of channels and blocks of results."""
    expected = expected_maps(kernel, PROBLEMS[name])
    with_costs(anew, work_items=1, **costs)
    with only(kernel):
        assert_same_bits(maps(PROBLEMS[name], *PROBLEMS[name].arrays("normal", np.float32)), expected)


def test_there_are_blocks_of_each_kind(tiled, anew):  # noqa: F811
    """The costs above do cut the work: several strips, blocks of channels and blocks of results."""
    with_costs(anew, work_items=1, winograd_bytes=20_000)
    problem = PROBLEMS["many channels"]
    with registry.only(*KERNELS):
        *_, plan = registry.choose(request_of(tiled, problem, "small")).proposal.plans()
    assert plan.items > 1


# ---- plans


def test_a_plan_has_the_bits_of_the_function_whatever_is_chosen(tiled):
    problem = Problem(False, 2, (1, 512, 7, 7), (512, 512, 3, 3), {"padding": 1})
    x, w, _, _ = problem.arrays("normal", np.float32)
    np.testing.assert_array_equal(plan_of(problem, w, None, None)(x), problem.forward(x, w))


def test_threads_share_a_plan_from_its_first_call_on(tiled, kernel):
    """The weight is transformed by one of them, and none reads it before it is complete."""
    problem = Problem(False, 2, (1, 64, 12, 12), (64, 64, 3, 3), {"padding": 1})
    x, w, b, _ = problem.arrays("normal", np.float32)
    expected = problem.forward(x, w, b)
    for _ in range(5):
        plan = plan_of(problem, w, b, None, backend=tiled, algorithm="winograd")
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(lambda images, plan=plan: plan(np.repeat(x, images, 0)), [1, 2, 3, 4] * 3):
                np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=0, atol=1e-2)


# ---- gradients of weights

WEIGHTS = {
    "several images": Problem(False, 2, (3, 20, 9, 11), (19, 20, 3, 3), {"padding": 1}),
    "no padding": Problem(False, 2, (2, 5, 6, 7), (33, 5, 3, 3)),
    "padding that differs": Problem(False, 2, (1, 17, 8, 8), (16, 17, 3, 3), {"padding": ((0, 3), (2, 1))}),
    "one pixel": Problem(False, 2, (3, 4, 1, 1), (5, 4, 3, 3), {"padding": 1}),
    "groups": Problem(False, 2, (2, 12, 9, 7), (21, 4, 3, 3), {"padding": 1, "groups": 3}),
    "transposed": Problem(True, 2, (2, 20, 9, 11), (20, 19, 3, 3), {"padding": 1}),
    "many pixels": Problem(False, 2, (1, 16, 150, 90), (16, 16, 3, 3), {"padding": 1}),
}


def gradient(problem, name, x, w, dy, **options):
    with only(name):
        return problem.gradient("weight", x, w.shape, dy, **options)


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("kernel_of_weights", GRADIENTS)
def test_a_gradient_of_a_weight(tiled, kernel_of_weights, name, monkeypatch):
    """Exact for few small integers, and the same bits for threads, engines and memory orders."""
    problem = WEIGHTS[name]
    monkeypatch.setattr("fastconv.dispatch.preparation._SERIAL", 0)
    x, w, _, dy = problem.arrays("normal", np.float32)
    expected = problem.gradient("weight", x.astype(np.float64), w.shape, dy.astype(np.float64), backend="numpy")
    assert kernel_of_weights in able(request_of(tiled, problem, "weight"))
    found = []
    for threads in (1, 2, 3):
        fc.set_num_threads(threads)
        found.append(gradient(problem, kernel_of_weights, x, w, dy))
    found += [gradient(problem, kernel_of_weights, x, w, dy, backend=other) for other in TILED]
    found += [
        gradient(problem, kernel_of_weights, lay(x), w, lay(dy)) for lay in (ORDERS["inside of another"], np.array)
    ]
    for one in found[1:]:
        np.testing.assert_array_equal(one, found[0], strict=True)
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=2e-5 * np.abs(expected).max())


# ---- errors

X, W = np.ones((1, 8, 9, 9), np.float32), np.ones((8, 8, 3, 3), np.float32)
DECLINED = {
    "float64": (lambda **how: fc.conv2d(X.astype("d"), W, **how), (1, 8, 7, 7), "d", "float32 only"),
    "stride": (lambda **how: fc.conv2d(X, W, stride=2, **how), (1, 8, 4, 4), "f", "stride does not divide"),
    "stride of one axis": (lambda **how: fc.conv2d(X, W, stride=(1, 2), **how), (1, 8, 7, 4), "f", "not divide"),
    "dilation": (lambda **how: fc.conv2d(X, W, dilation=5, padding=6, **how), (1, 8, 11, 11), "f", "25 phases"),
    "stride and dilation": (
        lambda **how: fc.conv2d(X, W, stride=2, dilation=2, **how), (1, 8, 3, 3), "f", "a stride and a dilation"
    ),
    "7x7": (lambda **how: fc.conv2d(X, np.ones((8, 8, 7, 7), "f"), **how), (1, 8, 3, 3), "f", "kernels of 7x7"),
    "up-sampling": (lambda **how: fc.conv_transpose2d(X, W, stride=2, **how), (1, 8, 19, 19), "f", "kernels of"),
    "gradient of the weight": (
        lambda **how: fc.grad.conv2d_weight(X, (8, 8, 2, 2), X[..., 1:, 1:], **how), (8, 8, 2, 2), "f", "kernels of 2x2"
    ),
    "plan": (lambda out, **how: fc.plan_conv2d(W, stride=2, **how)(X, out=out), (1, 8, 4, 4), "f", "not divide"),
}  # fmt: skip


@pytest.mark.parametrize("what", DECLINED)
def test_what_it_declines_is_an_error_that_says_why(tiled, what):
    """Before any work."""
    call, shape, dtype, why = DECLINED[what]
    out = np.full(shape, 7, dtype)
    with pytest.raises(fc.ArgumentError, match=f"algorithm='winograd' does not apply: .*{why}"):
        call(out=out, algorithm="winograd")
    assert (out == 7).all()


def test_an_engine_without_it_says_so():
    out = np.full((1, 8, 7, 7), 7, np.float32)
    with pytest.raises(fc.ArgumentError, match=r"algorithm='winograd' does not apply: .*window engines"):
        fc.conv2d(X, W, out=out, algorithm="winograd", backend="numpy")
    assert (out == 7).all()


def test_the_variable_is_named(tiled, monkeypatch):
    monkeypatch.setenv("FASTCONV_ALGORITHM", "winograd")
    assert fc.explain("conv2d", X.shape, W.shape).algorithm == "winograd"
    with pytest.raises(fc.ArgumentError, match=r"FASTCONV_ALGORITHM=winograd does not apply: .*stride does not divide"):
        fc.conv2d(X, W, stride=2)


# ---- the choice

DEEP, SHALLOW = ((64, 56, 56), (64, 64, 3, 3)), ((3, 56, 56), (64, 3, 3, 3))


def algorithm_of(shape, weight, batch=1, **options):
    return fc.explain("conv2d", (batch, *shape), weight, padding=1, **options).algorithm


def test_auto_takes_it_where_it_is_quicker(tiled, monkeypatch):
    """The same for any number of images and threads, as it decides the bits."""
    for batch, threads in itertools.product((1, 8), (1, 2)):
        empty_caches(monkeypatch)
        fc.set_num_threads(threads)
        assert algorithm_of(*DEEP, batch) == "winograd"
        assert algorithm_of(*SHALLOW, batch) == "direct"
        assert algorithm_of(*DEEP, batch, dtype="float64") == "direct"
        assert algorithm_of(*DEEP, batch, algorithm="direct") == "direct"
        with fc.use_algorithm("direct"):
            assert algorithm_of(*DEEP, batch) == "direct"


def test_auto_has_the_bits_of_what_explain_names(tiled):
    rng = np.random.default_rng(0)
    for shape, weight in (DEEP, SHALLOW):
        x, w = rng.standard_normal((1, *shape), np.float32), rng.standard_normal(weight, np.float32)
        why = fc.explain("conv2d", x.shape, w.shape, padding=1)
        assert why.kernel in str(why)
        named = fc.conv2d(x, w, padding=1, algorithm=why.algorithm)
        np.testing.assert_array_equal(fc.conv2d(x, w, padding=1), named)


def test_explain_says_why_not(tiled):
    why = fc.explain("conv2d", (1, *DEEP[0]), DEEP[1], padding=1, stride=2)
    assert {why.kernels_passed_over[name] for name in KERNELS} == {"the stride does not divide the kernel"}
    why = fc.explain("conv2d", (1, *DEEP[0]), DEEP[1], padding=1)
    assert why.algorithms_passed_over.keys() == {"direct", "fft"}
    assert "is predicted to be quicker" in why.algorithms_passed_over["direct"]
