"""Bundles side by side as one table in a terminal: a column each, so that 80 characters hold three of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from edgekd.report.evidence import runtime_name
from edgekd.report.figures import NOT_ENOUGH
from edgekd.report.reading import items, mapping, number, share, text
from edgekd.report.wording import (
    NOT_MEASURED,
    count,
    interval,
    joined,
    megabytes,
    milliseconds,
    percent,
    points,
    significant,
    size,
)

STYLES = {"good": "green", "bad": "red", "unknown": "yellow"}


def terminal_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Bundles as ``edgekd build --json`` lists them, the figures one below the other; what was not measured says so."""
    bundles = [mapping(row) for row in rows]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for row in bundles:
        # A Text: names that others chose must not be read as rich's markup.
        table.add_column(Text(text(row.get("target"), 60) or "unnamed"), overflow="fold")
    columns = [_figures(row) for row in bundles]
    for name in columns[0] if columns else ():
        cells = [column[name] for column in columns]
        if any(cell.plain for cell in cells):
            table.add_row(name, *cells)
    return table


def _figures(row: dict[str, Any]) -> dict[str, Text]:
    """The figures of one bundle, by name, in the order of the table."""
    accuracy, latency = mapping(row.get("accuracy")), mapping(row.get("latency_ms"))
    median, speedup = number(latency.get("p50")), number(row.get("speedup_over_float"))
    whole, compute = (number(mapping(row.get("integer_coverage")).get(key)) for key in ("integer", "compute"))
    covered = f"{count(whole)} of {count(compute)} layers" if whole is not None and compute is not None else ""
    missing = NOT_ENOUGH if median is not None else ""
    others = (f"{name} {percent(share(accuracy.get(name)))}" for name in ("teacher", "student", "master"))
    return {
        "precision": Text(text(row.get("precision"), 20)),
        "quantized by": Text(text(row.get("quantization"), 120)),
        "accuracy": _measured(percent(share(accuracy.get("compiled")))),
        "points lost": _measured(_lost(accuracy)),
        "before it": Text("\n".join(one for one in others if one.endswith("%"))),
        "latency p50": _measured(milliseconds(median)),
        "latency p90": _measured(milliseconds(number(latency.get("p90"))) or missing),
        "latency p99": _measured(milliseconds(number(latency.get("p99"))) or missing),
        "over float": _measured(f"{significant(speedup)}×" if speedup is not None else ""),
        "integers": _measured(covered),
        "memory": _measured(megabytes(number(row.get("peak_memory_mb")))),
        "drift": _drift(mapping(row.get("drift"))),
        "size": Text(size(number(row.get("size_bytes")))),
        "budget": _budget(mapping(row.get("budget"))),
        "checks": _checks(mapping(row.get("checks"))),
        "measured on": _measured(joined(text(latency.get("machine")), runtime_name(latency.get("runtime")))),
    }


def _measured(value: str) -> Text:
    """A figure of the target, or in plain sight that there is none."""
    return Text(value) if value else Text(NOT_MEASURED, style=STYLES["unknown"])


def _lost(accuracy: dict[str, Any]) -> str:
    lost, bounds = points(number(accuracy.get("drop_points"))), interval(accuracy.get("drop_interval"), "points")
    return f"{lost} ({bounds})" if lost and bounds else lost


def _drift(drift: dict[str, Any]) -> Text:
    """Signal to noise of the outputs against float, and the layer at fault."""
    db, fault = number(drift.get("db")), text(drift.get("fault"), 60)
    if fault:
        return Text(f"at fault: {fault}", style=STYLES["bad"])
    return Text(f"{db:.1f} dB ({text(drift.get('form'), 20)})" if db is not None else "")


def _budget(budget: dict[str, Any]) -> Text:
    missed = [text(one, 80) for one in items(budget.get("missed")) if text(one)]
    if missed or budget.get("met") is False:
        return Text(f"missed: {'; '.join(missed) or 'no figure told'}", style=STYLES["bad"])
    if budget.get("met") is True:
        return Text("met", style=STYLES["good"])
    return Text("not decided", style=STYLES["unknown"])


def _checks(checks: dict[str, Any]) -> Text:
    """Every check that was made or should have been; what is not "ok" stands out."""
    told = Text()
    for name, state in ((text(name, 40).replace("_", " "), text(state, 60)) for name, state in checks.items()):
        if state:
            told.append("\n" if told.plain else "")
            told.append(f"{name} {state}", style="" if state == "ok" else STYLES["unknown"])
    return told
