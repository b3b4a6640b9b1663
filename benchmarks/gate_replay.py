"""Replaying the gate's whole decision procedure on kept pairs, and what the counts are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import beta

from edgekd.runtime.sequential import LOOKS, Plan, decide, plan_within, planned_looks

Row = Sequence[Any]


@dataclass(frozen=True)
class Outcome:
    """One comparison: its verdict, and the pairs and seconds it took."""

    verdict: str
    pairs: int
    seconds: float


def replay(rows: Sequence[Row], tolerance: float, budget_s: float) -> Outcome:
    """What `runtime.gate.compare_until_decided` would have told of these pairs (log ratio, seconds, ...) in a row.

    It measures another pair as long as one of the median length so far still fits into the budget, and plans its looks
    when the first is due.
    """
    took: list[float] = []
    plan: Plan | None = None
    for row in rows:
        if (took and sum(took) + float(np.median(took)) > budget_s) or (plan and len(took) == plan.looks[-1]):
            break
        took.append(row[1])
        if len(took) == LOOKS[0]:
            plan = plan_within(took, budget_s=budget_s, tolerance=tolerance)
    plan = plan or plan_within(took, budget_s=budget_s, tolerance=tolerance)
    found = decide([row[0] for row in rows[: len(took)]], plan, ended=True)
    used = found.looks[-1].pairs if found.looks and found.looks[-1].verdict else len(took)
    return Outcome(found.verdict or "inconclusive", used, float(sum(took[:used])))


def random_draws(
    pool: Sequence[Row],
    tolerance: float,
    budget_s: float,
    draws: int,
    rng: np.random.Generator,
    *,
    replace: bool = False,
) -> list[Outcome]:
    """``draws`` comparisons of pairs drawn in random order.

    Drawn anew (``replace``) where the pool is smaller than a run, and where its mean was set: draws that leave a part
    of the pool over have means nearer to the pool's than independent pairs have to theirs.
    """
    most = _most(pool, budget_s)
    anew = replace or len(pool) < most
    return [
        replay([pool[i] for i in rng.choice(len(pool), size=most, replace=anew)], tolerance, budget_s)
        for _ in range(draws)
    ]


def windows(pool: Sequence[Row], tolerance: float, budget_s: float) -> list[Outcome]:
    """A comparison from every pair on in the order they were measured: with the machine's moods as they came."""
    most = _most(pool, budget_s)
    return [replay(pool[begin : begin + most], tolerance, budget_s) for begin in range(len(pool) - most + 1)]


def _most(pool: Sequence[Row], budget_s: float) -> int:
    """As many pairs as a budget could take."""
    return planned_looks(budget_s / float(np.median([row[1] for row in pool])))[-1]


def upper95(hits: int, runs: int) -> float:
    """The exact (Clopper and Pearson) one-sided 95 % upper bound of a rate."""
    return 1.0 if hits >= runs else float(beta.ppf(0.95, hits + 1, runs - hits))


def lower95(hits: int, runs: int) -> float:
    """The exact (Clopper and Pearson) one-sided 95 % lower bound of a rate."""
    return 0.0 if hits <= 0 else float(beta.ppf(0.05, hits, runs - hits + 1))
