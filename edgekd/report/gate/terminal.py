"""A gate in a terminal: one line a check, then the verdict and what a reader should know about it."""

from __future__ import annotations

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from edgekd.gate_result import GateResult
from edgekd.report.gate import told
from edgekd.report.gate.rows import STATES, check_rows
from edgekd.report.gate.witnesses import disturbed_words
from edgekd.report.state import SIGNS
from edgekd.report.terminal import STYLES


def gate_table(result: GateResult) -> Group:
    """What `rich` prints; it is made of `rich.text.Text` alone, so that no name is read as markup."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "old", "new", "difference", "allowed", "verdict"):
        table.add_column(name, overflow="fold", justify="right" if name in ("old", "new") else "left")
    for row in check_rows(result):
        style = STYLES[row.state] if row.gates or row.state == "good" else ""
        cells = (row.name.lower(), row.old, row.new, row.difference, row.allowed)
        table.add_row(*(Text(cell) for cell in cells), Text(row.verdict_words, style=style))
    state = STATES[result.verdict]
    head = f"{SIGNS[state]} {told.subject(result)}: {told.headline(result).lower()}"
    lines = [
        Text(head, style=f"bold {STYLES[state]}"),
        Text(told.summary(result)),
        Text(told.width(result)),
        Text(told.built_with(result), style=STYLES["unknown"]),
        Text(disturbed_words(result), style=STYLES["unknown"]),
    ]
    return Group(table, *(line for line in lines if line.plain))
