"""Against PyTorch in float64: forward and all gradients of drawn geometries, and layers with torch's parameters."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from problems import Problem, assert_within_rounding, problems

import fastconv as fc
from fastconv import nn

torch = pytest.importorskip("torch")
functional = torch.nn.functional
torch.set_num_threads(1)  # on problems this small, threads only wait for each other


def by_torch(problem: Problem, input, weight, bias):
    """The forward call by torch. Where torch's own functions take the padding, they get it as it is; the forms that
    they do not have become explicit padding before, or cropping after."""
    parameters = dict(problem.parameters)
    geometry = problem.geometry
    mode = parameters.pop("padding_mode", "zeros")
    padding = parameters.pop("padding")
    output_size = parameters.pop("output_size", None)
    op = getattr(functional, problem.name)
    numbers = all(isinstance(pad, int) for pad in padding)
    if numbers and mode == "zeros" and output_size is None:
        return op(input, weight, bias, padding=padding, **parameters)
    if problem.transposed:
        parameters.pop("output_padding", None)
        full = op(input, weight, None, **parameters)
        for axis, spatial in zip(geometry.axes, range(-problem.spatial, 0), strict=True):
            lack = max(0, axis.pad_before + axis.large - full.shape[spatial])
            full = functional.pad(full, (0, 0) * (-1 - spatial) + (0, lack)).narrow(
                spatial, axis.pad_before, axis.large
            )
        return full + bias.reshape(-1, *(1,) * problem.spatial)
    pads = [pad for before_after in reversed(geometry.pads) for pad in before_after]
    batched = input if geometry.batched else input[None]
    padded = functional.pad(batched, pads, mode="constant" if mode == "zeros" else mode)
    return op(padded if geometry.batched else padded[0], weight, bias, **parameters)


def check_against_torch(problem: Problem) -> None:
    x, w, b, dy = problem.arrays()
    tensors = [torch.from_numpy(array).requires_grad_() for array in (x, w, b)]
    expected = by_torch(problem, *tensors)
    gradients = torch.autograd.grad(expected, tensors, torch.from_numpy(dy))
    magnitudes = [torch.from_numpy(np.abs(array)).requires_grad_() for array in (x, w, b)]
    magnitude = by_torch(problem, *magnitudes)
    magnitude_gradients = torch.autograd.grad(magnitude, magnitudes, torch.from_numpy(np.abs(dy)))

    geometry = problem.geometry
    taps = math.prod(axis.taps for axis in geometry.axes)
    pixels = geometry.batch * math.prod(axis.small for axis in geometry.axes)
    # with a padding mode one input pixel stands in several places
    copies = 3**problem.spatial if geometry.padding_mode != "zeros" else 1
    per_map = taps * max(geometry.large_channels, geometry.small_channels) // geometry.groups
    outputs = dy.size // geometry.output_channels
    results = {
        "forward": (problem.forward(x, w, b), expected, magnitude, per_map),
        "input": (problem.gradient("input", x.shape, w, dy), gradients[0], magnitude_gradients[0], per_map * copies),
        "weight": (problem.gradient("weight", x, w.shape, dy), gradients[1], magnitude_gradients[1], pixels),
        "bias": (problem.gradient("bias", dy), gradients[2], magnitude_gradients[2], outputs),
    }
    for name, (result, wanted, bound, terms) in results.items():
        assert_within_rounding(result, wanted.detach().numpy(), bound.detach().numpy(), terms, name)


relaxed = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=3000, derandomize=True, **relaxed)
@given(problems())
def test_drawn_geometries(problem):
    check_against_torch(problem)


@pytest.mark.slow
@settings(max_examples=50_000, **relaxed)
@given(problems())
def test_many_drawn_geometries(problem):
    check_against_torch(problem)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("taps", [2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_is_torchs(taps, dilation):
    """Torch has it for stride 1, and puts the odd pixel at the end as well."""
    x, w = np.arange(30.0).reshape(1, 5, 6), np.arange(1.0, taps * taps + 1).reshape(1, 1, taps, taps)
    expected = functional.conv2d(torch.from_numpy(x), torch.from_numpy(w), padding="same", dilation=dilation)
    np.testing.assert_array_equal(fc.conv2d(x, w, padding="same", dilation=dilation), expected.numpy())


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("transposed", [False, True])
def test_complex(transposed, dtype):
    """Gradients are torch's autograd ones: the adjoint, with the other factor conjugated."""
    problem = Problem(transposed, 2, (2, 4, 5, 6), (4, 2, 3, 2), {"stride": 2, "padding": (1, 1), "groups": 2})
    x, w, b, dy = (
        (part + 1j * more).astype(dtype)
        for part, more in zip(problem.arrays(seed=1), problem.arrays(seed=2), strict=True)
    )
    tensors = [torch.from_numpy(array).requires_grad_() for array in (x, w, b)]
    expected = by_torch(problem, *tensors)
    gradients = torch.autograd.grad(expected, tensors, torch.from_numpy(dy))
    tolerance = 200 * np.finfo(dtype).eps
    np.testing.assert_allclose(problem.forward(x, w, b), expected.detach().numpy(), rtol=tolerance, atol=tolerance)
    results = problem.gradient("backward", dy, x, w)
    for result, wanted in zip(results, gradients, strict=True):
        np.testing.assert_allclose(result, wanted.numpy(), rtol=tolerance, atol=tolerance)


LAYERS = [
    ("Conv2d", (4, 6, 3), {"stride": 2, "padding": 1, "groups": 2}, (2, 4, 9, 8)),
    ("Conv2d", (4, 6, (3, 2)), {"padding": (2, 1), "padding_mode": "reflect", "bias": False}, (2, 4, 9, 8)),
    ("Conv1d", (4, 6, 3), {"dilation": 2, "padding": "same"}, (2, 4, 9)),
    ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "output_padding": 1, "groups": 2}, (2, 4, 5, 6)),
    ("ConvTranspose1d", (4, 6, 3), {"stride": 3, "dilation": 2, "bias": False}, (4, 7)),
]


@pytest.mark.parametrize(("name", "arguments", "parameters", "shape"), LAYERS)
def test_layers_exchange_their_state(name, arguments, parameters, shape):
    ours = getattr(nn, name)(*arguments, **parameters, dtype=np.float64, rng=0)
    theirs = getattr(torch.nn, name)(*arguments, **parameters, dtype=torch.float64)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    expected = theirs(x)
    result = ours(x.detach())
    np.testing.assert_allclose(result, expected.detach().numpy(), rtol=1e-12, atol=1e-12)

    expected.backward(torch.ones_like(expected))
    np.testing.assert_allclose(ours.backward(np.ones_like(result)), x.grad.numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ours.weight_grad, theirs.weight.grad.numpy(), rtol=1e-12, atol=1e-12)
    if theirs.bias is None:
        assert ours.bias_grad is None
    else:
        np.testing.assert_allclose(ours.bias_grad, theirs.bias.grad.numpy(), rtol=1e-12, atol=1e-12)

    back = getattr(torch.nn, name)(*arguments, **parameters, dtype=torch.float64)
    back.load_state_dict({key: torch.from_numpy(array) for key, array in ours.state_dict().items()})
    assert torch.equal(back(x), expected)


@pytest.mark.parametrize(("name", "arguments", "parameters", "shape"), LAYERS)
def test_layers_start_from_the_same_distribution(name, arguments, parameters, shape):
    """The same bound, reached closely by both, and the moments of a uniform distribution."""
    arguments = (40, 60, arguments[2])
    ours = getattr(nn, name)(*arguments, **parameters, rng=0).state_dict()
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(*arguments, **parameters).state_dict()
    assert ours.keys() == theirs.keys()
    bound = np.abs(theirs["weight"].numpy()).max()
    for key, values in ours.items():
        assert values.shape == theirs[key].shape
        assert values.dtype == np.float32
        assert np.abs(values).max() == pytest.approx(bound, rel=0.01 if key == "weight" else 0.2)
        assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.05 if key == "weight" else 0.3)


@pytest.mark.parametrize("name", ["conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d"])
def test_positional_arguments_are_those_of_torch(name):
    """A call carries over as it is, every positional argument set."""
    spatial = int(name[-2])
    x = np.random.default_rng(0).standard_normal((2, 4, *(7, 8)[:spatial]))
    w = np.random.default_rng(1).standard_normal((4, 2, *(3, 2)[:spatial]))
    rest = (2, 1, 1, 2, 2) if "transpose" in name else (2, 1, 2, 2)
    bias = np.arange(4.0)
    tensors = (torch.from_numpy(array) for array in (x, w, bias))
    expected = getattr(functional, name)(*tensors, *rest)
    np.testing.assert_allclose(getattr(fc, name)(x, w, bias, *rest), expected.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("spatial", [1, 2])
def test_positional_arguments_of_gradients_are_those_of_torch(spatial):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 4, *(7, 8)[:spatial])), rng.standard_normal((6, 2, *(3, 2)[:spatial]))
    rest = (2, 1, 2, 2)
    dy = rng.standard_normal(getattr(fc, f"conv{spatial}d")(x, w, None, *rest).shape)
    tx, tw, tdy = (torch.from_numpy(array) for array in (x, w, dy))
    for which, ours, theirs in (
        ("input", (x.shape, w, dy), (tx.shape, tw, tdy)),
        ("weight", (x, w.shape, dy), (tx, tw.shape, tdy)),
    ):
        name = f"conv{spatial}d_{which}"
        expected = getattr(torch.nn.grad, name)(*theirs, *rest)
        np.testing.assert_allclose(getattr(fc.grad, name)(*ours, *rest), expected.numpy(), rtol=1e-12, atol=1e-12)


def test_a_boolean_tensor_is_no_number():
    for value in (torch.tensor(True), [torch.tensor(1), torch.tensor(False)]):
        with pytest.raises(fc.ArgumentError, match="stride"):
            fc.conv2d(np.ones((1, 4, 4)), np.ones((1, 1, 1, 1)), stride=value)
