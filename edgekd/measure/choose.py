"""Which candidate ships: the fastest whose accuracy stays in the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """What the choice knows of a candidate; ``low`` and ``high`` bound its latency over the float one's."""

    name: str
    integer: bool
    ratio: float
    low: float
    high: float
    size_bytes: int
    accurate: bool


@dataclass(frozen=True)
class Choice:
    """Index of the candidate that ships, and why, as the report says it."""

    index: int
    reason: str


def choose(candidates: Sequence[Candidate], *, prefer: str) -> Choice:
    """The choice among ``candidates``, the last of which is the float one that the others were timed against.

    ``prefer`` speed: the fastest accurate one; where the difference is within noise the smaller file wins; never one
    that is shown to be slower than float. ``prefer`` size: the smallest accurate integer one, at any speed.
    """
    reference = len(candidates) - 1
    fit = [i for i, one in enumerate(candidates) if one.accurate or i == reference]
    integers = [i for i in fit if candidates[i].integer]
    if prefer == "size" and integers:
        best = min(integers, key=lambda i: (candidates[i].size_bytes, candidates[i].ratio))
        return Choice(best, f"the recipe prefers size; {_told(candidates[best])}")
    fit = [i for i in fit if i == reference or candidates[i].low <= 1]
    fastest = min(fit, key=lambda i: candidates[i].ratio)
    # Within noise: the intervals overlap, so neither is shown to be faster.
    near = [i for i in fit if candidates[i].low <= candidates[fastest].high]
    best = min(near, key=lambda i: (candidates[i].size_bytes, candidates[i].ratio))
    left = [one.name for i, one in enumerate(candidates) if not one.accurate and i != reference]
    why = "the fastest" if best == fastest else f"as fast as {candidates[fastest].name} within noise, and smaller"
    if best == reference and not integers:
        why = "no integer form keeps the accuracy"
    if left:
        why += f"; not accurate enough: {', '.join(left)}"
    return Choice(best, f"{why}; {_told(candidates[best])}")


def _told(one: Candidate) -> str:
    return f"{one.ratio:.2f} of float's latency ({one.low:.2f} to {one.high:.2f})"
