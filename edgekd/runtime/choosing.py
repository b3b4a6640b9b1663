"""Which candidate a device keeps: the fastest whose golden outputs hold, never one slower than float unasked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# However wide the intervals, a model whose measured latency is higher by more than this is not as fast.
TIE = 0.01


class Timed(NamedTuple):
    """A candidate whose golden outputs hold; ``ratio`` is its latency over ``against``'s, within low and high.

    ``float32`` marks the float one, which all are timed against where it runs.
    """

    name: str
    integer: bool
    float32: bool
    ratio: float
    low: float
    high: float
    size_bytes: int
    against: str = "float"


def pick(candidates: Sequence[Timed], *, prefer: str) -> tuple[str, str]:
    """(name, why) of the one to keep.

    ``prefer`` "speed": the fastest; within noise the smaller file; never one that is slower than float. "size": the
    smallest integer one, at any speed.

    Raises:
        ValueError: there are no candidates.
    """
    integers = [one for one in candidates if one.integer]
    if prefer == "size" and integers:
        best = min(integers, key=lambda one: (one.size_bytes, one.ratio))
        return best.name, f"the recipe prefers size; {_speed(best)}"
    floats = [one for one in candidates if one.float32]
    fit = [one for one in candidates if all(as_fast(one, other) for other in floats)]
    fastest = min(fit, key=lambda one: one.ratio)
    best = min((one for one in fit if as_fast(one, fastest)), key=lambda one: (one.size_bytes, one.ratio))
    why = "the fastest" if best is fastest else f"as fast as {fastest.name} within noise, and smaller"
    slower = [one.name for one in candidates if one not in fit]
    return best.name, "; ".join(
        [why if len(candidates) > 1 else "the only one whose golden outputs hold"]
        + ([] if best.name == best.against else [_speed(best)])
        + ([f"slower than {floats[0].name}: {', '.join(slower)}"] if slower else [])
    )


def as_fast(one: Timed, other: Timed) -> bool:
    """Whether the first is at least as fast as the second, or slower within noise.

    Within noise: the intervals overlap and the ratios differ by at most `TIE`.
    """
    return one.ratio <= other.ratio or (one.low <= other.high and one.ratio <= other.ratio * (1 + TIE))


def _speed(one: Timed) -> str:
    return f"{one.ratio:.2f} of {one.against}'s latency ({one.low:.2f} to {one.high:.2f})"
