"""Discrete Fourier transforms of short lengths as straight-line programs, from which both engines generate code.

    forward   X[k] = sum over j of x[j] * exp(-2 pi i j k / n)
    inverse   x[j] = sum over k of X[k] * exp(+2 pi i j k / n), n times the inverse

The algorithm is split radix with conjugate pairs (I. Kamar and Y. Elcherif 1989). A transform of length n becomes one
of length n / 2, of the even elements, and two of length n / 4, of x[4 j + 1] and of x[4 j - 1], down to lengths 1, 2
and 3. Twiddle factors are cos * (1 + i tan), so that each multiplication is part of a fused multiply-add (E. Linzer and
E. Feig 1993). Where the tangent would exceed 1, the factor is written with the cotangent.

The spectrum of real elements has X[n - k] = conj(X[k]), so only half of the frequencies are computed.

A program is one of `toom_cook`. Complex elements are pairs of inputs or results, the real part first. A spectrum of
real elements is listed as X[0], X[n / 2], both real, then the pairs X[1], ..., X[n / 2 - 1].
"""

import functools
import math
from collections.abc import Sequence
from typing import TypeAlias

from fastconv.kernels.toom_cook import Program, Term

#: A real number: an element with the coefficient 1 or -1; None is zero. A complex number is a pair of these.
Real: TypeAlias = Term | None
Complex: TypeAlias = tuple[Real, Real]


def _negative(x: Real) -> Real:
    return None if x is None else Term(-x.coefficient, x.element)


def _conjugate(x: Complex) -> Complex:
    return x[0], _negative(x[1])


def _times_i(x: Complex, sign: int = 1) -> Complex:
    """x times i, or times -i."""
    return (_negative(x[1]), x[0]) if sign > 0 else (x[1], _negative(x[0]))


class _Sums:
    """The sums of a program of `width` inputs; equal sums are computed once."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.terms: list[tuple[Term, ...]] = []
        self._known: dict[tuple[Term, ...], int] = {}

    def _sum(self, *terms: Term) -> int:
        if terms not in self._known:
            self._known[terms] = self.width + len(self.terms)
            self.terms.append(terms)
        return self._known[terms]

    def add(self, x: Real, y: Real, factor: float = 1.0) -> Real:
        """x + factor * y."""
        if y is None:
            return x
        factor *= y.coefficient
        if x is None:
            if abs(factor) == 1:
                return Term(factor, y.element)
            return Term(math.copysign(1.0, factor), self._sum(Term(abs(factor), y.element)))
        if x.coefficient < 0 and factor == 1:
            return Term(1.0, self._sum(Term(1.0, y.element), Term(-1.0, x.element)))
        return Term(x.coefficient, self._sum(Term(1.0, x.element), Term(factor * x.coefficient, y.element)))

    def plus(self, x: Complex, y: Complex, factor: float = 1.0) -> Complex:
        """x + factor * y."""
        return self.add(x[0], y[0], factor), self.add(x[1], y[1], factor)

    def twisted(self, x: Complex, tangent: float) -> Complex:
        """x * (1 + i tangent)."""
        if not tangent:
            return x
        return self.add(x[0], x[1], -tangent), self.add(x[1], x[0], tangent)

    def _positive(self, x: Real) -> int:
        """The element of a result: a sum of the opposite terms if the result is the opposite of a sum."""
        if x is None:
            raise ValueError("a result that is always zero")
        if x.coefficient > 0:
            return x.element
        if x.element < self.width:
            return self._sum(Term(-1.0, x.element))
        return self._sum(*(Term(-factor, element) for factor, element in self.terms[x.element - self.width]))

    def program(self, results: Sequence[Real]) -> Program:
        """The program of these results, without the sums that none of them needs."""
        made = [self._positive(result) for result in results]
        needed: set[int] = set()
        waiting = [*made]
        while waiting:
            element = waiting.pop()
            if element >= self.width and element not in needed:
                needed.add(element)
                waiting += [term.element for term in self.terms[element - self.width]]
        kept = sorted(needed)
        numbers = {element: self.width + i for i, element in enumerate(kept)} | {i: i for i in range(self.width)}
        sums = (self.terms[element - self.width] for element in kept)
        renamed = tuple(tuple(Term(factor, numbers[element]) for factor, element in terms) for terms in sums)
        return Program(renamed, tuple(numbers[element] for element in made))


def _twiddle(number: int, of: int) -> tuple[float, float, bool]:
    """exp(2 pi i number / of), for an angle of a quarter of a turn at most, as factor * (1 + i tangent), or if the last
    value is true as i * factor * (1 + i tangent)."""
    eighth, rest = divmod(8 * number, of)
    if eighth == 0 or (eighth == 1 and rest == 0):
        angle = 2 * math.pi * number / of
        return math.cos(angle), 1.0 if eighth else math.tan(angle), False
    angle = 2 * math.pi * (of / 4 - number) / of
    return math.cos(angle), -math.tan(angle), True


def _transform(b: _Sums, x: Sequence[Complex], sign: int) -> list[Complex]:
    """The transform of complex elements; `sign` is that of the exponent."""
    n = len(x)
    if n == 1:
        return [*x]
    if n == 3:
        both, difference = b.plus(x[1], x[2]), b.plus(x[1], x[2], -1.0)
        rest, half = b.plus(x[0], both, -0.5), math.sqrt(0.75)
        turned = _times_i(difference, sign)
        return [b.plus(x[0], both), b.plus(rest, turned, half), b.plus(rest, turned, -half)]
    even = _transform(b, x[0::2], sign)
    found: list[Complex] = [(None, None)] * n
    if n % 4:
        odd = _transform(b, x[1::2], sign)
        for k in range(n // 2):
            # exp(i pi j) of j = 2 k / n: odd lengths n / 2 are turned back by whole turns
            found[k], found[k + n // 2] = _pair(b, even[k], odd[k], 2 * k, n, sign)
        return found
    one, three = (_transform(b, [x[(4 * j + of) % n] for j in range(n // 4)], sign) for of in (1, -1))
    for k in range(n // 4):
        sums = _butterfly(b, even[k], even[k + n // 4], one[k], three[k], k, n, sign)
        for i, value in enumerate(sums):
            found[k + i * n // 4] = value
    return found


def _pair(b: _Sums, even: Complex, odd: Complex, number: int, of: int, sign: int) -> tuple[Complex, Complex]:
    """even + w * odd and even - w * odd with w = exp(sign * pi i * number / of), for less than half of a turn."""
    turns, rest = divmod(2 * number, of)
    for _ in range(turns):
        odd = _times_i(odd, sign)
    factor, tangent, is_turned = _twiddle(rest, 4 * of)
    odd = b.twisted(odd, sign * tangent)
    if is_turned:
        odd = _times_i(odd, sign)
    return b.plus(even, odd, factor), b.plus(even, odd, -factor)


def _butterfly(
    b: _Sums, even: Complex, further: Complex, one: Complex, three: Complex, k: int, n: int, sign: int
) -> tuple[Complex, Complex, Complex, Complex]:
    """The elements k, k + n / 4, k + n / 2 and k + 3 n / 4 of a transform, from the elements k and k + n / 4 of the
    even part, and k of both odd parts."""
    factor, tangent, is_turned = _twiddle(k, n)
    one, three = b.twisted(one, sign * tangent), b.twisted(three, -sign * tangent)
    if is_turned:
        one, three = _times_i(one, sign), _times_i(three, -sign)
    both, difference = b.plus(one, three), _times_i(b.plus(one, three, -1.0), sign)
    return (
        b.plus(even, both, factor),
        b.plus(further, difference, factor),
        b.plus(even, both, -factor),
        b.plus(further, difference, -factor),
    )


def _spectrum(b: _Sums, x: Sequence[Real]) -> list[Complex]:
    """The frequencies 0, ..., n // 2 of n real elements."""
    n, quarter = len(x), len(x) // 4
    if n % 4:
        return _transform(b, [(element, None) for element in x], -1)[: n // 2 + 1]
    even = _spectrum(b, x[0::2])
    one, three = (_spectrum(b, [x[(4 * j + of) % n] for j in range(quarter)]) for of in (1, -1))
    found: list[Complex] = [(None, None)] * (n // 2 + 1)
    for k in range(quarter // 2 + 1):
        further = _conjugate(even[quarter - k])
        first, second, third, fourth = _butterfly(b, even[k], further, one[k], three[k], k, n, -1)
        found[quarter - k], found[n // 2 - k] = _conjugate(fourth), _conjugate(third)
        found[quarter + k], found[k] = second, first
    return found


def _elements(b: _Sums, x: Sequence[Complex]) -> list[Real]:
    """The real elements whose spectrum has the frequencies x[0], ..., x[n / 2], for an even n, times n."""
    n = 2 * len(x) - 2
    spectrum = [*x, *(_conjugate(one) for one in x[-2:0:-1])]
    if n % 4:
        return [real for real, _ in _transform(b, spectrum, 1)]
    quarter = n // 4
    even = _elements(b, x[0::2])
    one = _transform(b, spectrum[1::4], 1)
    found: list[Real] = [None] * n
    for j in range(quarter):  # the other odd part is the conjugate of this one
        factor, tangent, is_turned = _twiddle(j, n)
        real, imaginary = _times_i(b.twisted(one[j], tangent), 1) if is_turned else b.twisted(one[j], tangent)
        for start, part in ((j, real), (j + quarter, _negative(imaginary))):
            for to, sign in ((start, 2.0), (start + n // 2, -2.0)):
                found[to] = b.add(even[start], part, sign * factor)
    return found


def _reals(first: int, count: int) -> list[Real]:
    return [Term(1.0, first + number) for number in range(count)]


def _complexes(first: int, count: int) -> list[Complex]:
    return [(Term(1.0, first + 2 * number), Term(1.0, first + 2 * number + 1)) for number in range(count)]


def _flat(numbers: Sequence[Complex]) -> list[Real]:
    return [part for number in numbers for part in number]


@functools.cache
def complex_transform(n: int, sign: int) -> Program:
    """n complex elements to n complex ones; `sign` is that of the exponent, -1 for the forward transform."""
    b = _Sums(2 * n)
    return b.program(_flat(_transform(b, _complexes(0, n), sign)))


@functools.cache
def real_transform(n: int) -> Program:
    """n real elements to their spectrum."""
    b = _Sums(n)
    found = _spectrum(b, _reals(0, n))
    return b.program([found[0][0], found[-1][0], *_flat(found[1:-1])])


@functools.cache
def real_inverse(n: int) -> Program:
    """A spectrum to n times the real elements that it belongs to."""
    b = _Sums(n)
    first, last = _reals(0, 2)
    return b.program(_elements(b, [(first, None), *_complexes(2, n // 2 - 1), (last, None)]))
