"""The rounding error of weight gradients whose sums are long: for each kernel, a row of a table.

    python bench/long_sums.py                        every kernel, up to 2 million pixels
    python bench/long_sums.py --most 131072 --pytorch --normal

An error is the largest one of all elements, relative to the largest element of the same gradient in float64. Numbers
are uniform in [0, 1), or normally distributed. Engines that give the same bits share a row.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

import fastconv as fc
from fastconv.dispatch import backends
from fastconv.planner import registry
from fastconv.planner.registry import Algorithm
from fastconv.planner.request import Request
from fastconv.problem.arrays import Array
from fastconv.problem.geometry import Geometry

#: Channels, results, groups and size of the kernels' layers; and images, rows and columns of their maps.
LAYERS = ((8, 8, 8, 3), (8, 8, 8, 7), (4, 4, 1, 3))
MAPS = ((1, 64, 64), (4, 64, 64), (8, 128, 128), (32, 256, 256))


class Layer(NamedTuple):
    """A layer with as much padding as keeps the extents, and what its weight gradient is computed from."""

    geometry: Geometry
    large: Array
    small: Array

    @classmethod
    def of(cls, layer: tuple[int, int, int, int], maps: tuple[int, int, int], is_normal: bool = False) -> Layer:
        """A layer of `LAYERS` on maps of `MAPS`, with numbers of one sign or, if `is_normal`, of both."""
        (channels, results, groups, size), (images, *pixels) = layer, maps
        rng = np.random.default_rng(0)
        draw: Callable[..., Array] = rng.standard_normal if is_normal else rng.random
        x, w = (images, channels, *pixels), (results, channels // groups, size, size)
        geometry = Geometry.conv(x, w, spatial=2, padding=size // 2, groups=groups)
        return cls(geometry, draw(x, "f"), draw((images, results, *pixels), "f"))

    def gradient(self, kernel: str | None, backend: str, dtype: str = "f") -> Array:
        """The weight's gradient as a kernel computes it, or the one that is chosen."""
        engine, out = backends.pick(backend, np.dtype(dtype)), np.empty(self.geometry.weight_shape, dtype)
        with registry.only(*[kernel] * (kernel is not None)):
            run = Algorithm("direct").prepared(engine, self.geometry, "weight", out.itemsize, fc.get_num_threads())
        run(self.large.astype(dtype), self.small.astype(dtype), None, out)
        return out

    def pytorch(self) -> Array:
        """The weight's gradient as PyTorch computes it."""
        import torch

        maps, size = map(torch.from_numpy, (self.large, self.small)), self.geometry.axes[0].taps
        large, small = maps
        options = {"padding": size // 2, "groups": self.geometry.groups}
        found: Array = torch.nn.grad.conv2d_weight(large, self.geometry.weight_shape, small, **options).numpy()
        return found


def kernels(layer: tuple[int, int, int, int]) -> Iterator[tuple[str, str]]:
    """Every engine and every kernel that computes the weight gradient of a layer."""
    geometry = Layer.of(layer, MAPS[0]).geometry
    for backend in fc.available_backends():
        request = Request.of(backends.pick(backend, np.dtype("f")), geometry, "weight", 4, 1)
        for kernel in registry.KERNELS.values():
            is_able = "weight" in kernel.makes and kernel.tiled is (request.layout is not None)
            if is_able and kernel.applies(request) is None:
                yield backend, kernel.name


def error(found: Array, exact: Array) -> float:
    """The largest error, relative to the largest element."""
    return float(np.abs(found - exact).max() / np.abs(exact).max())


def gradients(problem: Layer, found_kernels: list[tuple[str, str]]) -> dict[str, Array]:
    """The weight gradient by each kernel, whose name is followed by the engines that compute these bits."""
    engines: dict[tuple[str, bytes], list[str]] = {}
    for backend, kernel in found_kernels:
        engines.setdefault((kernel, problem.gradient(kernel, backend).tobytes()), []).append(backend)
    shape = problem.geometry.weight_shape
    return {
        f"{kernel} ({', '.join(names)})": np.frombuffer(bits, "f").reshape(shape)
        for (kernel, bits), names in engines.items()
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="The rounding error of weight gradients with long sums.")
    parser.add_argument("--most", type=int, default=2**21, help="the most pixels of a sum (default: 2097152)")
    parser.add_argument("--normal", action="store_true", help="numbers of both signs")
    parser.add_argument("--pytorch", action="store_true", help="PyTorch as well")
    options = parser.parse_args()
    all_maps = [maps for maps in MAPS if math.prod(maps) <= options.most]
    print("| taps, groups | kernel |", *(f"{math.prod(maps):,} pixels |" for maps in all_maps))
    print("|---" * (2 + len(all_maps)) + "|")
    for layer in LAYERS:
        rows: dict[str, list[float]] = {}
        for maps in all_maps:
            problem = Layer.of(layer, maps, options.normal)
            exact = problem.gradient(None, fc.available_backends()[0], "d")
            found = gradients(problem, list(kernels(layer)))
            if options.pytorch:
                found["PyTorch"] = problem.pytorch()
            for name, gradient in found.items():
                rows.setdefault(name, []).append(error(gradient, exact))
        for name, row in rows.items():
            print(f"| {layer[3]}x{layer[3]}, {layer[2]} | {name} |", *(f"{e:.1e} |" for e in row))


if __name__ == "__main__":
    main()
