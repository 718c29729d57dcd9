"""Time a few layers of real networks, each pass on every engine; the results are compared before they are timed."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv as fc

#: Name: input shape, weight shape, parameters.
LAYERS = {
    "ResNet-50 3x3": ((1, 64, 56, 56), (64, 64, 3, 3), {"padding": 1}),
    "ResNet-50 1x1": ((1, 256, 56, 56), (64, 256, 1, 1), {}),
    "ResNet-50 stem": ((1, 3, 224, 224), (64, 3, 7, 7), {"stride": 2, "padding": 3}),
    "MobileNetV2 depthwise": ((1, 144, 56, 56), (144, 1, 3, 3), {"padding": 1, "groups": 144}),
}


@pytest.mark.parametrize("backend", fc.available_backends())
@pytest.mark.parametrize("which", ["forward", "input", "weight"])
@pytest.mark.parametrize("layer", LAYERS)
def test_layer(benchmark, layer, which, backend):
    input_shape, weight_shape, parameters = LAYERS[layer]
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in (input_shape, weight_shape))
    dy = np.ones_like(fc.conv2d(x, w, **parameters))
    function, arguments = {
        "forward": (fc.conv2d, (x, w)),
        "input": (fc.grad.conv2d_input, (x.shape, w, dy)),
        "weight": (fc.grad.conv2d_weight, (x, w.shape, dy)),
    }[which]
    in_float64 = [a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in arguments]
    expected = function(*in_float64, **parameters, backend="numpy")
    result = function(*arguments, **parameters, backend=backend)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())

    benchmark.group = f"{layer}, {which}"
    benchmark(function, *arguments, **parameters, backend=backend)
    operation = "conv2d" if which == "forward" else f"conv2d_{which}"
    flops = fc.explain(operation, input_shape, weight_shape, **parameters).flops
    if benchmark.stats:  # none under --benchmark-disable
        benchmark.extra_info["GFLOP/s"] = flops / benchmark.stats["median"] / 1e9
