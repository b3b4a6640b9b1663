"""The tables of a gate as plain text cells, the same for HTML and Markdown."""

from __future__ import annotations

from edgekd.gate_result import GateResult, Side
from edgekd.report.gate import told
from edgekd.report.gate.rows import check_rows
from edgekd.report.reading import text
from edgekd.report.state import SIGNS
from edgekd.report.tables import DASH, Table
from edgekd.report.wording import allowance, change, change_interval, duration, joined, size

# Packages of the build that are named at most, and characters of a digest.
_VERSIONS, _DIGEST = 30, 16


def check_table(result: GateResult) -> Table:
    """The same as a table."""
    columns = ("Check", "Old", "New", "Difference", "Allowed", "Verdict")
    cells = [
        (row.name, row.old, row.new, row.difference, row.allowed, f"{SIGNS[row.state]} {row.verdict_words}")
        for row in check_rows(result)
    ]
    return Table(columns, cells, frozenset({1, 2}))


def looks_table(result: GateResult) -> Table:
    """Each look at the pairs so far, and what it decided."""
    looks = result.latency.looks
    cells = []
    for index, look in enumerate(looks):
        undecided = "more pairs" if index < len(looks) - 1 else result.latency.verdict
        held = change_interval(look.interval[0] - 1, look.interval[1] - 1)
        cells.append((str(look.pairs), change(look.ratio - 1), held, look.verdict or undecided))
    return Table(("Pairs", "Change", "Interval", "Decided"), cells, frozenset({0, 1}))


def sides_table(result: GateResult) -> Table:
    """The two bundles beside each other."""
    sides = (result.old, result.new)

    def row(name: str, *cells: str) -> tuple[str, ...]:
        return (name, *(cell or DASH for cell in cells))

    found = [
        row("Bundle", *(text(side.path) for side in sides)),
        row("Identity", *(text(side.identity, 64)[:_DIGEST] for side in sides)),
        row("Candidate", *(_candidate(side) for side in sides)),
        row("File", *(f"{text(side.file, 90)}, {size(side.size_bytes)}" for side in sides)),
        row("SHA-256", *(text(side.sha256, 64)[:_DIGEST] for side in sides)),
        row("Runtime", *(told.runtime(side) for side in sides)),
        *(row(f"Built with {name}", *cells) for name, cells in _versions(result)),
    ]
    stored = result.latency.stored or {}
    for key in ("machine", "runtime", "date", "runs"):
        cells = [text(stored.get(side, {}).get(key)) for side in ("old", "new")]
        if any(cells):
            found.append(row(f"Stored {key}", *cells))
    return Table(("", "Old", "New"), found)


def settings_table(result: GateResult) -> Table:
    """What was asked for."""
    asked = result.settings
    policy = {"fail": "fails", "warn": "passes with a warning", "pass": "passes"}[asked.on_inconclusive]
    rows = [
        ("Latency", f"{allowance(asked.tolerance)} allowed"),
        ("Memory", f"{allowance(asked.max_memory_growth)} allowed"),
        ("File size", f"{allowance(asked.max_size_growth)} allowed"),
        ("Accuracy", f"{asked.max_accuracy_drop:g} points may be lost"),
        ("Integer coverage", f"{asked.max_coverage_drop:g} points may be lost"),
        ("Decide", ", ".join(asked.gates)),
        ("Inconclusive", policy),
        ("Chance of a wrong verdict", f"{100 * asked.error:g} %"),
        ("Time budget", duration(asked.budget_seconds)),
        ("Seed", str(asked.seed)),
    ]
    return Table(("Setting", ""), rows)


def _candidate(side: Side) -> str:
    return joined(text(side.candidate, 60), "chosen on the device" if side.chosen_by == "device" else "")


def _versions(result: GateResult) -> list[tuple[str, list[str]]]:
    names = sorted({*result.old.versions, *result.new.versions})
    sides = (result.old.versions, result.new.versions)
    return [(text(name, 60), [text(versions.get(name), 60) for versions in sides]) for name in names[:_VERSIONS]]
