"""How fast micro-kernels are with other register tiles: for each tile, a row of a table.

    python bench/tiles.py                            the best instruction set of this processor
    FASTCONV_ISA=avx2 python bench/tiles.py --dtype float64

Numba's micro-kernels run on one thread, on numbers that stay in the second-level cache. The share is that of
multiply-adds that wait for nothing, with the same registers. Of the tiles with as many results, or vectors of results,
the fastest is printed, and those that fastconv uses, in bold. Times are CPU time, the least of several rounds, in which
all tiles take turns.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numba
import numpy as np
from cpuinfo import get_cpu_info

from fastconv.backends.numba import variables
from fastconv.backends.numba.channel_lanes import span_tile
from fastconv.backends.numba.llvm import I64, Code, machine, made_for, make_operation
from fastconv.backends.numba.pixel_lanes import multiply_tile
from fastconv.backends.numba.weight_grad import taps_tile
from fastconv.backends.numba.weight_grad_pixel_lanes import dots_tile
from fastconv.kernels.abi import DOTS, SPAN, TAPS, TILES

#: What is computed: some results of a 3x3 layer of 32 channels, on a row of so many pixels.
COUNT, ROW = 9 * 32, 384
#: The source: elements from one row to the next, and from one channel to the next.
PITCH, CHANNEL = ROW + 32, 3 * (ROW + 32)
#: Multiply-adds of a vector in a turn, about, and rounds.
TURN, ROUNDS = 2**24, 15


class Tile(NamedTuple):
    """A register tile: its micro-kernel and extents, whether fastconv uses it, the multiply-adds of a call of `run`, of
    one vector each, and a function of the addresses of factors, table and sums that calls it for parts of the layer."""

    kernel: str
    extents: tuple[int, ...]
    is_used: bool
    multiply_adds: int
    run: Callable[..., None]


def tile(
    kernel: str, extents: tuple[int, ...], is_used: bool, summed: int, parts: tuple[int, int], step: Any, arguments: str
) -> Tile:  # fmt: skip
    """The tile of the micro-kernel `step`, which adds `summed` products to each sum; `arguments` are its arguments for
    part i of the results and part j of the pixels or taps."""
    loops = f"for _ in range(repeats):\n  for i in range({parts[0]}):\n   for j in range({parts[1]}): step({arguments})"
    scope = {"step": step}
    exec(f"def run(a, b, table, sums, repeats):\n {loops}", scope)
    with variables.held_off(), made_for(machine()):
        run = numba.njit("void(int64, int64, int64, int64, int64)")(scope["run"])
    return Tile(kernel, extents, is_used, math.prod(extents) * summed * math.prod(parts), run)


def shapes(most: int, operands: Callable[[int, int], int]) -> Iterator[tuple[int, int]]:
    """Extents of tiles that registers hold beside their operands, of at most `most` results, or vectors of results."""
    registers = machine().registers - (not machine().fused)  # a product that is not fused takes one
    for height in range(1, most + 1):
        for width in range(1, ROW * 4 // machine().bytes + 1):
            if registers // 4 <= height * width <= registers - operands(height, width):
                yield height, width


def tiles(size: int) -> Iterator[Tile]:
    """All tiles to measure, for elements of `size` bytes."""
    lanes, kind, vector = machine().bytes // size, machine().kind, machine().bytes
    beside, run = 1 + (machine().layout(size).pairs > 0), machine().run
    for m, v in shapes(14, min):
        yield tile(
            "`multiply`: results x vectors of pixels", (m, v), (m, v) in TILES[kind], COUNT,
            (48 // m, ROW // (v * lanes)), multiply_tile(size, lanes, m, v),
            f"a + i * {m * COUNT * size}, {COUNT}, {m}, b + j * {v * vector}, table, {COUNT}, sums, 0, 0, "
            f"sums + i * {m * ROW * size} + j * {v * vector}, {ROW}",
        )  # fmt: skip
    for v, j in shapes(4, lambda v, _: v + (v > 1)):
        yield tile(
            "`span`: vectors of results x pixels", (v, j), j == SPAN[kind] and v <= beside, COUNT, (2, ROW // j),
            span_tile(size, lanes, v, j),
            f"a + i * {v * COUNT * vector}, {COUNT * lanes}, b + j * {j * size}, 1, table + {COUNT * 16}, {COUNT}, "
            f"sums, 0, 0, sums + (i * {v * ROW} + j * {j}) * {vector}, {ROW * lanes}, {lanes}, 0, 0, 0, 0, 0",
        )  # fmt: skip
    for v, t in shapes(2, lambda v, _: v + (v > 1)):
        of_run = run if v == 1 and t >= run else 1
        yield tile(
            "`sum_taps`: vectors of results x taps", (v, t // of_run * of_run), t == TAPS[kind] and v <= beside,
            2 * ROW, (2, COUNT // t), taps_tile(size, lanes, v, (of_run, t // of_run)),
            f"a + i * {v * ROW * vector}, {ROW * lanes}, 0, b, 0, table + ({COUNT} + j * {t}) * 16, 2, "
            f"table + {COUNT * 32}, {ROW}, sums, 0, sums + i * {v * COUNT * vector}, {COUNT * lanes}",
        )  # fmt: skip
    for m, t in shapes(8, lambda m, t: min(m, t) + 1):
        if m + t <= 11:  # each needs an address in a register
            yield tile(
                "`dots`: results x taps", (m, t), (m, t) == DOTS[kind], 8 * ROW // lanes, (max(1, 12 // m), COUNT // t),
                dots_tile(size, lanes, m, t),
                f"a + i * {m * ROW * size}, {ROW}, 0, {m}, b, 0, table + j * {t * 16}, {t}, 8, {ROW}, 1, "
                f"sums + (i * {m * COUNT} + j * {t}) * {vector}, {COUNT * lanes}",
            )  # fmt: skip


def peak(size: int) -> Tile:
    """Multiply-adds that load nothing and do not wait for each other."""
    number, lanes = 3 * machine().registers // 4, machine().bytes // size

    def emit(code: Code, count: Any, sums: Any) -> None:
        at = [code.at(code.pointer(sums), I64(i * lanes)) for i in range(number + 1)]
        x, *started = [code.read(pointer) for pointer in at]
        results = code.loop(count, started, lambda _, carried: [code.fma(x, x, sum_) for sum_ in carried])
        for result, pointer in zip(results, at, strict=False):
            code.write(result, pointer)

    step = make_operation(size, lanes, "count sums", emit)
    return tile("", (number,), False, 1000, (1, 1), step, "1000, sums")


def measured(found: list[Tile], size: int) -> list[float]:
    """GFLOP/s of each tile."""
    lanes, t, p = machine().bytes // size, np.arange(COUNT), np.arange(ROW)
    in_source = t // 9 * CHANNEL + t % 9 // 3 * PITCH + t % 3
    table = np.concatenate([np.stack(row, 1) for row in ((t, in_source), (t * lanes, in_source), (p * lanes, p))])
    factors = [np.zeros(elements, f"f{size}") for elements in (2**18, 33 * CHANNEL, 2**18)]
    a, b, sums = (each.ctypes.data for each in factors)
    least = [math.inf] * len(found)
    for number, each in list(enumerate(found)) * ROUNDS:
        repeats = max(1, TURN // each.multiply_adds)
        start = time.process_time()
        each.run(a, b, table.ctypes.data, sums, repeats)
        least[number] = min(least[number], (time.process_time() - start) / repeats)
    return [2e-9 * lanes * each.multiply_adds / seconds for each, seconds in zip(found, least, strict=True)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="How fast micro-kernels are with other register tiles.")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    size = np.dtype(parser.parse_args().dtype).itemsize
    found = [peak(size), *tiles(size)]
    most, *rates = measured(found, size)
    names = (get_cpu_info().get(key, "?") for key in ("brand_raw", "family", "model"))
    print("{}, family {}, model {}, {}, {:.0f} GFLOP/s at most\n".format(*names, machine().name, most))
    print("| micro-kernel | tile | GFLOP/s | share |\n|---|---|---|---|")
    printed = set()
    for each, rate in sorted(zip(found[1:], rates, strict=True), key=lambda pair: (pair[0].kernel, -pair[1])):
        group, extents = (each.kernel, each.extents[0]), " x ".join(map(str, each.extents))
        if each.is_used or group not in printed:
            print(
                f"| {each.kernel} | {f'**{extents}**' if each.is_used else extents} | {rate:.0f} | {rate / most:.0%} |"
            )
        printed.add(group)


if __name__ == "__main__":
    main()
