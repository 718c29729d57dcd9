"""Prints the programs of fastconv/kernels as C functions on registers: the transforms of Winograd's convolution and of
Fourier."""

import types
from typing import Any


def sums(program: Any, inputs: list[str]) -> tuple[list[str], list[str]]:
    """The sums of a program as C, and its results, of registers of these names."""
    lines, known = [], [*inputs]
    for (first, element), *terms in program.sums:
        total = known[element]
        if first == -1:
            total = f"NAME(scaled)({total}, -1)"
        elif first != 1:
            total = f"NAME(fma)(NAME(broadcast)((ELEMENT){first!r}), {total}, NAME(zero)())"
        for coefficient, other in terms:
            factor, x = f"NAME(broadcast)((ELEMENT){coefficient!r})", known[other]
            if abs(coefficient) == 1:
                total = f"NAME({'add' if coefficient == 1 else 'subtract'})({total}, {x})"
            else:
                total = f"NAME(fma)({factor}, {x}, {total})"
        known.append(f"sum{len(lines)}")
        lines.append(f"    const vector {known[-1]} = {total};\n")
    return lines, [known[number] for number in program.results]


def matrix_function(name: str, matrix: Any, width: int) -> str:
    """A C function that multiplies a matrix, given by its program, by registers; `step` is the stride of the result."""
    lines, results = sums(matrix, [f"x[{number}]" for number in range(width)])
    lines += [f"    y[{number} * step] = {result};\n" for number, result in enumerate(results)]
    return f"INLINE void NAME({name})(const vector *x, vector *y, const int step) {{\n{''.join(lines)}}}\n"


def fourier_function(kind: str, number: int, program: Any, inputs: list[str], results: list[str]) -> str:
    """A C function that transforms the vectors at the addresses `inputs` to those at `results`; both depend on the
    function's arguments."""
    lines = [f"    const vector x{i} = NAME(read)({address});\n" for i, address in enumerate(inputs)]
    made, found = sums(program, [f"x{i}" for i in range(len(inputs))])
    if kind == "real_output":
        n = len(found)
        lines.append(f"    const vector factor = NAME(broadcast)((ELEMENT){1 / (n * n)!r}), all = NAME(read)(start);\n")
        found = [f"NAME(fma)({result}, factor, all)" for result in found]
    lines += made
    lines += [f"    NAME(write)({result}, {address});\n" for result, address in zip(found, results, strict=True)]
    return f"NOINLINE void NAME({kind}_{number})({kind.upper()}_ARGUMENTS) {{\n{''.join(lines)}}}\n"


def fourier_header(fourier: types.ModuleType, lengths: Any) -> str:
    """The transforms of `kernels.fourier` as C functions, by their numbers."""
    printed = []
    for number, n in enumerate(lengths):
        of_x, of_y = (
            [f"{name} + {i} * ld_{name}{part}" for i in range(n) for part in ("", " + LANES")] for name in "xy"
        )
        # real elements are listed in pairs, and a spectrum has its real frequencies first
        spectrum_of_x, spectrum_of_y = (["first", "last", *of[2:n]] for of in (of_x, of_y))
        to_real = fourier.real_inverse(n), spectrum_of_x, of_y[:n]
        for kind, program, inputs, results in (
            ("forward", fourier.complex_transform(n, -1), of_x, of_y),
            ("inverse", fourier.complex_transform(n, 1), of_x, of_y),
            ("real_forward", fourier.real_transform(n), of_x[:n], spectrum_of_y),
            ("real_inverse", *to_real),
            ("real_output", *to_real),
        ):
            printed.append(fourier_function(kind, number, program, inputs, results))
    rows = " ".join(f"DO({number})" for number in range(len(lengths)))
    return f"#undef FOR_FOURIER\n#define FOR_FOURIER(DO) {rows}\n" + "".join(printed)


def winograd_header(toom_cook: types.ModuleType, table: Any) -> str:
    """The matrices of `kernels.toom_cook` as C functions, by (outputs, taps); and each row of `abi.WINOGRAD`."""
    printed, rows, sizes = [], [], []
    for outputs, taps in sorted({axis for axes in table for axis in axes}):
        matrices = toom_cook.transforms(outputs, taps)
        printed += [
            matrix_function(f"{name}_of_{outputs}_{taps}", toom_cook.program(matrix), len(matrix[0]))
            for name, matrix in (("input", matrices.input), ("weight", matrices.weight), ("output", matrices.output))
        ]
        sizes.append(outputs + taps - 1)
    for number, axes in enumerate(table):
        factors = toom_cook.scales(*(toom_cook.transforms(*axis) for axis in axes))
        printed.append(f"static const ELEMENT NAME(scales_of_{number})[] = {{{', '.join(map(repr, factors))}}};\n")
        rows.append(f"DO({number}, {', '.join(str(extent) for axis in axes for extent in axis)})")
    defined = f"#undef FOR_WINOGRAD\n#define FOR_WINOGRAD(DO) {' '.join(rows)}\n"
    return f"{defined}#undef MAX_WINOGRAD\n#define MAX_WINOGRAD {max(sizes)}\n" + "".join(printed)
