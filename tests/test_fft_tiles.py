"""Spectra of tiles: the transforms, rounding errors, bits, plans, infinities and the choice."""

from __future__ import annotations

import functools
import pathlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from problems import Problem
from registry import TILED, able, only
from scripts import python
from test_memory_order import ORDERS
from test_plans import plan_of
from test_registry import request_of
from test_tiles import SETS, anew, compute, with_costs  # noqa: F401 - `anew` is a fixture
from transformed import applies, assert_same_bits, each, expected_maps, kernels_and_problems, maps

import fastconv as fc
from fastconv.kernels import fourier
from fastconv.kernels.abi import FOURIER
from fastconv.planner import fft_tiles

BENCH = pathlib.Path(__file__).parent.parent / "bench" / "shapes"

#: The kernels of maps, with the pixels of a side of the tiles that each reads.
KERNELS = {f"fft_tiles_{length}": length for length in FOURIER}
GRADIENT = "fft_weight_grad"
pytestmark = pytest.mark.skipif(not TILED, reason="no tile engine runs here")

PROBLEMS = {
    "one tile": Problem(False, 2, (1, 3, 9, 8), (4, 3, 5, 5)),
    "several tiles": Problem(False, 2, (2, 20, 33, 41), (19, 20, 7, 7), {"padding": 3}),
    "padding that differs": Problem(False, 2, (2, 6, 27, 30), (5, 6, 9, 5), {"padding": ((0, 7), (5, 1))}),
    "padding beyond the kernel": Problem(False, 2, (1, 3, 9, 8), (4, 3, 5, 6), {"padding": 9}),
    "whole tiles": Problem(False, 2, (1, 16, 28, 28), (16, 16, 5, 5), {"padding": 2}),
    "11x11": Problem(False, 2, (2, 17, 31, 25), (18, 17, 11, 11), {"padding": 5}),
    "15x21": Problem(False, 2, (1, 5, 40, 44), (6, 5, 15, 21), {"padding": (7, 10)}),
    "31x31": Problem(False, 2, (1, 2, 45, 52), (3, 2, 31, 31), {"padding": 15}),
    "a kernel of the map's size": Problem(False, 2, (2, 5, 11, 10), (3, 5, 11, 10)),
    "one pixel of input": Problem(False, 2, (3, 9, 1, 1), (7, 9, 5, 5), {"padding": 2}),
    "many images of few tiles": Problem(False, 2, (9, 24, 7, 7), (16, 24, 5, 5), {"padding": 2}),
    "one channel": Problem(False, 2, (1, 1, 40, 33), (9, 1, 7, 7), {"padding": 3}),
    "one result": Problem(False, 2, (1, 9, 20, 33), (1, 9, 7, 7), {"padding": 3}),
    "many channels": Problem(False, 2, (1, 150, 19, 20), (40, 150, 5, 5), {"padding": 2}),
    "groups": Problem(False, 2, (2, 12, 29, 17), (21, 4, 7, 7), {"padding": 3, "groups": 3}),
    "groups of vectors": Problem(False, 2, (1, 34, 26, 26), (32, 17, 5, 5), {"padding": 2, "groups": 2}),
    "reflected": Problem(False, 2, (1, 5, 19, 19), (6, 5, 7, 7), {"padding": 3, "padding_mode": "reflect"}),
    "unbatched": Problem(False, 2, (5, 19, 19), (6, 5, 7, 7), {"padding": 3}),
    "transposed": Problem(True, 2, (2, 20, 19, 21), (20, 19, 7, 7), {"padding": 3}),
    "transposed, groups": Problem(True, 2, (2, 6, 14, 19), (6, 5, 9, 9), {"padding": 2, "groups": 2}),
    "up k10s2": Problem(True, 2, (2, 18, 17, 19), (18, 17, 10, 10), {"stride": 2, "padding": 4}),
    "stride 2": Problem(False, 2, (2, 18, 32, 35), (17, 18, 10, 10), {"stride": 2, "padding": 4}),
    "dilation 2": Problem(False, 2, (2, 18, 31, 34), (17, 18, 5, 5), {"dilation": 2, "padding": 4}),
    "dilation that differs": Problem(False, 2, (1, 6, 32, 29), (5, 6, 5, 7), {"dilation": (3, 1), "padding": (1, 4)}),
}  # fmt: skip
#: Of these, those that have several tiles, channels, results and images, for what takes longer.
SOME = ("several tiles", "padding that differs", "11x11", "many images of few tiles", "groups", "transposed",
        "up k10s2", "stride 2", "dilation 2")  # fmt: skip
#: Those that have a weight gradient here.
WEIGHTS = [name for name in PROBLEMS if not name.startswith(("up", "stride", "dilation", "reflected", "unbatched"))]


def pairs(names):
    """Kernels and the problems whose forward map they compute."""
    return kernels_and_problems(KERNELS, PROBLEMS, names)


def gradient(problem, x, w, dy, **options):
    """The weight gradient by spectra."""
    with only(GRADIENT):
        return problem.gradient("weight", x, w.shape, dy, **options)


# ---- the transforms


def run(program, inputs):
    """The results of a program in float64."""
    values = [*inputs]
    for terms in program.sums:
        values.append(sum(coefficient * values[element] for coefficient, element in terms))
    return np.array([values[number] for number in program.results])


def in_pairs(numbers):
    return np.stack([numbers.real, numbers.imag], -1).ravel()


def as_spectrum(frequencies):
    """The frequencies of real elements in the order of a program."""
    return np.concatenate([frequencies[[0, -1]].real, in_pairs(frequencies[1:-1])])


@pytest.mark.parametrize("length", [*FOURIER, 4, 8, 12, 24, 64])
def test_a_program_is_its_transform(length):
    rng = np.random.default_rng(0)
    z, x = rng.standard_normal(length) + 1j * rng.standard_normal(length), rng.standard_normal(length)
    for sign, expected in ((-1, np.fft.fft(z)), (1, length * np.fft.ifft(z))):
        np.testing.assert_allclose(
            run(fourier.complex_transform(length, sign), in_pairs(z)), in_pairs(expected), atol=1e-12
        )
    spectrum = as_spectrum(np.fft.rfft(x))
    np.testing.assert_allclose(run(fourier.real_transform(length), x), spectrum, atol=1e-12)
    np.testing.assert_allclose(run(fourier.real_inverse(length), spectrum), length * x, atol=1e-12)


@pytest.mark.parametrize(("length", "complex_sums", "real_sums"), [(16, 144, 60), (32, 372, 161), (48, 684, 314)])
def test_a_program_has_few_sums(length, complex_sums, real_sums):
    """Each of one operation, as all but the additions are fused, if the first coefficient is 1."""
    program = fourier.complex_transform(length, -1)
    assert len(program.sums) == complex_sums
    assert all(terms[0].coefficient == 1 and len(terms) == 2 for terms in program.sums)
    assert len(fourier.real_transform(length).sums) == real_sums
    assert len(fourier.real_inverse(length).sums) <= real_sums


# ---- rounding


def check_right(engine, kernel, name):
    """All maps of a problem, within rounding: the error of each element is a share of the norms of both factors (N.
    Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, chapter 24)."""
    problem = PROBLEMS[name]
    x, w, bias, dy = problem.arrays("normal", np.float32)
    for which, source, b in (("forward", x, None), ("forward", x, bias), ("input", dy, None)):
        with only(kernel), fc.use_backend(engine):
            found = compute(problem, which, x, w, b, dy)
        expected = compute(problem, which, np.float64(x), np.float64(w), b, np.float64(dy), backend="numpy")
        assert found.dtype == np.float32
        bound = 2.0**-22 * np.linalg.norm(source.astype("d")) * np.linalg.norm(w.astype("d")) + 1e-6
        assert np.abs(found - expected).max() <= bound, (name, which)


@each(pairs(PROBLEMS))
def test_maps_are_what_the_definition_says(tiled, kernel, name):
    check_right(tiled, kernel, name)


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_weight_gradient_is_what_the_definition_says(tiled, name, monkeypatch):
    """The same bits for threads, engines and memory orders."""
    problem = PROBLEMS[name]
    monkeypatch.setattr("fastconv.dispatch.preparation._SERIAL", 0)
    x, w, _, dy = problem.arrays("normal", np.float32)
    assert GRADIENT in able(request_of(tiled, problem, "weight"))
    found = []
    for threads in (1, 2, 3):
        fc.set_num_threads(threads)
        found.append(gradient(problem, x, w, dy))
    found += [gradient(problem, x, w, dy, backend=other) for other in TILED]
    found += [gradient(problem, lay(x), w, lay(dy)) for lay in (ORDERS["inside of another"], np.array)]
    for one in found[1:]:
        np.testing.assert_array_equal(one, found[0], strict=True)
    expected = problem.gradient("weight", x.astype("d"), w.shape, dy.astype("d"), backend="numpy")
    bound = 2.0**-22 * np.linalg.norm(x.astype("d")) * np.linalg.norm(dy.astype("d"))
    assert np.abs(found[0] - expected).max() <= bound


def test_it_applies_to_the_problems_above():
    """So that tests of them are tests of it."""
    assert {name for _, name in pairs(PROBLEMS)} == {*PROBLEMS}
    assert {kernel for kernel, _ in pairs(SOME)} == {*KERNELS}
    backwards = {name for kernel in KERNELS for name in PROBLEMS if applies(kernel, PROBLEMS[name], "input")}
    # one tap links a pixel to the only one of the other map
    assert {*PROBLEMS} - backwards == {"one pixel of input", "a kernel of the map's size"}


@pytest.mark.parametrize(("name", "instructions"), [one for one in SETS if one[0] == "cython"][1:])
def test_the_same_on_each_instruction_set(name, instructions):
    """On all sets but the best, which the other tests are of. For the other engine see tests/test_tiles.py."""
    code = (
        "import test_fft_tiles as here\n"
        "for kernel, problem in here.pairs(here.PROBLEMS):\n"
        f"    here.check_right({name!r}, kernel, problem)"
    )
    done = python(code, FASTCONV_ISA=instructions)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("layer", [(64, 28, 5), (16, 40, 11), (32, 32, 21)], ids=str)
def test_the_rms_error_is_less_than_that_of_direct(layer):
    channels, extent, taps = layer
    problem = Problem(False, 2, (2, channels, extent, extent), (channels, channels, taps, taps), {"padding": taps // 2})
    x, w, _, dy = problem.arrays("normal", np.float32)
    exact = [*maps(problem, *(array.astype("d") for array in (x, w)), None, dy.astype("d"), backend="numpy")]
    exact.append(problem.gradient("weight", x.astype("d"), w.shape, dy.astype("d"), backend="numpy"))
    with fc.use_backend(TILED[-1]):
        direct = maps(problem, x, w, None, dy, algorithm="direct")
        direct.append(problem.gradient("weight", x, w.shape, dy, algorithm="direct"))
        for name in KERNELS:
            if applies(name, problem):
                with only(name):
                    found = maps(problem, x, w, None, dy)
                found.append(gradient(problem, x, w, dy))
                for ours, theirs, right in zip(found, direct, exact, strict=True):
                    assert np.linalg.norm(ours - right) <= np.linalg.norm(theirs - right)


# ---- the same bits


@each(pairs([*SOME, "many channels", "groups of vectors"]))
@pytest.mark.parametrize("workspace", [1, 300_000, 10**7])
def test_the_bits_do_not_depend_on_blocks(tiled, kernel, anew, name, workspace):  # noqa: F811
    """Strips of tiles, blocks of channels and blocks of results."""
    expected = expected_maps(kernel, PROBLEMS[name])
    with_costs(anew, work_items=1, winograd_bytes=workspace)
    anew.setattr(fft_tiles, "TILE_COSTS", fft_tiles.TILE_COSTS._replace(workspace=workspace, weight_channels=16))
    with only(kernel):
        assert_same_bits(maps(PROBLEMS[name], *PROBLEMS[name].arrays("normal", np.float32)), expected)


def test_long_sums_of_a_weight_gradient_are_divided(tiled, anew):  # noqa: F811
    """In chains, whose sums are added in the end."""
    problem = PROBLEMS["many images of few tiles"]
    x, w, _, dy = problem.arrays("normal", np.float32)
    from fastconv.planner import fft_weight_grad

    whole = gradient(problem, x, w, dy)
    anew.setattr(fft_weight_grad, "TILE_COSTS", fft_weight_grad.TILE_COSTS._replace(chain=1, gradient_tiles=1))
    np.testing.assert_allclose(gradient(problem, x, w, dy), whole, rtol=0, atol=1e-5 * np.abs(whole).max())


# ---- plans


def test_threads_share_a_plan_from_its_first_call_on(tiled):
    """The weight is transformed by one of them, and none reads it before it is complete."""
    problem = Problem(False, 2, (1, 32, 24, 24), (32, 32, 9, 9), {"padding": 4})
    x, w, b, _ = problem.arrays("normal", np.float32)
    expected = problem.forward(x, w, b)
    for _ in range(5):
        plan = plan_of(problem, w, b, None, backend=tiled)
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(lambda images, plan=plan: plan(np.repeat(x, images, 0)), [1, 2, 3, 4] * 3):
                np.testing.assert_array_equal(found, np.broadcast_to(expected, found.shape))


# ---- the choice


def test_what_it_declines_it_says(tiled):
    why = functools.partial(fc.explain, "conv2d", (1, 16, 64, 64))
    reasons = [
        (why((16, 16, 11, 11), dtype="float64"), "it computes in float32 only"),
        (why((16, 16, 3, 3)), "it is for kernels of at least 5x5"),
        (why((16, 16, 11, 11), stride=2), "the stride does not divide the kernel"),
        (why((16, 16, 41, 41)), "tiles of 48 pixels are too small for kernels of 41x41"),
    ]
    for found, reason in reasons:
        assert found.kernels_passed_over["fft_tiles_48"] == reason
    reasons = [
        (fc.explain("conv2d_weight", (1, 16, 64, 64), (16, 16, 11, 11), stride=2), "the stride is not 1"),
        (fc.explain("conv2d_weight", (1, 16, 64, 64), (16, 16, 5, 5), dilation=2), "the dilation is not 1"),
        (fc.explain("conv2d_weight", (1, 16, 64, 64), (16, 16, 41, 41)), "it has no tiles for kernels of 41x41"),
    ]
    for found, reason in reasons:
        assert found.kernels_passed_over[GRADIENT] == reason


@pytest.mark.parametrize("images", [1, 4])
@pytest.mark.parametrize(
    ("shape", "weight"),
    [((16, 128, 128), (16, 16, 11, 11)), ((32, 64, 64), (32, 32, 15, 15)), ((16, 64, 64), (16, 16, 21, 21))],
)
def test_auto_takes_it_for_large_dense_kernels(tiled, images, shape, weight):
    for which in ("", "_input", "_weight"):
        why = fc.explain(f"conv2d{which}", (images, *shape), weight, padding=weight[-1] // 2)
        assert why.algorithm == "fft"
        assert why.kernel in (*KERNELS, GRADIENT)


def test_auto_leaves_small_kernels_and_few_channels(tiled):
    for shape, weight, options in (
        ((64, 56, 56), (64, 64, 3, 3), {}),
        ((64, 28, 28), (64, 1, 5, 5), {"groups": 64}),
        ((2, 28, 28), (2, 2, 5, 5), {}),
    ):
        for which in ("", "_input", "_weight"):
            why = fc.explain(f"conv2d{which}", (1, *shape), weight, padding=weight[-1] // 2, **options)
            assert why.algorithm != "fft", (shape, weight, which)
