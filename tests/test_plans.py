"""Plans: the bits of a convolution followed by NumPy's operations, whatever kernel runs; copies, threads, errors."""

from __future__ import annotations

import copy
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from registry import able, empty_caches
from test_contractions import CASES, LARGE
from test_memory_order import last
from test_registry import request_of

import fastconv as fc
from fastconv.planner import registry

ENGINES = fc.available_backends()
ALL = CASES | LARGE
FORMATS = "channels_first", "channels_last"
SLOPES = object()  # stands for as many slopes as the output has channels
ACTIVATIONS = (None, "relu", "relu6", "hardswish", ("leaky_relu", 0.3), ("prelu", SLOPES))


def activation_of(form, channels, dtype):
    """The activation with its slopes."""
    if isinstance(form, tuple) and form[1] is SLOPES:
        return form[0], np.random.default_rng(1).standard_normal(channels).astype(dtype)
    return form


def after(y, residual, activation, spatial=2):
    """What a plan promises: the operations in NumPy, one after the other."""
    with np.errstate(all="ignore"):
        if residual is not None:
            y = y + residual
        match activation:
            case None:
                return y
            case "relu":
                return np.maximum(y, y.dtype.type(0))
            case "relu6":
                return np.minimum(np.maximum(y, y.dtype.type(0)), y.dtype.type(6))
            case "hardswish":
                return y * np.clip(y + y.dtype.type(3), 0, 6) / y.dtype.type(6)
            case ("leaky_relu", slope):
                return np.where(y > 0, y, y * y.dtype.type(slope))
            case ("prelu", slopes):
                return np.where(y > 0, y, y * np.reshape(slopes, (-1, *(1,) * spatial)).astype(y.dtype))
    raise AssertionError(activation)


def assert_same_bits(found, expected, message=""):
    """Equal numbers with equal signs, and NaN where there is NaN."""
    assert found.dtype == expected.dtype, message
    np.testing.assert_array_equal(found, expected, err_msg=message)
    is_number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found)[is_number], np.signbit(expected)[is_number], err_msg=message)


def plan_of(problem, weight, bias, activation, **options):
    """The plan of a problem; `dilation` and the like are keywords."""
    return getattr(fc, f"plan_{problem.name}")(weight, bias, activation=activation, **problem.parameters, **options)


def check(problem, seed, dtype, backend, message="", data_format="channels_first"):
    """One plan against the function, with one of the activations, with and without a residual, bias and `out`."""
    x, w, b, _ = problem.arrays("normal", dtype, seed)
    options = {"backend": backend, "data_format": data_format}
    if data_format == "channels_last":
        x = last(x, problem.spatial)
    form = ACTIVATIONS[seed % len(ACTIVATIONS)]
    with_residual, with_bias, how = (seed // 6 + seed) % 2, (seed // 2) % 3, seed % 4
    activation = activation_of(form, len(b), dtype)
    bias = b if with_bias else None
    y = problem.forward(x, w, bias, **options)
    residual = np.random.default_rng(seed + 1).standard_normal(y.shape).astype(dtype) if with_residual else None
    expected = after(y, residual, activation, 0 if data_format == "channels_last" else problem.spatial)
    plan = plan_of(problem, w, bias, activation, **options)
    out = None
    if how == 1:
        out = np.full_like(y, np.nan)
    elif how == 2:  # not in C order
        out = np.full(y.shape[::-1], np.nan, dtype).T
    elif how == 3 and with_residual:  # the residual itself
        out = residual
    found = plan(x, residual, out)
    assert out is None or found is out
    assert_same_bits(found, expected, f"{message} {activation} {with_residual=} {with_bias=} {how=}")


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("name", ALL)
def test_every_kernel_finishes_every_element_once(name, backend, monkeypatch):
    """Forms of plans are dealt out to kernels and problems in turn."""
    problem = ALL[name]
    if name not in CASES and backend != "cython":
        pytest.skip("Numba compiles the same drivers, and a window engine finishes its results after its passes")
    request = request_of(backend, problem, "large" if problem.transposed else "small")
    start = list(ALL).index(name)
    for number, kernel in enumerate(able(request)):
        for turn in range(2):
            empty_caches(monkeypatch)
            with registry.only(kernel):
                seed = 5 * start + 7 * number + 3 * turn
                layout = FORMATS[(start + number + turn) % 2]
                check(problem, seed, (np.float32, np.float64)[turn], backend, f"{name}, {kernel}, {layout}", layout)


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize(
    "name", ["3x3", "grouped", "depthwise", "up-sampling k4s2", "audio", "gaps alone", "pointwise"]
)
def test_every_form_of_a_plan(name, backend):
    for seed, layout in itertools.product(range(24), FORMATS):
        check(ALL[name], seed, np.float32, backend, f"{name} {layout}", layout)


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("form", ACTIVATIONS, ids=str)
def test_what_is_no_ordinary_number(form, backend):
    """NaN, infinities and both zeros, which a 1x1 kernel of ones passes on, in whole vectors and rests."""
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, -3.0, 3.0, 6.0, -1e-40, 1e38, -1e38], np.float32)
    x = np.resize(odd, (2, 3, 5, 7))
    w = np.zeros((3, 1, 1, 1), np.float32) + 1
    activation = activation_of(form, 3, np.float32)
    plan = fc.plan_conv2d(w, groups=3, activation=activation, backend=backend)
    y = fc.conv2d(x, w, groups=3, backend=backend)
    assert_same_bits(plan(x), after(y, None, activation))
    residual = np.roll(x, 1).copy()
    assert_same_bits(plan(x, residual), after(y, residual, activation))


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["3x3", "padded, small maps", "up-sampling k4s2", "depthwise, long rows"])
def test_a_weight_that_is_not_finite(name, odd, backend):
    """Padding times infinity is NaN in the function, so it is in the plan."""
    problem = ALL[name]
    x, w, b, _ = problem.arrays("normal", np.float32)
    w.flat[3] = odd
    y = problem.forward(x, w, b, backend=backend)
    for activation in ("relu6", "hardswish"):
        assert_same_bits(plan_of(problem, w, b, activation, backend=backend)(x), after(y, None, activation))


@pytest.mark.parametrize("backend", ENGINES)
def test_half_precision_is_rounded_once(backend):
    x, w, b, _ = CASES["3x3"].arrays("normal", np.float16)
    wide = [array.astype(np.float32) for array in (x, w, b)]
    y = CASES["3x3"].forward(*wide, backend=backend)
    residual = np.random.default_rng(3).standard_normal(y.shape).astype(np.float16)
    plan = plan_of(CASES["3x3"], w, b, "hardswish", backend=backend)
    assert_same_bits(plan(x, residual), after(y, residual.astype(np.float32), "hardswish").astype(np.float16))


def test_a_residual_of_fewer_bits_or_of_integers(engine):
    x, w, b, _ = CASES["3x3"].arrays("normal", np.float64)
    plan = plan_of(CASES["3x3"], w, b, "relu")
    for dtype in (np.float16, np.float32, np.int32, ">f8"):
        residual = (np.arange(plan(x).size).reshape(plan(x).shape) % 5 - 2).astype(dtype)
        assert_same_bits(plan(x, residual), after(CASES["3x3"].forward(x, w, b), residual, "relu"))


@pytest.mark.parametrize("name", ["3x3", "grouped"])
def test_any_memory_order(name, engine):
    """Inputs, residuals and outputs of any strides, and those that share memory."""
    problem = ALL[name]
    x, w, b, _ = problem.arrays("normal", np.float32)
    plan = plan_of(problem, w, b, "relu")
    expected = plan(x)
    assert_same_bits(plan(np.asfortranarray(x)), expected)
    assert_same_bits(plan(x.astype(">f4")), expected)
    residual = np.random.default_rng(0).standard_normal((2, *expected.shape)).astype(np.float32)
    with_residual = plan(x, residual[0])
    assert_same_bits(plan(x, np.asfortranarray(residual[0])), with_residual)
    both = residual[0].ravel().copy()
    shared = np.lib.stride_tricks.as_strided(both, expected.shape, residual[0].strides)
    assert_same_bits(plan(x, shared, out=shared), with_residual)
    reversed_rows = residual[0].copy()
    assert_same_bits(plan(x, reversed_rows, out=reversed_rows[..., ::-1]), with_residual)


def test_an_input_that_is_the_output(engine):
    """With a kernel of one pixel the output has the input's shape."""
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    w = np.random.default_rng(1).standard_normal((3, 3, 1, 1)).astype(np.float32)
    plan = fc.plan_conv2d(w, activation="hardswish")
    expected = plan(x, x)
    assert_same_bits(expected, after(fc.conv2d(x, w), x, "hardswish"))
    assert_same_bits(plan(x, x, out=x), expected)


def test_empty_batches_and_lists(engine):
    plan = fc.plan_conv2d([[[[2.0]]]], [1.0], activation="relu")
    assert plan([[[1.0, -1.0]]]).tolist() == [[[3.0, 0.0]]]
    assert plan(np.zeros((0, 1, 2, 2))).shape == (0, 1, 2, 2)
    assert plan(np.zeros((0, 1, 2, 2)), np.zeros((0, 1, 2, 2))).shape == (0, 1, 2, 2)


def test_flushed_denormals(engine):
    """The convolution flushes; what follows is computed as NumPy does."""
    x, w = np.full((1, 1, 1, 40), 1e-40, np.float32), np.ones((1, 1, 1, 1), np.float32)
    fc.set_flush_denormal(True)
    plan = fc.plan_conv2d(w, activation="relu")
    assert (plan(x) == 0).all()
    residual = np.full_like(x, 2e-40)
    assert_same_bits(plan(x, residual), residual)


def test_a_plan_has_its_own_arrays(engine):
    x, w, b, _ = CASES["3x3"].arrays("normal", np.float32)
    slopes = np.linspace(0.1, 0.9, 3, dtype=np.float32)
    plan = plan_of(CASES["3x3"], w, b, ("prelu", slopes))
    expected = plan(x)
    for array in (w, b, slopes):
        array[...] = np.nan
    assert_same_bits(plan(x), expected)
    assert not plan.weight.flags.writeable
    assert not plan.bias.flags.writeable


@pytest.mark.parametrize("name", ["3x3", "many channels", "up, wide", "audio", "one-dimensional up"])
def test_copies(name, engine):
    problem = ALL[name]
    x, w, b, _ = problem.arrays("normal", np.float32)
    for bias, activation in itertools.product((None, b), (None, ("prelu", np.linspace(-1, 1, len(b))))):
        plan = plan_of(problem, w, bias, activation)
        expected = plan(x)
        pickled = pickle.dumps(plan)
        assert len(pickled) < w.nbytes + 4000
        for other in (copy.copy(plan), copy.deepcopy(plan), pickle.loads(pickled)):
            assert_same_bits(other(x), expected)
            assert repr(other) == repr(plan)
        assert copy.deepcopy(plan).weight is not plan.weight


def test_threads_share_a_plan(engine):
    problem = ALL["many channels"]
    _, w, b, _ = problem.arrays("integers", np.float32)  # whose sums are exact, whatever threads BLAS has
    backend, algorithm = engine  # threads of the pool do not have this context
    shapes = [(1 + seed % 3, 40, 14, 14) for seed in range(6)]
    inputs = [np.random.default_rng(0).integers(-3, 4, shape).astype(np.float32) for shape in shapes]
    plan = plan_of(problem, w, b, "relu", backend=backend, algorithm=algorithm)
    expected = [after(problem.forward(x, w, b), x[:, :24], "relu") for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: plan(x, np.ascontiguousarray(x[:, :24])), inputs * 5))
    for one, other in zip(found, expected * 5, strict=True):
        assert_same_bits(one, other)


def test_settings_are_those_of_the_call():
    x, w, b, _ = CASES["3x3"].arrays("integers", np.float32)
    plan = plan_of(CASES["3x3"], w, b, "relu")
    expected = plan(x)
    for name in ENGINES:
        with fc.use_backend(name):
            assert_same_bits(plan(x), expected)
    with fc.use_backend("numpy"):
        assert plan(x.astype(np.float128) if hasattr(np, "float128") else x).shape == expected.shape
    for threads in (1, 2, 3):
        fc.set_num_threads(threads)
        assert_same_bits(plan(x), expected)


W = np.ones((4, 3, 2, 2), np.float32)
WRONG = {
    "rank": (lambda: fc.plan_conv2d(W[0]), fc.ShapeError, "weight"),
    "groups": (lambda: fc.plan_conv2d(W, groups=3), fc.ShapeError, "groups=3"),
    "groups, transposed": (lambda: fc.plan_conv_transpose2d(W, groups=3), fc.ShapeError, "groups=3"),
    "stride": (lambda: fc.plan_conv2d(W, stride=0), fc.ArgumentError, "stride"),
    "bias": (lambda: fc.plan_conv2d(W, np.ones(3)), fc.ShapeError, "bias"),
    "bias, transposed": (lambda: fc.plan_conv_transpose2d(W, np.ones(4)), fc.ShapeError, "bias"),
    "activation": (lambda: fc.plan_conv2d(W, activation="relu7"), fc.ArgumentError, "did you mean 'relu"),
    "no slope": (lambda: fc.plan_conv2d(W, activation="prelu"), fc.ArgumentError, r"\('prelu', slopes\)"),
    "slope": (lambda: fc.plan_conv2d(W, activation=("leaky_relu", "1")), fc.DTypeError, "slope of leaky_relu"),
    "slopes": (lambda: fc.plan_conv2d(W, activation=("prelu", [1.0])), fc.ShapeError, "slopes of prelu"),
    "two slopes": (lambda: fc.plan_conv2d(W, activation=("leaky_relu", [1.0, 2.0])), fc.ArgumentError, "one number"),
    "number": (lambda: fc.plan_conv2d(W, activation=3), fc.ArgumentError, "activation=3"),
    "mode": (lambda: fc.plan_conv2d(W, padding_mode="mirror"), fc.ArgumentError, "mirror"),
    "algorithm": (lambda: fc.plan_conv2d(W, algorithm="none"), fc.ArgumentError, "algorithm='none'"),
    "backend": (lambda: fc.plan_conv2d(W, backend="none"), fc.ArgumentError, "backend='none'"),
    "integers": (
        lambda: fc.plan_conv2d(W.astype(int), activation="relu", backend="numpy")(np.ones((3, 4, 4), int)),
        fc.DTypeError,
        "activation",
    ),
    "channels": (lambda: fc.plan_conv2d(W)(np.ones((2, 5, 5))), fc.ShapeError, "input"),
    "residual": (lambda: fc.plan_conv2d(W)(X, np.ones((4, 4, 5))), fc.ShapeError, "residual"),
    "residual's dtype": (lambda: fc.plan_conv2d(W)(X, np.ones((4, 4, 4))), fc.DTypeError, "residual"),
    "out": (lambda: fc.plan_conv2d(W)(X, out=np.ones((4, 4, 3), "f4")), fc.ShapeError, "out"),
    "out's dtype": (lambda: fc.plan_conv2d(W)(X, out=np.ones((4, 4, 4))), fc.DTypeError, "out"),
}
X = np.ones((3, 5, 5), np.float32)


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong(what):
    call, error, text = WRONG[what]
    with pytest.raises(error, match=text):
        call()


def batch_norm(y, mean, variance, gamma, beta, eps):
    shape = (-1, *(1,) * (y.ndim - 2))
    mean, variance, gamma, beta = (np.reshape(value, shape) for value in (mean, variance, gamma, beta))
    return (y - mean) / np.sqrt(variance + eps) * gamma + beta


@pytest.mark.parametrize("name", ["3x3", "grouped", "up-sampling k4s2", "transposed depthwise", "audio"])
def test_a_folded_batch_norm(name):
    problem = ALL[name]
    x, w, b, _ = problem.arrays()
    rng = np.random.default_rng(5)
    mean, gamma, beta = (rng.standard_normal(len(b)) for _ in range(3))
    variance = rng.uniform(0.1, 2, len(b))
    expected = batch_norm(problem.forward(x, w, b), mean, variance, gamma, beta, 1e-3)
    how = {"transposed": problem.transposed, "groups": problem.parameters.get("groups", 1)}
    folded = fc.nn.fold_batch_norm(w, b, mean, variance, gamma, beta, 1e-3, **how)
    np.testing.assert_allclose(problem.forward(x, *folded), expected, rtol=1e-12, atol=1e-12)
    plain = fc.nn.fold_batch_norm(w, None, mean, variance, None, None, 1e-3, **how)
    ones, zeros = np.ones(len(b)), np.zeros(len(b))
    expected = batch_norm(problem.forward(x, w), mean, variance, ones, zeros, 1e-3)
    np.testing.assert_allclose(problem.forward(x, *plain), expected, rtol=1e-12, atol=1e-12)
    assert fc.nn.fold_batch_norm(w.astype("f4"), b, mean, variance, **how)[1].dtype == np.float32


def test_what_cannot_be_folded():
    one = np.ones(4)
    fold = fc.nn.fold_batch_norm
    for call, error, text in (
        (lambda: fold(W, None, one, one[:3]), fc.ShapeError, "variance"),
        (lambda: fold(W, None, None, one), fc.DTypeError, "mean"),
        (lambda: fold(W, None, one, one, groups=3), fc.ShapeError, "groups=3"),
        (lambda: fold(W.astype(int), None, one, one), fc.DTypeError, "weight"),
        (lambda: fold(W[0, 0], None, one, one), fc.ShapeError, "weight"),
        (lambda: fold(W, None, one, one, eps=-1.0), fc.ArgumentError, "eps"),
        (lambda: fold(W, None, one, one, transposed=True), fc.ShapeError, "mean"),
    ):
        with pytest.raises(error, match=text):
            call()


CHANGES = {
    "in place": lambda layer: layer.weight.__imul__(2),
    "one number": lambda layer: layer.weight.__setitem__((0,) * layer.weight.ndim, 7),
    "another": lambda layer: setattr(layer, "weight", -layer.weight),
    "the sign of zero": lambda layer: layer.weight.__imul__(-0.0),
    "bias": lambda layer: layer.bias.__iadd__(1),
    "no bias": lambda layer: setattr(layer, "bias", None),
    "loaded": lambda layer: layer.load_state_dict({"weight": layer.weight * 3, "bias": layer.bias}),
    "padding": lambda layer: setattr(layer, "padding", 0),
    "not a number": lambda layer: layer.weight.fill(np.nan),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["Conv2d", "ConvTranspose2d"])
def test_a_layer_notices_a_changed_parameter(kind, change, engine, monkeypatch):
    monkeypatch.setattr(fc.nn, "_LONG", 0)
    layer = getattr(fc.nn, kind)(3, 5, 3, padding=1, rng=0)
    forward = fc.conv2d if kind == "Conv2d" else fc.conv_transpose2d
    x = np.random.default_rng(0).standard_normal((2, 3, 40, 40)).astype(np.float32)
    first = layer(x)
    assert_same_bits(layer(x), first)
    assert layer._plan is not None
    CHANGES[change](layer)
    for _ in range(2):
        assert_same_bits(layer(x), forward(x, layer.weight, layer.bias, padding=layer.padding))


def test_a_layer_that_is_trained_plans_nothing(engine, monkeypatch):
    monkeypatch.setattr(fc.nn, "_LONG", 0)
    layer = fc.nn.Conv2d(3, 5, 3, rng=0)
    x = np.ones((2, 3, 40, 40), np.float32)
    for _ in range(3):
        layer.backward(layer(x))
        assert layer._plan is None
    layer(x)
    layer(x)
    assert layer._plan is not None
    assert copy.deepcopy(layer)._plan is None
