"""Decimal numbers as the user wrote them.

0.1 as a binary float is a little more than a tenth, so ``ceil(0.1 * 1000 / 10)`` done with its
exact binary value is 11 and not 10. The shortest decimal that gives the float back is what the
user wrote; arithmetic on it is exact.
"""

from fractions import Fraction


def exact(number: float) -> Fraction:
    """The decimal a finite int or float is written as: ``exact(0.1) == Fraction(1, 10)``."""
    return Fraction(repr(number))
