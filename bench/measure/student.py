"""Student's t distribution, which the core environment has no library for: tested against SciPy to 1e-9."""

from __future__ import annotations

import math

_TERMS, _SMALLEST, _PRECISION = 10_000, 1e-300, 1e-15


def two_sided(t: float, df: float) -> float:
    """The probability of a |T| of at least |t| at `df` > 0 degrees of freedom, which may be no whole number.

    I_x(df / 2, 1 / 2) at x = df / (df + t^2): the regularized incomplete beta function (Abramowitz and
    Stegun 1964, 26.5.27 and 26.7.1). Nine digits up to 10,000 degrees.
    """
    if not df > 0:
        raise ValueError(f"{df} degrees of freedom")
    if math.isinf(t):
        return 0.0
    square = t * t
    return _beta(df / 2, 0.5, df / (df + square), square / (df + square))


def quantile(level: float, df: float) -> float:
    """The t >= 0 within which |T| is with probability `level`: 12.706 for 0.95 at one degree of freedom."""
    if not 0.0 <= level < 1.0:
        raise ValueError(f"level {level}")
    low, high = 0.0, 1.0
    while two_sided(high, df) > 1.0 - level:
        low, high = high, 2.0 * high
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if two_sided(middle, df) > 1.0 - level else (low, middle)
    return (low + high) / 2


def _beta(a: float, b: float, x: float, rest: float) -> float:
    """I_x(a, b), with `rest` = 1 - x given apart, since a difference would lose its digits near 1."""
    if x <= 0.0 or rest <= 0.0:
        return 0.0 if x <= 0.0 else 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest))
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _fraction(a, b, x) / a
    return 1.0 - front * _fraction(b, a, rest) / b


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method (Press et al. 2007, 6.4)."""
    c, d = 1.0, 1.0 / _away(1.0 - (a + b) * x / (a + 1.0))
    found = d
    for m in range(1, _TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        step = 1.0
        for term in (even, odd):
            d = 1.0 / _away(1.0 + term * d)
            c = _away(1.0 + term / c)
            step = c * d
            found *= step
        if abs(step - 1.0) < _PRECISION:
            break
    return found


def _away(value: float) -> float:
    """The value, or the smallest there is in place of a zero that would be divided by."""
    return value if abs(value) > _SMALLEST else _SMALLEST
