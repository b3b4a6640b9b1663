"""The checks of a gate as rows of text, the same in every report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgekd.gate_result import Check, CheckName, GateResult
from edgekd.report.reading import text
from edgekd.report.state import State
from edgekd.report.tables import DASH
from edgekd.report.wording import (
    MINUS,
    SPACE,
    allowance,
    change,
    change_interval,
    joined,
    megabytes,
    milliseconds,
    percent,
    points_change,
    significant,
    size,
)

NAMES: dict[CheckName, str] = {
    "latency": "Latency",
    "memory": "Memory",
    "size": "File size",
    "accuracy": "Accuracy",
    "coverage": "Integer coverage",
}
# How each verdict reads.
STATES: dict[str, State] = {
    "pass": "good",
    "regression": "bad",
    "error": "bad",
    "inconclusive": "unknown",
    "not comparable": "unknown",
}
SHOWN_ONLY = "shown only"
# Longest sentence of a detail that is shown whole.
DETAIL = 600

_WRITE: dict[str, Callable[[float | None], str]] = {
    "ms": milliseconds,
    "MB": megabytes,
    "bytes": size,
    "share": percent,
}


@dataclass(frozen=True)
class Row:
    """One check; what was not measured is a dash. ``state``: good, bad or unknown, of the verdict."""

    check: CheckName
    name: str
    old: str
    new: str
    change: str
    interval: str
    allowed: str
    verdict: str
    state: State
    gates: bool
    detail: str

    @property
    def difference(self) -> str:
        """The change with its interval."""
        return f"{self.change} ({self.interval})" if self.interval else self.change

    @property
    def verdict_words(self) -> str:
        """The verdict, and whether it decides nothing."""
        return joined(self.verdict, "" if self.gates else SHOWN_ONLY)


def check_rows(result: GateResult) -> list[Row]:
    """The rows in the document's order."""
    return [_row(check) for check in result.checks]


def _row(check: Check) -> Row:
    write = _WRITE.get(check.unit, significant)
    return Row(
        check=check.name,
        name=NAMES[check.name],
        old=write(check.old) or DASH,
        new=write(check.new) or DASH,
        change=(points_change if check.change_unit == "points" else change)(check.change) or DASH,
        interval=_interval(check),
        allowed=_allowed(check),
        verdict=check.verdict,
        state=STATES[check.verdict],
        gates=check.gates,
        detail=text(check.detail, DETAIL),
    )


def _interval(check: Check) -> str:
    if check.interval is None:
        return ""
    if check.change_unit == "points":
        return " to ".join(points_change(end).removesuffix(f"{SPACE}points") for end in check.interval)
    return change_interval(*check.interval)


def _allowed(check: Check) -> str:
    """Shares may grow by their tolerance, points may fall by it."""
    if check.change_unit == "points":
        return f"{MINUS if check.tolerance else ''}{check.tolerance:g}{SPACE}points"
    return allowance(check.tolerance)
