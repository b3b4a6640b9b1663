"""A gate as a comment on a pull request: a hidden marker to find it again, one table, the rest folded."""

from __future__ import annotations

import re

from edgekd.gate_result import GateResult
from edgekd.report.description import machine_table
from edgekd.report.gate import told
from edgekd.report.gate.rows import STATES, check_rows
from edgekd.report.gate.tables import check_table, looks_table, settings_table, sides_table
from edgekd.report.gate.witnesses import disturbed_words, witness_table
from edgekd.report.markup import escape, folded, table
from edgekd.report.reading import text
from edgekd.report.state import SIGNS
from edgekd.report.tables import Table

# Characters of the marker's name at most.
_LONGEST = 100


def render_gate_markdown(result: GateResult) -> str:
    """GitHub-flavoured Markdown whose first line is `marker`; values are escaped, and notify nobody.

    Below 60,000 characters whatever the document holds, since every text and table is cut: GitHub takes 65,536.
    """
    state = STATES[result.verdict]
    notes = (told.built_with(result), disturbed_words(result))
    parts = (
        marker(result),
        f"### {SIGNS[state]} {escape(told.subject(result))}: {told.headline(result).lower()}",
        escape(told.summary(result)),
        table(check_table(result)),
        escape(told.width(result)),
        *(f"> {escape(note)}" for note in notes if note),
        folded("Details", _details(result)),
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def marker(result: GateResult) -> str:
    """The hidden line by which a later run finds its own comment: the same for every run of a bundle and target."""
    name = re.sub(r"[^A-Za-z0-9._]+", "-", f"{result.new.name}-{result.new.target}")
    return f"<!-- edgekd-bench: {name.strip('-')[:_LONGEST].strip('-') or 'unnamed'} -->"


def _details(result: GateResult) -> str:
    checks = [(row.name, row.detail) for row in check_rows(result) if row.detail]
    parts = (
        table(Table(("Check", "About it"), checks)),
        escape(told.measured(result)),
        table(looks_table(result)),
        escape(told.harness(result)),
        table(witness_table(result)),
        table(sides_table(result)),
        table(settings_table(result)),
        table(machine_table({"machine": result.machine})),
        f"edgekd {escape(text(result.edgekd, 40))}, {escape(text(result.date, 40))}",
    )
    return "\n\n".join(part for part in parts if part)
