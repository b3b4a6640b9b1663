"""The statistics of comparisons: trimmed intervals over pairs, paired accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def trimmed_interval(values: Sequence[float], *, error: float, trim: float = 0.1) -> tuple[float, float, float]:
    """Trimmed mean and its two-sided interval of ``error`` (Yuen, "The two-sample trimmed t", 1974), one sample.

    Raises:
        ValueError: fewer than two values are left after trimming, or one is not finite.
    """
    from scipy.stats import t

    ordered = np.sort(np.asarray(values, float))
    count, cut = len(ordered), int(trim * len(ordered))
    kept = ordered[cut : count - cut]
    if len(kept) < 2:
        raise ValueError("an interval needs at least two values")
    if not np.isfinite(ordered).all():
        raise ValueError("an interval needs finite values")
    winsorized = np.clip(ordered, kept[0], kept[-1])
    error_of_mean = math.sqrt(float(np.square(winsorized - winsorized.mean()).sum()) / (len(kept) * (len(kept) - 1)))
    mean = float(kept.mean())
    half = float(t.ppf(1 - error / 2, len(kept) - 1)) * error_of_mean
    return mean, mean - half, mean + half


def paired_drop_interval(before: np.ndarray, after: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of accuracy(before) - accuracy(after) on the same samples, in points; ``before``, ``after`` bool (N,).

    Wald's interval for paired proportions with Agresti and Min's correction ("Simple improved confidence intervals for
    comparing matched proportions", 2005): half a count is added to each cell.
    """
    from scipy.stats import norm

    count = len(before) + 2
    lost = float((before & ~after).sum()) + 0.5
    gained = float((~before & after).sum()) + 0.5
    difference = (lost - gained) / count
    spread = math.sqrt(lost + gained - (lost - gained) ** 2 / count) / count
    half = float(norm.ppf(0.5 + confidence / 2)) * spread
    return 100 * (difference - half), 100 * (difference + half)
