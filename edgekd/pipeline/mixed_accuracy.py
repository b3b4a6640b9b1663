"""The fewest layers in float that keep the accuracy: a search over compiled models that is short and told."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

# What a search may cost: compiled models evaluated on the validation split, and the seconds after which none is begun.
EVALUATIONS, SECONDS = 14, 180.0


@dataclass
class Search:
    """``kept``: the layers in float that were found (None: no set keeps the accuracy); and what it cost."""

    kept: frozenset[str] | None = None
    evaluations: int = 0
    seconds: float = 0.0
    why: str = ""
    tried: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        kept = sorted(self.kept) if self.kept is not None else None
        return self.__dict__ | {"kept": kept, "seconds": round(self.seconds, 1)}


def fewest_floats(
    order: Sequence[str], keeps: Callable[[frozenset[str]], bool], *, evaluations: int = EVALUATIONS
) -> Search:
    """Find few layers whose float form makes ``keeps`` true; ``order`` has the most sensitive first.

    None in float is known not to keep it. The first 1, 2, 4, ... of the order are tried until it holds, the number is
    halved in between, and of those each but the last is tried as integer again: O(log N) evaluations and one for each
    layer found, at most ``evaluations`` and about `SECONDS`.
    """
    search, began = Search(), time.monotonic()

    def holds(kept: frozenset[str]) -> bool:
        found = keeps(kept)
        search.evaluations += 1
        search.seconds = time.monotonic() - began
        search.tried.append({"float_layers": len(kept), "accurate": found})
        if found:
            search.kept = kept
        return found

    def more() -> bool:
        return search.evaluations < evaluations and time.monotonic() - began < SECONDS

    low, high, most = 0, 1, len(order) - 1
    while low < most and more() and not holds(frozenset(order[:high])):
        low, high = high, min(2 * high, most)
    if search.kept is None:
        search.why = (
            "no set short of all layers keeps the accuracy" if more() else "the search ended before one was found"
        )
        return search
    while more() and high - low > 1:
        middle = (low + high) // 2
        if holds(frozenset(order[:middle])):
            high = middle
        else:
            low = middle
    for name in reversed(order[: high - 1]):
        if more():
            holds(search.kept - {name})
    few = "layer" if len(search.kept) == 1 else "layers"
    search.why = f"{len(search.kept)} of {len(order)} {few} in float keep the accuracy"
    if not more():
        search.why += "; the search ended there"
    return search
