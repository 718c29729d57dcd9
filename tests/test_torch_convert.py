"""Converted models: layers of every kind, what must keep working with them, and what is left."""

from __future__ import annotations

import copy
import io
import logging
import pickle

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, parametrize, prune  # noqa: E402

import fastconv as fc  # noqa: E402
import fastconv.torch as ft  # noqa: E402

torch.set_num_threads(1)


class Subclass(nn.Conv2d):
    """A person's class that computes as its base does."""


class OwnForward(nn.Conv2d):
    """A person's class that does not."""

    def forward(self, input):
        return nn.functional.conv2d(input, 2 * self.weight, self.bias)


#: For each layer a way to make it, and the shape of its input.
LAYERS = {
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 9)),
    "conv2d": (lambda: nn.Conv2d(4, 6, (3, 2), padding=(1, 0), dilation=(1, 2), groups=2), (2, 4, 9, 8)),
    "transposed 1d": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1), (2, 4, 9)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1, groups=2, bias=False), (2, 4, 5, 6)),
    "same": (lambda: nn.Conv2d(4, 6, 3, padding="same", bias=False), (2, 4, 6, 6)),
    "reflect": (lambda: nn.Conv2d(4, 6, 3, padding=2, padding_mode="reflect"), (2, 4, 6, 6)),
    "circular": (lambda: nn.Conv1d(4, 6, 4, padding="same", padding_mode="circular"), (2, 4, 9)),
    "replicate": (lambda: nn.Conv2d(4, 6, 3, padding=(1, 2), padding_mode="replicate"), (2, 4, 6, 6)),
    "unbatched": (lambda: nn.Conv2d(4, 6, 3), (4, 6, 6)),
    "float64": (lambda: nn.Conv2d(4, 6, 3).double(), (2, 4, 6, 6)),
    "bfloat16": (lambda: nn.Conv2d(4, 6, 3).bfloat16(), (2, 4, 6, 6)),
    "channels last": (lambda: nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last), (2, 4, 6, 6)),
    "subclass": (lambda: Subclass(4, 6, 3), (2, 4, 6, 6)),
    "parametrized": (lambda: parametrizations.weight_norm(nn.Conv2d(4, 6, 3)), (2, 4, 6, 6)),
    "pruned": (lambda: prune.l1_unstructured(nn.Conv2d(4, 6, 3), "weight", 0.5), (2, 4, 6, 6)),
    "frozen": (lambda: nn.Conv2d(4, 6, 3).requires_grad_(requires_grad=False), (2, 4, 6, 6)),
}
each_layer = pytest.mark.parametrize("name", LAYERS)


def made(name):
    """A layer, and an input for it."""
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer = make()
    x = torch.randn(shape, dtype=next(layer.parameters()).dtype)
    if name == "channels last":
        x = x.to(memory_format=torch.channels_last)
    return layer, x


def parameters_of(layer):
    return [parameter for parameter in layer.parameters() if parameter.requires_grad]


def check_equal(layer, reference, x):
    """Outputs and gradients of two layers are the same but for rounding, in training and in inference."""
    x = x.detach().requires_grad_()
    for is_training in (True, False):
        output, expected = layer.train(is_training)(x), reference.train(is_training)(x)
        torch.testing.assert_close(output, expected)
        gradients, others = (
            torch.autograd.grad(result.sum(), [x, *parameters_of(model)])
            for result, model in ((output, layer), (expected, reference))
        )
        torch.testing.assert_close(gradients, others, atol=1e-4, rtol=2e-2 if x.dtype is torch.bfloat16 else 1e-5)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            for _ in range(4):  # by a plan from the third call on
                torch.testing.assert_close(layer(x), reference(x))


@each_layer
def test_a_converted_layer_computes_the_same_and_goes_back(name, monkeypatch):
    (layer, x), (reference, _) = made(name), made(name)
    kind = type(layer)
    before, numbers = dict(layer.named_parameters()), list(map(id, layer.parameters()))
    assert ft.convert(layer) is layer
    assert ft.report(layer) == ft.Report(("",), {})
    assert repr(layer).startswith("fastconv.")
    assert list(map(id, layer.parameters())) == numbers
    assert layer.state_dict().keys() == reference.state_dict().keys()
    check_equal(layer, reference, x)
    ft.convert(layer)  # again changes nothing
    calls = []
    for function in ("forward", "input_gradient", "weight_gradient"):
        wrapped = getattr(ft.compute, function)
        monkeypatch.setattr(ft.compute, function, lambda *given, wrapped=wrapped: calls.append(1) or wrapped(*given))
    layer.train()(x)
    assert calls
    calls.clear()
    ft.convert(layer, revert=True)
    assert type(layer).__name__ == kind.__name__
    assert type(layer).__mro__[1:] == kind.__mro__[1:]
    torch.testing.assert_close(layer(x), reference(x), atol=0, rtol=0)
    assert not calls
    assert dict(layer.named_parameters()) == before


@each_layer
def test_hooks_state_copies_and_pickles(name):
    (layer, x), (reference, _) = made(name), made(name)
    seen = []
    layer.register_forward_hook(lambda module, given, output: seen.append(module))
    ft.convert(layer)
    expected = layer(x)
    assert seen == [layer]
    if name != "pruned":  # whose weight is computed, which PyTorch does not copy
        copied = copy.deepcopy(layer)
        assert torch.equal(copied(x), expected)
        assert type(copied).__mro__[1:] == type(layer).__mro__[1:]
    layer._forward_hooks.clear()
    if name == "parametrized":  # PyTorch refuses these
        with pytest.raises(RuntimeError, match="only supported through state_dict"):
            pickle.dumps(layer)
    else:
        assert torch.equal(pickle.loads(pickle.dumps(layer))(x), expected)
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        assert torch.equal(torch.load(file, weights_only=False)(x), expected)
    reference.load_state_dict(layer.state_dict())
    fresh = ft.convert(made(name)[0])
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh(x), expected)


@pytest.mark.parametrize("change", ["in place", "data", "assigned", "new", "loaded", "bias", "optimizer", "moved"])
def test_a_plan_notices_a_changed_parameter(change):
    layer, x = made("conv2d")
    reference = copy.deepcopy(layer)
    ft.convert(layer).eval()

    def apply(to):
        weight = to.weight
        if change == "in place":
            weight.mul_(1.5)
        elif change == "data":  # which PyTorch does not count
            weight.data.lerp_(torch.ones_like(weight), 0.01)
        elif change == "assigned":
            weight.data = torch.flip(weight.data, (0,))
        elif change == "new":
            to.weight = nn.Parameter(torch.flip(weight, (1,)))
        elif change == "loaded":
            to.load_state_dict({name: value + 1 for name, value in to.state_dict().items()})
        elif change == "bias":
            to.bias.add_(1)
        elif change == "optimizer":
            for parameter in to.parameters():
                parameter.grad = torch.ones_like(parameter)
            torch.optim.SGD(to.parameters(), lr=0.1).step()
        elif change == "moved":
            to.double()

    with torch.no_grad():
        before = [layer(x) for _ in range(3)][-1]
        torch.testing.assert_close(before, reference(x))
        for to in (layer, reference):
            apply(to)
        x = x.to(layer.weight.dtype)
        torch.testing.assert_close(layer(x), reference(x))
        assert change == "moved" or not torch.allclose(layer(x), before, atol=1e-3)


def test_a_plan_is_used_and_dropped():
    layer, x = made("conv2d")
    ft.convert(layer).eval()

    def plan():
        known = ft.planned._layers.get(layer)
        return known and known.plan

    with torch.no_grad():
        layer(x)
        assert plan() is None
        first = layer(x)
        assert plan() is not None
        assert torch.equal(layer(x), first)
        layer.train()
        assert plan() is None
        layer(x)
        layer(x)
        assert plan() is None
    layer.eval()
    for _ in range(3):
        layer(x)
    assert plan() is None  # as gradients are wanted


def test_a_changed_stride_is_noticed():
    layer, x = made("conv2d")
    reference = copy.deepcopy(layer)
    ft.convert(layer).eval()
    with torch.no_grad():
        for stride in ((1, 1), (2, 1), (1, 1)):
            layer.stride = reference.stride = stride
            for _ in range(3):
                torch.testing.assert_close(layer(x), reference(x))


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_lazy_layers(kind, axes):
    make = getattr(nn, f"Lazy{kind}{axes}d")
    layer, x = ft.convert(make(6, 3)), torch.randn(2, 4, *(7,) * axes)
    assert ft.report(layer) == ft.Report(("",), {})
    copied = copy.deepcopy(layer)
    assert type(ft.convert(copied, revert=True)) is make
    output = layer(x)
    assert type(layer) is getattr(ft, f"{kind}{axes}d")
    check_equal(layer, ft.convert(copy.deepcopy(layer), revert=True), x)
    assert output.shape == layer(x).shape


def test_parametrizations_that_come_and_go_after_converting():
    layer, x = made("conv2d")
    reference = copy.deepcopy(layer)
    ft.convert(layer)
    for model in (layer, reference):
        parametrizations.weight_norm(model)
    assert ft.report(layer).converted == ("",)
    check_equal(layer, reference, x)
    for model in (layer, reference):
        parametrize.remove_parametrizations(model, "weight")
    assert type(layer) is ft.Conv2d
    check_equal(layer, reference, x)
    parametrizations.spectral_norm(layer)
    ft.convert(layer, revert=True)
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Conv2d


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_weight_norm_by_hooks():
    layer = nn.utils.weight_norm(nn.Conv2d(4, 6, 3))
    reference, x = nn.utils.weight_norm(nn.Conv2d(4, 6, 3)), torch.randn(2, 4, 6, 6)
    reference.load_state_dict(layer.state_dict())
    check_equal(ft.convert(layer), reference, x)
    with torch.no_grad():
        for model in (layer, reference):
            model.eval().weight_g.mul_(2)
        torch.testing.assert_close(layer(x), reference(x))


def test_a_model_is_reported(caplog):
    shared = nn.Conv2d(4, 4, 3, padding=1)
    model = nn.Sequential(
        shared, nn.ReLU(), shared, nn.Sequential(nn.Conv3d(1, 1, 1), OwnForward(4, 4, 1)), nn.Linear(2, 2)
    )
    with caplog.at_level(logging.WARNING, "fastconv"):
        ft.convert(model)
    (message,) = caplog.messages
    assert message == (
        "convolutions that PyTorch still computes: 3.0: fastconv computes one and two spatial axes; "
        "3.1: its class OwnForward has a forward of its own"
    )
    report = ft.report(model)
    assert report.converted == ("0",)
    assert list(report.left) == ["3.0", "3.1"]
    assert str(report).splitlines()[0] == "convolutions computed by fastconv: 1, by PyTorch: 2"
    x = torch.randn(1, 4, 5, 5)
    torch.testing.assert_close(model[3][1](x), nn.functional.conv2d(x, 2 * model[3][1].weight, model[3][1].bias))


def test_output_size_and_its_errors():
    layer = ft.convert(nn.ConvTranspose2d(4, 6, 3, stride=2))
    x = torch.randn(1, 4, 5, 5)
    assert layer(x, output_size=(12, 12)).shape[2:] == (12, 12)
    for model in (layer, ft.convert(copy.deepcopy(layer), revert=True)):
        with pytest.raises(ValueError, match="requested an output size"):
            model(x, output_size=(20, 20))


def test_what_is_no_module_is_refused():
    with pytest.raises(fc.ArgumentError, match=r"module must be a torch\.nn\.Module, not list"):
        ft.convert([nn.Conv2d(1, 1, 1)])


def test_training_is_torchs_but_for_rounding():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(),
        nn.ConvTranspose2d(8, 3, 3, stride=2),
    )  # fmt: skip
    models = model, ft.convert(copy.deepcopy(model))
    optimizers = [torch.optim.Adam(one.parameters(), lr=1e-3) for one in models]
    losses: tuple[list[float], list[float]] = [], []
    for step in range(20):
        x = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(step))
        for one, optimizer, seen in zip(models, optimizers, losses, strict=True):
            optimizer.zero_grad()
            loss = (one(x) - x).square().mean()
            loss.backward()
            optimizer.step()
            seen.append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][-1] < losses[0][0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@each_layer
def test_compiled_without_a_break(name):
    layer, x = made(name)
    ft.convert(layer)
    torch.compiler.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    check_equal(compiled, layer, x)
