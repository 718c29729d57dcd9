"""Where the microseconds of a tiny call go: python bench/tiny_call.py

Each stage is timed by itself, the least of several repeats. Calls with a bias, with `out`, and of a layer follow.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable

import numpy as np

import fastconv as fc
from fastconv.dispatch import algorithms, backends
from fastconv.dispatch.call import find_call
from fastconv.problem.geometry import Geometry
from fastconv.problem.operations import CONV2D

REPEATS, CALLS = 7, 20_000


def microseconds(call: Callable[[], object]) -> float:
    call()
    return min(timeit.repeat(call, number=CALLS, repeat=REPEATS)) / CALLS * 1e6


def main() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 8, 8, 8), dtype=np.float32)
    w = rng.standard_normal((8, 8, 3, 3), dtype=np.float32)
    bias = rng.standard_normal(8, dtype=np.float32)
    out = fc.conv2d(x, w, padding=1)
    engine = backends.pick(None, x.dtype)
    geometry = Geometry.conv(x.shape, w.shape, padding=1)
    run = algorithms.pick("auto").prepared(engine, geometry, "small", x.itemsize, 1)
    call = (CONV2D, x, w, None, (1, 1, 1, 1, "zeros"), "auto", None, None)
    layer = fc.nn.Conv2d(8, 8, 3, padding=1, rng=0)

    whole = microseconds(lambda: fc.conv2d(x, w, padding=1))
    lookup = microseconds(lambda: find_call(*call))
    empty = microseconds(lambda: np.empty(out.shape, x.dtype))
    engines = microseconds(lambda: run(x, w, None, out))
    rows = {
        "conv2d's arguments, and their arrays": whole - lookup - empty - engines,
        "looking the call up": lookup,
        "an empty result": empty,
        "the engine: workspace, calling compiled code, the convolution": engines,
        "the whole call": whole,
        "with a bias": microseconds(lambda: fc.conv2d(x, w, bias, padding=1)),
        "with out": microseconds(lambda: fc.conv2d(x, w, padding=1, out=out)),
        "with a bias and out": microseconds(lambda: fc.conv2d(x, w, bias, padding=1, out=out)),
        "nn.Conv2d, with a bias": microseconds(lambda: layer(x)),
    }
    try:
        import torch
    except ImportError:
        pass
    else:
        torch.set_num_threads(1)
        tensors = [torch.from_numpy(array) for array in (x, w, bias)]
        with torch.no_grad():
            rows["torch.nn.functional.conv2d"] = microseconds(
                lambda: torch.nn.functional.conv2d(*tensors[:2], padding=1)
            )
            rows["torch, with a bias"] = microseconds(lambda: torch.nn.functional.conv2d(*tensors, padding=1))
    for what, time in rows.items():
        print(f"{time:6.1f} us  {what}")


if __name__ == "__main__":
    main()
