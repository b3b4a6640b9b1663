"""Documents of gates sorted into series: one model on one machine by one runtime, in the order of their dates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from edgekd.errors import BadInput
from edgekd.gate_result import GateResult
from edgekd.report.gate import read_gate, told
from edgekd.report.history.change_points import LEAST, ChangePoint, change_points
from edgekd.report.reading import text
from edgekd.runtime.machine import key_of

Kind = Literal["latency", "ratio"]
# The newest runs of a series that are looked at.
MOST = 1000
# Of the processes' medians, what is drawn around a run's latency.
SPREAD = (0.1, 0.9)


@dataclass(frozen=True)
class Run:
    """One paired comparison; latencies in ms, ``spread_ms`` the tenth and the ninetieth percent of its processes."""

    date: datetime
    identity: str
    baseline: str
    verdict: str
    latency_ms: float
    spread_ms: tuple[float, float]
    ratio: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Change:
    """From run ``index`` on, the median ``after`` in place of ``before``; of the latency in ms, or of the ratio."""

    of: Kind
    index: int
    before: float
    after: float
    p_value: float


class Stretch(NamedTuple):
    """Runs from ``begin`` to before ``end``, in which one search for changes is made."""

    of: Kind
    begin: int
    end: int


@dataclass(frozen=True)
class Series:
    """Runs that may be compared with each other, and where they change."""

    subject: str
    machine: str
    runtime: str
    runs: tuple[Run, ...]
    changes: tuple[Change, ...]
    earlier: int

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return {
            "subject": self.subject,
            "machine": self.machine,
            "runtime": self.runtime,
            "runs": [
                {
                    "date": run.date.isoformat(),
                    "identity": run.identity,
                    "baseline": run.baseline,
                    "verdict": run.verdict,
                    "latency_ms": run.latency_ms,
                    "ratio": run.ratio,
                    "interval": run.interval,
                }
                for run in self.runs
            ],
            "changes": [
                {
                    "of": change.of,
                    "since": self.runs[change.index].date.isoformat(),
                    "identity": self.runs[change.index].identity,
                    "before": change.before,
                    "after": change.after,
                    "p_value": change.p_value,
                }
                for change in self.changes
            ],
        }


@dataclass(frozen=True)
class History:
    """All series, those with the newest run first; of the documents that are in none, how many for which reason."""

    series: tuple[Series, ...]
    left_out: dict[str, int]


def collect(paths: Sequence[Path]) -> History:
    """Read documents and sort them.

    Raises:
        BadInput: a file is no document of a gate.
    """
    grouped: dict[tuple[Any, ...], dict[str, tuple[datetime, GateResult]]] = {}
    left_out: dict[str, int] = {}
    for path in paths:
        result = read_gate(path)
        reason = _unfit(result)
        group = grouped.setdefault(_key(result), {}) if not reason else {}
        identity = result.model_dump_json()
        reason = reason or ("given twice" if identity in group else "")
        if reason:
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            group[identity] = (_date(result, path), result)
    found = [_series(sorted(group.values(), key=lambda one: one[0])) for group in grouped.values() if group]
    return History(tuple(sorted(found, key=lambda one: one.runs[-1].date, reverse=True)), left_out)


def _unfit(result: GateResult) -> str:
    latency = result.latency
    if latency.method == "unpaired":
        return "unpaired"
    if latency.failure is not None or not latency.pairs or not latency.ratio or not latency.new_median_ms:
        return "without a measured ratio"
    return ""


def _key(result: GateResult) -> tuple[Any, ...]:
    """What must be the same for two latencies to be compared at all."""
    opened = result.new.opened or {}
    how = tuple(str(opened.get(name)) for name in ("runtime", "version", "inference_precision", "threads"))
    return result.new.name, result.new.target, result.new.backend, key_of(result.machine), how


def _date(result: GateResult, path: Path) -> datetime:
    try:
        found = datetime.fromisoformat(result.date)
    except ValueError as error:
        raise BadInput(f"date: {text(result.date, 40)!r} is no date", where=str(path)) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _series(documents: list[tuple[datetime, GateResult]]) -> Series:
    newest = documents[-1][1]
    runs = [_run(date, result) for date, result in documents[-MOST:]]
    return Series(
        subject=told.subject(newest),
        machine=text(newest.machine_name, 120),
        runtime=told.runtime(newest.new),
        runs=tuple(runs),
        changes=tuple(_changes(runs)),
        earlier=max(0, len(documents) - MOST),
    )


def _run(date: datetime, result: GateResult) -> Run:
    latency = result.latency
    assert latency.new_median_ms is not None
    assert latency.ratio is not None
    medians = [float(np.median(pair.new.blocks_ms)) for pair in latency.pairs if pair.new.blocks_ms]
    low, high = np.quantile(medians or [latency.new_median_ms], SPREAD)
    return Run(
        date=date,
        identity=text(result.new.identity, 64),
        baseline=text(result.old.identity, 64),
        verdict=result.verdict,
        latency_ms=latency.new_median_ms,
        spread_ms=(float(low), float(high)),
        ratio=latency.ratio,
        interval=latency.interval,
    )


def stretches(runs: Sequence[Run]) -> list[Stretch]:
    """Where changes are sought, each by a test with an error of its own: of latency over all runs, of the ratio over
    those with one and the same baseline, where they are enough to hold a change.
    """
    found, begin = [Stretch("latency", 0, len(runs))], 0
    for _, group in itertools.groupby(runs, key=lambda run: run.baseline):
        end = begin + len(list(group))
        found.append(Stretch("ratio", begin, end))
        begin = end
    return [one for one in found if one.end - one.begin >= 2 * LEAST]


def _changes(runs: Sequence[Run]) -> list[Change]:
    found: list[Change] = []
    for kind, begin, end in stretches(runs):
        values = [run.latency_ms if kind == "latency" else run.ratio for run in runs[begin:end]]
        found += _of(kind, values, begin)
    return sorted(found, key=lambda change: change.index)


def _of(kind: Kind, values: list[float], offset: int) -> list[Change]:
    points: list[ChangePoint] = change_points([math.log(value) for value in values])
    ends = [0, *(point.index for point in points), len(values)]
    levels = [float(np.median(values[begin:end])) for begin, end in itertools.pairwise(ends)]
    return [
        Change(kind, offset + point.index, before, after, point.p_value)
        for point, (before, after) in zip(points, itertools.pairwise(levels), strict=True)
    ]
