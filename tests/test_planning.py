"""What the first call of a shape takes, in calls of functions: unlike time, that is the same on a busy machine."""

import statistics
import sys

import numpy as np
import pytest
from registry import empty_caches

import fastconv as fc

#: A kernel, the keywords, and how many functions the first call of a shape may call: forward, and for the gradients of
#: input and weight. With the instruction set that takes most it is about a fifth more than it does.
LAYERS = {
    "conv2d": ((3, 3), {"padding": 1}, (2400, 2550, 2250)),
    "conv_transpose2d": ((3, 3), {"padding": 1, "stride": 2, "output_padding": 1}, (2900, 1250, 2150)),
    "conv1d": ((5,), {"padding": 2}, (1350, 1500, 1850)),
}
#: Extents of the images, all different: what is kept for each height and width helps no more than in use.
IMAGES = [(20 + i, 43 - i) for i in range(9)]
CHANNELS, RESULTS = 24, 18


def calls(compute):
    """How many functions `compute()` calls, Python's and built-in ones."""
    number = 0

    def count(frame, event, argument):
        nonlocal number
        number += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        compute()
    finally:
        sys.setprofile(None)
    return number


def passes(name, image, **how):
    """The forward pass of a layer, and the gradients of its input and weight."""
    kernel, keywords, _ = LAYERS[name]
    extents = image if name.endswith("2d") else (image[0] * image[1],)
    is_transposed = "transpose" in name
    x = np.ones((1, CHANNELS, *extents), np.float32)
    w = np.ones((CHANNELS, RESULTS, *kernel) if is_transposed else (RESULTS, CHANNELS, *kernel), np.float32)
    dy = np.ones((1, RESULTS, *(keywords.get("stride", 1) * extent for extent in extents)), np.float32)
    how |= keywords
    return (
        lambda: getattr(fc, name)(x, w, **how),
        lambda: getattr(fc.grad, f"{name}_input")(x.shape, w, dy, **how),
        lambda: getattr(fc.grad, f"{name}_weight")(x, w.shape, dy, **how),
    )


@pytest.mark.parametrize("backend", [name for name in ("numba", "cython") if name in fc.available_backends()])
@pytest.mark.parametrize("name", LAYERS)
def test_planning_a_new_shape_calls_few_functions(name, backend, monkeypatch):
    """A network that sees images of many sizes waits for this; timings are in bench/new_shape.py."""
    empty_caches(monkeypatch)
    fc.set_num_threads(1)
    counted = [[calls(compute) for compute in passes(name, image, backend=backend)] for image in IMAGES]
    medians = [statistics.median(each) for each in zip(*counted[1:], strict=True)]  # the first compiles
    assert all(median <= most for median, most in zip(medians, LAYERS[name][2], strict=True)), medians
