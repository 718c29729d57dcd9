"""Every engine and algorithm against the reference, which is written as the definition reads."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import Problem, assert_within_rounding, problems, sparse_problems

import fastconv as fc
from fastconv.kernels import abi
from fastconv.planner import window_costs
from fastconv.problem import reference

relaxed = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}

#: Problems of each kind by hand: what a drawn one might miss, and what tiles and phases find hard.
CASES = {
    "pointwise": Problem(False, 2, (2, 5, 4, 3), (7, 5, 1, 1)),
    "3x3": Problem(False, 2, (2, 4, 6, 7), (3, 4, 3, 3), {"padding": 1}),
    "stem": Problem(False, 2, (1, 3, 17, 16), (4, 3, 7, 7), {"padding": 3, "stride": 2}),
    "depthwise": Problem(False, 2, (2, 6, 7, 8), (6, 1, 3, 3), {"padding": 1, "groups": 6}),
    "depthwise, two a channel": Problem(False, 2, (2, 3, 7, 8), (6, 1, 3, 3), {"padding": 1, "groups": 3}),
    "grouped": Problem(False, 2, (1, 6, 7, 8), (4, 3, 3, 2), {"padding": (1, 0), "groups": 2, "stride": (1, 2)}),
    "dilated": Problem(False, 2, (1, 2, 12, 11), (3, 2, 3, 3), {"padding": 4, "dilation": (4, 3)}),
    "stride over dilation": Problem(False, 2, (1, 2, 13, 14), (3, 2, 3, 3), {"stride": (4, 6), "dilation": (6, 4)}),
    "stride beyond kernel": Problem(False, 2, (1, 2, 11, 12), (3, 2, 2, 1), {"stride": (5, 3)}),
    "kernel of the input's size": Problem(False, 2, (2, 3, 4, 5), (2, 3, 4, 5)),
    "padding beyond kernel": Problem(False, 2, (1, 2, 2, 3), (2, 2, 2, 2), {"padding": (5, 4)}),
    "rest at the end": Problem(False, 2, (1, 2, 8, 9), (2, 2, 3, 3), {"stride": 4}),
    "one pixel": Problem(False, 2, (2, 3, 1, 1), (4, 3, 1, 1), {"stride": 2**31 - 1}),
    "reflect": Problem(False, 2, (2, 2, 4, 5), (3, 2, 3, 3), {"padding": ((3, 1), (2, 4)), "padding_mode": "reflect"}),
    "replicate": Problem(False, 2, (2, 2, 4, 5), (3, 2, 3, 3), {"padding": (6, 0), "padding_mode": "replicate"}),
    "circular": Problem(False, 2, (2, 2, 4, 5), (3, 2, 3, 3), {"padding": (4, 5), "padding_mode": "circular"}),
    "audio": Problem(False, 1, (2, 2, 50), (3, 2, 9), {"stride": 4, "padding": 3}),
    "transposed": Problem(True, 2, (2, 4, 5, 6), (4, 3, 3, 3), {"padding": 1}),
    "up-sampling k2s2": Problem(True, 2, (2, 4, 5, 6), (4, 3, 2, 2), {"stride": 2}),
    "up-sampling k4s2": Problem(True, 2, (2, 4, 5, 6), (4, 3, 4, 4), {"stride": 2, "padding": 1}),
    "up-sampling k3s2": Problem(True, 2, (1, 4, 5, 6), (4, 3, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    "up-sampling k9s3": Problem(True, 2, (1, 2, 4, 3), (2, 1, 9, 9), {"stride": 3, "padding": 4, "output_padding": 2}),
    "transposed depthwise": Problem(True, 2, (2, 4, 5, 6), (4, 1, 4, 4), {"stride": 2, "padding": 1, "groups": 4}),
    "transposed dilated": Problem(True, 2, (1, 2, 4, 5), (2, 3, 3, 2), {"stride": (2, 3), "dilation": (3, 2)}),
    "gaps between": Problem(True, 2, (1, 2, 3, 4), (2, 2, 2, 1), {"stride": (4, 3)}),
    "transposed same": Problem(True, 2, (1, 2, 3, 4), (2, 2, 4, 2), {"stride": (3, 3), "padding": "same_lower"}),
    "no tap linked": Problem(True, 1, (2, 2, 1), (2, 3, 2), {"dilation": 2, "padding": "same"}),
    "gaps alone": Problem(True, 2, (2, 3, 5, 19), (3, 4, 1, 1), {"stride": 2, "output_padding": 1}),
    "one-dimensional up": Problem(True, 1, (2, 2, 7), (2, 3, 5), {"stride": 2, "padding": 2}),
}  # fmt: skip

#: Problems that fill tiles: whole vectors and rests of them, several blocks of channels, of columns, of images.
LARGE = {
    "whole vectors a row": Problem(False, 2, (1, 3, 10, 32), (16, 3, 3, 3), {"padding": 1}),
    "ragged on both sides": Problem(False, 2, (2, 20, 9, 50), (11, 20, 3, 3), {"padding": 1}),
    "many channels": Problem(False, 2, (2, 40, 14, 14), (24, 40, 3, 3), {"padding": 1}),
    "small maps of several images": Problem(False, 2, (5, 24, 7, 7), (16, 24, 3, 3), {"padding": 1}),
    "few results, pointwise": Problem(False, 2, (2, 7, 10, 20), (3, 7, 1, 1)),
    "many channels, pointwise": Problem(False, 2, (3, 150, 9, 9), (20, 150, 1, 1)),
    "stride on long rows": Problem(False, 2, (1, 3, 33, 66), (8, 3, 3, 3), {"padding": 1, "stride": 2}),
    "stride of four on long rows": Problem(False, 2, (2, 3, 37, 90), (9, 3, 5, 11), {"padding": (1, 6), "stride": 4}),
    "one result": Problem(False, 2, (1, 9, 20, 40), (1, 9, 5, 5), {"padding": 2}),
    "one channel": Problem(False, 2, (1, 1, 20, 64), (9, 1, 3, 3), {"padding": 1}),
    "all inside, few results": Problem(False, 2, (2, 3, 40, 37), (4, 3, 3, 3)),
    "planes of a page": Problem(False, 2, (2, 5, 32, 32), (19, 5, 3, 3), {"padding": 1}),
    "up to planes of pages": Problem(True, 2, (2, 6, 16, 32), (6, 21, 2, 2), {"stride": 2}),
    "groups of eight": Problem(False, 2, (2, 32, 16, 16), (32, 8, 3, 3), {"padding": 1, "groups": 4}),
    "large kernel": Problem(False, 2, (1, 4, 24, 48), (4, 4, 11, 11), {"padding": 5}),
    "3x1": Problem(False, 2, (2, 40, 40, 9), (33, 40, 3, 1), {"padding": (1, 0)}),
    "4x4": Problem(False, 2, (2, 20, 14, 15), (33, 20, 4, 4), {"padding": 1}),
    "up k5s2": Problem(True, 2, (2, 20, 10, 12), (20, 17, 5, 5), {"stride": 2, "padding": 2}),
    "depthwise, many": Problem(False, 2, (2, 37, 20, 30), (37, 1, 5, 5), {"padding": 2, "groups": 37}),
    "depthwise with stride": Problem(False, 2, (1, 40, 21, 33), (40, 1, 3, 3), {"stride": 2, "groups": 40}),
    "depthwise, larger than the map": Problem(False, 2, (1, 32, 9, 9), (32, 1, 13, 13), {"padding": 6, "groups": 32}),
    "columns in blocks": Problem(False, 1, (2, 5, 2500), (6, 5, 3), {"padding": 1}),
    "up, wide": Problem(True, 2, (1, 12, 16, 20), (12, 9, 4, 4), {"stride": 2, "padding": 1}),
    "up, odd": Problem(True, 2, (2, 5, 9, 20), (5, 7, 3, 3), {"stride": 2, "padding": 1}),
    "up, depthwise": Problem(True, 2, (1, 20, 12, 17), (20, 1, 3, 3), {"stride": 2, "padding": 1, "groups": 20}),
    "up, depthwise, by three": Problem(True, 2, (1, 20, 9, 14), (20, 1, 5, 5), {"stride": 3, "groups": 20}),
    "up from one pixel": Problem(True, 2, (6, 20, 1, 1), (20, 10, 4, 4)),
    "up from one pixel, long rows": Problem(True, 2, (3, 9, 1, 1), (9, 70, 3, 3)),
    "to one pixel, long rows": Problem(False, 2, (7, 27, 5, 4), (19, 27, 5, 4)),
    "depthwise, dilated": Problem(False, 2, (2, 35, 9, 21), (35, 1, 3, 3), {"padding": 2, "dilation": 2, "groups": 35}),
    "depthwise, stride beyond kernel": Problem(
        False, 2, (3, 18, 14, 23), (18, 1, 2, 1), {"stride": (3, 4), "groups": 18}
    ),
    "depthwise, dilated beyond the map": Problem(
        False, 2, (2, 17, 5, 6), (17, 1, 3, 5), {"padding": (9, 14), "dilation": (9, 7), "groups": 17}
    ),
    "depthwise, some rows unread": Problem(
        False, 2, (2, 19, 23, 17), (19, 1, 4, 2), {"stride": (5, 2), "dilation": (1, 2), "groups": 19}
    ),
    "depthwise, two results a channel, stride": Problem(
        False, 2, (2, 17, 13, 18), (34, 1, 5, 5), {"padding": 2, "stride": 2, "groups": 17}
    ),
    "depthwise, many images, stride": Problem(
        False, 2, (9, 64, 11, 11), (64, 1, 5, 5), {"padding": 2, "stride": 2, "groups": 64}
    ),
}  # fmt: skip
#: Small kernels of one channel each, on rows of several vectors and of less than one.
LARGE |= {
    "up to fewer columns than the stride": Problem(
        True, 2, (2, 5, 3, 1), (5, 4, 3, 4), {"stride": 4, "padding": (0, 1)}
    ),
    "to one pixel, the kernel's end first": Problem(
        False, 1, (2, 3, 2), (4, 3, 3), {"stride": 2, "padding": "same_lower"}
    ),
}
LARGE |= {
    f"up without overlap or with one of half a kernel, stride {stride}": Problem(
        True, 1, (2, 6, 21), (6, 2, stride * taps), {"stride": stride, "padding": stride * (taps - 1) // 2, "groups": 2}
    )
    for stride, taps in ((2, 3), (3, 1), (4, 1), (8, 3), (16, 1), (32, 1))
}
LARGE |= {
    f"depthwise, kernel {kernel}, stride {stride}, {width} wide": Problem(
        False, 2, (2, 3, 17, width), (3, 1, kernel, kernel), {"padding": kernel // 2, "stride": stride, "groups": 3}
    )
    for kernel, stride in abi.ROW_KERNELS
    for width in (7, 81)
}
#: Kernels of one channel each with many taps in a row, of which some or most meet the padding.
LONG_ROWS = {
    "depthwise, long rows": Problem(False, 2, (3, 17, 6, 45), (17, 1, 5, 13), {"padding": (2, 6), "groups": 17}),
    "depthwise, long rows to one side": Problem(
        False, 2, (1, 18, 9, 9), (18, 1, 4, 13), {"padding": ((0, 5), (11, 0)), "groups": 18}
    ),
    "depthwise, padding beyond long rows": Problem(
        False, 2, (2, 16, 5, 7), (16, 1, 5, 6), {"padding": (6, 13), "groups": 16}
    ),
    "depthwise, a window in the padding alone": Problem(
        False, 2, (2, 17, 1, 1), (17, 1, 8, 8), {"stride": 20, "padding": ((20, 0), (20, 0)), "groups": 17}
    ),
    "up, depthwise, long rows": Problem(
        True, 2, (2, 17, 7, 19), (17, 1, 8, 10), {"stride": 2, "padding": (3, 4), "groups": 17}
    ),
}
LARGE |= LONG_ROWS
#: So many multiply-adds that those on the padding are worth leaving out.
PADDED = {
    "padded, small maps": Problem(False, 2, (8, 64, 5, 5), (96, 64, 3, 3), {"padding": 1}),
    "padded, dilated": Problem(False, 2, (2, 40, 11, 30), (48, 40, 3, 3), {"padding": 9, "dilation": 9}),
    "padded, more than the kernel": Problem(False, 2, (8, 32, 9, 10), (47, 32, 3, 4), {"padding": ((5, 0), (0, 6))}),
    "padded, large kernel": Problem(False, 2, (2, 16, 12, 20), (16, 16, 9, 9), {"padding": 4}),
    "padded, large kernel, stride": Problem(
        False, 2, (2, 16, 17, 15), (16, 16, 13, 13), {"padding": 6, "stride": (2, 1)}
    ),
    "padded, up": Problem(True, 2, (3, 64, 7, 7), (64, 48, 6, 6), {"stride": 2, "padding": 2}),
}
LARGE |= PADDED
LARGE |= {
    f"depthwise, kernel {kernel}, stride {stride}, eleven channels": Problem(
        False, 2, (2, 11, 38, 38), (11, 1, kernel, kernel), {"padding": 1, "stride": stride, "groups": 11}
    )
    for kernel, stride in abi.ROW_KERNELS_WEIGHT_GRAD
}
LARGE |= {
    f"up, depthwise, kernel {kernel}, padding {odd}, {width} wide": Problem(
        True, 2, (2, 3, 9, width), (3, 1, kernel, kernel), {"padding": odd, "stride": 2, "groups": 3}
    )
    for kernel, odd in abi.ROW_KERNELS_TRANSPOSED
    for width in (5, 41)
}


def contractions(problem: Problem, x, w, dy):
    """Each target as we compute it."""
    one, other = problem.forward(x, w), problem.gradient("input", x.shape, w, dy)
    small, large = (other, one) if problem.transposed else (one, other)
    return {"small": small, "large": large, "weight": problem.gradient("weight", x, w.shape, dy)}


def by_definition(problem: Problem, x, w, dy):
    """Each target as the reference has it."""
    geometry = problem.geometry.lifted()
    given = {"large": dy, "small": x, "weight": w} if problem.transposed else {"large": x, "small": dy, "weight": w}
    shapes = {"large": geometry.large_shape, "small": geometry.small_shape, "weight": geometry.weight_shape}
    arrays = {role: array.reshape(shapes[role]) for role, array in given.items()}
    return {
        target: getattr(reference, f"to_{target}")(
            geometry, *(array for role, array in arrays.items() if role != target)
        ).reshape(given[target].shape)
        for target in given
    }


@functools.cache
def known(problem: Problem, kind: str, absolute: bool = False):
    """That of the problem's own numbers, or of their absolute values; once for all engines."""
    x, w, _, dy = problem.arrays(kind)
    return by_definition(problem, *(np.abs(array) if absolute else array for array in (x, w, dy)))


def check(problem: Problem) -> None:
    """Small integers bit for bit in both precisions; normal numbers to rounding."""
    geometry = problem.geometry
    taps = math.prod(geometry.weight_shape[2:])
    # with a padding mode a pixel of the large map stands in several places
    copies = 3**problem.spatial if geometry.padding_mode != "zeros" else 1
    terms = {
        "small": taps * geometry.large_channels // geometry.groups,
        "large": taps * geometry.small_channels // geometry.groups * copies,
        "weight": geometry.batch * math.prod(axis.small for axis in geometry.axes),
    }
    for dtype in (np.float32, np.float64):
        x, w, _, dy = problem.arrays("integers", dtype)
        exact = known(problem, "integers")
        for target, ours in contractions(problem, x, w, dy).items():
            np.testing.assert_array_equal(ours, exact[target].astype(dtype), err_msg=target, strict=True)
    x, w, _, dy = problem.arrays("normal")
    expected, magnitude = known(problem, "normal"), known(problem, "normal", absolute=True)
    for target, ours in contractions(problem, x, w, dy).items():
        assert_within_rounding(ours, expected[target], magnitude[target], terms[target], target)


@pytest.mark.parametrize("name", CASES)
def test_cases(engine, name):
    check(CASES[name])


@pytest.mark.parametrize("name", LARGE)
def test_large_cases(engine, name):
    check(LARGE[name])


@pytest.mark.parametrize("name", CASES)
def test_cases_in_many_blocks(engine, name, monkeypatch):
    """The size of a block does not matter: a few elements of workspace give the same results."""
    monkeypatch.setattr(window_costs, "WINDOW_COSTS", window_costs.WindowCosts(matrix=24, width=3))
    check(CASES[name])


@settings(max_examples=150, **relaxed)
@given(problems())
def test_drawn(engine, problem):
    check(problem)


@settings(max_examples=30, **relaxed)
@given(sparse_problems())
def test_drawn_windows_in_the_padding(engine, problem):
    check(problem)


@pytest.mark.parametrize("mode", ["zeros", "replicate"])
def test_a_window_in_the_padding_alone(engine, mode):
    """Of zeros it gives the bias, and no gradient."""
    x, w = np.full((1, 32, 1, 1), 2.0), np.ones((32, 1, 8, 8))
    how = {"stride": 20, "padding": ((20, 0), (20, 0)), "groups": 32, "padding_mode": mode}
    pixel = 0 if mode == "zeros" else 64
    y = fc.conv2d(x, w, np.arange(32.0), **how)
    np.testing.assert_array_equal(y[0, :, 0, 0], 2 * pixel + np.arange(32))
    np.testing.assert_array_equal(fc.grad.conv2d_input(x.shape, w, np.ones_like(y), **how), np.full_like(x, pixel))
    np.testing.assert_array_equal(
        fc.grad.conv2d_weight(x, w.shape, np.ones_like(y), **how), np.full_like(w, 2 * (mode != "zeros"))
    )


@pytest.mark.parametrize("name", CASES)
def test_bias(engine, name):
    """Forward adds a bias to every pixel of its channel, those that no tap reaches included; its gradient sums them."""
    problem = CASES[name]
    x, w, bias, dy = problem.arrays("integers")
    with_bias = problem.forward(x, w, bias)
    per_channel = bias.reshape(-1, *(1,) * problem.spatial)
    np.testing.assert_array_equal(with_bias, problem.forward(x, w) + per_channel)
    axes = tuple(axis for axis in range(dy.ndim) if axis != dy.ndim - problem.spatial - 1)
    np.testing.assert_array_equal(problem.gradient("bias", dy), dy.sum(axis=axes))


@settings(max_examples=300, **relaxed)
@given(problems())
def test_adjointness(engine, problem):
    """<A(x, w), y> == <x, B(y, w)> == <w, G(x, y)>: on integers, to the last bit."""
    x, w, _, y = problem.arrays("integers")
    forward = np.vdot(problem.forward(x, w), y)
    assert forward == np.vdot(x, problem.gradient("input", x.shape, w, y))
    assert forward == np.vdot(w, problem.gradient("weight", x, w.shape, y))


@pytest.mark.parametrize("name", CASES)
def test_backward_is_the_three_gradients(engine, name):
    problem = CASES[name]
    x, w, _, dy = problem.arrays("integers")
    at_once = problem.gradient("backward", dy, x, w)
    for together, alone in zip(at_once, problem.gradients(dy, x, w), strict=True):
        np.testing.assert_array_equal(together, alone)
    assert problem.gradient("backward", dy, x, w, output_mask=(False, False, False)) == (None, None, None)


@pytest.mark.parametrize("name", CASES)
def test_images_do_not_touch(engine, name):
    """An image alone, unbatched, gives what it gives in its batch; an empty batch gives an empty result."""
    problem = CASES[name]
    x, w, bias, _ = problem.arrays("integers")
    together = problem.forward(x, w, bias)
    np.testing.assert_array_equal(problem.forward(x[-1], w, bias), together[-1])
    empty = problem.forward(x[:0], w, bias)
    assert empty.shape == (0, *together.shape[1:])


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_an_empty_batch(engine, name):
    problem = CASES[name]
    x, w, _, dy = problem.arrays()
    dx, dw, db = problem.gradient("backward", dy[:0], x[:0], w)
    assert dx.shape == x[:0].shape
    np.testing.assert_array_equal(dw, np.zeros_like(w))
    np.testing.assert_array_equal(db, np.zeros(dy.shape[1]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [*CASES, *LONG_ROWS, *PADDED])
def test_nan_and_infinity_stand_where_the_definition_has_them(engine, name, value):
    """In the middle of an array, and at its end, which meets the padding."""
    problem = (CASES | LARGE)[name]
    for place in (lambda array: array.size // 2, lambda array: -1):
        arrays = problem.arrays("integers")
        x, w, dy = arrays[0], arrays[1], arrays[3]
        x.flat[place(x)], w.flat[place(w)], dy.flat[place(dy)] = value, -value, value
        with np.errstate(invalid="ignore"):
            expected = by_definition(problem, x, w, dy)
        for target, ours in contractions(problem, x, w, dy).items():
            np.testing.assert_array_equal(ours, expected[target], err_msg=target)


def with_odd(array, values, share, seed=0):
    """A copy with some of `values` in a `share` of its places, and in one place at least."""
    rng, array = np.random.default_rng(seed), array.copy()
    places = rng.random(array.shape) < share
    places.flat[rng.integers(array.size)] = True
    array[places] = rng.choice(values, places.sum())
    return array


ODD = {
    "a NaN": ([np.nan], 0),
    "an infinity": ([-np.inf], 0),
    "some of each": ([np.nan, np.inf, -np.inf], 0.1),
    "infinities of both signs": ([np.inf, -np.inf], 0.1),
    "infinities alone": ([np.inf], 1),
    "NaNs alone": ([np.nan], 1),
}


@functools.cache
def known_odd(problem, odd):
    """Small integers, of which each array has some that are not finite, and each target by definition."""
    x, w, _, dy = problem.arrays("integers")
    arrays = [with_odd(array, *ODD[odd]) for array in (x, w, dy)]
    with np.errstate(invalid="ignore"):
        return arrays, by_definition(problem, *arrays)


def check_odd(problem, odd):
    arrays, expected = known_odd(problem, odd)
    for target, ours in contractions(problem, *arrays).items():
        np.testing.assert_array_equal(ours, expected[target], err_msg=target)


MANY_ODD = ["depthwise", "grouped", "dilated", "padding beyond kernel", "up-sampling k4s2", "transposed dilated",
            "gaps between", *LONG_ROWS, "padded, small maps"]  # fmt: skip


@pytest.mark.parametrize("odd", ["some of each", "infinities of both signs", "infinities alone", "NaNs alone"])
@pytest.mark.parametrize("name", MANY_ODD)
def test_many_infinities_stand_where_the_definition_has_them(engine, name, odd):
    check_odd((CASES | LARGE)[name], odd)


@settings(max_examples=60, **relaxed)
@given(problems(modes=("zeros",)) | sparse_problems(), st.sampled_from(list(ODD)))
def test_drawn_infinities_stand_where_the_definition_has_them(engine, problem, odd):
    if problem.geometry.padding_mode == "zeros":
        check_odd(problem, odd)


@pytest.mark.parametrize("name", ["depthwise", "up-sampling k4s2", *LONG_ROWS, "padded, small maps", "padded, up"])
@pytest.mark.parametrize("share", [0, 0.02])
def test_what_meets_no_infinity_keeps_its_bits(engine, name, share):
    """An output that is finite is the one that it would be with other numbers in place of what is not."""
    problem = (CASES | LARGE)[name]
    x, w, _, dy = problem.arrays("normal", np.float32)
    odd = contractions(problem, *(with_odd(array, [np.nan, np.inf], share) for array in (x, w, dy)))
    tame = contractions(problem, *(with_odd(array, [1, 1], share) for array in (x, w, dy)))
    for target, ours in odd.items():
        is_finite = np.isfinite(ours)
        np.testing.assert_array_equal(ours[is_finite], tame[target][is_finite], err_msg=target)


def test_an_infinite_imaginary_part_stands_where_the_definition_has_it():
    """Between elements that are larger, where the order of complex numbers does not find it."""
    problem = CASES["up-sampling k4s2"]
    x, w, _, dy = (array.astype(np.complex128) for array in problem.arrays("integers"))
    x.imag, w.imag = x.real[::-1], w.real[::-1]
    for value in (complex(1, np.inf), complex(np.nan, 1), complex(-np.inf, 2)):
        odd = w.copy()
        odd.flat[7] = value
        with np.errstate(invalid="ignore"):
            expected = by_definition(problem, x, odd, dy)["large"]
        np.testing.assert_array_equal(problem.forward(x, odd), expected)


def test_a_signalling_nan_is_one_like_any_other(engine):
    """Outputs that it is not linked to are finite."""
    weight = np.ones((1, 1, 8), np.float32)
    weight.view(np.uint32)[0, 0, 0] = 0x7FA00001
    expected = [np.nan] * 3 + [3, 3, 3, 3, 3, 2, 1]
    np.testing.assert_array_equal(fc.conv_transpose1d(np.ones((1, 3), np.float32), weight)[0], expected)


def test_an_infinite_weight_meets_no_zero_where_no_tap_is_linked(engine):
    """The definition of the transposed convolution has no term there; the numbers are PyTorch's too."""
    weight = np.array([[[[np.inf, 1], [1, 1]]]])
    expected = [[np.inf, np.inf, 1], [np.inf, np.inf, 2], [1, 2, 1]]
    np.testing.assert_array_equal(fc.conv_transpose2d(np.ones((1, 2, 2)), weight)[0], expected)
    np.testing.assert_array_equal(fc.grad.conv2d_input((1, 3, 3), weight, np.ones((1, 2, 2)))[0], expected)


def test_the_odd_pixel_of_same_is_at_the_end_and_of_same_lower_at_the_start(engine):
    """A kernel of two taps on a row with one 1, so that it shows where the padding went."""
    row, kernel = [[0.0, 0.0, 1.0]], [[[10.0, 1.0]]]
    np.testing.assert_array_equal(fc.conv1d(row, kernel, padding="same"), [[0, 1, 10]])
    np.testing.assert_array_equal(fc.conv1d(row, kernel, padding="same_lower"), [[0, 0, 1]])
    np.testing.assert_array_equal(fc.conv_transpose1d(row, kernel, padding="same"), [[0, 0, 10]])
    np.testing.assert_array_equal(fc.conv_transpose1d(row, kernel, padding="same_lower"), [[0, 10, 1]])


def test_a_dilation_beyond_all_memory(engine):
    """Only the middle tap meets the map; nothing of the size of the kernel's span is ever made."""
    x = np.arange(64.0).reshape(1, 8, 8)
    weight = np.arange(9.0).reshape(1, 1, 3, 3)
    np.testing.assert_array_equal(fc.conv2d(x, weight, dilation=10**8, padding=10**8), 4 * x)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_is_too_small_or_too_large_raises_nothing(engine, dtype):
    """Whatever numpy.seterr says: an engine that is not NumPy's has no such errors."""
    tiny = np.finfo(dtype).tiny
    with np.errstate(all="raise"):
        assert fc.conv2d(np.full((1, 3, 3), tiny, dtype), np.full((1, 1, 2, 2), tiny, dtype)).max() == 0
        huge = np.full((1, 3, 3), np.finfo(dtype).max, dtype)
        assert fc.conv2d(huge, np.full((1, 1, 2, 2), 2, dtype)).min() == np.inf


def test_the_matrix_is_the_convolution(engine):
    """On many channels and groups at once, exactly."""
    pytest.importorskip("scipy")
    problem = CASES["grouped"]
    x, w, _, dy = problem.arrays("integers")
    matrix = fc.conv2d_matrix(w, x.shape[2:], **problem.parameters)
    np.testing.assert_array_equal(matrix @ x.ravel(), problem.forward(x, w).ravel())
    np.testing.assert_array_equal(matrix.T @ dy.ravel(), problem.gradient("input", x.shape, w, dy).ravel())
