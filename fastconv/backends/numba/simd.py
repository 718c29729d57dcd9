"""The SIMD operations and micro-kernels of the passes, each one intrinsic made of LLVM instructions.

Numba compiles scalar loops well, but keeps the accumulators of a register tile in memory. So the innermost loops, which
must keep them in vector registers, are emitted as LLVM instructions.

An address is an integer; lengths, offsets and leading dimensions (`ld_...`, the distance of two rows) count elements.
The instruction set determines `lanes`, the number of elements in a vector register, and the register tiles.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastconv.backends.numba.llvm import ELEMENT, I32, I64, Code, machine, make_operation, once_a_set
from fastconv.backends.numba.numba_internals import ir, types
from fastconv.kernels.abi import ALONG, BANDS

#: Bytes of a cache line, and how far ahead of a load to prefetch, where a kernel reads more streams than the hardware
#: prefetcher tracks.
_LINE, _AHEAD = 64, 256
_ZERO = {4: np.float32(0), 8: np.float64(0)}


class Operations(NamedTuple):
    """The operations on elements of one size. `size` is in bytes; `zero` is an element; the others are intrinsics."""

    size: int
    lanes: int
    zero: Any
    load: Any
    store: Any
    move: Any
    clear: Any
    prefetch_to_write: Any
    splat: Any
    transpose: Any
    transpose_half: Any
    scatter: Any
    gather: Any
    along: dict[tuple[int, int], Any]
    bands: list[tuple[int, Any]]


@once_a_set
def operations(size: int) -> Operations:
    """The operations on elements of `size` bytes, for the instruction set in use."""
    lanes = machine().bytes // size
    rows = *((1, width) for width in ALONG[machine().kind]), (3, 3)
    return Operations(
        size, lanes, _ZERO[size], _load(size), _store(size), move_of(size, lanes), _clear(size, lanes),
        _prefetch_to_write(size), _splat(size, lanes),
        _transpose(size, lanes, lanes), _transpose(size, lanes, lanes // 2), _scatter(size, lanes),
        _gather(size, lanes),
        {(height, width): _along(size, lanes, height, width) for height, width in rows},
        [(width, _band(size, lanes, width)) for width in BANDS[machine().kind]],
    )  # fmt: skip


#: The name by which the passes know it.
words = operations


def _load(size: int) -> Any:
    """load(address): an element"""
    return make_operation(size, 1, "address", lambda code, a: code.builder.load(code.pointer(a)), ELEMENT[size])


def _store(size: int) -> Any:
    """store(value, address)"""

    def emit(code: Code, value: Any, address: Any) -> None:
        code.builder.store(value, code.pointer(address))

    return make_operation(size, 1, "value address", emit, scalar="value")


def move_of(size: int, lanes: int) -> Any:
    """move(target, source): copy one vector"""

    def emit(code: Code, target: Any, source: Any) -> None:
        code.write(code.read(code.pointer(source)), code.pointer(target))

    return make_operation(size, lanes, "target source", emit)


def _clear(size: int, lanes: int) -> Any:
    """clear(target): store one vector of zeros"""

    def emit(code: Code, target: Any) -> None:
        code.write(ir.Constant(code.vector, None), code.pointer(target))

    return make_operation(size, lanes, "target", emit)


def _splat(size: int, lanes: int) -> Any:
    """splat(value, target): broadcast `value` and store the vector"""

    def emit(code: Code, value: Any, target: Any) -> None:
        code.write(code.spread(value), code.pointer(target))

    return make_operation(size, lanes, "value target", emit, scalar="value")


def _square(code: Code, source: Any, ld_source: Any, valid: Any) -> list[Any]:
    """The columns of a square of lanes x lanes elements.

    Only the first `valid` rows exist; the last of them is read again in place of the others.
    """
    b, rows = code.builder, []
    for i in range(code.lanes):
        rows.append(code.read(source))
        source = code.at(source, b.select(b.icmp_signed("<", I64(i + 1), valid), ld_source, I64(0)))
    return _transposed(code, rows)


def _transposed(code: Code, rows: list[Any]) -> list[Any]:
    """The transpose of a square of vectors: for d = lanes / 2, ..., 1, blocks of d x d elements are exchanged."""
    lanes = code.lanes
    distance = lanes // 2
    while distance:
        keep = [lane if not lane & distance else lanes + lane - distance for lane in range(lanes)]
        take = [lane + distance if not lane & distance else lanes + lane for lane in range(lanes)]
        for i in range(lanes):
            if not i & distance:
                a, b = rows[i], rows[i | distance]
                for row, mask in ((i, keep), (i | distance, take)):
                    rows[row] = code.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, lanes), mask))
        distance //= 2
    return rows


def _transpose(size: int, lanes: int, most: int) -> Any:
    """transpose(source, ld_source, valid, target, ld_target, count): transpose a square of lanes x lanes elements.

    The first `count` <= `most` columns are stored. A version with a smaller `most` needs fewer shuffles.
    """

    def emit(code: Code, source: Any, ld_source: Any, valid: Any, target: Any, ld_target: Any, count: Any) -> None:
        b, target = code.builder, code.pointer(target)
        for i, row in enumerate(_square(code, code.pointer(source), ld_source, valid)[:most]):
            with b.if_then(b.icmp_signed("<", I64(i), count), likely=True):
                code.write(row, code.at(target, b.mul(ld_target, I64(i))))

    return make_operation(size, lanes, "source ld_source valid target ld_target count", emit)


def _scatter(size: int, lanes: int) -> Any:
    """scatter(source, ld_source, valid, target, offsets, count): the same, column i to target + offsets[i]."""

    def emit(code: Code, source: Any, ld_source: Any, valid: Any, target: Any, offsets: Any, count: Any) -> None:
        b, target, offsets = code.builder, code.pointer(target), code.integers(offsets)
        for i, row in enumerate(_square(code, code.pointer(source), ld_source, valid)):
            with b.if_then(b.icmp_signed("<", I64(i), count), likely=True):
                code.write(row, code.at(target, b.load(code.at(offsets, I64(i)))))

    return make_operation(size, lanes, "source ld_source valid target offsets count", emit)


def ask_ahead(code: Code, pointer: Any, elements: int) -> None:
    """Prefetch what a stream that is read at `pointer`, `elements` at a time, will read soon."""
    extent = elements * code.size
    first = max(_AHEAD, extent)
    for byte in range(first, first + extent, _LINE):
        code.prefetch(code.at(pointer, I64(byte // code.size)), far=True)


def _gather(size: int, lanes: int) -> Any:
    """gather(source, offsets, target, ld_target, count): row i of the target is element i of each of `lanes` runs.

    Run `lane` starts at source + offsets[2 * lane + 1], and `lanes` elements of it are read. The first `count` >= 1
    rows are stored.
    """

    def emit(code: Code, source: Any, offsets: Any, target: Any, ld_target: Any, count: Any) -> None:
        b = code.builder
        source, target, offsets = code.pointer(source), code.pointer(target), code.integers(offsets)
        runs = [code.at(source, b.load(code.at(offsets, I64(2 * i + 1)))) for i in range(lanes)]
        rows = []
        for run in runs:
            rows.append(code.read(run))
            ask_ahead(code, run, 1)
        for i, row in enumerate(_transposed(code, rows)):
            with b.if_then(b.icmp_signed("<", I64(i), count), likely=True):
                code.write(row, code.at(target, b.mul(ld_target, I64(i))))

    return make_operation(size, lanes, "source offsets target ld_target count", emit)


def _along(size: int, lanes: int, height: int, width: int) -> Any:
    """The micro-kernel of depthwise convolution with channels as lanes: a tile of height x width pixels,

        sums[i, j] = start[i, j] + sum over t of a[offsets[2 * t]] * b[offsets[2 * t + 1] + i * row + j * lanes]

    where each term is a vector of channels. Pixel (i, j) of `sums` and of `start` is at i * ld + j * step.
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


def _band(size: int, lanes: int, width: int) -> Any:
    """The same for kernels with long rows of taps: `width` pixels of a row,

        sums[j] = start[j] + sum over i, t of a[offsets[2 * (i * taps + t)]] * b[offsets[2 * i * taps + 1] + j + t]

    with 0 <= i < rows, 0 <= t < taps and first <= j + t < end. The sums of a row are a row of the source times a banded
    Toeplitz matrix: each diagonal is one tap. The matrix is taken in squares of `width` sums by `width` pixels, all in
    registers, so that only one vector for each diagonal is loaded. Only the first `valid` sums are stored; the number
    of pixels read is rounded up to a multiple of `width`.
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


def _prefetch_to_write(size: int) -> Any:
    """prefetch_to_write(address): prefetch a cache line, which need not exist, that will be written"""
    return make_operation(size, 1, "address", lambda code, address: code.prefetch(code.pointer(address), True))


def _take(code: Code, address: Any) -> Any:
    return code.builder.atomic_rmw("add", code.integers(address), I64(1), "monotonic")


#: take(address): atomically increment the integer there; returns the value before.
take = make_operation(8, 1, "address", _take, types.int64)


def _integers(code: Code, address: Any) -> Any:
    return code.integers(address)


#: integers(address): a pointer to 64-bit integers, for `numba.carray`.
integers = make_operation(8, 1, "address", _integers, types.CPointer(types.int64))
