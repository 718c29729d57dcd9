"""The contender ncnn."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastconv.cli.bench.interface import Declined, Forward
from fastconv.cli.bench.libraries import Sessions
from fastconv.cli.bench.problems import Problem, output_padding
from fastconv.problem.arrays import Array
from fastconv.problem.extras import require

#: The numbers of a layer's parameters on each axis, the last axis first: taps, dilation, stride, padding before and
#: after, and what a transposed convolution adds to its output.
_OF_AXES = ((1, 2, 3, 4, 15, 18), (11, 12, 13, 14, 16, 19))
#: The numbers of the other parameters.
_CHANNELS, _BIAS, _WEIGHTS, _GROUPS, _ACTIVATION = 0, 5, 6, 7, 9
#: By default float32 may be stored and computed in 16 bits.
_HALVES = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed", "use_bf16_storage")


class Ncnn(Sessions):
    """ncnn: a network of one layer with all its defaults, Winograd among them, but float32 in float32.

    The network states the extents of its maps, by which ncnn chooses among its algorithms. Results are in the memory of
    a pool, as in ncnn's own benchmark. It computes one image; several are a call each.
    """

    title = "ncnn"
    sessions = 512  # each takes about 0.04 ms, and longer where Winograd transforms its weight

    def __init__(self, threads: int, channels_last: bool = False) -> None:
        super().__init__(threads, channels_last)
        self._library = require("ncnn", "bench", "the contender ncnn")

    def _session(self, problem: Problem, weight: Array, bias: Array | None) -> Forward:
        if weight.dtype != np.float32:
            raise Declined(f"ncnn computes {weight.dtype} in float32")
        library = self._library
        network = library.Net()
        options = network.opt
        options.num_threads = self._threads
        options.blob_allocator, options.workspace_allocator = _pools()
        for name in _HALVES:
            setattr(options, name, False)
        if network.load_param_mem(_description(problem, bias is not None)):
            raise RuntimeError("ncnn cannot make the layer")
        network.load_model_mem(_constants(problem, weight, bias))

        def infer(image: Array) -> Array:
            extractor = network.create_extractor()
            given = library.Mat(image)  # the same memory
            if image.ndim == 3:
                given.cstep = image.strides[0] // image.itemsize  # a result's channels start at multiples of 16 bytes
            extractor.input("x", given)
            status, result = extractor.extract("y")
            if status:
                raise RuntimeError(f"ncnn failed with status {status}")
            return np.asarray(result)  # the same memory

        def infer_all(x: Array) -> Array:
            return infer(x[0])[np.newaxis] if len(x) == 1 else np.stack([infer(image) for image in x])

        return infer_all


@functools.cache
def _pools() -> tuple[Any, Any]:
    """The memory for results and for workspace of all networks of this process, which outlives the results."""
    library = require("ncnn", "bench", "the contender ncnn")
    return library.PoolAllocator(), library.PoolAllocator()


def _description(problem: Problem, is_fused: bool) -> str:
    """The network in ncnn's text format: an input "x" and the layer, whose result is "y"."""
    geometry = problem.geometry
    transposed, spatial = geometry.is_transposed, len(geometry.axes)
    kind = "Deconvolution" if transposed else "Convolution"
    kind += "DepthWise" * (geometry.groups > 1) + "1D" * (spatial == 1)
    values = {
        _CHANNELS: geometry.output_shape[1],
        _BIAS: int(is_fused),
        _WEIGHTS: int(np.prod(problem.weight_shape)),
        _GROUPS: geometry.groups,
        _ACTIVATION: int(is_fused),  # 1: relu
    }
    added = output_padding(geometry) if transposed else (0,) * spatial
    for numbers, axis, more in zip(_OF_AXES[:spatial], reversed(geometry.axes), reversed(added), strict=True):
        settings = (axis.taps, axis.dilation, axis.stride, axis.pad_before, axis.pad_after, more)
        values |= dict(zip(numbers, settings, strict=True))
    written = " ".join(f"{number}={value}" for number, value in values.items())
    x, y = (_shape(shape) for shape in (problem.input_shape, geometry.output_shape))
    return f"7767517\n2 2\nInput x 0 1 x {x}\n{kind} y 1 1 x y {written} {y}\n"


def _shape(shape: tuple[int, ...]) -> str:
    """The parameter that tells the extents of a map: how many, and three of them, the last axis first."""
    extents = [*reversed(shape[1:]), 1]
    return "-23330=4," + ",".join(map(str, [len(shape) - 1, *extents[:3]]))


def _constants(problem: Problem, weight: Array, bias: Array | None) -> bytes:
    """Weight, whose results are its first axis in each group, and bias, in ncnn's format of a model."""
    geometry = problem.geometry
    if geometry.is_transposed:
        weight = weight.reshape(geometry.groups, -1, *weight.shape[1:]).swapaxes(1, 2)
    tag = bytes(4)  # for numbers in float32
    return tag + weight.tobytes() + (b"" if bias is None else bias.tobytes())
