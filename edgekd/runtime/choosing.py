"""Which candidate ships: the fastest whose accuracy stays in the budget, never one slower than float unasked.

One rule for the build, which knows accuracies, and for the device, which knows that golden outputs hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

# However wide the intervals, a model whose measured latency is higher by more than this is not as fast: a noisy
# machine must not hide that it is slower.
TIE = 0.01
# Files whose sizes differ by less are equally small: a few scales more are no reason to ship the slower one.
SIZE_TIE = 0.01


@dataclass(frozen=True)
class Candidate:
    """What the choice knows of a candidate; ``low`` and ``high`` bound ``ratio``, its latency over the last one's.

    All three are None where it was not timed; ``accurate`` is None where its accuracy is not known.
    """

    name: str
    integer: bool
    ratio: float | None
    low: float | None
    high: float | None
    size_bytes: int
    accurate: bool | None


@dataclass(frozen=True)
class Choice:
    """Index of the candidate that ships, and why, as the report says it."""

    index: int
    reason: str


def choose(
    candidates: Sequence[Candidate], *, prefer: Literal["speed", "size"] = "speed", with_float: bool = True
) -> Choice:
    """The choice among ``candidates``, the last of which is the float one that the others were timed against.

    ``prefer`` speed: the fastest accurate one; where the difference is within noise (see `as_fast`) the smaller file
    wins, over float too; never one that is slower than float. ``prefer`` size: the smallest accurate integer one, at
    any speed. Of files as small (`SIZE_TIE`) the faster wins. The float one is the last resort, whatever is known of
    it; the others ship only when they are known to be accurate and were timed. Where none was timed, the target being
    elsewhere, the rules' own order decides: the first that is known to be accurate, or the first of all when no
    accuracy is known.

    Where float cannot be used at all, ``with_float`` is False: the last one is then just what the others were timed
    against, and none is too slow.

    Raises:
        ValueError: no candidates, or the last is an integer one although ``with_float``.
    """
    if not candidates or (with_float and candidates[-1].integer):
        raise ValueError("the last candidate must be the float one")
    last = len(candidates) - 1
    others, against = range(last), candidates[last].name
    times = {i: found for i in others if (found := _time(candidates[i])) is not None} | {last: (1.0, 1.0, 1.0)}
    accurate = [i for i in others if candidates[i].accurate]
    integers = [i for i in [*accurate, *([] if with_float else [last])] if candidates[i].integer]

    def smallest(indices: Iterable[int]) -> int:
        found = list(indices)
        bound = min(candidates[i].size_bytes for i in found) * (1 + SIZE_TIE)
        near = [i for i in found if candidates[i].size_bytes <= bound]
        return min(near, key=lambda i: (times[i][0] if i in times else math.inf, candidates[i].size_bytes))

    slower: list[int] = []
    unknown = all(candidates[i].accurate is None for i in others)
    if not others:
        best, why = last, "the only form"
    elif len(times) == 1 and unknown:
        best, why = 0, "the rules' first choice, nothing was measured on the target"
    elif prefer == "size" and integers:
        best, why = smallest(integers), "the recipe prefers size"
    elif len(times) == 1 and accurate:
        best, why = accurate[0], "the rules' first choice that keeps the accuracy, not timed on the target"
    else:
        timed = [i for i in accurate if i in times]
        fit = [i for i in timed if not with_float or as_fast(times[i], times[last])] + [last]
        slower = [i for i in timed if i not in fit]
        fastest = min(fit, key=lambda i: times[i][0])
        best = smallest(i for i in fit if as_fast(times[i], times[fastest]))
        if candidates[best].size_bytes < candidates[fastest].size_bytes:
            why = f"as fast as {candidates[fastest].name} within noise, and smaller"
        elif best == last and not integers and any(candidates[i].integer for i in others):
            why = "no integer form keeps the accuracy"
        else:
            why = "the fastest"

    parts = [why]
    if best in times and best != last:
        parts.append(f"{{:.2f}} of {against}'s latency ({{:.2f}} to {{:.2f}})".format(*times[best]))
    left = [i for i in others if i != best]
    for fault, those in (
        ("not accurate enough", [i for i in left if candidates[i].accurate is False]),
        ("accuracy not known", [] if unknown and best == 0 else [i for i in left if candidates[i].accurate is None]),
        (f"slower than {against}", slower),
        ("not timed", [i for i in left if candidates[i].accurate and i not in times and len(times) > 1]),
    ):
        if those:
            names = ", ".join(candidates[i].name for i in those)
            parts.append(f"{fault}: {names}")
    return Choice(best, "; ".join(parts))


def as_fast(one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    """Whether the first (ratio, low, high) is at least as fast as the second, or slower within noise.

    Within noise: the intervals overlap and the ratios differ by at most `TIE`.
    """
    return one[0] <= other[0] or (one[1] <= other[2] and one[0] <= other[0] * (1 + TIE))


def _time(one: Candidate) -> tuple[float, float, float] | None:
    found = (one.ratio, one.low, one.high)
    if any(value is None or not math.isfinite(value) for value in found):
        return None
    return found  # type: ignore[return-value]
