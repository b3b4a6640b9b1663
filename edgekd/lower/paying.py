"""Which layers' integers pay: the cheapest division of a network into integer and float layers by their times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set

import networkx

Times = Mapping[str, float]
Crossing = Mapping[tuple[str, str], float]


def cheapest_floats(
    integer: Times, floats: Times, crossing: Crossing, forced: Set[str] = frozenset()
) -> tuple[frozenset[str], float]:
    """The segments that are better left in float, and the time of the whole network divided so.

    ``integer`` and ``floats``: the time of every segment in either form; ``crossing``: what it costs where the one of
    two neighbours is integer and the other is not; ``forced``: segments that are in float whatever it costs. It is a
    minimum cut (Greig, Porteous and Seheult, "Exact maximum a posteriori estimation for binary images", 1989), so no
    other division is cheaper.
    """
    graph = networkx.DiGraph()
    for name, cost in integer.items():
        graph.add_edge("is integer", name, capacity=floats[name])
        graph.add_edge(name, "is float", capacity=math.inf if name in forced else cost)
    for (one, other), cost in crossing.items():
        graph.add_edge(one, other, capacity=cost)
        graph.add_edge(other, one, capacity=cost)
    total, (_, side) = networkx.minimum_cut(graph, "is integer", "is float")
    return frozenset(side - {"is float"}), float(total)


def divided_time(kept: Set[str], integer: Times, floats: Times, crossing: Crossing) -> float:
    """The time of the whole network with the segments ``kept`` in float; see `cheapest_floats`."""
    own = sum(floats[name] if name in kept else cost for name, cost in integer.items())
    return own + sum(cost for (one, other), cost in crossing.items() if (one in kept) != (other in kept))
