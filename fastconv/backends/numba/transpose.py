"""Transposes of squares of elements, between memory whose lanes are channels and memory whose lanes are pixels."""

from __future__ import annotations

from typing import Any

from fastconv.backends.numba.compiling import inline
from fastconv.backends.numba.llvm import I64, Code, make_operation
from fastconv.backends.numba.simd import prefetch_ahead


def _columns(code: Code, source: Any, ld_source: Any, valid: Any) -> list[Any]:
    """The columns of a square of lanes x lanes elements.

    Only the first `valid` rows exist; the last of them is read again in place of the others.
    """
    b, rows = code.builder, []
    for i in range(code.lanes):
        rows.append(code.read(source))
        source = code.at(source, b.select(b.icmp_signed("<", I64(i + 1), valid), ld_source, I64(0)))
    return _transpose_square(code, rows)


def _transpose_square(code: Code, rows: list[Any]) -> list[Any]:
    """The transpose of a square of vectors: for d = lanes / 2, ..., 1, blocks of d x d elements are exchanged."""
    lanes = code.lanes
    distance = lanes // 2
    while distance:
        kept = [lane if not lane & distance else lanes + lane - distance for lane in range(lanes)]
        taken = [lane + distance if not lane & distance else lanes + lane for lane in range(lanes)]
        for i in range(lanes):
            if not i & distance:
                a, b = rows[i], rows[i | distance]
                for row, mask in ((i, kept), (i | distance, taken)):
                    rows[row] = code.shuffle((a, b), mask)
        distance //= 2
    return rows


def _transpose_columns(size: int, lanes: int, limit: int) -> Any:
    """transpose(source, ld_source, valid, target, ld_target, count): transpose a square of lanes x lanes elements.

    The first `count` <= `limit` columns are stored. With a smaller `limit`, fewer shuffles are enough.
    """

    def emit(code: Code, source: Any, ld_source: Any, valid: Any, target: Any, ld_target: Any, count: Any) -> None:
        b, target = code.builder, code.pointer(target)
        for i, row in enumerate(_columns(code, code.pointer(source), ld_source, valid)[:limit]):
            with b.if_then(b.icmp_signed("<", I64(i), count), likely=True):
                code.write(row, code.at(target, b.mul(ld_target, I64(i))))

    return make_operation(size, lanes, "source ld_source valid target ld_target count", emit)


def scatter(size: int, lanes: int) -> Any:
    """scatter(source, ld_source, valid, target, offsets, count): the same, column i to target + offsets[i]."""

    def emit(code: Code, source: Any, ld_source: Any, valid: Any, target: Any, offsets: Any, count: Any) -> None:
        b, target, offsets = code.builder, code.pointer(target), code.integers(offsets)
        for i, row in enumerate(_columns(code, code.pointer(source), ld_source, valid)):
            with b.if_then(b.icmp_signed("<", I64(i), count), likely=True):
                code.write(row, code.at(target, b.load(code.at(offsets, I64(i)))))

    return make_operation(size, lanes, "source ld_source valid target offsets count", emit)


def gather(size: int, lanes: int) -> Any:
    """gather(source, offsets, target, ld_target, count): row i of the target is element i of each of `lanes` rows.

    Row `lane` starts at source + offsets[2 * lane + 1], and `lanes` elements of it are read. The first `count` >= 1
    rows of the target are stored.
    """

    def emit(code: Code, source: Any, offsets: Any, target: Any, ld_target: Any, count: Any) -> None:
        b = code.builder
        source, target, offsets = code.pointer(source), code.pointer(target), code.integers(offsets)
        starts = [code.at(source, b.load(code.at(offsets, I64(2 * i + 1)))) for i in range(lanes)]
        rows = []
        for start in starts:
            rows.append(code.read(start))
            prefetch_ahead(code, start, 1)
        for i, row in enumerate(_transpose_square(code, rows)):
            with b.if_then(b.icmp_signed("<", I64(i), count), likely=True):
                code.write(row, code.at(target, b.mul(ld_target, I64(i))))

    return make_operation(size, lanes, "source offsets target ld_target count", emit)


def transpose(size: int, lanes: int) -> Any:
    """See `kernels.primitives.transpose`."""
    half, all_columns = lanes // 2, _transpose_columns(size, lanes, lanes)
    half_columns = _transpose_columns(size, lanes, half)

    @inline(size)
    def transpose(source, ld_source, valid, target, ld_target, count):
        if count > half:
            all_columns(source, ld_source, valid, target, ld_target, count)
        else:
            half_columns(source, ld_source, valid, target, ld_target, count)

    return transpose


def _sum_vectors(size: int, lanes: int) -> Any:
    """sum_vectors(source, target, count): the first `count` elements of the sum of `lanes` vectors."""

    def emit(code: Code, source: Any, target: Any, count: Any) -> None:
        source = code.pointer(source)
        total = code.read(source)
        for lane in range(1, lanes):
            total = code.builder.fadd(total, code.read(code.at(source, I64(lane * lanes))))
        code.masked_store(total, code.pointer(target), code.lane_mask(I64(0), count))

    return make_operation(size, lanes, "source target count", emit)


def total(size: int, lanes: int) -> Any:
    """See `kernels.primitives.total`."""
    transpose_all, sum_vectors = _transpose_columns(size, lanes, lanes), _sum_vectors(size, lanes)

    @inline(size)
    def total(sums, square, target, count):
        transpose_all(sums, lanes, lanes, square, lanes, lanes)
        sum_vectors(square, target, count)

    return total
