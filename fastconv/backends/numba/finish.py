"""The epilogue: adds a residual to finished sums and applies an activation, as `fastconv.dispatch.finish` says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastconv.backends.numba.compiling import chosen, inline
from fastconv.backends.numba.llvm import I64, Code, make_operation
from fastconv.backends.numba.numba_internals import ir
from fastconv.kernels import abi


def _relu(code: Code, slopes: Any, slope_step: Any, y: Any) -> Any:
    return code.builder.select(code.builder.fcmp_ordered("<=", y, code.zeros), code.zeros, y)


def _relu6(code: Code, slopes: Any, slope_step: Any, y: Any) -> Any:
    most = _constant(code, 6)
    return _relu(code, slopes, slope_step, code.builder.select(code.builder.fcmp_ordered(">=", y, most), most, y))


def _hardswish(code: Code, slopes: Any, slope_step: Any, y: Any) -> Any:
    gate = _relu6(code, slopes, slope_step, code.builder.fadd(y, _constant(code, 3)))
    return code.builder.fdiv(code.builder.fmul(y, gate), _constant(code, 6))


def _slopes(code: Code, slopes: Any, slope_step: Any, y: Any) -> Any:
    b, at = code.builder, code.pointer(slopes)
    (slope,) = code.branch(
        b.icmp_signed("!=", slope_step, I64(0)),
        lambda: [code.read(at)],
        lambda: [code.broadcast(b.load(at))],
    )
    return b.select(b.fcmp_ordered(">", y, code.zeros), y, b.fmul(y, slope))


_ACTIVATIONS: dict[int, Callable[[Code, Any, Any, Any], Any]] = {
    abi.NO_ACTIVATION: lambda code, slopes, slope_step, y: y,
    abi.RELU: _relu,
    abi.RELU6: _relu6,
    abi.HARDSWISH: _hardswish,
    abi.SLOPES: _slopes,
}


def _constant(code: Code, value: int) -> Any:
    """A vector with one value in all lanes."""
    return ir.Constant(code.vector, [float(value)] * code.lanes)


def finish_rows(size: int, lanes: int) -> Any:
    """The primitive `finish_rows`: a function for each activation."""
    kernels = {
        number: _finish_rows(size, lanes, number, *(_operation(size, n, activation) for n in (lanes, 1)))
        for number, activation in _ACTIVATIONS.items()
    }
    return chosen(size, "finish_rows", kernels, "slopes, slope_step, sums, residual, rows, ld, cols, step")


def _operation(size: int, lanes: int, activation: Callable[[Code, Any, Any, Any], Any]) -> Any:
    """finish(slopes, slope_step, sums, residual): finish a vector of neighbouring sums in place."""

    def emit(code: Code, slopes: Any, slope_step: Any, sums: Any, residual: Any) -> None:
        b, at = code.builder, code.pointer(sums)
        y = code.read(at)
        (y,) = code.branch(
            b.icmp_signed("!=", residual, I64(0)),
            lambda: [b.fadd(y, code.read(code.pointer(residual)))],
            lambda: [y],
        )
        code.write(activation(code, slopes, slope_step, y), at)

    return make_operation(size, lanes, "slopes slope_step sums residual", emit)


def _finish_rows(size: int, lanes: int, number: int, vector: Any, single: Any) -> Any:
    @inline(size, variant=number)
    def finish_rows_of(slopes, slope_step, sums, residual, rows, ld, cols, step):
        further = size if residual else 0  # without a residual its address stays 0
        for i in range(rows):
            at, added = sums + i * ld * size, residual + i * ld * further
            done = 0
            if step == 1:
                done = cols // lanes * lanes
                for j in range(0, done, lanes):
                    vector(slopes + j * slope_step * size, slope_step, at + j * size, added + j * further)
            for j in range(done, cols):
                single(slopes + j * slope_step * size, slope_step, at + j * step * size, added + j * step * further)

    return finish_rows_of
