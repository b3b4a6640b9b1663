"""The exact McNemar test: did a model get worse on the very samples that another was judged on?

Source: McNemar, "Note on the sampling error of the difference between correlated proportions or percentages" (1947), in
its exact form: where both models are as good, each sample on which they differ is a fair coin.
"""

from __future__ import annotations

import math

import numpy as np


def mcnemar_worse(before: np.ndarray, after: np.ndarray) -> float:
    """The one-sided p-value of ``after`` being worse than ``before``; both bool (N,), True where a sample is right.

    The chance of at least as many lost samples, among those that were lost or gained, if either were as likely.

    Raises:
        ValueError: they are not of the same samples.
    """
    if before.shape != after.shape:
        raise ValueError(f"{before.shape} and {after.shape} samples cannot be paired")
    lost = int((before & ~after).sum())
    differing = lost + int((~before & after).sum())
    whole = math.lgamma(differing + 1) - differing * math.log(2)
    terms = (math.exp(whole - math.lgamma(k + 1) - math.lgamma(differing - k + 1)) for k in range(lost, differing + 1))
    return min(1.0, math.fsum(terms))
