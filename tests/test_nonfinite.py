"""A run that diverges goes on: what infinities and NaNs cost, beside finite numbers. Where they stand in the results is
checked with the contractions."""

from __future__ import annotations

import time

import numpy as np
import pytest
from problems import Problem
from registry import empty_caches

import fastconv as fc
from fastconv.backends.contract import is_tiled
from fastconv.dispatch import backends
from fastconv.planner import finite

#: Kinds of layers, and those whose ways to compute take a weight to be finite: paddings, large kernels, phases.
LAYERS = {
    "depthwise 13": Problem(False, 2, (1, 32, 9, 9), (32, 1, 13, 13), {"padding": 6, "groups": 32}),
    "depthwise 31": Problem(False, 2, (1, 64, 14, 14), (64, 1, 31, 31), {"padding": 15, "groups": 64}),
    "depthwise 31, larger": Problem(False, 2, (1, 64, 32, 32), (64, 1, 31, 31), {"padding": 15, "groups": 64}),
    "depthwise 7": Problem(False, 2, (1, 64, 28, 28), (64, 1, 7, 7), {"padding": 3, "groups": 64}),
    "depthwise 7, stride": Problem(False, 2, (1, 64, 28, 28), (64, 1, 7, 7), {"padding": 3, "stride": 2, "groups": 64}),
    "depthwise 5": Problem(False, 2, (1, 64, 28, 28), (64, 1, 5, 5), {"padding": 2, "groups": 64}),
    "depthwise 3": Problem(False, 2, (1, 64, 56, 56), (64, 1, 3, 3), {"padding": 1, "groups": 64}),
    "depthwise 3, batch": Problem(False, 2, (8, 64, 28, 28), (64, 1, 3, 3), {"padding": 1, "groups": 64}),
    "depthwise 3, stride": Problem(False, 2, (1, 64, 56, 56), (64, 1, 3, 3), {"padding": 1, "stride": 2, "groups": 64}),
    "dilated, deep": Problem(False, 2, (1, 64, 28, 28), (64, 1, 3, 3), {"padding": 3, "dilation": 3, "groups": 64}),
    "two a channel": Problem(False, 2, (1, 64, 28, 28), (128, 1, 3, 3), {"padding": 1, "groups": 64}),
    "3x3": Problem(False, 2, (1, 64, 28, 28), (64, 64, 3, 3), {"padding": 1}),
    "3x3, small maps": Problem(False, 2, (8, 256, 7, 7), (256, 256, 3, 3), {"padding": 1}),
    "3x3, large weight": Problem(False, 2, (1, 512, 7, 7), (512, 512, 3, 3), {"padding": 1}),
    "3x3, stride": Problem(False, 2, (1, 64, 56, 56), (64, 64, 3, 3), {"padding": 1, "stride": 2}),
    "3x3, dilated": Problem(False, 2, (1, 64, 28, 28), (64, 64, 3, 3), {"padding": 4, "dilation": 4}),
    "3x3, no padding": Problem(False, 2, (1, 64, 28, 28), (64, 64, 3, 3)),
    "3x3, much padding": Problem(False, 2, (1, 16, 8, 8), (16, 16, 3, 3), {"padding": 20}),
    "1x1": Problem(False, 2, (1, 64, 28, 28), (64, 64, 1, 1)),
    "1x1, stride": Problem(False, 2, (1, 64, 28, 28), (64, 64, 1, 1), {"stride": 2}),
    "stem": Problem(False, 2, (1, 3, 112, 112), (64, 3, 7, 7), {"padding": 3, "stride": 2}),
    "groups of four": Problem(False, 2, (1, 128, 14, 14), (128, 4, 3, 3), {"padding": 1, "groups": 32}),
    "11x11": Problem(False, 2, (1, 8, 48, 48), (8, 8, 11, 11), {"padding": 5}),
    "19x19, more padding than map": Problem(False, 2, (1, 16, 12, 12), (16, 16, 19, 19), {"padding": 18}),
    "patches": Problem(False, 2, (1, 3, 224, 224), (96, 3, 16, 16), {"stride": 16}),
    "stride beyond half a kernel": Problem(False, 2, (1, 3, 64, 64), (32, 3, 7, 7), {"padding": 3, "stride": 4}),
    "audio": Problem(False, 1, (4, 32, 1000), (32, 32, 9), {"padding": 4}),
    "audio, dilated": Problem(False, 1, (1, 32, 1000), (32, 32, 9), {"padding": 64, "dilation": 16}),
    "audio, depthwise": Problem(False, 1, (1, 64, 1000), (64, 1, 31), {"padding": 15, "groups": 64}),
    "audio, 1024 taps": Problem(False, 1, (1, 1, 65536), (64, 1, 1024), {"stride": 256}),
    "tiny": Problem(False, 2, (1, 2, 5, 5), (2, 2, 3, 3), {"padding": 1}),
    "up k4s2": Problem(True, 2, (1, 64, 14, 14), (64, 32, 4, 4), {"stride": 2, "padding": 1}),
    "up k2s2": Problem(True, 2, (1, 64, 14, 14), (64, 32, 2, 2), {"stride": 2}),
    "up k3s2": Problem(True, 2, (1, 64, 14, 14), (64, 32, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    "up k16s8": Problem(True, 2, (1, 21, 34, 34), (21, 1, 16, 16), {"stride": 8}),
    "up k64s32": Problem(True, 2, (1, 21, 10, 10), (21, 1, 64, 64), {"stride": 32}),
    "up, depthwise": Problem(True, 2, (1, 64, 28, 28), (64, 1, 4, 4), {"stride": 2, "padding": 1, "groups": 64}),
    "up 3x3": Problem(True, 2, (1, 64, 28, 28), (64, 64, 3, 3), {"padding": 1}),
    "audio up, 1024 taps": Problem(True, 1, (1, 64, 256), (64, 1, 1024), {"stride": 256}),
    "audio up, 1024 taps, padding": Problem(True, 1, (1, 64, 256), (64, 1, 1024), {"stride": 256, "padding": 384}),
    "tiny up": Problem(True, 2, (1, 2, 5, 5), (2, 2, 3, 3), {"padding": 1}),
}  # fmt: skip

#: How many times as long a call may take that has infinities or NaNs; calls shorter than so many seconds count as that
#: long, as a few of Python's own take longer than they do.
MOST, LEAST = 4, 1e-5


def with_value(array, value, everywhere):
    odd = array.copy()
    odd.flat[slice(None) if everywhere else array.size // 2] = value
    return odd


def calls(problem):
    """For each pass, calls of it by what they are given."""
    x, w, _, dy = problem.arrays("normal", np.float32)
    for which, first, second in (("forward", x, w), ("input", w, dy), ("weight", x, dy)):

        def call(first, second, which=which):
            if which == "forward":
                return problem.forward(first, second)
            sizes = (x.shape, first, second) if which == "input" else (first, w.shape, second)
            return problem.gradient(which, *sizes)

        found = {"finite": lambda call=call, arrays=(first, second): call(*arrays)}
        for name, value, everywhere in (("NaN", np.nan, False), ("infinity", np.inf, False), ("all NaN", np.nan, True)):
            odd = with_value(first, value, everywhere), with_value(second, value, everywhere)
            found[f"{name} in the first"] = lambda call=call, arrays=(odd[0], second): call(*arrays)
            found[f"{name} in the second"] = lambda call=call, arrays=(first, odd[1]): call(*arrays)
        yield which, found


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def slower(found, rounds=40):
    """How many times as long each call takes as the finite one: the least of as many rounds as it takes to be few."""
    least = dict.fromkeys(found, np.inf)
    for _ in range(rounds):
        for name, call in found.items():
            for _ in range(3):
                least[name] = min(least[name], seconds(call))
        ratios = {name: seconds / max(least["finite"], LEAST) for name, seconds in least.items()}
        if max(ratios.values()) <= MOST:
            break
    return {name: round(ratio, 1) for name, ratio in ratios.items() if ratio > MOST}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_infinities_and_nans_cost_little(engine, name):
    """In either argument of each pass, one and everywhere, the first call aside."""
    fc.set_num_threads(1)
    found = {which: slower(found) for which, found in calls(LAYERS[name])}
    assert not any(found.values()), found


def test_the_first_call_with_a_nan_plans_no_tap_by_itself(engine):
    """Of 961 taps that took seconds."""
    fc.set_num_threads(1)
    for _, found in calls(LAYERS["depthwise 31, larger"]):
        most = 1 + 20 * seconds(found.pop("finite"))
        for name, call in found.items():
            assert seconds(call) < most, name


@pytest.mark.parametrize("name", ["3x3, dilated", "up k4s2", "depthwise 31, larger"])
@pytest.mark.parametrize("share", [0, 0.1])
def test_the_bits_do_not_depend_on_threads(name, share):
    problem = LAYERS[name]
    rng = np.random.default_rng(0)
    x, w, _, dy = problem.arrays("normal", np.float32)
    for array in (x, w, dy):
        places = rng.random(array.shape) < share
        places.flat[array.size // 2] = True
        array[places] = rng.choice([np.nan, np.inf, -np.inf], places.sum())
    for backend in fc.available_backends():
        if backend == "numpy":
            continue  # its bits are BLAS's
        results = []
        for threads in (1, 2, 4):
            fc.set_num_threads(threads)
            with fc.use_backend(backend):
                results.append(
                    (
                        problem.forward(x, w),
                        problem.gradient("input", x.shape, w, dy),
                        problem.gradient("weight", x, w.shape, dy),
                    )
                )
        for others in results[1:]:
            for one, other in zip(results[0], others, strict=True):
                np.testing.assert_array_equal(one, other)


def linked(problem, target):
    """Whether each row (column) of the result has a product with each row (column) of the second factor."""
    found = []
    for axis in problem.geometry.lifted().axes:
        large, small, taps = (np.arange(n) for n in (axis.large, axis.small, axis.taps))
        at = small[:, None] * axis.stride - axis.pad_before + taps * axis.dilation
        found.append({
            "small": (at >= 0) & (at < axis.large),
            "weight": ((at >= 0) & (at < axis.large)).T,
            "large": (large[:, None, None] == at).any(1),
        }[target])  # fmt: skip
    return found


@pytest.mark.parametrize("target", ["small", "large", "weight"])
@pytest.mark.parametrize("name", LAYERS)
def test_the_pixels_that_are_looked_at_have_all_of_the_factor_in_their_sums(name, target):
    """By the definition; where there are none, an element has no product, or they would be too many."""
    problem = LAYERS[name]
    if max(axis.large for axis in problem.geometry.axes) > 10_000:
        pytest.skip("the definition takes a table that is too large")
    pixels = finite._covering_pixels(problem.geometry.lifted(), target)
    rows, cols = linked(problem, target)
    if pixels.size:
        assert len(pixels) <= finite._PIXELS
        places = zip(*np.unravel_index(pixels, (len(rows), len(cols))), strict=True)
        assert np.any([np.outer(rows[i], cols[j]) for i, j in places], axis=0).all()
    else:
        needed = 1
        for table in (rows, cols):  # each covers at least as many as one of them links of the other, at most
            needed *= -(-table.shape[1] // max(1, table.sum(1).max()))
        assert needed > 1 or not (rows.any(0).all() and cols.any(0).all())


def test_most_layers_are_looked_at_in_one_pixel():
    """In no more than one of each phase, if all of the kernel is inside of the map somewhere."""
    width = LAYERS["3x3"].geometry.axes[1].small
    assert finite._covering_pixels(LAYERS["3x3"].geometry, "small").tolist() == [width + 1]  # row 1, column 1
    assert finite._covering_pixels(LAYERS["3x3"].geometry, "weight").tolist() == [3 + 1]
    assert len(finite._covering_pixels(LAYERS["3x3"].geometry, "large")) == 1
    assert len(finite._covering_pixels(LAYERS["up k4s2"].geometry, "large")) == 4
    assert len(finite._covering_pixels(LAYERS["depthwise 13"].geometry, "small")) == 4
    assert not finite._covering_pixels(
        LAYERS["depthwise 31"].geometry, "small"
    ).size  # its outermost taps link no pixel


@pytest.mark.parametrize("name", ["3x3, large weight", "3x3, small maps", "depthwise 13", "up k4s2"])
def test_a_finite_factor_is_not_scanned(monkeypatch, name):
    """Neither it nor the result, however large they are: a few numbers of each channel are."""
    looked_at = []
    monkeypatch.setattr(finite, "_is_finite", lambda numbers: looked_at.append(numbers.size) or True)
    x, w, _, dy = LAYERS[name].arrays("normal", np.float32)
    for backend in fc.available_backends():
        with fc.use_backend(backend):
            LAYERS[name].forward(x, w)
            LAYERS[name].gradient("input", x.shape, w, dy)
            LAYERS[name].gradient("weight", x, w.shape, dy)
    assert max(looked_at, default=0) <= max(finite._LINE * max(w.shape[:2]) * 4, finite._SHORT) < w.size


@pytest.mark.parametrize("name", ["depthwise 13", "3x3, dilated", "up k4s2"])
def test_what_is_planned_for_a_nan_is_kept(monkeypatch, name):
    """The second call with NaNs plans nothing, on any engine that is told of its plans, and what is kept is bounded."""
    empty_caches(monkeypatch)
    fc.set_num_threads(1)
    x, w, _, dy = LAYERS[name].arrays("normal", np.float32)
    w[..., ::2], dy[..., ::2] = np.nan, np.nan
    for backend in fc.available_backends():
        if not is_tiled(engine := backends.in_use(backend)):
            continue
        planned, prepared = [], engine.prepared
        monkeypatch.setattr(engine, "prepared", lambda *a, p=planned, f=prepared: (p.append(1), f(*a))[1])
        for again in (False, True):
            planned.clear()
            with fc.use_backend(backend):
                LAYERS[name].forward(x, w)
                LAYERS[name].gradient("input", x.shape, w, dy)
                LAYERS[name].gradient("weight", x, w.shape, dy)
            assert bool(planned) is not again
