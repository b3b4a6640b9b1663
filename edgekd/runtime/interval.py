"""The interval that build and device judge pairs by: a trimmed t over pairs, with Student's quantile as computed here.

Sources: Yuen, "The two-sample trimmed t for unequal population variances" (1974), for one sample; the incomplete beta
function by Lentz's continued fraction (Numerical Recipes, 6.4), inverted by bisection.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

# The share of values that is left out at each end.
TRIM = 0.1


def trimmed_interval(values: Sequence[float], *, error: float) -> tuple[float, float, float]:
    """Trimmed mean and its two-sided interval of ``error``.

    Raises:
        ValueError: fewer than two values are left after trimming, or one is not finite.
    """
    ordered = np.sort(np.asarray(values, float))
    count, cut = len(ordered), int(TRIM * len(ordered))
    kept = ordered[cut : count - cut]
    if len(kept) < 2:
        raise ValueError("an interval needs at least two values")
    if not np.isfinite(ordered).all():
        raise ValueError("an interval needs finite values")
    winsorized = np.clip(ordered, kept[0], kept[-1])
    error_of_mean = math.sqrt(float(np.square(winsorized - winsorized.mean()).sum()) / (len(kept) * (len(kept) - 1)))
    mean = float(kept.mean())
    half = t_quantile(error, len(kept) - 1) * error_of_mean
    return mean, mean - half, mean + half


@lru_cache(maxsize=4096)
def t_quantile(error: float, freedom: int) -> float:
    """The t that Student's distribution of ``freedom`` degrees exceeds in absolute value with probability ``error``.

    Raises:
        ValueError: ``error`` is not inside (0, 1), or there is no degree of freedom.
    """
    if not 0 < error < 1 or freedom < 1:
        raise ValueError(f"no quantile of error {error} and {freedom} degrees of freedom")
    # Bisected over log t, up to 1e150, whose square is still a number.
    low, high = -50.0, 345.0
    for _ in range(200):
        middle = (low + high) / 2
        if two_sided_tail(math.exp(middle), freedom) > error:
            low = middle
        else:
            high = middle
        if high - low < 1e-14 * max(1.0, abs(high)):
            break
    return math.exp((low + high) / 2)


def two_sided_tail(t: float, freedom: int) -> float:
    """P(|T| > t) for Student's T, t > 0: I_x(freedom / 2, 1 / 2) with x = freedom / (freedom + t^2)."""
    square = t * t / freedom
    # Both shares are kept, since 1 - x loses digits where x is near 1.
    x, rest = 1 / (1 + square), square / (1 + square)
    a, b = freedom / 2, 0.5
    log_scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    if x < (a + 1) / (a + b + 2):
        return math.exp(log_scale) * _fraction(x, a, b) / a
    return 1 - math.exp(log_scale) * _fraction(rest, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta function."""
    tiny = 1e-300
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1), tiny)
    found = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away(1 + term * d, tiny)
            c = _away(1 + term / c, tiny)
            found *= c * d
        if abs(c * d - 1) < 1e-16:
            break
    return found


def _away(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
