"""The micro-kernels of depthwise convolution of maps whose channels are neighbours, which are read and written as they
are."""

from __future__ import annotations

import functools
from typing import Any

from fastconv.backends.numba.compiling import chosen, inline
from fastconv.backends.numba.llvm import I64, Code, machine, make_operation, per_instruction_set
from fastconv.kernels.abi import RECTANGLES, TAP_ROWS, WINDOW_PIXELS, WINDOWS

#: Square kernels of up to so many taps have load instructions of their own for each row. Some hardware prefetchers
#: learn the stride of each load instruction. In a loop over rows one instruction reads all rows, so it has no constant
#: stride.
_MAX_OWN_LOADS = 3


def _within(code: Code, at: Any, first: Any, end: Any) -> Any:
    """Whether first <= at < end."""
    b = code.builder
    return b.and_(b.icmp_signed(">=", at, first), b.icmp_signed("<", at, end))


def _linked(x: int, taps: int, stride: int, count: int) -> list[tuple[int, int]]:
    """The outputs j and taps s that read column x = j * stride + s."""
    return [
        ((x - s) // stride, s) for s in range(taps) if x >= s and (x - s) % stride == 0 and (x - s) // stride < count
    ]


def _add_pixel(code: Code, inside: Any, read: Any, sums: list[Any], terms: list[tuple[int, Any]]) -> list[Any]:
    """The sums, with the pixel at `read` times a factor added to some of them if it is `inside` the source (None: it
    is). `terms` are the number of a sum, each once, and its factor."""

    def added() -> list[Any]:
        pixel = code.read(read)
        return [code.fma(factor, pixel, sums[at]) for at, factor in terms]

    values = added() if inside is None else code.branch(inside, added, [sums[at] for at, _ in terms].copy)
    found = sums.copy()
    for (at, _), value in zip(terms, values, strict=True):
        found[at] = value
    return found


@per_instruction_set
def _rectangle(size: int, lanes: int, height: int, width: int, across: int, stride_across: int) -> Any:
    """The micro-kernel `rectangle` of `kernels.primitives` for `height` x `width` pixels and `across` taps of a row."""

    def emit(
        code: Code, a: Any, b: Any, row: Any, col: Any, stride: Any, taps: Any, first_row: Any, end_row: Any,
        first_col: Any, end_col: Any, start: Any, out: Any, ld_out: Any, step: Any, rows: Any, cols: Any,
    ) -> None:  # fmt: skip
        build = code.builder
        a, b, out = code.pointer(a), code.pointer(b), code.pointer(out)
        following = build.mul(stride, I64(-across * lanes))

        def add(r: Any, acc: list[Any], first: int, end: int, is_inside: bool = False) -> list[Any]:
            """Add a row of the source to rows `first` <= i < `end` of the tile. With `is_inside`, no column is outside
            of the source."""
            of_row, read = code.at(a, build.mul(r, I64(across * lanes))), code.at(b, build.mul(r, row))
            factors = {
                (i, s): code.read(code.at(code.at(of_row, build.mul(following, I64(i))), I64(s * lanes)))
                for i in range(first, end)
                for s in range(across)
            }
            for x in range((width - 1) * stride_across + across):
                linked = _linked(x, across, stride_across, width)
                terms = [(i * width + j, factors[i, s]) for i in range(first, end) for j, s in linked]
                inside = None if is_inside else _within(code, I64(x), first_col, end_col)
                acc = _add_pixel(code, inside, read, acc, terms)
                read = code.at(read, col)
            return acc

        def of_row(t: Any, acc: list[Any]) -> list[Any]:
            r = build.add(first_row, t)
            one = functools.partial(add, r, acc)
            if height == 1:
                return one(0, 1)
            return code.branch(
                build.icmp_signed("<", r, stride),
                lambda: one(0, 1),
                lambda: code.branch(build.icmp_signed("<", r, taps), lambda: one(0, height), lambda: one(1, height)),
            )

        def of_each_row(acc: list[Any], is_inside: bool) -> list[Any]:
            for r in range(across + stride_across):
                of_tile = 0 if r < across else 1, 1 if r < stride_across else height
                inside = _within(code, I64(r), first_row, end_row)
                acc = code.branch(inside, functools.partial(add, I64(r), acc, *of_tile, is_inside), acc.copy)
            return acc

        def of_loop(acc: list[Any]) -> list[Any]:
            count = build.sub(end_row, first_row)
            return code.branch(build.icmp_signed(">", count, I64(0)), lambda: code.loop(count, acc, of_row), acc.copy)

        started = [code.read(code.pointer(start))] * (height * width)
        if height > 1 and across <= _MAX_OWN_LOADS:
            is_square = build.and_(
                build.icmp_signed("==", taps, I64(across)), build.icmp_signed("==", stride, I64(stride_across))
            )
            is_inside = build.and_(
                build.icmp_signed("<=", first_col, I64(0)),
                build.icmp_signed(">=", end_col, I64((width - 1) * stride_across + across)),
            )
            sums = code.branch(
                is_square,
                lambda: code.branch(is_inside, lambda: of_each_row(started, True), lambda: of_each_row(started, False)),
                lambda: of_loop(started),
            )
        else:
            sums = of_loop(started)
        for i in range(height):
            for j in range(width):
                exists = build.and_(build.icmp_signed("<", I64(i), rows), build.icmp_signed("<", I64(j), cols))
                with build.if_then(exists, likely=True):
                    to = build.add(build.mul(ld_out, I64(i)), build.mul(step, I64(j)))
                    code.write(sums[i * width + j], code.at(out, to))

    names = "a b row col stride taps first_row end_row first_col end_col start out ld_out step rows cols"
    return make_operation(size, lanes, names, emit)


@per_instruction_set
def _pixels(size: int, lanes: int, taps: int, stride: int, count: int) -> Any:
    """The micro-kernel `sum_window` of `kernels.primitives` for `tiles` times `count` pixels of a row."""

    def emit(
        code: Code, tiles: Any, a: Any, step: Any, b: Any, row: Any, col: Any, first_row: Any, end_row: Any,
        first_col: Any, end_col: Any, sums: Any,
    ) -> None:  # fmt: skip
        build = code.builder
        a, b, sums = code.pointer(a), code.pointer(b), code.pointer(sums)

        def of_tile(t: Any, acc: list[Any]) -> list[Any]:
            j = build.mul(t, I64(count))
            small, x_of_tile = code.at(a, build.mul(j, step)), build.mul(j, I64(stride))
            factors = [code.read(code.at(small, build.mul(step, I64(number)))) for number in range(count)]
            source = code.at(b, build.mul(x_of_tile, col))

            # the rows of taps at once, as the sums of one row alone would wait for each other
            inside = [_within(code, I64(r), first_row, end_row) for r in range(taps)]

            def of_column(x: int, read: Any, acc: list[Any]) -> list[Any]:
                for r in range(taps):
                    terms = [(r * taps + s, factors[j]) for j, s in _linked(x, taps, stride, count)]
                    acc = _add_pixel(code, inside[r], code.at(read, build.mul(row, I64(r))), acc, terms)
                return acc

            for x in range((count - 1) * stride + taps):
                exists = _within(code, build.add(x_of_tile, I64(x)), first_col, end_col)
                read = code.at(source, build.mul(col, I64(x)))
                acc = code.branch(exists, functools.partial(of_column, x, read, acc), acc.copy)
            return acc

        pointers = [code.at(sums, I64(tap * lanes)) for tap in range(taps**2)]
        totals = code.loop(tiles, [code.read(pointer) for pointer in pointers], of_tile)
        for pointer, total in zip(pointers, totals, strict=True):
            code.write(total, pointer)

    names = "tiles a step b row col first_row end_row first_col end_col sums"
    return make_operation(size, lanes, names, emit)


@per_instruction_set
def _window(size: int, lanes: int, taps: int, stride: int) -> Any:
    """The micro-kernel `sum_window` for a square kernel: whole register tiles, then the pixels that are left."""
    many = WINDOW_PIXELS[machine().kind][taps > 4]
    tiles, pixels = (_pixels(size, lanes, taps, stride, count) for count in (many, 1))

    @inline(size, variant=f"{taps}_{stride}")
    def window(a, step, cols, b, row, col, first_row, end_row, first_col, end_col, sums):
        whole = cols // many
        if whole:
            tiles(whole, a, step, b, row, col, first_row, end_row, first_col, end_col, sums)
        if cols > whole * many:
            j = whole * many
            pixels(cols - j, a + j * step * size, step, b + j * stride * col * size, row, col, first_row, end_row,
                   first_col - j * stride, end_col - j * stride, sums)  # fmt: skip

    return window


@per_instruction_set
def rectangle(size: int, lanes: int) -> Any:
    """See `kernels.primitives.rectangle`."""
    arguments = (
        "a, b, row, col, stride, taps, first_row, end_row, first_col, end_col, start, out, ld_out, step, rows, cols"
    )
    tall, long = (
        chosen(size, name, dict(enumerate(_rectangle(size, lanes, *shape, *row) for row in TAP_ROWS)), arguments)
        for name, shape in zip(("tall", "long"), RECTANGLES[machine().kind], strict=True)
    )

    @inline(size)
    def rectangle(
        number, is_long, a, b, row, col, stride, taps, first_row, end_row, first_col, end_col, start, out, ld_out,
        step, rows, cols,
    ):  # fmt: skip
        if is_long:
            long(number, a, b, row, col, stride, taps, first_row, end_row, first_col, end_col, start, out, ld_out, step,
                 rows, cols)  # fmt: skip
        else:
            tall(number, a, b, row, col, stride, taps, first_row, end_row, first_col, end_col, start, out, ld_out, step,
                 rows, cols)  # fmt: skip

    return rectangle


@per_instruction_set
def sum_window(size: int, lanes: int) -> Any:
    """See `kernels.primitives.sum_window`."""
    kernels = dict(enumerate(_window(size, lanes, *row) for row in WINDOWS))
    arguments = "a, step, cols, b, row, col, first_row, end_row, first_col, end_col, sums"
    return chosen(size, "sum_window", kernels, arguments)
