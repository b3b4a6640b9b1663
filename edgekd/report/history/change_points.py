"""Where a series of values changes its level, and stays.

One change: the rank CUSUM of Pettitt, "A non-parametric approach to the change-point problem" (1979), each split's sum
standardized so that changes near an end are found too. Its largest value is held against those of random permutations
of the same values (Good, "Permutation, Parametric and Bootstrap Tests of Hypotheses", 2005), as is done for CI by Daly
et al., "The Use of Change Point Detection to Identify Software Performance Regressions in a Continuous Integration
System" (2020). Several changes: binary segmentation (Vostrikova, "Detecting disorder in multidimensional random
processes", 1981), then each is tested and placed anew between its neighbours.

The test of a stretch without a change is exact for whatever values can be exchanged: it finds one in at most ``error``
of such series. Values that hang together from run to run (a machine that warms up over days) cannot, and alarm more
often. Ranks leave single outliers without weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ERROR = 0.01
# Values on either side of a change: fewer tell a change from a few outliers too badly.
LEAST = 5
PERMUTATIONS = 999


@dataclass(frozen=True)
class ChangePoint:
    """The first value of the new level, and the chance that so clear a change comes of values that hold none."""

    index: int
    p_value: float


def change_points(
    values: Sequence[float], *, error: float = ERROR, least: int = LEAST, seed: int = 0
) -> list[ChangePoint]:
    """The changes in ``values``, in their order; none where there are fewer than twice ``least``.

    The same values give the same changes; ``seed`` chooses the permutations.

    Raises:
        ValueError: a value is not finite.
    """
    series = np.asarray(values, float)
    if not np.isfinite(series).all():
        raise ValueError("change points need finite values")
    rng = np.random.default_rng(seed)

    def find(begin: int, end: int) -> ChangePoint | None:
        found = _one_change(series[begin:end], least, rng)
        return ChangePoint(begin + found.index, found.p_value) if found and found.p_value <= error else None

    indices: list[int] = []
    stretches = [(0, len(series))]
    while stretches:
        begin, end = stretches.pop()
        change = find(begin, end)
        if change is not None:
            indices.append(change.index)
            stretches += [(begin, change.index), (change.index, end)]
    # A first split is placed while the other changes still blur it.
    indices.sort()
    kept: list[ChangePoint] = []
    for number, _ in enumerate(indices):
        begin = kept[-1].index if kept else 0
        end = indices[number + 1] if number + 1 < len(indices) else len(series)
        change = find(begin, end)
        if change is not None:
            kept.append(change)
    return kept


def _one_change(values: np.ndarray, least: int, rng: np.random.Generator) -> ChangePoint | None:
    count = len(values)
    if count < 2 * least:
        return None
    centred = _ranks(values) - (count + 1) / 2
    splits = np.arange(least, count - least + 1)
    scale = np.sqrt(splits * (count - splits))

    def largest(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sums = np.abs(np.cumsum(rows, axis=1)[:, splits - 1]) / scale
        return sums.max(axis=1), sums.argmax(axis=1)

    found, place = largest(centred[None])
    shuffled = rng.permuted(np.tile(centred, (PERMUTATIONS, 1)), axis=1)
    # The last bit of a sum depends on its order.
    as_large = int((largest(shuffled)[0] >= found[0] * (1 - 1e-12)).sum())
    return ChangePoint(int(splits[place[0]]), (1 + as_large) / (1 + PERMUTATIONS))


def _ranks(values: np.ndarray) -> np.ndarray:
    """From 1 on; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]
