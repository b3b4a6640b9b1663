"""How many samples a percentile needs: a binomial bound on order statistics.

The standard library only. Source: MLPerf's early stopping, as its LoadGen computes it (mlcommons/inference,
loadgen/early_stopping.cc and the single-stream estimate in results.cc).
"""

from __future__ import annotations

import math
from typing import Any


def percentile(samples: Any, share: float, confidence: float = 0.99) -> float | None:
    """An upper estimate of a latency percentile that holds with ``confidence``; None when there are too few samples.

    The estimate is the t-th largest sample, t being the most samples that may lie over a percentile: were more than
    1 - ``share`` of all runs so slow, seeing as few as t of them would have had a probability of at most
    1 - ``confidence``. t must be at least 1, so p90 needs 64 samples and p99 662. LoadGen discards t - 1 samples too:
    172 of 2048 for p90.
    """
    count = len(samples)
    over = binomial_quantile(count, 1 - share, 1 - confidence)
    return float(sorted(samples)[count - over]) if over >= 1 else None


def binomial_quantile(count: int, chance: float, bound: float) -> int:
    """The largest t with P(X <= t) <= ``bound`` for X ~ Binomial(``count``, ``chance``); -1 where there is none."""
    log_hit, log_miss, whole = math.log(chance), math.log1p(-chance), math.lgamma(count + 1)
    total = 0.0
    for t in range(count + 1):
        ways = whole - math.lgamma(t + 1) - math.lgamma(count - t + 1)
        total += math.exp(ways + t * log_hit + (count - t) * log_miss)
        if total > bound:
            return t - 1
    return count
