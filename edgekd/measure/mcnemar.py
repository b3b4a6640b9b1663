"""Did a model get worse on the very samples that another was judged on? The exact McNemar test, and with an allowance.

Source: McNemar, "Note on the sampling error of the difference between correlated proportions or percentages" (1947), in
its exact form: where both models are as good, each sample on which they differ is a fair coin. With an allowance the
score test of Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
design" (1998).
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np


def worse_p_value(before: np.ndarray, after: np.ndarray, *, allowed: float = 0.0) -> float:
    """The one-sided p-value of ``after`` being worse than ``before`` by more than ``allowed``, a share of all samples.

    Both bool (N,), True where a sample is right. Without an allowance the chance of at least as many lost samples,
    among those that were lost or gained, if either were as likely; with one at least that, and Tango's.

    Raises:
        ValueError: they are not of the same samples.
    """
    if before.shape != after.shape:
        raise ValueError(f"{before.shape} and {after.shape} samples cannot be paired")
    lost, gained = int((before & ~after).sum()), int((~before & after).sum())
    exact = _mcnemar(lost, gained)
    return max(exact, _tango(lost, gained, len(before), allowed)) if allowed > 0 else exact


def _mcnemar(lost: int, gained: int) -> float:
    differing = lost + gained
    whole = math.lgamma(differing + 1) - differing * math.log(2)
    terms = (math.exp(whole - math.lgamma(k + 1) - math.lgamma(differing - k + 1)) for k in range(lost, differing + 1))
    return min(1.0, math.fsum(terms))


def _tango(lost: int, gained: int, count: int, allowed: float) -> float:
    """The chance of such a drop where the true one is ``allowed``; the chance to gain is then its likeliest value."""
    if lost - gained <= count * allowed or allowed >= 1:
        return 1.0
    linear = lost + gained - allowed * (2 * count - lost + gained)
    gain = (linear + math.sqrt(linear**2 + 8 * count * gained * allowed * (1 - allowed))) / (4 * count)
    spread = math.sqrt(count * (2 * gain + allowed - allowed**2))
    return 1 - NormalDist().cdf((lost - gained - count * allowed) / spread)
