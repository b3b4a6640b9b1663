"""The history of gates as one HTML page that loads nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from markupsafe import Markup

from edgekd.report.history import charts
from edgekd.report.history.change_points import ERROR, LEAST
from edgekd.report.history.series import Change, History, Run, Series, stretches
from edgekd.report.page import LARGEST, render_page
from edgekd.report.state import Verdict
from edgekd.report.tables import DASH, Table
from edgekd.report.wording import change, change_interval, milliseconds, percent, plural

# Characters of an identity.
_DIGEST = 12
_DAY = "%Y-%m-%d %H:%M"


@dataclass(frozen=True)
class _Part:
    subject: str
    machine: str
    runtime: str
    lines: list[Verdict]
    latency: Markup
    ratio: Markup
    runs: Table


def render_history(history: History) -> str:
    """One page with a part for each series, under `page.LARGEST` bytes: the oldest runs are left out before others."""
    for runs, series in ((400, 12), (150, 12), (60, 12), (40, 6), (20, 3)):
        page = _render(history, runs, series)
        if len(page.encode()) < LARGEST:
            break
    return page


def change_words(one: Change, series: Series) -> str:
    """What changed, by how much, and since when."""
    run = series.runs[one.index]
    size = change(one.after / one.before - 1)
    if one.of == "latency":
        told = f"{size}, from {milliseconds(one.before)} to {milliseconds(one.after)}"
    else:
        told = f"{size} against the same baseline, from {change(one.before - 1)} to {change(one.after - 1)}"
    return f"{told}, since {run.date:{_DAY}} (bundle {run.identity[:_DIGEST] or DASH})"


def _render(history: History, most_runs: int, most_series: int) -> str:
    shown = history.series[:most_series]
    left_out = [f"{plural(count, 'document')} {reason}" for reason, count in sorted(history.left_out.items())]
    if len(shown) < len(history.series):
        left_out.append(f"{len(history.series) - len(shown)} older series")
    return render_page(
        "history/history.html.j2",
        parts=[_part(series, most_runs) for series in shown],
        runs=plural(sum(len(series.runs) for series in history.series), "run"),
        series=plural(len(history.series), "series", "series"),
        left_out="; ".join(left_out),
        error=percent(ERROR, 0),
        searches=plural(sum(len(stretches(series.runs)) for series in shown), "search", "searches"),
        least=LEAST,
    )


def _part(series: Series, most: int) -> _Part:
    cut = _newest(series, most)
    lines = [_line(one, series) for one in reversed(series.changes)][:20]
    hidden = len(series.runs) - len(cut.runs) + series.earlier
    if not lines:
        if len(series.runs) < 2 * LEAST:
            lines = [Verdict("unknown", "Too few runs", f"A change is told from {plural(2 * LEAST, 'run')} on.")]
        else:
            lines = [Verdict("good", "No change found", "Neither of the latency nor of the ratio.")]
    if hidden:
        lines.append(Verdict("unknown", f"{plural(hidden, 'older run')} not drawn", "They are in the documents."))
    return _Part(
        series.subject,
        series.machine,
        series.runtime,
        lines,
        charts.latency_trend(cut),
        charts.ratio_trend(cut),
        Table(
            ("Date, UTC", "Bundle", "Baseline", "Latency", "Change", "Interval", "Verdict"),
            [_row(run) for run in reversed(cut.runs[-50:])],
            frozenset({3, 4}),
        ),
    )


def _newest(series: Series, most: int) -> Series:
    first = max(0, len(series.runs) - most)
    moved = tuple(replace(one, index=one.index - first) for one in series.changes if one.index > first)
    return replace(series, runs=series.runs[first:], changes=moved)


def _line(one: Change, series: Series) -> Verdict:
    slower = one.after > one.before
    head = f"{'Slower' if slower else 'Faster'}: {'latency' if one.of == 'latency' else 'ratio to the baseline'}"
    return Verdict("bad" if slower else "good", head, f"{change_words(one, series)}.")


def _row(run: Run) -> tuple[str, ...]:
    held = change_interval(run.interval[0] - 1, run.interval[1] - 1) if run.interval else DASH
    return (
        run.date.strftime(_DAY),
        run.identity[:_DIGEST] or DASH,
        run.baseline[:_DIGEST] or DASH,
        milliseconds(run.latency_ms),
        change(run.ratio - 1),
        held,
        run.verdict,
    )
