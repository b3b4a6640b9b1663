"""The interval of a drop in accuracy, from the same samples before and after."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np


def paired_drop_interval(before: np.ndarray, after: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of accuracy(before) - accuracy(after) on the same samples, in points; ``before``, ``after`` bool (N,).

    Wald's interval for paired proportions with Agresti and Min's correction ("Simple improved confidence intervals for
    comparing matched proportions", 2005): half a count is added to each cell.
    """
    count = len(before) + 2
    lost = float((before & ~after).sum()) + 0.5
    gained = float((~before & after).sum()) + 0.5
    difference = (lost - gained) / count
    spread = math.sqrt(lost + gained - (lost - gained) ** 2 / count) / count
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * spread
    return 100 * (difference - half), 100 * (difference + half)
