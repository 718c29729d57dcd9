"""The micro-kernels of depthwise convolution with vectors along the rows of a map, going down a plane.

A row of the source is read once, in a vector for each tap of a row, and is multiplied for every row of the small map
that reads it. Maps are read and written as they are: lanes outside are masked.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from fastconv.backends.numba.compiling import chosen
from fastconv.backends.numba.llvm import I64, Code, machine, make_operation, once_a_set
from fastconv.kernels.abi import ROW_KERNELS, ROW_KERNELS_TRANSPOSED, ROW_KERNELS_WEIGHT_GRAD

#: How many rows ahead of time the second-level cache is asked for: the same place of the next plane, while that many
#: elements fit there. The first column of a plane meets each row for the first time, in strides that not every
#: processor foresees; nearer, or asked for by the first-level cache, memory does not keep up.
_AHEAD = 2**15


def _ahead(code: Code, height: Any, width: Any) -> Any:
    """The rows that are asked for ahead of time of a map of such planes."""
    b = code.builder
    most = b.add(b.udiv(I64(_AHEAD), width), I64(1))
    return b.select(b.icmp_signed("<", height, most), height, most)


def _read_row(code: Code, place: Any, masks: list[list[Any]], hop: int) -> list[Any]:
    """A vector for each tap of a row, from `place` on: every `hop`-th element, those of `masks`."""
    kernel = len(masks)
    if hop == 1:
        return [code.read_some(code.at(place, I64(v)), masks[v][0]) for v in range(kernel)]
    found = []
    for v in range(0, kernel, 2):
        pair = [code.read_some(code.at(place, I64(v + half * code.lanes)), masks[v][half]) for half in range(2)]
        found += [code.lanes_of(pair, list(range(odd, 2 * code.lanes, 2))) for odd in range(2)]
    return found


def _ask_for(code: Code, place: Any, width: Any, ahead: Any, hop: int) -> None:
    """Ask for the vectors of a row so many rows further."""
    there = code.at(place, code.builder.mul(width, ahead))
    for half in range(hop):
        code.prefetch(code.at(there, I64(half * code.lanes)), far=True)


def _factors(code: Code, weight: Any, taps: int, held: int) -> Callable[[int], Any]:
    """The weight of a tap, in every lane. So many stay in registers; each of the rest is loaded once a row, and loads
    are what these micro-kernels wait for."""

    def factor(tap: int) -> Any:
        return code.spread(code.builder.load(code.at(weight, I64(tap))))

    factors = [factor(tap) for tap in range(min(taps, held))]
    return lambda tap: factors[tap] if tap < len(factors) else factor(tap)


@once_a_set
def _row_kernel(size: int, lanes: int, kernel: int, hop: int) -> Any:
    """The micro-kernel: a column of vectors, `rows` long, each sum a chain over rows a and columns b of the kernel.

    (h, w) of the source is where the first output's first tap is. Rows from `whole` on are written to `cols` elements
    only.
    """
    waiting = -(-kernel // hop)  # outputs that a source row meets

    def emit(
        code: Code, start: Any, weight: Any, source: Any, height: Any, width: Any, h: Any, w: Any, out: Any,
        ld_out: Any, rows: Any, whole: Any, cols: Any,
    ) -> None:  # fmt: skip
        b = code.builder
        weight, source, out = code.pointer(weight), code.pointer(source), code.pointer(out)
        first, ahead = code.spread(start), _ahead(code, height, width)
        masks = []
        for v in range(kernel):
            left = b.add(w, I64(v))
            masks.append([
                code.between(b.sub(I64(-half * lanes), left), b.sub(b.sub(width, left), I64(half * lanes)))
                for half in range(hop)
            ])  # fmt: skip
        end = code.between(I64(0), cols)
        # up to nine do; beside sums and taps there is what they start from, and what shuffles taps
        free = machine().registers - waiting - kernel - (9 if hop > 1 else 3)
        factor = _factors(code, weight, kernel**2, 9 if kernel <= 3 else free)

        def turn(t: Any, acc: list[Any]) -> list[Any]:
            acc = list(acc)
            for plane in range(hop):
                at = b.add(h, b.add(b.mul(t, I64(hop)), I64(plane)))
                place = code.at(source, b.add(b.mul(at, width), w))
                _ask_for(code, place, width, ahead, hop)
                x = code.row(at, height, functools.partial(_read_row, code, place, masks, hop), kernel)
                for m in range(waiting):
                    a = (waiting - 1 - m) * hop + plane
                    for tap in range(a * kernel, min(a + 1, kernel) * kernel):
                        acc[m] = code.fma(factor(tap), x[tap - a * kernel], acc[m])
            u = b.sub(t, I64(waiting - 1))
            with b.if_then(b.icmp_signed(">=", u, I64(0)), likely=True):
                to = code.at(out, b.mul(u, ld_out))
                with b.if_else(b.icmp_signed("<", u, whole), likely=True) as (then, otherwise):
                    with then:
                        code.write(acc[0], to)
                    with otherwise:
                        code.write_some(acc[0], to, end)
            return [*acc[1:], first]

        code.loop(b.add(rows, I64(waiting - 1)), [first] * waiting, turn)

    names = "start weight source height width h w out ld_out rows whole cols"
    return make_operation(size, lanes, names, emit, scalar="start")


@once_a_set
def _transposed(size: int, lanes: int, kernel: int, odd: int) -> Any:
    """The micro-kernel of stride 2: columns of two vectors, the rows first_row <= i < end_row of a map.

    Output row i meets tap a of the kernel at source row (i + pad - a) / 2 where that is whole. `odd` is pad % 2, and
    (h, w) are pad / 2 of both axes. A source row meets two kinds of output rows, even and odd ones, each with the taps
    of one parity; likewise the columns, so that a column of the source, and its neighbours, makes two columns of the
    output from `col` on.
    """
    waiting = (kernel + 1) // 2

    def emit(
        code: Code, start: Any, weight: Any, source: Any, height: Any, width: Any, h: Any, w: Any, col: Any, out: Any,
        out_width: Any, first_row: Any, end_row: Any,
    ) -> None:  # fmt: skip
        b = code.builder
        weight, source, out = code.pointer(weight), code.pointer(source), code.pointer(out)
        first, ahead = code.spread(start), _ahead(code, height, width)
        # vector v of a source row is what stands v - (waiting - 1) columns from the source's column
        left = b.add(b.ashr(col, I64(1)), b.sub(w, I64(waiting - 1)))
        masks = []
        for v in range(waiting + odd):
            at = b.add(left, I64(v))
            masks.append(code.between(b.neg(at), b.sub(width, at)))
        room = b.sub(out_width, col)
        ends = [code.between(I64(0), b.sub(room, I64(half * lanes))) for half in range(2)]
        begin = b.add(b.ashr(first_row, I64(1)), b.sub(h, I64(waiting - 1)))
        stop = b.add(b.ashr(b.add(end_row, I64(1)), I64(1)), b.add(h, I64(odd)))
        parities = [(q, f) for q in range(2) for f in range(2)]
        # beside sums and taps there is what they start from, and what shuffles sums; LLVM does worse with few held
        free = machine().registers - 5 * waiting - odd - 5
        factor = _factors(code, weight, kernel**2, free if kernel > 3 else 0)

        def turn(t: Any, acc: list[Any]) -> list[Any]:
            waits = {pair: acc[waiting * i : waiting * (i + 1)] for i, pair in enumerate(parities)}
            u = b.add(begin, t)
            place = code.at(source, b.add(b.mul(u, width), left))
            _ask_for(code, place, width, ahead, 1)
            x = code.row(
                u, height, lambda: [code.read_some(code.at(place, I64(v)), mask) for v, mask in enumerate(masks)],
                waiting + odd,
            )  # fmt: skip
            # row i + m of a parity of output rows q has the taps 2 * m + its own parity; likewise columns f
            for q, f in parities:
                down, across = (q + odd) % 2, (f + odd) % 2
                for m in range(waiting):
                    for n in reversed(range(waiting)):
                        tap_a, tap_b = 2 * m + down, 2 * n + across
                        if max(tap_a, tap_b) < kernel:
                            sums, tap = waits[q, f], tap_a * kernel + tap_b
                            sums[m] = code.fma(factor(tap), x[f * odd - n + waiting - 1], sums[m])
            for q in range(2):
                i = b.add(b.shl(b.sub(b.sub(u, h), I64(q * odd)), I64(1)), I64(q))
                pair = waits[q, 0][0], waits[q, 1][0]
                with b.if_then(b.and_(b.icmp_signed(">=", i, first_row), b.icmp_signed("<", i, end_row)), likely=True):
                    to = code.at(out, b.add(b.mul(i, out_width), col))
                    half = lanes // 2
                    zipped = [
                        code.lanes_of(pair, [lane % 2 * lanes + lane // 2 + far * half for lane in range(lanes)])
                        for far in range(2)
                    ]
                    is_whole = b.icmp_signed(">=", room, I64(2 * lanes))
                    with b.if_else(is_whole, likely=True) as (then, otherwise):
                        with then:
                            for far in range(2):
                                code.write(zipped[far], code.at(to, I64(far * lanes)))
                        with otherwise:
                            for far in range(2):
                                code.write_some(zipped[far], code.at(to, I64(far * lanes)), ends[far])
            return [value for pair in parities for value in (*waits[pair][1:], first)]

        code.loop(b.sub(stop, begin), [first] * (4 * waiting), turn)

    names = "start weight source height width h w col out out_width first_row end_row"
    return make_operation(size, lanes, names, emit, scalar="start")


@once_a_set
def _weight_grad(size: int, lanes: int, kernel: int, hop: int) -> Any:
    """The micro-kernel: a column of vectors of the small map, `rows` long, of which `cols` elements exist.

    For each tap it adds to a vector of sums, where those of other columns and images are already. (h, w) of the source
    is where the first output's first tap is.
    """
    met = -(-kernel // hop)  # rows of the small map that a source row meets

    def emit(
        code: Code, source: Any, height: Any, width: Any, h: Any, w: Any, small: Any, ld_small: Any, rows: Any,
        cols: Any, sums: Any,
    ) -> None:  # fmt: skip
        b = code.builder
        source, small, sums = code.pointer(source), code.pointer(small), code.pointer(sums)
        ahead = _ahead(code, height, width)
        these = code.between(I64(0), cols)
        wanted = b.mul(cols, I64(hop))
        masks = []
        for v in range(kernel):
            left = b.add(w, I64(v))
            room = b.sub(width, left)
            # what meets none of these columns is not read: it need not be finite
            end = b.select(b.icmp_signed("<", room, wanted), room, wanted)
            masks.append([
                code.between(b.sub(I64(-half * lanes), left), b.sub(end, I64(half * lanes))) for half in range(hop)
            ])  # fmt: skip

        def turn(t: Any, acc: list[Any]) -> list[Any]:
            acc = list(acc)
            asked = b.mul(b.add(t, b.udiv(ahead, I64(hop))), ld_small)
            code.prefetch(code.at(small, asked), far=True)
            for plane in range(hop):
                at = b.add(h, b.add(b.mul(t, I64(hop)), I64(plane)))
                place = code.at(source, b.add(b.mul(at, width), w))
                _ask_for(code, place, width, ahead, hop)
                x = code.row(at, height, functools.partial(_read_row, code, place, masks, hop), kernel)
                for m in range(met):
                    a = m * hop + plane
                    if a >= kernel:
                        continue
                    # a row that is none is not multiplied: the source need not be finite
                    i = b.sub(t, I64(m))
                    exists = b.and_(b.icmp_signed(">=", i, I64(0)), b.icmp_signed("<", i, rows))
                    before, waiting = b.basic_block, acc[a * kernel : (a + 1) * kernel]
                    with b.if_then(exists, likely=True):
                        factor = code.read_some(code.at(small, b.mul(i, ld_small)), these)
                        added = [code.fma(factor, x[v], waiting[v]) for v in range(kernel)]
                        within = b.basic_block
                    for v in range(kernel):
                        either = b.phi(code.vector)
                        either.add_incoming(waiting[v], before)
                        either.add_incoming(added[v], within)
                        acc[a * kernel + v] = either
            return acc

        places = [code.at(sums, I64(tap * lanes)) for tap in range(kernel**2)]
        totals = code.loop(b.add(rows, I64(met - 1)), [code.read(place) for place in places], turn)
        for place, total in zip(places, totals, strict=True):
            code.write(total, place)

    return make_operation(size, lanes, "source height width h w small ld_small rows cols sums", emit)


@once_a_set
def row_kernel(size: int, lanes: int) -> Any:
    """See `kernels.primitives.row_kernel`."""
    kernels = dict(enumerate(_row_kernel(size, lanes, *row) for row in ROW_KERNELS))
    arguments = "start, weight, source, height, width, h, w, out, ld_out, rows, whole, cols"
    return chosen(size, "row_kernel", kernels, arguments)


@once_a_set
def row_kernel_transposed(size: int, lanes: int) -> Any:
    """See `kernels.primitives.row_kernel_transposed`."""
    kernels = dict(enumerate(_transposed(size, lanes, *row) for row in ROW_KERNELS_TRANSPOSED))
    arguments = "start, weight, source, height, width, h, w, col, out, out_width, first_row, end_row"
    return chosen(size, "row_kernel_transposed", kernels, arguments)


@once_a_set
def row_kernel_weight_grad(size: int, lanes: int) -> Any:
    """See `kernels.primitives.row_kernel_weight_grad`."""
    kernels = dict(enumerate(_weight_grad(size, lanes, *row) for row in ROW_KERNELS_WEIGHT_GRAD))
    arguments = "source, height, width, h, w, small, ld_small, rows, cols, sums"
    return chosen(size, "row_kernel_weight_grad", kernels, arguments)
