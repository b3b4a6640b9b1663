"""Small SVG charts, drawn for a width of about 360 px so that a phone shows their text unshrunk.

Colours come from the page's style sheet by class, which also turns them for dark screens; every text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from edgekd.report import svg
from edgekd.report.latency_axis import WIDTH, bars, latencies, latency_axis
from edgekd.report.wording import count, milliseconds, percent, significant

# Points of one curve at most; more is not seen at this size.
CURVE_POINTS = 120


def accuracy_chain(
    rows: Sequence[tuple[str, float | None]],
    *,
    teacher: float | None,
    bounds: tuple[float, float] | None,
    allowed: float | None,
) -> Markup:
    """Accuracies in [0, 1] as dots on one cut axis; empty without any.

    ``bounds``: the compiled model's drop below the ``teacher`` in points, drawn on the last row; ``allowed``: the
    largest drop in points that the budget allows, drawn as a line.
    """
    known = [value for _, value in rows if value is not None]
    if not known:
        return Markup("")
    span: list[float] = []
    if bounds and teacher is not None and rows[-1][1] is not None:
        # An accuracy beyond 1 means nothing, whatever the interval's formula gives.
        span = [min(max(teacher - end / 100, 0.0), 1.0) for end in bounds]
    floor = max(teacher - allowed / 100, 0.0) if allowed is not None and teacher is not None else None
    everything = [*known, *span, *([floor] if floor is not None else [])]
    marks = ticks(100 * min(everything), 100 * max(everything))
    low, high = marks[0] / 100, marks[-1] / 100
    left, right, top, pitch = 78, WIDTH - 64, 8, 30
    bottom = top + pitch * len(rows)

    def x(value: float) -> float:
        return left + (right - left) * ((value - low) / (high - low))

    parts = [svg.line(x(tick / 100), top, x(tick / 100), bottom, "grid") for tick in marks]
    parts += [svg.text(x(tick / 100), bottom + 15, f"{tick:g}", "tick", "middle") for tick in marks]
    parts.append(svg.text(WIDTH, bottom + 15, "%", "tick", "end"))
    if floor is not None:
        parts.append(svg.line(x(floor), top, x(floor), bottom, "limit"))
        parts.append(svg.text(x(floor), bottom + 30, "budget", "tick", anchor(x(floor))))
    for index, (label, value) in enumerate(rows):
        y = top + pitch * (index + 0.5)
        parts.append(svg.text(0, y + 4, label, "label", "start"))
        if value is None:
            parts.append(svg.text(WIDTH, y + 4, "not measured", "missing", "end"))
            continue
        if span and index == len(rows) - 1:
            parts.append(svg.line(x(span[0]), y, x(span[1]), y, "whisker"))
        parts.append(svg.dot(x(value), y, 5, "dot"))
        parts.append(svg.text(WIDTH, y + 4, percent(value), "value", "end"))
    height = bottom + (36 if floor is not None else 22)
    told = ", ".join(f"{label} {percent(value) or 'not measured'}" for label, value in rows)
    return svg.picture(WIDTH, height, f"Accuracy: {told}", parts)


def histogram(samples_ms: Sequence[float], marks: Sequence[tuple[str, float]]) -> tuple[Markup, str]:
    """The distribution of latencies with its percentiles marked, and a line about its axis and what lies beyond."""
    values = latencies(samples_ms)
    axis = latency_axis(values, [mark for _, mark in marks])
    if axis is None:
        return Markup(""), ""
    bottom = 150
    parts = [*bars(values, axis, 46, bottom), svg.line(axis.left, bottom, axis.right, bottom, "axis")]
    for row, (name, value) in enumerate(marks):
        parts += axis.mark(value, f"{name} {milliseconds(value)}", 12 + 14 * row, bottom)
    parts += axis.ends(bottom + 15)
    told = ", ".join(f"{name} {milliseconds(value)}" for name, value in marks)
    chart = svg.picture(WIDTH, bottom + 20, f"Histogram of {count(len(values))} runs; {told}", parts)
    return chart, axis.note(values)


def ratio_axis(ratios: Sequence[float]) -> tuple[float, float]:
    """A logarithmic axis, the same for all rows, that holds ``ratios`` and 1."""
    logs = [math.log(value) for value in [*ratios, 1.0] if value > 0]
    low, high = min(logs), max(logs)
    margin = max(0.08 * (high - low), 0.05)
    return low - margin, high + margin


def ratio_bar(ratio: float, bounds: tuple[float, float] | None, axis: tuple[float, float], state: str) -> Markup:
    """A latency ratio with its interval beside float = 1; ``state`` names the colour class."""
    wide, y = 170, 11

    def x(value: float) -> float:
        return 6 + (wide - 12) * (math.log(value) - axis[0]) / (axis[1] - axis[0])

    parts = [svg.line(x(1), 0, x(1), 22, "one")]
    if bounds and min(bounds) > 0:
        parts.append(svg.line(x(bounds[0]), y, x(bounds[1]), y, f"whisker {state}"))
    parts.append(svg.dot(x(ratio), y, 4.5, f"dot {state}"))
    return svg.picture(wide, 22, f"{significant(ratio)} of float's latency", parts, css="ratio")


def strip(layers: Sequence[bool | None]) -> Markup:
    """The layers in their order, equally wide: integer, float or not known; equal neighbours are drawn as one."""
    if not layers:
        return Markup("")
    parts, begin, step = [], 0, 600 / len(layers)
    for index in range(1, len(layers) + 1):
        if index == len(layers) or layers[index] is not layers[begin]:
            kind = {True: "integer", False: "float", None: "unsure"}[layers[begin]]
            gap = 1 if step * (index - begin) > 3 else 0
            parts.append(svg.rect(begin * step, 0, step * (index - begin) - gap, 14, kind))
            begin = index
    told = f"{sum(one is True for one in layers)} of {len(layers)} layers in integers, in their order"
    return svg.picture(600, 14, told, parts, css="strip", stretch=True)


def curve(points: Sequence[tuple[float, float]], label: str, share: bool) -> Markup:
    """One training's values over its epochs, first and last told; ``share`` writes them as per cent."""
    if not points or not all(math.isfinite(max(column) - min(column)) for column in zip(*points, strict=True)):
        return Markup("")
    chosen = sorted({round(i) for i in np.linspace(0, len(points) - 1, min(len(points), CURVE_POINTS))})
    kept = [points[i] for i in chosen]
    xs, ys = [one for one, _ in kept], [one for _, one in kept]
    wide, tall, left, right, top, bottom = 170, 106, 4.0, 166.0, 38, 84
    width, height = (max(xs) - min(xs)) or 1.0, (max(ys) - min(ys)) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return left + (right - left) * ((x - min(xs)) / width), bottom - (bottom - top) * ((y - min(ys)) / height)

    def write(value: float) -> str:
        return percent(value, 1) if share else significant(value)

    ends = (place(*kept[0]), place(*kept[-1]))
    parts = [
        svg.text(0, 11, label, "label", "start"),
        svg.text(0, 27, f"{write(ys[0])} → {write(ys[-1])}", "value", "start"),
        svg.line(left, bottom + 4, right, bottom + 4, "axis"),
        svg.polyline([place(*one) for one in kept], "curve"),
        svg.dot(*ends[1], 3, "dot"),
        svg.text(left, bottom + 18, f"epoch {xs[0]:g}", "tick", "start"),
        svg.text(right, bottom + 18, f"{xs[-1]:g}", "tick", "end"),
    ]
    return svg.picture(wide, tall, f"{label}: {write(ys[0])} at first, {write(ys[-1])} at last", parts)


def ticks(low: float, high: float) -> list[float]:
    """Two to six round numbers whose first and last enclose the range; within 0 to 100 where the range is."""
    wide = max(high - low, 0.1)
    raw = wide / 3
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * times for times in (1, 2, 5, 10) if unit * times >= raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if last <= first:
        first, last = (first - 1, first) if first > 0 else (0, 1)
    return [round(step * i, 10) for i in range(first, last + 1)]


def anchor(x: float) -> str:
    """How a label at ``x`` is anchored so that it stays inside the chart."""
    return "start" if x < 40 else "end" if x > WIDTH - 40 else "middle"
