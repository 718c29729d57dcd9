"""The transforms of Winograd's convolution, generated from the matrices of `kernels.toom_cook`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastconv.backends.numba.compiling import chosen
from fastconv.backends.numba.llvm import I64, Code, make_operation, per_instruction_set
from fastconv.backends.numba.numba_internals import ir
from fastconv.kernels.abi import WINOGRAD
from fastconv.kernels.toom_cook import Program, program, scales, transforms


def _constant(code: Code, value: float) -> Any:
    return ir.Constant(code.vector, [value] * code.lanes)


def product(code: Code, matrix: Program, values: Sequence[Any]) -> list[Any]:
    """A matrix times a vector of registers."""
    known = list(values)
    for (first, element), *terms in matrix.sums:
        total = known[element]
        if first == -1:
            total = code.builder.fmul(total, _constant(code, -1.0))
        elif first != 1:
            total = code.fma(_constant(code, first), total, code.zeros)
        for coefficient, other in terms:
            if abs(coefficient) == 1:
                add = code.builder.fadd if coefficient == 1 else code.builder.fsub
                total = add(total, known[other])
            else:
                total = code.fma(_constant(code, coefficient), known[other], total)
        known.append(total)
    return [known[number] for number in matrix.results]


def _on_both_axes(
    code: Code, rows: Program, cols: Program, extents: tuple[int, int], read: Callable[[int, int], Any]
) -> list[list[Any]]:
    """A matrix applied to the columns, and one to the rows, of the registers that `read(i, j)` loads."""
    height, width = extents
    columns = [product(code, rows, [read(i, j) for i in range(height)]) for j in range(width)]
    return [product(code, cols, line) for line in zip(*columns, strict=True)]


class _Tile:
    """A row of `abi.WINOGRAD`: the transforms of both axes, and the extents of a tile, its outputs and the kernel."""

    def __init__(self, axes: tuple[tuple[int, int], tuple[int, int]]) -> None:
        self.rows, self.cols = (transforms(*axis) for axis in axes)
        (m_h, r_h), (m_w, r_w) = axes
        self.size, self.taps = (m_h + r_h - 1, m_w + r_w - 1), (r_h, r_w)


def _by_number(name: str, make: Callable[[int, int, _Tile], Any], size: int, lanes: int, arguments: str) -> Any:
    kernels = {number: make(size, lanes, _Tile(axes)) for number, axes in enumerate(WINOGRAD)}
    return chosen(size, name, kernels, arguments)


@per_instruction_set
def transform_input(size: int, lanes: int) -> Any:
    """See `kernels.primitives.transform_input`."""
    return _by_number("transform_input", _transform_input, size, lanes, "source, row, target, ld_target")


def _transform_input(size: int, lanes: int, tile: _Tile) -> Any:
    matrices = program(tile.rows.input), program(tile.cols.input)

    def emit(code: Code, source: Any, row: Any, target: Any, ld_target: Any) -> None:
        b, source, target = code.builder, code.pointer(source), code.pointer(target)
        lines = [code.at(source, b.mul(row, I64(i))) for i in range(tile.size[0])]
        found = _on_both_axes(code, *matrices, tile.size, lambda i, j: code.read(code.at(lines[i], I64(j * lanes))))
        for number, value in enumerate(value for line in found for value in line):
            code.write(value, code.at(target, b.mul(ld_target, I64(number))))

    return make_operation(size, lanes, "source row target ld_target", emit)


@per_instruction_set
def transform_weight(size: int, lanes: int) -> Any:
    """See `kernels.primitives.transform_weight`."""
    return _by_number("transform_weight", _transform_weight, size, lanes, "source, taps, target, ld_target")


def _transform_weight(size: int, lanes: int, tile: _Tile) -> Any:
    matrices = program(tile.rows.weight), program(tile.cols.weight)
    factors = scales(tile.rows, tile.cols)

    def emit(code: Code, source: Any, taps: Any, target: Any, ld_target: Any) -> None:
        b, source, target, taps = code.builder, code.pointer(source), code.pointer(target), code.integers(taps)

        def tap(i: int, j: int) -> Any:
            return code.read(code.at(source, b.load(code.at(taps, I64(i * tile.taps[1] + j)))))

        found = _on_both_axes(code, *matrices, tile.taps, tap)
        for number, value in enumerate(value for line in found for value in line):
            scaled = b.fmul(value, _constant(code, factors[number]))
            code.write(scaled, code.at(target, b.mul(ld_target, I64(number))))

    return make_operation(size, lanes, "source taps target ld_target", emit)


@per_instruction_set
def transform_output(size: int, lanes: int) -> Any:
    """See `kernels.primitives.transform_output`."""
    arguments = "source, ld_source, start, target, row, col, rows, cols"
    return _by_number("transform_output", _transform_output, size, lanes, arguments)


def _transform_output(size: int, lanes: int, tile: _Tile) -> Any:
    matrices = program(tile.rows.output), program(tile.cols.output)

    def emit(
        code: Code, source: Any, ld_source: Any, start: Any, target: Any, row: Any, col: Any, rows: Any, cols: Any
    ) -> None:
        b, source, target = code.builder, code.pointer(source), code.pointer(target)

        def product(i: int, j: int) -> Any:
            return code.read(code.at(source, b.mul(ld_source, I64(i * tile.size[1] + j))))

        found, bias = _on_both_axes(code, *matrices, tile.size, product), code.read(code.pointer(start))
        for i, line in enumerate(found):
            with b.if_then(b.icmp_signed("<", I64(i), rows), likely=True):
                at = code.at(target, b.mul(row, I64(i)))
                for j, value in enumerate(line):
                    with b.if_then(b.icmp_signed("<", I64(j), cols), likely=True):
                        code.write(b.fadd(value, bias), code.at(at, b.mul(col, I64(j))))

    return make_operation(size, lanes, "source ld_source start target row col rows cols", emit)
