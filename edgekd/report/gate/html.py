"""A gate as one HTML page that loads nothing, small enough to mail."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from edgekd.gate_result import GateResult
from edgekd.report.description import machine_table
from edgekd.report.evidence import day
from edgekd.report.gate import charts, told
from edgekd.report.gate.rows import STATES, check_rows
from edgekd.report.gate.tables import looks_table, settings_table, sides_table
from edgekd.report.gate.witnesses import disturbed_words, witness_table
from edgekd.report.page import LARGEST, render_page
from edgekd.report.reading import text
from edgekd.report.state import Verdict

# Characters of each text, where texts of unusual length make a page too large.
SHORT = 40


def render_gate_html(result: GateResult) -> str:
    """The report of a gate, made of its document alone; under `page.LARGEST` bytes, whatever the document holds."""
    page = _render(result)
    return page if len(page.encode()) < LARGEST else _render(_shortened(result))


def _render(result: GateResult) -> str:
    axis = charts.change_axis(result)
    pairs, beyond = charts.pairs_chart(result, axis) if axis else (Markup(""), "")
    distributions, axis_note = charts.distributions(result)
    return render_page(
        "gate/gate.html.j2",
        name=told.side_name(result.new),
        target=text(result.new.target, 60) or "an unnamed target",
        verdict=told.headline(result),
        facts=_facts(result),
        lines=_lines(result),
        rows=check_rows(result),
        measured=told.measured(result),
        harness=told.harness(result),
        looks=charts.looks_chart(result, axis) if axis else Markup(""),
        looks_table=looks_table(result),
        pairs=pairs,
        beyond=beyond,
        distributions=distributions,
        axis_note=axis_note,
        witnesses=witness_table(result),
        sides=sides_table(result),
        settings=settings_table(result),
        machine=machine_table({"machine": result.machine}),
    )


def _shortened(result: GateResult) -> GateResult:
    def cut(value: Any) -> Any:
        if isinstance(value, str):
            return text(value, SHORT)
        if isinstance(value, list):
            return [cut(one) for one in value]
        if isinstance(value, dict):
            return {text(key, SHORT): cut(one) for key, one in value.items()}
        return value

    return GateResult.model_validate(cut(result.to_json()))


def _facts(result: GateResult) -> list[tuple[str, str]]:
    found = (
        ("Runtime", told.runtime(result.new)),
        ("Machine", text(result.machine_name, 120)),
        ("Measured", day(result.date)),
        ("edgekd", text(result.edgekd, 40)),
    )
    return [(name, value) for name, value in found if value]


def _lines(result: GateResult) -> list[Verdict]:
    width = result.latency.self_width
    lines = [Verdict(STATES[result.verdict], told.headline(result), told.summary(result))]
    if width is not None:
        head = "Too noisy for this tolerance" if width.too_wide else "Exact enough"
        lines.append(Verdict("unknown" if width.too_wide else "good", head, told.width(result)))
    notes = (("Another runtime version", told.built_with(result)), ("Disturbed machine", disturbed_words(result)))
    return lines + [Verdict("unknown", head, words) for head, words in notes if words]
