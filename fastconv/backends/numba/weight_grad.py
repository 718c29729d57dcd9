"""The micro-kernel of the weight gradient with a lane for each result k."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from fastconv.backends.numba.compiling import chosen, inline
from fastconv.backends.numba.llvm import I64, Code, machine, make_operation, per_instruction_set
from fastconv.kernels.abi import HALF_VECTOR, ONE_VECTOR, TAPS, TWO_VECTORS

_ARGUMENTS = "a next_a image_a b image_b offsets images pixels count start step sums next_sums"


@per_instruction_set
def taps_tile(size: int, lanes: int, vectors: int, shape: tuple[int, int]) -> Any:
    """The micro-kernel `sum_taps` of `kernels.primitives` for one kind; `shape` is (taps of a run, runs).

    Half a vector of results is one vector of half as many `lanes`.
    """
    run, runs = shape
    width = run * runs

    def emit(
        code: Code, a: Any, next_a: Any, image_a: Any, b: Any, image_b: Any, offsets: Any, images: Any, pixels: Any,
        count: Any, start: Any, step: Any, sums: Any, next_sums: Any,
    ) -> None:  # fmt: skip
        build = code.builder
        a, b, offsets, pixels = code.pointer(a), code.pointer(b), code.integers(offsets), code.integers(pixels)
        start, sums = code.pointer(start), code.pointer(sums)
        at = [code.at(b, build.load(code.at(offsets, I64(2 * r * run + 1)))) for r in range(runs)]
        in_sums = [build.load(code.at(offsets, I64(2 * t))) for t in range(width)]
        starts = [code.at(start, build.mul(step, build.mul(next_sums, I64(v)))) for v in range(vectors)]
        ends = [code.at(sums, build.mul(next_sums, I64(v))) for v in range(vectors)]

        def entry(p: Any, which: int) -> Any:
            """Entries of the table of pixels: 0 and 1 are the offsets of pixel p in a and b, 2 and 3 those of p + 1."""
            return build.load(code.at(pixels, build.add(build.shl(p, I64(1)), I64(which))))

        def along_images(n: Any, carried: list[Any]) -> list[Any]:
            of_image, in_b = code.at(a, build.mul(n, image_a)), build.mul(n, image_b)

            def read(p: Any, number: int) -> list[list[Any]]:
                """The `number` elements from pixel p on that each run of taps reads."""
                pixel = build.add(in_b, entry(p, 1))
                return [
                    [code.broadcast(build.load(code.at(code.at(pointer, pixel), I64(i)))) for i in range(number)]
                    for pointer in at
                ]

            def one(p: Any, carried: list[Any]) -> list[Any]:
                first = code.at(of_image, entry(p, 0))
                factors = [code.read(code.at(first, build.mul(next_a, I64(v)))) for v in range(vectors)]
                if vectors > 1:
                    code.no_unroll()  # two iterations at a time need more registers than there are
                products = itertools.product(itertools.chain(*read(p, run)), factors)
                return [code.fma(factor, x, sum_) for (x, factor), sum_ in zip(products, carried, strict=True)]

            def two(p: Any, carried: list[Any]) -> list[Any]:
                elements = read(p, run + 1)
                for i in range(2):
                    factor = code.read(code.at(of_image, entry(p, 2 * i)))
                    terms = itertools.chain(*(of_run[i : i + run] for of_run in elements))
                    carried = [code.fma(factor, x, sum_) for x, sum_ in zip(terms, carried, strict=True)]
                return carried

            return (
                code.loop_in_pairs(pixels, count, carried, one, two, I64(1))
                if run > 1
                else code.loop(count, carried, one)
            )

        started = [code.read(code.at(base, build.mul(step, offset))) for offset in in_sums for base in starts]
        targets = [code.at(base, offset) for offset in in_sums for base in ends]
        for target, result in zip(targets, code.loop(images, started, along_images), strict=True):
            code.write(result, target)

    return make_operation(size, lanes, _ARGUMENTS, emit)


@per_instruction_set
def sum_taps(size: int) -> Any:
    """sum_taps(kind, run, runs, ...): see `kernels.primitives.sum_taps`."""
    layout = machine().layout(size)
    lanes, widest = layout.lanes, TAPS[machine().kind]
    shapes = [(run, runs + 1) for run in range(1, machine().run + 1) for runs in range(widest // run)]
    kernels = {(ONE_VECTOR, *shape): taps_tile(size, lanes, 1, shape) for shape in shapes}
    if layout.halves:
        kernels |= {(HALF_VECTOR, *shape): taps_tile(size, lanes // 2, 1, shape) for shape in shapes}
    if layout.pairs:
        kernels |= {(TWO_VECTORS, *shape): taps_tile(size, lanes, 2, shape) for shape in shapes[:widest]}
    numbers = np.full((3, machine().run + 1, widest + 1), -1, np.int64)
    for number, kernel in enumerate(kernels):
        numbers[kernel] = number
    arguments = ", ".join(_ARGUMENTS.split())
    call = chosen(size, "taps", dict(enumerate(kernels.values())), arguments)
    scope = {"numbers": numbers, "call": call}
    exec(f"def sum_taps(kind, run, runs, {arguments}): call(numbers[kind, run, runs], {arguments})", scope)
    return inline(size)(scope["sum_taps"])
