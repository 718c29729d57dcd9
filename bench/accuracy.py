"""The rounding error of each algorithm on realistic layers: for each layer, a row of a table for each algorithm.

    python bench/accuracy.py                         forward and gradient of the input, of all registered algorithms
    python bench/accuracy.py --pytorch --backend cython --passes forward input weight

Errors are differences to direct convolution in float64 of the same float32 numbers. Three figures describe them:

    rms error       root mean square of the error over that of the result
    of direct's     this error over that of the algorithm `direct`
    of the bound    the largest error of an element over its bound for a sum in any order: gamma_n times the sum of the
                    absolute values of its n products, where gamma_n = n u / (1 - n u) and u is half the machine epsilon
                    (N. Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, section 3.1)

Inputs are what a ReLU returns for normal numbers. Weights are normal numbers of variance 2 / n (He et al.); gradients
of the output are normal. An algorithm of several arithmetics (`Kernel.arithmetic`) has a row for each. Below the
table, a line says which layers an algorithm declines, and why.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np

import fastconv as fc
from fastconv.backends.contract import AnyEngine
from fastconv.dispatch import backends
from fastconv.planner import registry
from fastconv.planner.registry import Kernel
from fastconv.planner.request import Contraction, Request
from fastconv.problem.arrays import Array
from fastconv.problem.geometry import Geometry

#: What each pass computes.
PASSES: dict[str, Contraction] = {"forward": "small", "input": "large", "weight": "weight"}
#: The arrays that a contraction reads, in the order of its arguments.
SOURCES = {"small": ("large", "weight"), "large": ("small", "weight"), "weight": ("large", "small")}


class Layer(NamedTuple):
    """A convolution of one image with stride 1 and as much padding as keeps the extents."""

    taps: tuple[int, int]
    channels: int
    results: int
    extents: tuple[int, int]
    groups: int = 1

    @property
    def geometry(self) -> Geometry:
        """Its geometry."""
        padding = tuple(size // 2 for size in self.taps)
        x, w = (1, self.channels, *self.extents), (self.results, self.channels // self.groups, *self.taps)
        return Geometry.conv(x, w, spatial=2, padding=padding, groups=self.groups)

    def arrays(self) -> dict[str, Array]:
        """Input, weight and gradient of the output, by the names of contractions."""
        geometry, rng = self.geometry, np.random.default_rng(0)
        draw = {name: rng.standard_normal(getattr(geometry, f"{name}_shape"), "f") for name in SOURCES}
        np.maximum(draw["large"], 0, out=draw["large"])
        draw["weight"] *= np.float32(math.sqrt(2 / math.prod(geometry.weight_shape[1:])))
        return draw

    def __str__(self) -> str:
        groups = "depthwise " if self.groups == self.channels else ""
        taps, extents = ("x".join(map(str, pair)) for pair in (self.taps, self.extents))
        return f"{groups}{taps}, {self.channels} to {self.results}, {extents}"


LAYERS = [
    Layer((3, 3), 32, 32, (112, 112)),
    Layer((3, 3), 64, 64, (56, 56)),
    Layer((3, 3), 128, 128, (28, 28)),
    Layer((3, 3), 256, 256, (14, 14)),
    Layer((3, 3), 512, 512, (7, 7)),
    Layer((3, 3), 2048, 512, (7, 7)),
    Layer((5, 5), 64, 64, (28, 28)),
    Layer((15, 15), 64, 64, (56, 56)),
    Layer((31, 31), 32, 32, (56, 56)),
    Layer((31, 31), 256, 256, (28, 28), groups=256),
    Layer((1, 1001), 32, 32, (1, 8192)),
]


#: Layers and passes that an algorithm declines, by its name and the reason.
Declined: TypeAlias = dict[tuple[str, str], list[str]]


class Errors(NamedTuple):
    """How far a result is from the exact one; see the table's columns."""

    rms: float
    of_bound: float


class Truth:
    """A contraction of a layer in float64, and the sums of the absolute values of its products."""

    def __init__(self, engine: AnyEngine, geometry: Geometry, target: Contraction, arrays: Mapping[str, Array]) -> None:
        exact = {role: array.astype("d") for role, array in arrays.items()}
        self._result = contraction(engine, geometry, target, exact)
        magnitudes = contraction(engine, geometry, target, {role: np.abs(array) for role, array in exact.items()})
        products = geometry.flops // 2 // self._result.size
        unit = products * np.finfo("f").eps / 2
        self._bounds = unit / (1 - unit) * magnitudes

    def errors(self, found: Array) -> Errors:
        """Of a result in float32."""
        off = found - self._result
        return Errors(math.sqrt(np.mean(off**2) / np.mean(self._result**2)), float(np.max(np.abs(off) / self._bounds)))


def contraction(
    engine: AnyEngine, geometry: Geometry, target: Contraction, arrays: Mapping[str, Array], algorithm: str = "direct",
    kernels: Iterable[str] = (),
) -> Array:  # fmt: skip
    """What an algorithm computes, by one of these kernels if some are named."""
    out = np.empty(getattr(geometry, f"{target}_shape"), arrays["weight"].dtype)
    with registry.only(*kernels):
        run = registry.choose(_request(engine, geometry, target, out.dtype), algorithm).prepared(engine)
    run(*(arrays[role] for role in SOURCES[target]), None, out)
    return out


def declines(engine: AnyEngine, geometry: Geometry, target: Contraction, kernels: Iterable[Kernel]) -> str | None:
    """Why none of these kernels computes a contraction; None if one does."""
    request = _request(engine, geometry, target, np.dtype("f"))
    is_tiled = request.layout is not None
    reasons = [kernel.applies(request) for kernel in kernels if target in kernel.makes and kernel.tiled is is_tiled]
    if None in reasons:
        return None
    return "; ".join(filter(None, reasons)) or "it has no kernel for this pass on this engine"


def _request(engine: AnyEngine, geometry: Geometry, target: Contraction, dtype: np.dtype) -> Request:
    return Request.of(engine, geometry, target, dtype.itemsize, fc.get_num_threads())


def arithmetics() -> dict[str, list[Kernel]]:
    """The kernels of each arithmetic; `direct` is the first one."""
    found: dict[str, list[Kernel]] = {"direct": []}
    for kernel in registry.KERNELS.values():
        found.setdefault(kernel.arithmetic, []).append(kernel)
    return found


def pytorch(geometry: Geometry, target: Contraction, arrays: Mapping[str, Array]) -> Array:
    """What PyTorch computes."""
    import torch

    large, weight, small = (torch.from_numpy(arrays[role]) for role in ("large", "weight", "small"))
    options = {"padding": [before for before, _ in geometry.pads], "groups": geometry.groups}
    if target == "small":
        found = torch.nn.functional.conv2d(large, weight, **options)
    elif target == "large":
        found = torch.nn.grad.conv2d_input(large.shape, weight, small, **options)
    else:
        found = torch.nn.grad.conv2d_weight(large, weight.shape, small, **options)
    return found.numpy()


def rows(
    layer: Layer, passes: Iterable[str], engine: AnyEngine, with_pytorch: bool, declined: Declined
) -> Iterator[tuple[str, dict[str, Errors]]]:
    """Each algorithm that computes a pass of the layer, with its errors by pass; `declined` gets what one declines."""
    geometry, arrays = layer.geometry, layer.arrays()
    truths = {name: Truth(engine, geometry, PASSES[name], arrays) for name in passes}
    for name, kernels in arithmetics().items():
        errors = {}
        for which, truth in truths.items():
            if reason := declines(engine, geometry, PASSES[which], kernels):
                declined.setdefault((name, reason), []).append(f"{layer} ({which})")
                continue
            names = [kernel.name for kernel in kernels]
            errors[which] = truth.errors(
                contraction(engine, geometry, PASSES[which], arrays, kernels[0].algorithm, names)
            )
        if errors:
            yield name, errors
    if with_pytorch:
        yield "PyTorch", {name: truth.errors(pytorch(geometry, PASSES[name], arrays)) for name, truth in truths.items()}


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="The rounding error of each algorithm on realistic layers.")
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=["forward", "input"])
    parser.add_argument("--backend", help="the engine (default: the one that a call gets)")
    parser.add_argument("--pytorch", action="store_true", help="PyTorch as well")
    options = parser.parse_args(arguments)
    passes = options.passes
    engine = backends.pick(options.backend, np.dtype("f"))
    titles = [f"{name}: rms error | of direct's | of the bound" for name in passes]
    print("| layer | algorithm |", " | ".join(titles), "|")
    print("|---" * (2 + 3 * len(passes)) + "|")
    declined: Declined = {}
    for layer in LAYERS:
        direct: dict[str, Errors] = {}
        for name, errors in rows(layer, passes, engine, options.pytorch, declined):
            direct = direct or errors
            cells = ["- | - | -" if (own := errors.get(which)) is None else
                     f"{own.rms:.1e} | {own.rms / direct[which].rms:.2f} | {own.of_bound:.1g}"
                     for which in passes]  # fmt: skip
            print(f"| {layer} | {name} |", " | ".join(cells), "|", flush=True)
    for (name, reason), layers in declined.items():
        print(f"\n{name} declines {'; '.join(layers)}: {reason}")


if __name__ == "__main__":
    main()
