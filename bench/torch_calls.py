"""What a call of `fastconv.torch` takes beyond the function that it wraps, and what sharing threads with PyTorch costs.

    python bench/torch_calls.py

The first table has one thread and a convolution of 1x8x8x8 with a 3x3 kernel; its lines take turns. The second has
the time of a convolution on all threads, in a process without PyTorch, and in one in which PyTorch adds to a map of the
same size before each call. Times are medians.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import fastconv as fc
import fastconv.torch as ft
from fastconv.torch.convolution import convolution_of
from fastconv.torch.fused import Constants, FusedLayer

ROUNDS, CALLS = 15, 2000


def turns(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The median microseconds of each call."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(ROUNDS + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            if number:  # the first round compiles and fills caches
                times[name].append((time.perf_counter() - start) / repeats * 1e6)
    return {name: statistics.median(found) for name, found in times.items()}


def small_calls() -> None:
    """Print the first table."""
    x, w = torch.randn(1, 8, 8, 8), torch.randn(8, 8, 3, 3)
    needing = w.clone().requires_grad_()
    how = convolution_of((1, 1), (0, 0, 0, 0), (1, 1), False, (0, 0), 1)
    arguments = [list(one) if isinstance(one, tuple) else one for one in how.arguments]
    operator = torch.ops.fastconv.convolution.default
    layer = FusedLayer(how, Constants(0), w.shape, 0.0, None)
    layer.update([w])
    plan, number = fc.plan_conv2d(w.numpy()), layer.number
    out = np.empty((1, 8, 6, 6), np.float32)
    array, weight = x.numpy(), w.numpy()
    converted = ft.Conv2d(8, 8, 3, bias=False).eval()

    def in_inference() -> torch.Tensor:
        with torch.no_grad():
            return converted(x)

    calls = {
        "fastconv.conv2d of arrays": lambda: fc.conv2d(array, weight, out=out),
        "fastconv.torch.conv2d": lambda: ft.conv2d(x, w),
        "the same, with a gradient wanted": lambda: ft.conv2d(x, needing),
        "torch.ops.fastconv.convolution": lambda: operator(x, w, None, *arguments),
        "the operator, with a gradient wanted": lambda: operator(x, needing, None, *arguments),
        "a plan of arrays": lambda: plan(array, None, out),
        "torch.ops.fastconv.planned, in compiled graphs": lambda: torch.ops.fastconv.planned.default(x, None, number),
        "a converted layer in inference": in_inference,
        "torch.nn.functional.conv2d": lambda: torch.nn.functional.conv2d(x, w),
    }
    print(f"{'1x8x8x8, 3x3, one thread':50}     us")
    found = turns(calls, CALLS)
    with ft.install():
        name = "the same after install(), which leaves it as it is"
        found |= turns({name: lambda: torch.nn.functional.conv2d(x, w)}, CALLS)
    for name, time_of_call in found.items():
        print(f"{name:50} {time_of_call:6.1f}")


#: A process that convolves on all threads and prints the median microseconds and the number of threads.
CHILD = """
import statistics, sys, time
import numpy as np
if sys.argv[1] == "beside":
    import torch
    image, other = torch.randn(1, 64, 56, 56), torch.randn(1, 64, 56, 56)
import fastconv as fc
x, w, out = (np.ones(shape, np.float32) for shape in ((1, 64, 56, 56), (64, 64, 3, 3), (1, 64, 56, 56)))
times = []
for number in range(600):
    if sys.argv[1] == "beside":
        torch.add(image, 1.0, out=other)
    start = time.perf_counter()
    fc.conv2d(x, w, padding=1, out=out)
    times.append(time.perf_counter() - start)
print(statistics.median(times[100:]) * 1e6, fc.get_num_threads())
"""


def shared_threads() -> None:
    """Print the second table: processes take turns."""
    found: dict[str, list[float]] = {"alone": [], "beside": []}
    threads = ""
    for _ in range(5):
        for kind, times in found.items():
            command = [sys.executable, "-c", CHILD, kind]
            printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            time_of_call, threads = printed.split()
            times.append(float(time_of_call))
    print(f"\n{f'1x64x56x56, 3x3, {threads} threads':50}     us")
    print(f"{'fastconv.conv2d in a process of its own':50} {statistics.median(found['alone']):6.0f}")
    print(f"{'the same, each call after an addition by PyTorch':50} {statistics.median(found['beside']):6.0f}")


def main() -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    small_calls()
    shared_threads()


if __name__ == "__main__":
    main()
