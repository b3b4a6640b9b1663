"""How exact a run of pairs is, and how many pairs another one would need.

All of it is taken from how the pairs' log ratios spread. The noise of a pair does not know which model is the newer
one, so the spread of A against B stands for that of A against A; where two models answer differently to the layout of
memory this is an approximation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .interval import TRIM, t_quantile, trimmed_interval
from .sequential import Plan, planned_looks

# The normal quantile of the chance with which the wanted run is to end with a verdict: 9 in 10.
CHANCE = 1.2816
# More pairs than this are not worth telling: a day of measuring.
MOST = 100_000


def standard_error(log_ratios: Sequence[float]) -> float:
    """Yuen's standard error of the trimmed mean, in log ratio.

    Raises:
        ValueError: fewer than two values.
    """
    mean, low, _ = trimmed_interval(log_ratios, error=0.5)
    return (mean - low) / t_quantile(0.5, kept(len(log_ratios)) - 1)


def aa_half_width(log_ratios: Sequence[float], plan: Plan) -> float:
    """Half the interval, in log ratio, that as many pairs of a model against itself would have at a look of ``plan``.

    Raises:
        ValueError: fewer than two values.
    """
    return t_quantile(2 * plan.share, kept(len(log_ratios)) - 1) * standard_error(log_ratios)


def pairs_needed(log_ratios: Sequence[float], error: float, distance: float) -> int | None:
    """How many pairs as noisy as these decide, 9 times of 10, when the true log ratio is ``distance`` off the limit.

    ``distance`` is the limit itself for a model against itself. None where it would be more than `MOST`, as for 0.

    Raises:
        ValueError: fewer than two values.
    """
    spread = standard_error(log_ratios) * math.sqrt(len(log_ratios))
    if spread == 0 and distance:
        return planned_looks(0)[0]
    if abs(distance) * math.sqrt(MOST) < CHANCE * spread or not distance:
        return None
    for count in planned_looks(MOST):
        if _enough(count, spread, error, distance):
            low, high = count * 2 // 3, count
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if _enough(middle, spread, error, distance) else (middle, high)
            return max(high, planned_looks(0)[0])
    return None


def kept(count: int) -> int:
    """Values left after trimming."""
    return count - 2 * int(TRIM * count)


def _enough(count: int, spread: float, error: float, distance: float) -> bool:
    share = error / len(planned_looks(count))
    return (t_quantile(2 * share, kept(count) - 1) + CHANCE) * spread / math.sqrt(count) <= abs(distance)
