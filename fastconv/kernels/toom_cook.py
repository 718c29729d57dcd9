"""The matrices of Winograd's convolution, computed from points by exact rationals (Toom and Cook; Winograd 1980).

    F(m, r):  y = A d,   d = (G g) * (B x)

are the m sums y[i] = sum over j of g[j] * x[i + j] of n = m + r - 1 elements x and r taps g, with n products instead of
m * r. Polynomials are evaluated at n - 1 points and at infinity, multiplied there, and interpolated; this is the
transposed form (Lavin and Gray 2016). In two dimensions each matrix is applied to the columns, then to the rows.

`program` says in which order the products of a matrix are added. Both compiled engines generate their code from it.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple, TypeAlias

_HALVES = Fraction(1, 2), Fraction(-1, 2), Fraction(3, 2), Fraction(-3, 2)
#: The finite points for tiles of a size. `bench/points.py` prints the errors of these and of other points.
POINTS = {1: (), 4: (Fraction(0), Fraction(1), Fraction(-1)), 5: _HALVES, 6: (Fraction(0), *_HALVES)}

Matrix: TypeAlias = list[list[Fraction]]


class Term(NamedTuple):
    """A product of a sum: a coefficient, exact in floating point, and the number of what it multiplies."""

    coefficient: float
    element: int


class Program(NamedTuple):
    """A matrix times a vector, as sums.

    sums     the terms of each sum in the order in which they are added; elements beyond those of the vector are the
             sums before it
    results  for each row of the matrix the number of its sum, counted likewise
    """

    sums: tuple[tuple[Term, ...], ...]
    results: tuple[int, ...]


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


def transforms(outputs: int, taps: int, points: Sequence[Fraction] | None = None) -> Transforms:
    """The matrices of F(outputs, taps), by default with `POINTS`. Those of F(1, 1) are 1."""
    if points is None:
        points = POINTS[outputs + taps - 1]
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


def program(matrix: Matrix) -> Program:
    """The sums of a matrix.

    Rows of two points p and -p differ in the sign of the odd or of the even coefficients. They are the sum and the
    difference of what these two kinds add up to, which takes about half of the additions.
    """
    sums: list[tuple[Term, ...]] = []
    results: dict[int, int] = {}
    width = len(matrix[0])

    def add(*terms: Term) -> int:
        sums.append(terms)
        return width + len(sums) - 1

    for number, row in enumerate(matrix):
        if number in results:
            continue
        opposite = next((other for other in range(number + 1, len(matrix)) if _are_opposite(row, matrix[other])), None)
        if opposite is None:
            results[number] = add(*_terms(row))
            continue
        kept, changed = (
            add(*_terms([x if (x == y) is same else Fraction(0) for x, y in zip(row, matrix[opposite], strict=True)]))
            for same in (True, False)
        )
        results[number] = add(Term(1.0, kept), Term(1.0, changed))
        results[opposite] = add(Term(1.0, kept), Term(-1.0, changed))
    return Program(tuple(sums), tuple(results[number] for number in range(len(matrix))))


def _are_opposite(row: list[Fraction], other: list[Fraction]) -> bool:
    """Whether rows differ in some signs only, not in all of them."""
    return row != other and row != [-x for x in other] and [*map(abs, row)] == [*map(abs, other)]


def _terms(row: list[Fraction]) -> tuple[Term, ...]:
    """The products of a row. One with the coefficient 1 comes first, as it needs no multiplication."""
    terms = [Term(float(coefficient), number) for number, coefficient in enumerate(row) if coefficient]
    return tuple(sorted(terms, key=lambda term: term.coefficient != 1))


def scales(rows: Transforms, cols: Transforms) -> list[float]:
    """What the elements of a weight that is transformed on both axes are multiplied by, row by row."""
    return [float(1 / (a * b)) for a in rows.divisors for b in cols.divisors]
