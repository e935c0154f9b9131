"""The matrices of Winograd's algorithm, by Toom and Cook: a sliding sum as a product of polynomials.

Sources: Winograd 1980, "Arithmetic complexity of computations"; Lavin and Gray 2015, arXiv 1509.09308.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from math import prod

import numpy as np

from minidl.arrays import Array
from minidl.errors import ArgumentError

# Where the polynomials are evaluated, besides at infinity: small numbers and quotients first, as their powers fill the
# matrices.
POINTS = tuple(Fraction(p) for p in ("0", "1", "-1", "1/2", "-1/2", "2", "-2", "1/4", "-4"))


def matrices(m: int, r: int) -> tuple[Array, Array, Array]:
    """Aᵀ (m, t), G (t, r) and Bᵀ (t, t) in float64, t = m + r − 1, for m outputs of a filter with r taps.

    A product of polynomials is known by its values at t − 1 points and at infinity. G evaluates the filter there, each
    value divided by Π (a_j − a_l); B holds the Lagrange polynomials that lead back; and A evaluates again, since not
    the product is wanted but its transpose, a sliding sum.

    >>> At, G, Bt = matrices(2, 3)
    >>> d, g = np.array([1.0, 2.0, 3.0, 5.0]), np.array([1.0, 10.0, 100.0])
    >>> At @ ((G @ g) * (Bt @ d))
    array([321., 532.])

    Raises: ArgumentError where m + r − 2 points are more than there are.
    """
    t = m + r - 1
    if t - 1 > len(POINTS):
        raise ArgumentError(
            f"m + r: expected at most {len(POINTS) + 2}, as there are {len(POINTS)} points, got {m + r}"
        )
    points = POINTS[: t - 1]
    At = [[a**i for a in points] + [Fraction(i == m - 1)] for i in range(m)]
    G = [[a**k / prod(a - b for b in points if b != a) for k in range(r)] for a in points]
    G.append([Fraction(k == r - 1) for k in range(r)])
    Bt = [[*_polynomial(b for b in points if b != a), Fraction(0)] for a in points]
    Bt.append(_polynomial(points))
    return _floats(At), _floats(G), _floats(Bt)


def _polynomial(roots: Iterable[Fraction]) -> list[Fraction]:
    """The coefficients of Π (x − root), from that of x⁰ on."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *coefficients], [*(-root * c for c in coefficients), Fraction(0)]
        coefficients = [a + b for a, b in zip(shifted, scaled, strict=True)]
    return coefficients


def _floats(rows: list[list[Fraction]]) -> Array:
    return np.array([[float(number) for number in row] for row in rows])
