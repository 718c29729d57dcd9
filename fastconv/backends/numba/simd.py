"""The words that the passes are written in: loops over vector registers as LLVM instructions, one call each.

Numba compiles scalar loops well and leaves accumulators of a register tile in memory, so the innermost loops are given
to LLVM directly. An address is an integer; a length or an offset counts elements. The instruction set decides `lanes`,
the elements of a vector register, and which tiles there are.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import types

from fastconv.backends.numba.llvm import ELEMENT, I32, I64, Code, machine, make_word
from fastconv.kernels.abi import ALONG, BANDS

#: Bytes of a line of the caches; and from what is read to what is asked for then, where there are more runs than a
#: processor finds out by itself.
_LINE, _AHEAD = 64, 256
_ZERO = {4: np.float32(0), 8: np.float64(0)}


class Words(NamedTuple):
    """The vocabulary for elements of one size; each word is a Numba intrinsic."""

    size: int
    lanes: int
    zero: Any
    load: Any
    store: Any
    move: Any
    clear: Any
    prefetch_to_write: Any
    splat: Any
    weave: Any
    weave_odd: Any
    transpose: Any
    transpose_half: Any
    scatter: Any
    gather: Any
    along: dict[tuple[int, int], Any]
    bands: list[tuple[int, Any]]


@functools.cache
def words(size: int) -> Words:
    """The vocabulary for elements of `size` bytes on this machine."""
    lanes = machine().bytes // size
    rows = *((1, width) for width in ALONG[machine().kind]), (3, 3)
    return Words(
        size, lanes, _ZERO[size], _load(size), _store(size), move_of(size, lanes), _clear(size, lanes),
        _prefetch_to_write(size), _splat(size, lanes), _weave(size, lanes, 0), _weave(size, lanes, 1),
        _transpose(size, lanes, lanes), _transpose(size, lanes, lanes // 2), _scatter(size, lanes),
        _gather(size, lanes),
        {(height, width): _along(size, lanes, height, width) for height, width in rows},
        [(width, _band(size, lanes, width)) for width in BANDS[machine().kind]],
    )  # fmt: skip


def _load(size: int) -> Any:
    return make_word(size, 1, "address", lambda code, a: code.builder.load(code.pointer(a)), ELEMENT[size])


def _store(size: int) -> Any:
    """store(value, address)"""

    def emit(code: Code, value: Any, address: Any) -> None:
        code.builder.store(value, code.pointer(address))

    return make_word(size, 1, "value address", emit, scalar="value")


def move_of(size: int, lanes: int) -> Any:
    """move(to, from): so many elements"""

    def emit(code: Code, target: Any, source: Any) -> None:
        code.write(code.read(code.pointer(source)), code.pointer(target))

    return make_word(size, lanes, "target source", emit)


def _clear(size: int, lanes: int) -> Any:
    """clear(to): one vector of zeros"""

    def emit(code: Code, target: Any) -> None:
        code.write(ir.Constant(code.vector, None), code.pointer(target))

    return make_word(size, lanes, "target", emit)


def _weave(size: int, lanes: int, odd: int) -> Any:
    """weave(to, from): the elements of a vector become every second one of two, the first or the odd ones"""

    def emit(code: Code, target: Any, source: Any) -> None:
        value, target = code.read(code.pointer(source)), code.pointer(target)
        for half in range(2):
            place = code.at(target, I64(half * lanes))
            mask = [lane if lane % 2 != odd else lanes + lane // 2 + half * lanes // 2 for lane in range(lanes)]
            woven = code.builder.shuffle_vector(code.read(place), value, ir.Constant(ir.VectorType(I32, lanes), mask))
            code.write(woven, place)

    return make_word(size, lanes, "target source", emit)


def _splat(size: int, lanes: int) -> Any:
    """splat(value, to): one vector of `value`"""

    def emit(code: Code, value: Any, target: Any) -> None:
        code.write(code.spread(value), code.pointer(target))

    return make_word(size, lanes, "value target", emit, scalar="value")


def _square(code: Code, source: Any, ld_source: Any, valid: Any) -> list[Any]:
    """The columns of a square of which the first `valid` rows exist; further ones repeat the last of them."""
    b, rows = code.builder, []
    for i in range(code.lanes):
        rows.append(code.read(source))
        source = code.at(source, b.select(b.icmp_signed("<", I64(i + 1), valid), ld_source, I64(0)))
    return _transposed(code, rows)


def _transposed(code: Code, rows: list[Any]) -> list[Any]:
    """A square of vectors with rows and columns exchanged: at each distance d, blocks of d x d change places."""
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
    """transpose(from, ld_from, valid, to, ld_to, count): a square of lanes x lanes elements.

    The first `count` columns are written, of at most `most`: half of them take half the shuffles.
    """

    def emit(code: Code, source: Any, ld_source: Any, valid: Any, target: Any, ld_target: Any, count: Any) -> None:
        b, target = code.builder, code.pointer(target)
        for i, row in enumerate(_square(code, code.pointer(source), ld_source, valid)[:most]):
            with b.if_then(b.icmp_signed("<", I64(i), count), likely=True):
                code.write(row, code.at(target, b.mul(ld_target, I64(i))))

    return make_word(size, lanes, "source ld_source valid target ld_target count", emit)


def _scatter(size: int, lanes: int) -> Any:
    """scatter(from, ld_from, valid, to, places, count): the same, each column to its place."""

    def emit(code: Code, source: Any, ld_source: Any, valid: Any, target: Any, places: Any, count: Any) -> None:
        b, target, places = code.builder, code.pointer(target), code.integers(places)
        for i, row in enumerate(_square(code, code.pointer(source), ld_source, valid)):
            with b.if_then(b.icmp_signed("<", I64(i), count), likely=True):
                code.write(row, code.at(target, b.load(code.at(places, I64(i)))))

    return make_word(size, lanes, "source ld_source valid target places count", emit)


def ask_ahead(code: Code, place: Any, elements: int) -> None:
    """Ask for so many elements of a run that will be read soon after those of this place."""
    extent = elements * code.size
    first = max(_AHEAD, extent)
    for byte in range(first, first + extent, _LINE):
        code.prefetch(code.at(place, I64(byte // code.size)), far=True)


def _gather(size: int, lanes: int) -> Any:
    """gather(from, offsets, to, ld_to, count): row i of the target is element i of each of `lanes` runs.

    The runs start at from + offsets[2 * lane + 1]; each is read to `lanes` elements; 1 <= count <= lanes rows are
    written.
    """

    def emit(code: Code, source: Any, offsets: Any, target: Any, ld_target: Any, count: Any) -> None:
        b = code.builder
        source, target, offsets = code.pointer(source), code.pointer(target), code.integers(offsets)
        places = [code.at(source, b.load(code.at(offsets, I64(2 * i + 1)))) for i in range(lanes)]
        rows = []
        for place in places:
            rows.append(code.read(place))
            ask_ahead(code, place, 1)
        for i, row in enumerate(_transposed(code, rows)):
            with b.if_then(b.icmp_signed("<", I64(i), count), likely=True):
                code.write(row, code.at(target, b.mul(ld_target, I64(i))))

    return make_word(size, lanes, "source offsets target ld_target count", emit)


def _along(size: int, lanes: int, height: int, width: int) -> Any:
    """The micro-kernel of depthwise convolution, a lane for each channel: a tile of height x width pixels,

        sums[i, j] = start[i, j] + sum over t of a[offsets[2 * t]] * b[offsets[2 * t + 1] + i * row + j * lanes]

    where each element of `sums`, `start`, `a` and `b` is a vector, pixel (i, j) at i * ld + j * step of its own.
    """

    def emit(
        code: Code, a: Any, b: Any, row: Any, offsets: Any, count: Any, start: Any, ld_start: Any, start_step: Any,
        sums: Any, ld_sums: Any, step: Any,
    ) -> None:  # fmt: skip
        build = code.builder
        a, b, offsets = code.pointer(a), code.pointer(b), code.integers(offsets)
        pixels = [(i, j) for i in range(height) for j in range(width)]

        def places(address: Any, ld: Any, step: Any) -> list[Any]:
            base = code.pointer(address)
            return [code.at(base, build.add(build.mul(ld, I64(i)), build.mul(step, I64(j)))) for i, j in pixels]

        def turn(t: Any, accumulators: list[Any]) -> list[Any]:
            pair = build.shl(t, I64(1))
            factor = code.read(code.at(a, build.load(code.at(offsets, pair))))
            base = code.at(b, build.load(code.at(offsets, build.add(pair, I64(1)))))
            starts = [code.at(base, build.mul(row, I64(i))) for i in range(height)]
            return [
                code.fma(factor, code.read(code.at(starts[i], I64(j * lanes))), accumulator)
                for (i, j), accumulator in zip(pixels, accumulators, strict=True)
            ]

        started = [code.read(place) for place in places(start, ld_start, start_step)]
        for result, place in zip(code.loop(count, started, turn), places(sums, ld_sums, step), strict=True):
            code.write(result, place)

    return make_word(size, lanes, "a b row offsets count start ld_start start_step sums ld_sums step", emit)


def _band(size: int, lanes: int, width: int) -> Any:
    """The same for long rows of taps: `width` pixels of a row,

        sums[j] = start[j] + sum over i, t of a[offsets[2 * (i * taps + t)]] * b[offsets[2 * i * taps + 1] + j + t]

    with 0 <= i < rows, 0 <= t < taps, where first <= j + t < end. A row of sums is a row of the source times a band
    matrix, each of whose diagonals is one tap (it is a Toeplitz matrix). A square of it links `width` sums and as many
    pixels, all of them in registers; what is loaded beside them is a vector for each diagonal. Of the sums the first
    `valid` exist; pixels are read to a multiple of `width`.
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

        def place(j: int) -> Any:
            return build.select(build.icmp_signed("<", I64(j), last), I64(j), last)

        started = [code.read(code.at(start, build.mul(place(j), start_step))) for j in range(width)]
        results = code.loop(rows, started, row)
        for j, result in enumerate(results):
            with build.if_then(build.icmp_signed("<", I64(j), valid)):
                code.write(result, code.at(sums, build.mul(I64(j), step)))

    return make_word(size, lanes, "a b offsets rows taps first end start start_step sums step valid", emit)


def _prefetch_to_write(size: int) -> Any:
    """prefetch_to_write(address): what stands there will be written, if it exists"""
    return make_word(size, 1, "address", lambda code, address: code.prefetch(code.pointer(address), True))


def _next(code: Code, address: Any) -> Any:
    return code.builder.atomic_rmw("add", code.integers(address), I64(1), "monotonic")


#: take(address): the integer there, which is one more afterwards; each of several threads gets another one.
take = make_word(8, 1, "address", _next, types.int64)


def _point(code: Code, address: Any) -> Any:
    return code.integers(address)


#: integers(address): a pointer to the integers there.
integers = make_word(8, 1, "address", _point, types.CPointer(types.int64))
