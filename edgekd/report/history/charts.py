"""Trends over runs: the latency of the new side, and the ratio to its baseline."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from markupsafe import Markup

from edgekd.report import svg
from edgekd.report.charts import ticks
from edgekd.report.history.series import Series
from edgekd.report.latency_axis import WIDTH
from edgekd.report.wording import allowance, milliseconds, plural, signed, significant

# Runs with a dot and a whisker each; more are drawn as a line and a band.
SINGLE = 40
LEFT, RIGHT, TOP, BOTTOM = 46.0, WIDTH - 8.0, 24.0, 170.0


def latency_trend(series: Series) -> Markup:
    """The median of each run with the spread of its processes, in ms; empty below two runs."""
    runs = series.runs
    values = [run.latency_ms for run in runs]
    spans = [run.spread_ms for run in runs]
    told = f"Latency over {plural(len(runs), 'run')}, last {milliseconds(values[-1])}"
    return _trend(series, values, spans, "latency", significant, "ms", told)


def ratio_trend(series: Series) -> Markup:
    """The change against the baseline in per cent, with its interval; dotted lines are where the baseline changes."""
    runs = series.runs
    values = [100 * (run.ratio - 1) for run in runs]
    ends = [run.interval or (run.ratio, run.ratio) for run in runs]
    spans = [(100 * (low - 1), 100 * (high - 1)) for low, high in ends]
    told = f"Change against the baseline over {plural(len(runs), 'run')}, last {allowance(round(values[-1] / 100, 4))}"
    return _trend(series, values, spans, "ratio", signed, "%", told)


def _trend(
    series: Series,
    values: Sequence[float],
    spans: Sequence[tuple[float, float]],
    kind: Literal["latency", "ratio"],
    write: Callable[[float], str],
    unit: str,
    told: str,
) -> Markup:
    runs = series.runs
    if len(runs) < 2:
        return Markup("")
    # A few runs with very wide intervals would press all others into a line.
    lows, highs = ([span[end] for span in spans] for end in (0, 1))
    wanted = [
        *values,
        float(np.quantile(lows, 0.1)),
        float(np.quantile(highs, 0.9)),
        *([0.0] if kind == "ratio" else []),
    ]
    least, most = min(wanted), max(wanted)
    margin = 0.05 * (most - least) or 0.05 * abs(most) or 1.0
    marks = _scale(least - margin, most + margin)
    low, high = marks[0], marks[-1]

    def x(index: float) -> float:
        return LEFT + (RIGHT - LEFT) * (index + 0.5) / len(runs)

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (min(max(value, low), high) - low) / (high - low)

    parts = [svg.line(LEFT, y(mark), RIGHT, y(mark), "grid") for mark in marks]
    parts += [svg.text(LEFT - 6, y(mark) + 4, write(mark), "tick", "end") for mark in marks]
    parts.append(svg.text(0, 11, unit, "tick", "start"))
    if kind == "ratio":
        parts.append(svg.line(LEFT, y(0), RIGHT, y(0), "one"))
        moved = [i for i in range(1, len(runs)) if runs[i].baseline != runs[i - 1].baseline]
        parts += [svg.line(x(i - 0.5), TOP, x(i - 0.5), BOTTOM, "mark") for i in moved]
    single = len(runs) <= SINGLE
    if not single:
        edge = [(x(i), y(span[1])) for i, span in enumerate(spans)]
        edge += [(x(i), y(span[0])) for i, span in reversed(list(enumerate(spans)))]
        parts.append(svg.polyline(edge, "area"))
        parts.append(svg.polyline([(x(i), y(value)) for i, value in enumerate(values)], "curve"))
    changes = [change for change in series.changes if change.of == kind]
    for change in changes:
        state = "slower" if change.after > change.before else "faster"
        parts.append(svg.line(x(change.index - 0.5), TOP - 6, x(change.index - 0.5), BOTTOM, f"whisker {state}"))
    if single:
        for i, (value, span) in enumerate(zip(values, spans, strict=True)):
            parts += [svg.line(x(i), y(span[0]), x(i), y(span[1]), "whisker"), svg.dot(x(i), y(value), 3, "dot")]
    parts += [
        svg.text(LEFT, BOTTOM + 16, runs[0].date.strftime("%Y-%m-%d"), "tick", "start"),
        svg.text(RIGHT, BOTTOM + 16, runs[-1].date.strftime("%Y-%m-%d"), "tick", "end"),
    ]
    return svg.picture(WIDTH, BOTTOM + 22, f"{told}; {plural(len(changes), 'change')} found", parts)


def _scale(low: float, high: float) -> list[float]:
    """Round numbers around any range: those of `ticks`, whose least width is that of per cents."""
    unit = 10.0 ** math.floor(math.log10(high - low))
    return [mark * unit for mark in ticks(low / unit, high / unit)]
