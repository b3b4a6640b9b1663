"""The sequential test that a latency gate judges by: pure, so that a live run and a replay of its pairs tell the same.

Two errors are bounded, each by the whole ``error``, since only one of them can happen to a given model: telling a
*regression* of one that is slower by no more than the tolerance, and letting one *pass* that is slower by the tolerance
or more. So a look's interval is two-sided with ``2 * error / looks``, and both its ends are one-sided bounds.

The error is shared evenly among the planned looks (Bonferroni). Spending functions (Lan and DeMets, "Discrete
sequential boundaries for clinical trials", 1983) would use that looks overlap, but their boundaries want statistics
with independent normal increments, and a trimmed mean of 8 values is not one. What is given away is little: six looks
at 1 % want z > 2.94 here, where a constant boundary for normal increments would want 2.80.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .interval import trimmed_interval

# Pairs at each look; on from there each is 4/3 or 3/2 of the one before.
LOOKS = (8, 12, 16, 24, 32, 48)
# The chance of a wrong regression, and of a wrong pass, over all looks together.
ERROR = 0.01

Verdict = Literal["pass", "regression", "inconclusive"]


@dataclass(frozen=True)
class Plan:
    """What is fixed before the first look: ``tolerance`` 0.02 allows a ratio of 1.02.

    Raises:
        ValueError: a tolerance below -1 or not finite, an error outside (0, 0.5), looks that do not grow from 2 on.
    """

    tolerance: float
    error: float = ERROR
    looks: tuple[int, ...] = LOOKS

    def __post_init__(self) -> None:
        if not math.isfinite(self.tolerance) or self.tolerance <= -1:
            raise ValueError(f"the tolerance is {self.tolerance}; it is a share, such as 0.05")
        if not 0 < self.error < 0.5:
            raise ValueError(f"the error is {self.error}; it is a chance, such as 0.01")
        if not self.looks or self.looks[0] < 2 or list(self.looks) != sorted(set(self.looks)):
            raise ValueError(f"looks must grow, from at least 2 pairs: {self.looks}")

    @property
    def limit(self) -> float:
        """The log ratio that is still allowed."""
        return math.log1p(self.tolerance)

    @property
    def share(self) -> float:
        """The one-sided error of each end of one look's interval."""
        return self.error / len(self.looks)


@dataclass(frozen=True)
class Look:
    """The first ``pairs`` pairs: trimmed mean and its interval in logs, and what is decided by it, if anything."""

    pairs: int
    mean: float
    low: float
    high: float
    verdict: Literal["pass", "regression"] | None


@dataclass(frozen=True)
class Decision:
    """``verdict`` is None while more pairs are wanted; the last of ``looks`` decided, or was the last there was."""

    verdict: Verdict | None
    looks: tuple[Look, ...]


def decide(log_ratios: Sequence[float], plan: Plan, *, ended: bool) -> Decision:
    """The verdict over pairs in the order they were measured; ``ended``: there will be no more of them.

    Where they end between two looks, all of them get the look that was planned next, if there are enough for the first
    one. The number of pairs must not be chosen by their values, and a time budget does not.

    Raises:
        ValueError: a value is not finite.
    """
    looks: list[Look] = []
    for planned in plan.looks:
        if len(log_ratios) < planned and not ended:
            return Decision(None, tuple(looks))
        count = min(planned, len(log_ratios))
        if count < 2 or (looks and looks[-1].pairs == count):
            break
        looks.append(_look(log_ratios[:count], plan, deciding=count >= plan.looks[0]))
        if looks[-1].verdict is not None:
            return Decision(looks[-1].verdict, tuple(looks))
        if count < planned:
            break
    return Decision("inconclusive", tuple(looks))


def plan_within(took: Sequence[float], *, budget_s: float, tolerance: float, error: float = ERROR) -> Plan:
    """The plan whose looks fit into ``budget_s``, by the seconds that the pairs before the first look ``took``.

    How long a pair takes does not tell which side is slower, so the errors hold; looks that never come would cost those
    that do a part of the error. A look that is reached within a tenth is the last: waiting for the next one would not.
    """
    each = statistics.median(took) if took else budget_s
    return Plan(tolerance, error, planned_looks(0.9 * budget_s / each))


def planned_looks(most: float) -> tuple[int, ...]:
    """The looks of a run that can have about ``most`` pairs: the last is the first of the series that reaches it."""
    looks = list(LOOKS)
    while looks[-1] < most:
        last = looks[-1]
        # 32, 48, 64, 96, ...: powers of two, and half of the way to the next one.
        looks.append(last * 3 // 2 if last & (last - 1) == 0 else last * 4 // 3)
    while len(looks) > 1 and looks[-2] >= most:
        looks.pop()
    return tuple(looks)


def _look(values: Sequence[float], plan: Plan, *, deciding: bool) -> Look:
    mean, low, high = trimmed_interval(values, error=2 * plan.share)
    verdict: Literal["pass", "regression"] | None = None
    if deciding and low > plan.limit:
        verdict = "regression"
    elif deciding and high < plan.limit:
        verdict = "pass"
    return Look(len(values), mean, low, high, verdict)
