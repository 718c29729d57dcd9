"""The micro-kernels of depthwise convolution with a lane for each channel."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.backends.numba.compiling import chosen, inline
from fastconv.backends.numba.llvm import I64, Code, machine, make_operation
from fastconv.backends.numba.numba_internals import types
from fastconv.kernels.abi import ALONG, BANDS


def _along_tile(size: int, lanes: int, height: int, width: int) -> Any:
    """A register tile of height x width pixels,

        sums[i * ld_sums + j * step] = start[i * ld_start + j * start_step]
                                     + sum over t of a[offsets[2 * t]] * b[offsets[2 * t + 1] + i * row + j * lanes]

    where each element is a vector with a lane for each channel.
    """

    def emit(
        code: Code, a: Any, b: Any, row: Any, offsets: Any, count: Any, start: Any, ld_start: Any, start_step: Any,
        sums: Any, ld_sums: Any, step: Any,
    ) -> None:  # fmt: skip
        build = code.builder
        a, b, offsets = code.pointer(a), code.pointer(b), code.integers(offsets)
        pixels = [(i, j) for i in range(height) for j in range(width)]

        def pointers(address: Any, ld: Any, step: Any) -> list[Any]:
            base = code.pointer(address)
            return [code.at(base, build.add(build.mul(ld, I64(i)), build.mul(step, I64(j)))) for i, j in pixels]

        def iteration(t: Any, accumulators: list[Any]) -> list[Any]:
            pair = build.shl(t, I64(1))
            factor = code.read(code.at(a, build.load(code.at(offsets, pair))))
            base = code.at(b, build.load(code.at(offsets, build.add(pair, I64(1)))))
            starts = [code.at(base, build.mul(row, I64(i))) for i in range(height)]
            return [
                code.fma(factor, code.read(code.at(starts[i], I64(j * lanes))), accumulator)
                for (i, j), accumulator in zip(pixels, accumulators, strict=True)
            ]

        started = [code.read(pointer) for pointer in pointers(start, ld_start, start_step)]
        for result, pointer in zip(code.loop(count, started, iteration), pointers(sums, ld_sums, step), strict=True):
            code.write(result, pointer)

    return make_operation(size, lanes, "a b row offsets count start ld_start start_step sums ld_sums step", emit)


def _band_tile(size: int, lanes: int, width: int) -> Any:
    """The micro-kernel `band` of `kernels.primitives` for `width` pixels.

    The band matrix is taken in squares of `width` sums by `width` pixels, all in registers, so that only one vector for
    each diagonal is loaded. The number of pixels read is rounded up to a multiple of `width`.
    """

    def emit(
        code: Code, a: Any, b: Any, offsets: Any, rows: Any, taps: Any, first: Any, end: Any, start: Any,
        start_step: Any, sums: Any, step: Any, valid: Any,
    ) -> None:  # fmt: skip
        build = code.builder
        a, b, offsets = code.pointer(a), code.pointer(b), code.integers(offsets)
        start, sums = code.pointer(start), code.pointer(sums)
        last = build.sub(valid, I64(1))
        squares = build.sdiv(build.add(build.sub(end, first), I64(width - 1)), I64(width))

        def row(i: Any, accumulators: list[Any]) -> list[Any]:
            pairs = code.at(offsets, build.shl(build.mul(i, taps), I64(1)))
            source = code.at(b, build.load(code.at(pairs, I64(1))))

            def square(number: Any, accumulators: list[Any]) -> list[Any]:
                x = build.add(first, build.mul(number, I64(width)))
                base = code.at(source, build.mul(x, I64(lanes)))
                held = [code.read(code.at(base, I64(j * lanes))) for j in range(width)]
                found = list(accumulators)
                for diagonal in range(1 - width, width):
                    tap = build.add(x, I64(diagonal))
                    linked = range(max(0, -diagonal), min(width, width - diagonal))
                    before = build.basic_block
                    with build.if_then(build.icmp_unsigned("<", tap, taps)):
                        factor = code.read(code.at(a, build.load(code.at(pairs, build.shl(tap, I64(1))))))
                        summed = {j: code.fma(factor, held[j + diagonal], found[j]) for j in linked}
                        within = build.basic_block
                    for j, value in summed.items():
                        either = build.phi(code.vector)
                        either.add_incoming(found[j], before)
                        either.add_incoming(value, within)
                        found[j] = either
                return found

            return code.loop(squares, accumulators, square)

        def existing(j: int) -> Any:
            return build.select(build.icmp_signed("<", I64(j), last), I64(j), last)

        started = [code.read(code.at(start, build.mul(existing(j), start_step))) for j in range(width)]
        results = code.loop(rows, started, row)
        for j, result in enumerate(results):
            with build.if_then(build.icmp_signed("<", I64(j), valid)):
                code.write(result, code.at(sums, build.mul(I64(j), step)))

    return make_operation(size, lanes, "a b offsets rows taps first end start start_step sums step valid", emit)


def along(size: int, lanes: int) -> Any:
    """See `kernels.primitives.along`."""
    tiles = {width: _along_tile(size, lanes, 1, width) for width in ALONG[machine().kind]}
    arguments = "a, b, row, offsets, count, start, ld_start, start_step, sums, ld_sums, step"
    tile = chosen(size, "along", tiles, arguments)

    @inline(size)
    def along(width, a, b, offsets, count, start, start_step, sums, step):
        tile(width, a, b, 0, offsets, count, start, 0, start_step, sums, 0, step)

    return along


def along_width(size: int) -> Any:
    """See `kernels.primitives.along_width`."""
    widths = np.array(ALONG[machine().kind])

    @inline(size, types.int64)
    def along_width(pixels):
        which = 0
        while widths[which] > pixels:
            which += 1
        return widths[which]

    return along_width


def along_square(size: int, lanes: int) -> Any:
    """See `kernels.primitives.along_square`."""
    tile = _along_tile(size, lanes, 3, 3)

    @inline(size)
    def along_square(a, b, row, offsets, count, sums, ld_sums, step):
        tile(a, b, row, offsets, count, sums, ld_sums, step, sums, ld_sums, step)

    return along_square


def band(size: int, lanes: int) -> Any:
    """See `kernels.primitives.band`."""
    long, short = (_band_tile(size, lanes, width) for width in BANDS[machine().kind])

    @inline(size)
    def band(is_long, a, b, offsets, rows, taps, first, end, start, start_step, sums, step, valid):
        if is_long:
            long(a, b, offsets, rows, taps, first, end, start, start_step, sums, step, valid)
        else:
            short(a, b, offsets, rows, taps, first, end, start, start_step, sums, step, valid)

    return band
