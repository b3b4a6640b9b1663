"""Replaying the gate's whole decision procedure on kept pairs, and what the counts are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import beta

from edgekd.runtime.sequential import Plan, decide

Row = Sequence[Any]


@dataclass(frozen=True)
class Outcome:
    """One comparison: its verdict, and the pairs and seconds it took."""

    verdict: str
    pairs: int
    seconds: float


def replay(rows: Sequence[Row], plan: Plan, budget_s: float) -> Outcome:
    """What `runtime.gate.compare_until_decided` would have told of these pairs (log ratio, seconds, ...) in a row.

    It measures another pair as long as one of the median length so far still fits into the budget.
    """
    count, spent = 0, 0.0
    took: list[float] = []
    for row in rows[: plan.looks[-1]]:
        if took and spent + float(np.median(took)) > budget_s:
            break
        took.append(row[1])
        spent += row[1]
        count += 1
    found = decide([row[0] for row in rows[:count]], plan, ended=True)
    used = found.looks[-1].pairs if found.looks and found.looks[-1].verdict else count
    return Outcome(found.verdict or "inconclusive", used, float(sum(took[:used])))


def random_draws(
    pool: Sequence[Row], plan: Plan, budget_s: float, draws: int, rng: np.random.Generator
) -> list[Outcome]:
    """``draws`` comparisons of pairs drawn in random order; drawn anew only where the pool is smaller than a run."""
    most = plan.looks[-1]
    return [
        replay([pool[i] for i in rng.choice(len(pool), size=most, replace=len(pool) < most)], plan, budget_s)
        for _ in range(draws)
    ]


def windows(pool: Sequence[Row], plan: Plan, budget_s: float) -> list[Outcome]:
    """A comparison from every pair on in the order they were measured: with the machine's moods as they came."""
    return [
        replay(pool[begin : begin + plan.looks[-1]], plan, budget_s) for begin in range(len(pool) - plan.looks[-1] + 1)
    ]


def upper95(hits: int, runs: int) -> float:
    """The exact (Clopper and Pearson) one-sided 95 % upper bound of a rate."""
    return 1.0 if hits >= runs else float(beta.ppf(0.95, hits + 1, runs - hits))


def lower95(hits: int, runs: int) -> float:
    """The exact (Clopper and Pearson) one-sided 95 % lower bound of a rate."""
    return 0.0 if hits <= 0 else float(beta.ppf(0.05, hits, runs - hits + 1))
