"""The primitives that work on spectra, declared as in `primitives`: transforms of `fourier`, and products.

A complex number is two vectors, the real part first. n is entry `number` of `abi.FOURIER`. Of n real vectors, which are
listed in pairs, vector i is at x + i // 2 * ld_x + i % 2 * LANES; so neighbouring vectors have an `ld_x` of 2 * LANES.
Results may be where the inputs are.
"""

from __future__ import annotations

from fastconv.kernels.primitives import Address, Entries

#: Most tiles of a register tile of `complex_span`. The value is the engine's.
MAX_COMPLEX_SPAN = 0


def forward(number: int, x: Address, ld_x: int, y: Address, ld_y: int) -> None:
    """The forward transform of n complex numbers at x + k * ld_x, to y + k * ld_y."""
    raise NotImplementedError


def inverse(number: int, x: Address, ld_x: int, y: Address, ld_y: int) -> None:
    """n times the inverse transform of n complex numbers likewise."""
    raise NotImplementedError


def real_forward(number: int, x: Address, ld_x: int, first: Address, last: Address, y: Address, ld_y: int) -> None:
    """The spectrum of n real vectors in pairs: frequencies 0 and n / 2, which are real, to `first` and `last`, and the
    complex ones 0 < k < n / 2 to y + k * ld_y."""
    raise NotImplementedError


def real_inverse(number: int, first: Address, last: Address, x: Address, ld_x: int, y: Address, ld_y: int) -> None:
    """n times the real vectors, in pairs, that belong to a spectrum in that form."""
    raise NotImplementedError


def real_output(
    number: int, first: Address, last: Address, x: Address, ld_x: int, start: Address, y: Address, ld_y: int
) -> None:
    """The same divided by n * n, plus the vector at `start`."""
    raise NotImplementedError


def complex_span(
    width: int, a: Address, b: Address, ld_b: int, offsets: Entries, count: int, start: Address, step: int,
    sums: Address, ld_sums: int,
) -> None:  # fmt: skip
    """A register tile of `width` tiles, at most MAX_COMPLEX_SPAN, with a lane for each result,

        sums[j * ld_sums] = start[j * step] + sum over t of conj(a[offsets[2 * t]]) * b[offsets[2 * t + 1] + j * ld_b]

    over `count` terms, where each element of `a`, `start` and `sums` is a complex number of two vectors; that of `b` is
    one of two numbers, which are LANES elements from each other. `sums` may be where `b` is.
    """
    raise NotImplementedError
