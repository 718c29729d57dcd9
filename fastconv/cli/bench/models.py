"""Whole networks in PyTorch, with numbers that are the same in every process.

A file of bench/models is a network. It defines

    build()              the module, as PyTorch initialises it
    INFERENCE, TRAINING  the shapes of a batch, for a forward call and for a training step
    HAS_CLASSES          whether the result holds a score for each class, else it is an image
"""

from __future__ import annotations

import copy
import importlib.util
import math
import sys
from importlib import resources
from importlib.resources.abc import Traversable
from types import ModuleType
from typing import Any, NamedTuple

from fastconv.cli.bench.problems import files
from fastconv.problem.extras import require

#: What is timed of a network.
KINDS = ("inference", "training")
#: Networks of a file that are built with other arguments, beside the one of its defaults.
_VARIANTS = {"fsrcnn_x3": ("fsrcnn", {"scale": 3}), "fsrcnn_x4": ("fsrcnn", {"scale": 4})}


class Case(NamedTuple):
    """What is timed.

    name     of the network
    kind     one of `KINDS`
    backend  the engine of ours, None for auto's choice
    shape    of the input, None for the one of the network's file
    """

    name: str
    kind: str
    backend: str | None = None
    shape: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return f"{self.kind} of {self.name}"


class Network(NamedTuple):
    """A network with its numbers.

    module  in evaluation or training mode
    input   a batch
    target  a class or a number for each of the result's, None for inference
    """

    module: Any
    input: Any
    target: Any

    def loss(self, result: Any) -> Any:
        """The cross entropy of classes, the mean square of other differences."""
        functional = require("torch.nn.functional", "torch", "--model")
        compared = functional.mse_loss if self.target.is_floating_point() else functional.cross_entropy
        return compared(result, self.target)


def model_files() -> dict[str, Traversable]:
    """The networks that come with fastconv, by name: in a checkout bench/models, and in a wheel the same files."""
    return files("models", ".py")


def names() -> list[str]:
    """All networks: those of the files, and their variants."""
    return sorted([*model_files(), *_VARIANTS])


def network(case: Case, seed: int = 0) -> Network:
    """The network of a case. Biases, scales and statistics of norms are not those of an untrained network, which some
    contenders could leave out; all numbers keep about the size 1 from layer to layer."""
    torch = require("torch", "torch", "--model")
    file, arguments = _VARIANTS.get(case.name, (case.name, {}))
    definition = _loaded(file)
    torch.manual_seed(seed)
    module = definition.build(**arguments)
    for layer in module.modules():
        _draw_parameters(torch, layer)
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0  # all contenders compute the same step
    x = torch.randn(case.shape or getattr(definition, case.kind.upper()))
    with torch.no_grad():
        result = _draw_statistics(torch, module, x)
    if case.kind == "inference":
        return Network(module.eval(), x, None)
    if definition.HAS_CLASSES:
        target = torch.randint(result.shape[1], (result.shape[0], *result.shape[2:]))
    else:
        target = torch.randn(result.shape)
    return Network(module.train(), x, target)


def smoothed(definition: Network) -> Network | None:
    """The same network with smooth functions in place of rectifiers and of pooling by maxima; None if it has neither.

    A rounding error that turns a rectifier on or off changes gradients by far more than itself, here it does not.
    """
    nn = require("torch", "torch", "--model").nn
    module = copy.deepcopy(definition.module)
    changed = False
    for parent in list(module.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.ReLU | nn.ReLU6):
                setattr(parent, name, nn.Softplus(beta=4))
            elif isinstance(layer, nn.MaxPool2d):
                setattr(parent, name, nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding))
            else:
                continue
            changed = True
    return definition._replace(module=module) if changed else None


def _loaded(name: str) -> ModuleType:
    """The module of a network's file. It is among those that Python knows, as compilers look for it there."""
    known = f"fastconv.models.{name}"
    if known not in sys.modules:
        with resources.as_file(model_files()[name]) as path:
            spec = importlib.util.spec_from_file_location(known, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        sys.modules[known] = module
    return sys.modules[known]


def _draw_parameters(torch: Any, layer: Any) -> None:
    """Draw a layer's own parameters: weights that keep the size of what a rectifier lets pass, small biases, and
    factors of different size."""
    nn = torch.nn
    for name, parameter in layer.named_parameters(recurse=False):
        if name == "bias":
            nn.init.normal_(parameter, 0, 0.1)
        elif isinstance(layer, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(parameter, 0.8, 1.2)
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            terms = parameter.numel() // parameter.shape[0]
            if isinstance(layer, nn.ConvTranspose2d):  # its weight is (C_in, C_out/groups, R, S)
                terms = parameter.numel() // parameter.shape[1] // layer.groups // math.prod(layer.stride)
            nn.init.normal_(parameter, 0, math.sqrt(2 / terms))
        else:  # the slopes of a PReLU, and the scale of a layer
            nn.init.uniform_(parameter, 0.1, 0.4)


def _draw_statistics(torch: Any, module: Any, x: Any) -> Any:
    """Set the running means and variances of batch norms near those of a batch; returns the batch's result."""
    norms = [layer for layer in module.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    result = module.train()(x)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
        norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25)
    return result
