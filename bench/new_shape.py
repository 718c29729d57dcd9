"""What the first call of a shape costs beyond a repeated one: python bench/new_shape.py [shapes]

Each shape is called once, and then a few times more, on arrays that were touched before. The median over many shapes of
the first call's time beyond the median of the others is what planning costs; cold tables and compiled code that has not
run lately are part of it. Times are CPU time of one thread, so that other processes disturb them little.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np

import fastconv as fc

#: Repeated calls of a shape.
AGAIN = 5
#: What is called: a kind of layer, by its name.
KINDS = ("3x3", "1x1", "depthwise 3x3", "transposed 3x3, stride 2", "1-D, kernel 5")
PASSES = ("forward", "input", "weight")
Call = Callable[[], object]


def layers(kind: str, number: int, seed: int) -> Iterator[tuple[list[np.ndarray], dict[str, int]]]:
    """Different layers of a kind, of 16 to 64 channels and 20 to 60 pixels: input, weight and output, and keywords."""
    rng = np.random.default_rng(seed)
    seen = set()
    while len(seen) < number:
        c, k = (int(v) for v in rng.integers(16, 65, 2))
        h, w = (int(v) for v in rng.integers(20, 61, 2))
        if (c, k, h, w) in seen:
            continue
        seen.add((c, k, h, w))
        x, weight, y, keywords = {
            "3x3": ((c, h, w), (k, c, 3, 3), (k, h, w), {"padding": 1}),
            "1x1": ((c, h, w), (k, c, 1, 1), (k, h, w), {}),
            "depthwise 3x3": ((c, h, w), (c, 1, 3, 3), (c, h, w), {"padding": 1, "groups": c}),
            "transposed 3x3, stride 2": ((c, h, w), (c, k, 3, 3), (k, 2 * h, 2 * w),
                                         {"stride": 2, "padding": 1, "output_padding": 1}),
            "1-D, kernel 5": ((c, h * w), (k, c, 5), (k, h * w), {"padding": 2}),
        }[kind]  # fmt: skip
        yield [rng.standard_normal(shape, np.float32) for shape in ((1, *x), weight, (1, *y))], keywords


def call_of(engine: str, kind: str, which: str, arrays: list[np.ndarray], keywords: dict[str, int]) -> Call:
    """The call of one pass of a layer on an engine, or in torch."""
    x, w, dy = arrays
    name = ("conv_transpose" if "transposed" in kind else "conv") + ("1d" if "1-D" in kind else "2d")
    if engine != "torch":
        how = {"backend": engine, **keywords}
        forward = getattr(fc, name)
        return {
            "forward": lambda: forward(x, w, **how),
            "input": lambda: getattr(fc.grad, f"{name}_input")(x.shape, w, dy, **how),
            "weight": lambda: getattr(fc.grad, f"{name}_weight")(x, w.shape, dy, **how),
        }[which]
    import torch

    x, w, dy = map(torch.from_numpy, arrays)
    if which == "forward":
        return lambda: getattr(torch.nn.functional, name)(x, w, **keywords)
    axes = x.ndim - 2
    stride, padding, extra = ([keywords.get(key, 0)] * axes for key in ("stride", "padding", "output_padding"))
    how = [[v or 1 for v in stride], padding, [1] * axes, "transposed" in kind, extra, keywords.get("groups", 1)]
    mask = [which == "input", which == "weight", False]
    return lambda: torch.ops.aten.convolution_backward(dy, x, w, None, *how, mask)


def seconds(call: Call) -> float:
    start = time.thread_time()
    call()
    return time.thread_time() - start


def measured(calls: Iterator[Call]) -> tuple[float, float]:
    """Medians in microseconds: of a first call beyond a repeated one, and of a repeated one."""
    first, again = [], []
    for call in calls:
        times = [seconds(call) for _ in range(1 + AGAIN)]
        again.append(statistics.median(times[1:]))
        first.append(times[0] - again[-1])
    return statistics.median(first) * 1e6, statistics.median(again) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description="What the first call of a shape costs beyond a repeated one.")
    parser.add_argument("shapes", nargs="?", type=int, default=500)
    parser.add_argument("--kinds", default=",".join(KINDS[:1]), help="'all', or names separated by commas")
    parser.add_argument("--engines", default="numba,cython", help="separated by commas; torch is one")
    options = parser.parse_args()
    fc.set_num_threads(1)
    if "torch" in options.engines:
        import torch

        torch.set_num_threads(1)
    kinds = KINDS if options.kinds == "all" else [kind for kind in KINDS if kind in options.kinds.split(",")]
    seeds = itertools.count()  # no layer of one row is of another
    for kind, which, engine in itertools.product(kinds, PASSES, options.engines.split(",")):
        for number in (3, options.shapes):  # the first few compile what Numba has not compiled before
            found = layers(kind, number, next(seeds))
            beyond, repeated = measured(call_of(engine, kind, which, *layer) for layer in found)
        print(f"{beyond:7.0f} us beyond {repeated:6.0f} us  {engine:7} {which:8} {kind}")


if __name__ == "__main__":
    main()
