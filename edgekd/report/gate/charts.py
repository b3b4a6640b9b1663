"""What a gate measured, drawn: each look's interval against the tolerance, the pairs, the latencies of both sides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from edgekd.gate_result import GateResult
from edgekd.report import svg
from edgekd.report.charts import ticks
from edgekd.report.latency_axis import WIDTH, bars, latencies, latency_axis
from edgekd.report.wording import allowance, change, change_interval, milliseconds, plural, signed

# Pairs that are drawn at most; more would neither be seen nor fit the page.
PAIRS = 160
BINS = 36
# Changes beyond these, in per cent, are drawn at the edge: -99 and a hundredfold.
_LEAST, _MOST = -99.0, 9900.0


@dataclass(frozen=True)
class ChangeAxis:
    """Changes in per cent, the same for looks and pairs, with equal (0) and the tolerance on it."""

    low: float
    high: float
    marks: tuple[float, ...]
    limit: float
    left: float = 62.0
    right: float = WIDTH - 18.0

    def x(self, share: float) -> float:
        """Where a change, given as a share, stands; what lies beyond stands at the edge."""
        inside = min(max(100 * share, self.low), self.high)
        return self.left + (self.right - self.left) * (inside - self.low) / (self.high - self.low)

    def frame(self, top: float, bottom: float) -> list[Markup]:
        """Grid, its numbers below, and the two lines that a change is held against."""
        places = [self.x(mark / 100) for mark in self.marks]
        parts = [svg.line(x, top, x, bottom, "grid") for x in places]
        parts += [
            svg.text(x, bottom + 15, signed(mark), "tick", "middle") for x, mark in zip(places, self.marks, strict=True)
        ]
        parts.append(svg.text(0, bottom + 15, "in %", "tick", "start"))
        if self.low <= 0 <= self.high:
            parts.append(svg.line(self.x(0), top, self.x(0), bottom, "one"))
        return [*parts, svg.line(self.x(self.limit), top - 6, self.x(self.limit), bottom, "limit")]

    def label(self, y: float) -> Markup:
        """The name of the line of the tolerance."""
        x = self.x(self.limit)
        anchor = "start" if x < WIDTH / 3 else "end" if x > WIDTH * 2 / 3 else "middle"
        return svg.text(x, y, f"{allowance(self.limit)} allowed", "tick", anchor)


def change_axis(result: GateResult) -> ChangeAxis | None:
    """An axis that holds 0, the tolerance, the last interval and nearly all pairs; None without any pair."""
    latency = result.latency
    if not latency.pairs:
        return None
    changes = [100 * value for value in _changes(result)]
    wanted = [0.0, 100 * result.settings.tolerance, *np.quantile(changes, (0.05, 0.95)).tolist()]
    if latency.interval is not None:
        wanted += [100 * (end - 1) for end in latency.interval]
    low, high = (min(max(value, _LEAST), _MOST) for value in (min(wanted), max(wanted)))
    margin = 0.04 * max(high - low, 0.1)
    marks = tuple(ticks(low - margin, high + margin))
    return ChangeAxis(marks[0], marks[-1], marks, min(result.settings.tolerance, _MOST / 100))


def looks_chart(result: GateResult, axis: ChangeAxis) -> Markup:
    """The interval at each look, in their order; empty without any."""
    looks = result.latency.looks
    if not looks:
        return Markup("")
    top, pitch = 22, 26
    bottom = top + pitch * len(looks)
    parts = [axis.label(11), *axis.frame(top, bottom)]
    for index, look in enumerate(looks):
        y = top + pitch * (index + 0.5)
        state = {"pass": "faster", "regression": "slower", None: "even"}[look.verdict]
        low, high = (axis.x(end - 1) for end in look.interval)
        parts += [
            svg.text(0, y + 4, plural(look.pairs, "pair"), "label", "start"),
            svg.line(low, y, high, y, f"whisker {state}"),
            svg.dot(axis.x(look.ratio - 1), y, 4.5, f"dot {state}"),
        ]
    told = "; ".join(
        f"{plural(look.pairs, 'pair')} {change(look.ratio - 1)}, "
        f"{change_interval(look.interval[0] - 1, look.interval[1] - 1)}"
        for look in looks
    )
    return svg.picture(WIDTH, bottom + 20, f"Intervals at each look: {told}", parts)


def pairs_chart(result: GateResult, axis: ChangeAxis) -> tuple[Markup, str]:
    """Each pair's change in the order of measuring, on the last interval; and what is not drawn, in words."""
    changes = _changes(result)
    chosen = sorted({round(i) for i in np.linspace(0, len(changes) - 1, min(len(changes), PAIRS))})
    pitch = min(max(160 / len(chosen), 2.0), 14.0)
    top, bottom = 22.0, 22.0 + max(pitch * len(chosen), 40.0)
    parts = [axis.label(11)]
    if result.latency.interval is not None:
        low, high = (axis.x(end - 1) for end in result.latency.interval)
        parts.append(svg.rect(low, top, max(high - low, 1), bottom - top, "band"))
    parts += axis.frame(top, bottom)
    for row, index in enumerate(chosen):
        parts.append(svg.dot(axis.x(changes[index]), top + pitch * (row + 0.5), 3, "dot"))
    parts += [
        svg.text(0, top + pitch / 2 + 4, "pair 1", "label", "start"),
        *([svg.text(0, bottom - pitch / 2 + 4, f"{len(changes)}", "label", "start")] if len(changes) > 3 else []),
    ]
    beyond = sum(not axis.low <= 100 * value <= axis.high for value in changes)
    notes = [
        f"{plural(beyond, 'pair')} beyond the axis at its edge" if beyond else "",
        f"{len(chosen)} of {len(changes)} pairs are drawn" if len(chosen) < len(changes) else "",
    ]
    told = f"Changes of {plural(len(changes), 'pair')}, from {change(min(changes))} to {change(max(changes))}"
    return svg.picture(WIDTH, bottom + 20, told, parts), "; ".join(note for note in notes if note)


def distributions(result: GateResult) -> tuple[Markup, str]:
    """Block medians of both sides as two histograms on one axis, and a line about that axis; empty without any."""
    sides = {name: latencies(_blocks(result, name)) for name in ("old", "new")}
    if any(len(values) < 2 for values in sides.values()):
        return Markup(""), ""
    medians = {name: float(np.median(values)) for name, values in sides.items()}
    everything = np.concatenate(list(sides.values()))
    axis = latency_axis(everything, list(medians.values()))
    if axis is None:
        return Markup(""), ""
    parts: list[Markup] = []
    for row, (name, values) in enumerate(sides.items()):
        top = 88.0 * row
        bottom = top + 80
        parts += bars(values, axis, top + 22, bottom, bins=BINS, css=f"bar {name}")
        parts.append(svg.line(axis.left, bottom, axis.right, bottom, "axis"))
        parts += axis.mark(medians[name], f"{name} {milliseconds(medians[name])}", top + 12, bottom)
    parts += axis.ends(183)
    told = ", ".join(f"{name} {milliseconds(value)}" for name, value in medians.items())
    return svg.picture(WIDTH, 188, f"Histograms of block medians; medians {told}", parts), axis.note(
        everything, "blocks"
    )


def _blocks(result: GateResult, name: str) -> list[float]:
    return [value for pair in result.latency.pairs for value in getattr(pair, name).blocks_ms]


def _changes(result: GateResult) -> Sequence[float]:
    """Of each pair, as a share."""
    return [math.expm1(min(max(pair.log_ratio, -700.0), 700.0)) for pair in result.latency.pairs]
