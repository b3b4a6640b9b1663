"""What else happened while a gate measured: a table, and a few words where it tells of a disturbed machine.

Nothing here is part of a verdict. The thresholds only choose what is worth a reader's attention; they lie above what
idle machines show and below what one busy neighbour process makes of them (docs/bench.md, "Witnesses").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgekd.gate_result import GateResult, PairSide
from edgekd.report.tables import DASH, Table
from edgekd.report.wording import SPACE, count, percent, plural, significant

# Of the time, while some process waited for a CPU, or the hypervisor gave it to others.
PRESSURE, STEAL = 0.10, 0.01
# A process that has a CPU to itself is interrupted by housekeeping some ten times a second.
SWITCHES = 50.0
# How far one model's processes may differ in CPU time per wall time, and the clock between pairs, as shares.
CPU_SPREAD, CLOCK_SPREAD = 0.10, 0.10


def _plain(value: float) -> str:
    return significant(value)


def _share(value: float) -> str:
    return percent(value, 1)


@dataclass(frozen=True)
class _Kind:
    key: str
    name: str
    write: Callable[[float], str]


_KINDS = (
    _Kind("cpu_share", "CPU time over wall time", _plain),
    _Kind("involuntary_switches", "Interruptions a second", _plain),
    _Kind("pressure_share", "Time in which some process waited for a CPU", _share),
    _Kind("steal_share", "CPU time stolen by the hypervisor", _share),
    _Kind("mhz", "Clock", lambda value: f"{count(value)}{SPACE}MHz"),
    _Kind("throttled", "Times slowed down for heat", count),
    _Kind("instructions", "Instructions a run", lambda value: count(value)),
)


def disturbances(result: GateResult) -> list[str]:
    """What tells of a disturbed machine, each in a few words; empty on a quiet one, or one that tells nothing."""
    found = []
    pressure, steal, switches = (
        _median(_both(result, key)) for key in ("pressure_share", "steal_share", "involuntary_switches")
    )
    if pressure > PRESSURE:
        found.append(f"some process waited for a CPU {_share(pressure)} of the time")
    if steal > STEAL:
        found.append(f"the hypervisor took {_share(steal)} of the CPU time")
    if switches > SWITCHES:
        found.append(f"the models were interrupted {count(switches)} times a second")
    for side in ("new", "old"):
        shares = _values(result, side, "cpu_share")
        if len(shares) > 1 and min(shares) < (1 - CPU_SPREAD) * max(shares):
            spread = f"{significant(min(shares), 2)} and {significant(max(shares), 2)}"
            found.append(f"the {side} model's processes got between {spread} CPUs")
    clock = _both(result, "mhz")
    if clock and min(clock) < (1 - CLOCK_SPREAD) * max(clock):
        found.append(f"the clock went from {count(min(clock))} to {count(max(clock))}{SPACE}MHz")
    throttled = sum(_both(result, "throttled"))
    if throttled:
        found.append(f"cores slowed down for heat {plural(round(throttled), 'time')}")
    steady = [one.steady for pair in result.latency.pairs for one in (pair.new, pair.old) if one.steady is not None]
    if steady and sum(steady) < len(steady) / 2:
        found.append(
            f"{plural(len(steady) - sum(steady), 'process', 'processes')} of {len(steady)} warmed up to no steady speed"
        )
    return found


def disturbed_words(result: GateResult) -> str:
    """The same as one sentence; empty where there is nothing to tell."""
    found = disturbances(result)
    return f"The machine was disturbed: {'; '.join(found)}. This is no part of the verdict." if found else ""


def witness_table(result: GateResult) -> Table:
    """Medians over the pairs and the largest value of each witness; what the machine does not tell is left out."""
    cells = []
    for kind in _KINDS:
        sides = [_values(result, side, kind.key) for side in ("old", "new")]
        if any(sides):
            medians = [kind.write(_median(values)) if values else DASH for values in sides]
            ends = [value for values in sides for value in values]
            cells.append((kind.name, *medians, f"{kind.write(min(ends))} to {kind.write(max(ends))}"))
    return Table(("Witness", "Old, median", "New, median", "All processes"), cells, frozenset({1, 2, 3}))


def _both(result: GateResult, key: str) -> list[float]:
    return _values(result, "new", key) + _values(result, "old", key)


def _values(result: GateResult, side: str, key: str) -> list[float]:
    sides: list[PairSide] = [getattr(pair, side) for pair in result.latency.pairs]
    found = [getattr(one.witnesses, key) for one in sides]
    return [float(value) for value in found if value is not None and math.isfinite(value)]


def _median(values: list[float]) -> float:
    """0 without values, which disturbs nothing."""
    return float(np.median(values)) if values else 0.0
