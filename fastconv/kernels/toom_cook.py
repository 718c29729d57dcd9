"""The matrices of Winograd's convolution, computed from points by exact rationals (Toom and Cook; Winograd 1980).

    F(m, r):  y = A d,   d = (G g) * (B x)

are the m sums y[i] = sum over j of g[j] * x[i + j] of n = m + r - 1 elements x and r taps g, with n products instead of
m * r. Polynomials are evaluated at n - 1 points and at infinity, multiplied there, and interpolated; this is the
transposed form (Lavin and Gray 2016). In two dimensions each matrix is applied to the columns, then to the rows.

`chains` says in which order the rows of a matrix are added. Both compiled engines generate their code from it.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple, TypeAlias

#: The points in the order in which they are used. Errors grow with the number of points and with their powers; of the
#: choices that were measured, these have the smallest for F(4, 3).
POINTS = (Fraction(0), Fraction(1), Fraction(-1), Fraction(1, 2), Fraction(-2))

Matrix: TypeAlias = list[list[Fraction]]


class Term(NamedTuple):
    """A product of a sum: a coefficient, exact in floating point, and the number of what it multiplies."""

    coefficient: float
    element: int


#: For each row of a matrix its terms, in the order in which they are added.
Chains: TypeAlias = tuple[tuple[Term, ...], ...]


class Transforms(NamedTuple):
    """F(m, r).

    input     B, n rows of n
    weight    G without its divisors, n rows of r
    divisors  for each row of G what it is divided by
    output    A, m rows of n
    """

    input: Matrix
    weight: Matrix
    divisors: list[Fraction]
    output: Matrix


def transforms(outputs: int, taps: int) -> Transforms:
    """The matrices of F(outputs, taps)."""
    size = outputs + taps - 1
    points = POINTS[: size - 1]
    rows, divisors = [], []
    for point in points:
        others = [other for other in points if other != point]
        rows.append([*_product_of_roots(others), Fraction(0)])
        divisor = Fraction(1)
        for other in others:
            divisor *= point - other
        divisors.append(divisor)
    infinity = [Fraction(0)] * (taps - 1) + [Fraction(1)]
    return Transforms(
        input=[*rows, _product_of_roots(points)],
        weight=[*([point**j for j in range(taps)] for point in points), infinity],
        divisors=[*divisors, Fraction(1)],
        output=[[*(point**i for point in points), Fraction(int(i == outputs - 1))] for i in range(outputs)],
    )


def _product_of_roots(roots: Sequence[Fraction]) -> list[Fraction]:
    """The coefficients, that of x**0 first, of the product of (x - root)."""
    found = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *found], [*(-root * coefficient for coefficient in found), Fraction(0)]
        found = [a + b for a, b in zip(shifted, scaled, strict=True)]
    return found


def chains(matrix: Matrix) -> Chains:
    """The sums that a matrix stands for. A term with the coefficient 1 comes first, as it needs no multiplication."""
    found = []
    for row in matrix:
        terms = [Term(float(coefficient), number) for number, coefficient in enumerate(row) if coefficient]
        found.append(tuple(sorted(terms, key=lambda term: term.coefficient != 1)))
    return tuple(found)


def scales(outputs: int, taps: int) -> list[float]:
    """What the elements of a transformed weight in two dimensions are multiplied by, row by row."""
    divisors = transforms(outputs, taps).divisors
    return [float(1 / (a * b)) for a in divisors for b in divisors]
