"""The micro-kernels of depthwise convolution with vectors along the rows of a map, going down a plane.

A row of the source is read once, in a vector for each tap of a kernel row, and is multiplied for every row of the small
map that it is linked to. Maps are read and written as they are: lanes outside a map are masked.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from fastconv.backends.numba.compiling import chosen
from fastconv.backends.numba.llvm import I64, Code, machine, make_operation, per_instruction_set
from fastconv.kernels.abi import ROW_KERNELS, ROW_KERNELS_TRANSPOSED, ROW_KERNELS_WEIGHT_GRAD


def _read_row(code: Code, pointer: Any, masks: list[list[Any]], stride: int) -> list[Any]:
    """A vector for each tap of a kernel row, at `pointer`: every `stride`-th element, under the masks."""
    kernel = len(masks)
    if stride == 1:
        return [code.masked_load(code.at(pointer, I64(v)), masks[v][0]) for v in range(kernel)]
    found = []
    for v in range(0, kernel, 2):
        pair = [code.masked_load(code.at(pointer, I64(v + half * code.lanes)), masks[v][half]) for half in range(2)]
        found += [code.shuffle(pair, list(range(odd, 2 * code.lanes, 2))) for odd in range(2)]
    return found


def _prefetch_row(code: Code, pointer: Any, width: Any, ahead: Any, stride: int) -> None:
    """Prefetch the vectors at the same position `ahead` rows further."""
    row = code.at(pointer, code.builder.mul(width, ahead))
    for half in range(stride):
        code.prefetch(code.at(row, I64(half * code.lanes)), far=True)


def _factors(code: Code, weight: Any, taps: int, held: int) -> Callable[[int], Any]:
    """A function of a tap: its weight in every lane.

    The weights of the first `held` taps stay in registers. The others are loaded once for each row, and loads are the
    bottleneck of these micro-kernels.
    """

    def factor(tap: int) -> Any:
        return code.broadcast(code.builder.load(code.at(weight, I64(tap))))

    factors = [factor(tap) for tap in range(min(taps, held))]
    return lambda tap: factors[tap] if tap < len(factors) else factor(tap)


@per_instruction_set
def _row_kernel(size: int, lanes: int, kernel: int, stride: int) -> Any:
    """The micro-kernel `row_kernel` of `kernels.primitives` for a square kernel.

    Each sum is a chain of multiply-adds over rows a and columns b of the kernel.
    """
    waiting = -(-kernel // stride)  # output rows that a source row is linked to, so many unfinished sums

    def emit(
        code: Code, start: Any, weight: Any, source: Any, height: Any, width: Any, ahead: Any, h: Any, w: Any, out: Any,
        ld_out: Any, rows: Any, whole: Any, cols: Any,
    ) -> None:  # fmt: skip
        b = code.builder
        weight, source, out = code.pointer(weight), code.pointer(source), code.pointer(out)
        first = code.broadcast(start)
        masks = []
        for v in range(kernel):
            left = b.add(w, I64(v))
            masks.append([
                code.lane_mask(b.sub(I64(-half * lanes), left), b.sub(b.sub(width, left), I64(half * lanes)))
                for half in range(stride)
            ])  # fmt: skip
        end = code.lane_mask(I64(0), cols)
        # registers also hold the sums, the taps' pixels, the bias, and with a stride the masks of shuffles
        free = machine().registers - waiting - kernel - (9 if stride > 1 else 3)
        factor = _factors(code, weight, kernel**2, 9 if kernel <= 3 else free)

        def row(t: Any, acc: list[Any]) -> list[Any]:
            acc = list(acc)
            for plane in range(stride):
                at = b.add(h, b.add(b.mul(t, I64(stride)), I64(plane)))
                pointer = code.at(source, b.add(b.mul(at, width), w))
                _prefetch_row(code, pointer, width, ahead, stride)
                x = code.row_or_zeros(at, height, functools.partial(_read_row, code, pointer, masks, stride), kernel)
                for m in range(waiting):
                    a = (waiting - 1 - m) * stride + plane
                    for tap in range(a * kernel, min(a + 1, kernel) * kernel):
                        acc[m] = code.fma(factor(tap), x[tap - a * kernel], acc[m])
            u = b.sub(t, I64(waiting - 1))
            with b.if_then(b.icmp_signed(">=", u, I64(0)), likely=True):
                to = code.at(out, b.mul(u, ld_out))
                with b.if_else(b.icmp_signed("<", u, whole), likely=True) as (then, otherwise):
                    with then:
                        code.write(acc[0], to)
                    with otherwise:
                        code.masked_store(acc[0], to, end)
            return [*acc[1:], first]

        code.loop(b.add(rows, I64(waiting - 1)), [first] * waiting, row)

    names = "start weight source height width ahead h w out ld_out rows whole cols"
    return make_operation(size, lanes, names, emit, scalar="start")


@per_instruction_set
def _transposed(size: int, lanes: int, kernel: int, odd: int) -> Any:
    """The micro-kernel `row_kernel_transposed` of `kernels.primitives` for a square kernel; `odd` is pad % 2.

    Output row i is linked by tap a to source row (i + pad - a) / 2, where that is whole. Output rows of one parity use
    the taps of one parity; likewise columns. So a source row adds to even and to odd output rows, and a column of the
    source with its neighbours makes two columns of the output, from `col` on.
    """
    waiting = (kernel + 1) // 2

    def emit(
        code: Code, start: Any, weight: Any, source: Any, height: Any, width: Any, ahead: Any, h: Any, w: Any, col: Any,
        out: Any, out_width: Any, first_row: Any, end_row: Any,
    ) -> None:  # fmt: skip
        b = code.builder
        weight, source, out = code.pointer(weight), code.pointer(source), code.pointer(out)
        first = code.broadcast(start)
        # vector v of a source row is read v - (waiting - 1) columns from the source's column
        left = b.add(b.ashr(col, I64(1)), b.sub(w, I64(waiting - 1)))
        masks = []
        for v in range(waiting + odd):
            at = b.add(left, I64(v))
            masks.append(code.lane_mask(b.neg(at), b.sub(width, at)))
        cols_left = b.sub(out_width, col)
        ends = [code.lane_mask(I64(0), b.sub(cols_left, I64(half * lanes))) for half in range(2)]
        begin = b.add(b.ashr(first_row, I64(1)), b.sub(h, I64(waiting - 1)))
        stop = b.add(b.ashr(b.add(end_row, I64(1)), I64(1)), b.add(h, I64(odd)))
        parities = [(q, f) for q in range(2) for f in range(2)]
        # registers also hold the sums, the taps' pixels, the bias and the masks of shuffles; up to 3 x 3, LLVM's code
        # is slower with weights in registers
        free = machine().registers - 5 * waiting - odd - 5
        factor = _factors(code, weight, kernel**2, free if kernel > 3 else 0)

        def row(t: Any, acc: list[Any]) -> list[Any]:
            waits = {pair: acc[waiting * i : waiting * (i + 1)] for i, pair in enumerate(parities)}
            u = b.add(begin, t)
            pointer = code.at(source, b.add(b.mul(u, width), left))
            _prefetch_row(code, pointer, width, ahead, 1)
            x = code.row_or_zeros(
                u, height, lambda: [code.masked_load(code.at(pointer, I64(v)), mask) for v, mask in enumerate(masks)],
                waiting + odd,
            )  # fmt: skip
            # row i + m of the output rows of parity q has the taps 2 * m + down; likewise columns of parity f
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
                        code.shuffle(pair, [lane % 2 * lanes + lane // 2 + far * half for lane in range(lanes)])
                        for far in range(2)
                    ]
                    is_whole = b.icmp_signed(">=", cols_left, I64(2 * lanes))
                    with b.if_else(is_whole, likely=True) as (then, otherwise):
                        with then:
                            for far in range(2):
                                code.write(zipped[far], code.at(to, I64(far * lanes)))
                        with otherwise:
                            for far in range(2):
                                code.masked_store(zipped[far], code.at(to, I64(far * lanes)), ends[far])
            return [value for pair in parities for value in (*waits[pair][1:], first)]

        code.loop(b.sub(stop, begin), [first] * (4 * waiting), row)

    names = "start weight source height width ahead h w col out out_width first_row end_row"
    return make_operation(size, lanes, names, emit, scalar="start")


@per_instruction_set
def _weight_grad(size: int, lanes: int, kernel: int, stride: int) -> Any:
    """The micro-kernel `row_kernel_weight_grad` of `kernels.primitives` for a square kernel."""
    linked_rows = -(-kernel // stride)  # rows of the small map that a source row is linked to

    def emit(
        code: Code, source: Any, height: Any, width: Any, ahead: Any, h: Any, w: Any, small: Any, ld_small: Any,
        rows: Any, cols: Any, sums: Any,
    ) -> None:  # fmt: skip
        b = code.builder
        source, small, sums = code.pointer(source), code.pointer(small), code.pointer(sums)
        cols_mask = code.lane_mask(I64(0), cols)
        wanted = b.mul(cols, I64(stride))
        masks = []
        for v in range(kernel):
            left = b.add(w, I64(v))
            cols_inside = b.sub(width, left)
            # pixels that are linked to none of these columns are not read, as they need not be finite
            end = b.select(b.icmp_signed("<", cols_inside, wanted), cols_inside, wanted)
            masks.append([
                code.lane_mask(b.sub(I64(-half * lanes), left), b.sub(end, I64(half * lanes))) for half in range(stride)
            ])  # fmt: skip

        def row(t: Any, acc: list[Any]) -> list[Any]:
            acc = list(acc)
            small_ahead = b.mul(b.add(t, b.udiv(ahead, I64(stride))), ld_small)
            code.prefetch(code.at(small, small_ahead), far=True)
            for plane in range(stride):
                at = b.add(h, b.add(b.mul(t, I64(stride)), I64(plane)))
                pointer = code.at(source, b.add(b.mul(at, width), w))
                _prefetch_row(code, pointer, width, ahead, stride)
                x = code.row_or_zeros(at, height, functools.partial(_read_row, code, pointer, masks, stride), kernel)
                for m in range(linked_rows):
                    a = m * stride + plane
                    if a >= kernel:
                        continue
                    # rows outside the small map are left out, as the source need not be finite
                    i = b.sub(t, I64(m))
                    exists = b.and_(b.icmp_signed(">=", i, I64(0)), b.icmp_signed("<", i, rows))
                    before, waiting = b.basic_block, acc[a * kernel : (a + 1) * kernel]
                    with b.if_then(exists, likely=True):
                        factor = code.masked_load(code.at(small, b.mul(i, ld_small)), cols_mask)
                        added = [code.fma(factor, x[v], waiting[v]) for v in range(kernel)]
                        within = b.basic_block
                    for v in range(kernel):
                        either = b.phi(code.vector)
                        either.add_incoming(waiting[v], before)
                        either.add_incoming(added[v], within)
                        acc[a * kernel + v] = either
            return acc

        pointers = [code.at(sums, I64(tap * lanes)) for tap in range(kernel**2)]
        totals = code.loop(b.add(rows, I64(linked_rows - 1)), [code.read(pointer) for pointer in pointers], row)
        for pointer, total in zip(pointers, totals, strict=True):
            code.write(total, pointer)

    return make_operation(size, lanes, "source height width ahead h w small ld_small rows cols sums", emit)


@per_instruction_set
def row_kernel(size: int, lanes: int) -> Any:
    """See `kernels.primitives.row_kernel`."""
    kernels = dict(enumerate(_row_kernel(size, lanes, *row) for row in ROW_KERNELS))
    arguments = "start, weight, source, height, width, ahead, h, w, out, ld_out, rows, whole, cols"
    return chosen(size, "row_kernel", kernels, arguments)


@per_instruction_set
def row_kernel_transposed(size: int, lanes: int) -> Any:
    """See `kernels.primitives.row_kernel_transposed`."""
    kernels = dict(enumerate(_transposed(size, lanes, *row) for row in ROW_KERNELS_TRANSPOSED))
    arguments = "start, weight, source, height, width, ahead, h, w, col, out, out_width, first_row, end_row"
    return chosen(size, "row_kernel_transposed", kernels, arguments)


@per_instruction_set
def row_kernel_weight_grad(size: int, lanes: int) -> Any:
    """See `kernels.primitives.row_kernel_weight_grad`."""
    kernels = dict(enumerate(_weight_grad(size, lanes, *row) for row in ROW_KERNELS_WEIGHT_GRAD))
    arguments = "source, height, width, ahead, h, w, small, ld_small, rows, cols, sums"
    return chosen(size, "row_kernel_weight_grad", kernels, arguments)
