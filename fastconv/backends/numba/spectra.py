"""Fourier transforms, generated from the programs of `kernels.fourier`, and products of spectra."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastconv.backends.numba.compiling import chosen
from fastconv.backends.numba.llvm import I64, Code, machine, make_operation, per_instruction_set
from fastconv.backends.numba.numba_internals import ir
from fastconv.backends.numba.winograd import product
from fastconv.kernels import fourier
from fastconv.kernels.abi import COMPLEX_SPAN, FOURIER
from fastconv.kernels.toom_cook import Program


def _complexes(code: Code, base: Any, ld: Any, n: int) -> list[Any]:
    """The addresses of n complex numbers, or of 2 n real vectors in pairs."""
    b, found = code.builder, []
    for number in range(n):
        at = code.at(base, b.mul(ld, I64(number)))
        found += [at, code.at(at, I64(code.lanes))]
    return found


def _emit(code: Code, program: Program, inputs: Sequence[Any], results: Sequence[Any], start: Any = None) -> None:
    """A transform of the vectors at the addresses `inputs` to `results`. With `start`, results are divided by the
    square of their number, and the vector there is added."""
    found = product(code, program, [code.read(address) for address in inputs])
    if start is not None:
        added, n = code.read(code.pointer(start)), len(results)
        factor = ir.Constant(code.vector, [1 / (n * n)] * code.lanes)
        found = [code.fma(value, factor, added) for value in found]
    for value, address in zip(found, results, strict=True):
        code.write(value, address)


def _complex(sign: int) -> Callable[[int, int, int], Any]:
    def make(size: int, lanes: int, n: int) -> Any:
        def emit(code: Code, x: Any, ld_x: Any, y: Any, ld_y: Any) -> None:
            inputs, results = (_complexes(code, code.pointer(at), ld, n) for at, ld in ((x, ld_x), (y, ld_y)))
            _emit(code, fourier.complex_transform(n, sign), inputs, results)

        return make_operation(size, lanes, "x ld_x y ld_y", emit)

    return make


def _real_forward(size: int, lanes: int, n: int) -> Any:
    def emit(code: Code, x: Any, ld_x: Any, first: Any, last: Any, y: Any, ld_y: Any) -> None:
        results = _complexes(code, code.pointer(y), ld_y, n // 2)
        results[:2] = [code.pointer(first), code.pointer(last)]
        _emit(code, fourier.real_transform(n), _complexes(code, code.pointer(x), ld_x, n // 2), results)

    return make_operation(size, lanes, "x ld_x first last y ld_y", emit)


def _to_real(code: Code, n: int, first: Any, last: Any, x: Any, ld_x: Any, y: Any, ld_y: Any, start: Any) -> None:
    inputs = _complexes(code, code.pointer(x), ld_x, n // 2)
    inputs[:2] = [code.pointer(first), code.pointer(last)]
    _emit(code, fourier.real_inverse(n), inputs, _complexes(code, code.pointer(y), ld_y, n // 2), start)


def _real_inverse(size: int, lanes: int, n: int) -> Any:
    def emit(code: Code, first: Any, last: Any, x: Any, ld_x: Any, y: Any, ld_y: Any) -> None:
        _to_real(code, n, first, last, x, ld_x, y, ld_y, None)

    return make_operation(size, lanes, "first last x ld_x y ld_y", emit)


def _real_output(size: int, lanes: int, n: int) -> Any:
    def emit(code: Code, first: Any, last: Any, x: Any, ld_x: Any, start: Any, y: Any, ld_y: Any) -> None:
        _to_real(code, n, first, last, x, ld_x, y, ld_y, start)

    return make_operation(size, lanes, "first last x ld_x start y ld_y", emit)


def _by_length(size: int, lanes: int, name: str, make: Callable[[int, int, int], Any], arguments: str) -> Any:
    return chosen(size, name, {number: make(size, lanes, n) for number, n in enumerate(FOURIER)}, arguments)


def _complex_tile(size: int, lanes: int, width: int) -> Any:
    """The micro-kernel `complex_span` of `kernels.spectra` for one width."""

    def emit(
        code: Code, a: Any, b: Any, ld_b: Any, offsets: Any, count: Any, start: Any, step: Any, sums: Any, ld_sums: Any
    ) -> None:  # fmt: skip
        build = code.builder
        a, b, offsets = code.pointer(a), code.pointer(b), code.integers(offsets)
        opposite_of_one = ir.Constant(code.vector, [-1.0] * lanes)

        def entry(t: Any, which: int) -> Any:
            return build.load(code.at(offsets, build.add(build.shl(t, I64(1)), I64(which))))

        def term(t: Any, accumulators: list[Any]) -> list[Any]:
            at = code.at(a, entry(t, 0))
            factor, turned = code.read(at), code.read(code.at(at, I64(lanes)))
            opposite, at, found = build.fmul(turned, opposite_of_one), code.at(b, entry(t, 1)), []
            for j in range(width):
                if j:
                    at = code.opaque(code.at(at, ld_b)) if j % 4 == 0 else code.at(at, ld_b)
                x, y = (code.broadcast(build.load(code.at(at, I64(offset)))) for offset in (0, lanes))
                real, imaginary = accumulators[2 * j : 2 * j + 2]
                real, imaginary = code.fma(factor, x, real), code.fma(opposite, x, imaginary)
                found += [code.fma(turned, y, real), code.fma(factor, y, imaginary)]
                code.barrier()  # pixels that are loaded early would need more registers than there are
            return found

        started = [code.read(at) for at in _complexes(code, code.pointer(start), step, width)]
        results = code.loop(count, started, term)
        for result, at in zip(results, _complexes(code, code.pointer(sums), ld_sums, width), strict=True):
            code.write(result, at)

    return make_operation(size, lanes, "a b ld_b offsets count start step sums ld_sums", emit)


@per_instruction_set
def spectra(size: int, lanes: int) -> dict[str, Any]:
    """The primitives of `kernels.spectra` by their names."""
    most = COMPLEX_SPAN[machine().kind]
    tiles = {width: _complex_tile(size, lanes, width) for width in range(1, most + 1)}
    arguments = "a, b, ld_b, offsets, count, start, step, sums, ld_sums"
    return {
        "MAX_COMPLEX_SPAN": most,
        "forward": _by_length(size, lanes, "forward", _complex(-1), "x, ld_x, y, ld_y"),
        "inverse": _by_length(size, lanes, "inverse", _complex(1), "x, ld_x, y, ld_y"),
        "real_forward": _by_length(size, lanes, "real_forward", _real_forward, "x, ld_x, first, last, y, ld_y"),
        "real_inverse": _by_length(size, lanes, "real_inverse", _real_inverse, "first, last, x, ld_x, y, ld_y"),
        "real_output": _by_length(size, lanes, "real_output", _real_output, "first, last, x, ld_x, start, y, ld_y"),
        "complex_span": chosen(size, "complex_span", tiles, arguments),
    }
