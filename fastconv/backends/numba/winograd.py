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


def _product(code: Code, matrix: Program, values: Sequence[Any]) -> list[Any]:
    """A matrix times a vector of registers."""
    known = list(values)
    for (first, element), *terms in matrix.sums:
        total = known[element] if first == 1 else code.fma(_constant(code, first), known[element], code.zeros)
        for coefficient, other in terms:
            if coefficient == 1:
                total = code.builder.fadd(total, known[other])
            else:
                total = code.fma(_constant(code, coefficient), known[other], total)
        known.append(total)
    return [known[number] for number in matrix.results]


def _on_both_axes(code: Code, matrix: Program, size: int, read: Callable[[int, int], Any]) -> list[list[Any]]:
    """A matrix applied to the columns, then to the rows, of a square of `size` registers that `read(i, j)` loads."""
    columns = [_product(code, matrix, [read(i, j) for i in range(size)]) for j in range(size)]
    return [_product(code, matrix, row) for row in zip(*columns, strict=True)]


@per_instruction_set
def transform_input(size: int, lanes: int) -> Any:
    """See `kernels.primitives.transform_input`."""
    kernels = {number: _transform_input(size, lanes, *of) for number, of in enumerate(WINOGRAD)}
    return chosen(size, "transform_input", kernels, "source, row, target, ld_target")


def _transform_input(size: int, lanes: int, outputs: int, taps: int) -> Any:
    extent, matrix = outputs + taps - 1, program(transforms(outputs, taps).input)

    def emit(code: Code, source: Any, row: Any, target: Any, ld_target: Any) -> None:
        b, source, target = code.builder, code.pointer(source), code.pointer(target)
        lines = [code.at(source, b.mul(row, I64(i))) for i in range(extent)]
        found = _on_both_axes(code, matrix, extent, lambda i, j: code.read(code.at(lines[i], I64(j * lanes))))
        for number, value in enumerate(value for line in found for value in line):
            code.write(value, code.at(target, b.mul(ld_target, I64(number))))

    return make_operation(size, lanes, "source row target ld_target", emit)


@per_instruction_set
def transform_weight(size: int, lanes: int) -> Any:
    """See `kernels.primitives.transform_weight`."""
    kernels = {number: _transform_weight(size, lanes, *of) for number, of in enumerate(WINOGRAD)}
    return chosen(size, "transform_weight", kernels, "source, taps, target, ld_target")


def _transform_weight(size: int, lanes: int, outputs: int, taps: int) -> Any:
    matrix, factors = program(transforms(outputs, taps).weight), scales(outputs, taps)

    def emit(code: Code, source: Any, offsets: Any, target: Any, ld_target: Any) -> None:
        b, source, target, offsets = code.builder, code.pointer(source), code.pointer(target), code.integers(offsets)

        def tap(i: int, j: int) -> Any:
            return code.read(code.at(source, b.load(code.at(offsets, I64(i * taps + j)))))

        found = _on_both_axes(code, matrix, taps, tap)
        for number, value in enumerate(value for line in found for value in line):
            scaled = b.fmul(value, _constant(code, factors[number]))
            code.write(scaled, code.at(target, b.mul(ld_target, I64(number))))

    return make_operation(size, lanes, "source offsets target ld_target", emit)


@per_instruction_set
def transform_output(size: int, lanes: int) -> Any:
    """See `kernels.primitives.transform_output`."""
    kernels = {number: _transform_output(size, lanes, *of) for number, of in enumerate(WINOGRAD)}
    return chosen(size, "transform_output", kernels, "source, ld_source, start, target, row, col, rows, cols")


def _transform_output(size: int, lanes: int, outputs: int, taps: int) -> Any:
    extent, matrix = outputs + taps - 1, program(transforms(outputs, taps).output)

    def emit(
        code: Code, source: Any, ld_source: Any, start: Any, target: Any, row: Any, col: Any, rows: Any, cols: Any
    ) -> None:
        b, source, target = code.builder, code.pointer(source), code.pointer(target)

        def product(i: int, j: int) -> Any:
            return code.read(code.at(source, b.mul(ld_source, I64(i * extent + j))))

        found, bias = _on_both_axes(code, matrix, extent, product), code.read(code.pointer(start))
        for i, line in enumerate(found):
            with b.if_then(b.icmp_signed("<", I64(i), rows), likely=True):
                at = code.at(target, b.mul(row, I64(i)))
                for j, value in enumerate(line):
                    with b.if_then(b.icmp_signed("<", I64(j), cols), likely=True):
                        code.write(b.fadd(value, bias), code.at(at, b.mul(col, I64(j))))

    return make_operation(size, lanes, "source ld_source start target row col rows cols", emit)
