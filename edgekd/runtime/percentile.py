"""How many samples a percentile needs: a binomial bound on order statistics.

The standard library only. Source: MLPerf's early stopping (mlcommons/inference_policies, "Early stopping criterion").
"""

from __future__ import annotations

import math
from typing import Any


def percentile(samples: Any, share: float, confidence: float = 0.99) -> float | None:
    """An upper estimate of a latency percentile that holds with ``confidence``; None when there are too few samples.

    The largest number t of samples is discarded so that, were more than 1 - ``share`` of all runs above what is left,
    seeing so few would have had a probability of at most 1 - ``confidence``. p90 needs 64 samples (one discarded),
    p99 662.
    """
    count = len(samples)
    most = binomial_quantile(count, 1 - share, 1 - confidence)
    # One sample must at least be discarded: the largest alone says nothing about a percentile.
    return float(sorted(samples)[count - 1 - most]) if most >= 1 else None


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
