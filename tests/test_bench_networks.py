"""The benchmark's whole networks: each is the one it is called after, with numbers of sensible size."""

from __future__ import annotations

import pathlib

import pytest

from fastconv.cli.bench import models
from fastconv.cli.bench.models import Case

torch = pytest.importorskip("torch")
ROOT = pathlib.Path(__file__).parent.parent

#: Parameters, convolutions, transposed ones among them, and the shape of the result.
KNOWN = {
    "resnet50": (25_557_032, 53, 0, (1, 1000)),
    "mobilenetv2": (3_504_872, 52, 0, (1, 1000)),
    "convnext_tiny": (28_589_128, 22, 0, (1, 1000)),
    "unet": (1_927_042, 18, 3, (1, 2, 256, 256)),
    "dcgan": (12_658_432, 5, 5, (4, 3, 64, 64)),
    "fsrcnn": (12_809, 8, 1, (1, 1, 320, 320)),
    "fsrcnn_x3": (12_809, 8, 1, (1, 1, 480, 480)),
    "fsrcnn_x4": (12_809, 8, 1, (1, 1, 640, 640)),
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_models_are_those_of_the_folder():
    assert sorted(models.model_files()) == sorted(path.stem for path in (ROOT / "bench" / "models").glob("*.py"))
    assert set(models.names()) == set(KNOWN)
    text = (ROOT / "bench" / "README.md").read_text()
    for name in KNOWN:
        assert f"`{name}`" in text


@pytest.mark.parametrize("name", KNOWN)
def test_a_model_is_its_network(name):
    parameters, convolutions, transposed, shape = KNOWN[name]
    module, x, _ = models.network(Case(name, "inference"))
    layers = [layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d)]
    assert sum(parameter.numel() for parameter in module.parameters()) == parameters
    assert len(layers) == convolutions
    assert sum(isinstance(layer, torch.nn.ConvTranspose2d) for layer in layers) == transposed
    assert not any(layer.training for layer in module.modules())
    with torch.inference_mode():
        result = module(x)
    assert result.shape == shape
    assert torch.isfinite(result).all()
    assert 0.1 < float(result.std()) < 10
    assert float(result.abs().max()) < 30


def small(name):
    """A smaller input."""
    batch = 4 if name == "dcgan" else 2
    side = {"dcgan": 1, "fsrcnn": 16}.get(name.partition("_")[0], 64)
    return batch, {"dcgan": 100, "fsrcnn": 1}.get(name.partition("_")[0], 3), side, side


@pytest.mark.parametrize("name", models.model_files())
def test_a_model_has_gradients_of_all_its_parameters(name):
    definition = models.network(Case(name, "training", None, small(name)))
    assert definition.module.training
    loss = definition.loss(definition.module(definition.input))
    loss.backward()
    assert 0.1 < float(loss.detach()) < 100
    for parameter in definition.module.parameters():
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.abs().max() > 0
