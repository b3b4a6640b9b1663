"""Where the forms of the network part, layer by layer: the chart, its tables and its words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from edgekd.report import svg
from edgekd.report.evidence import Evidence
from edgekd.report.losses import Loss, decibels, drift_words, losses_of
from edgekd.report.reading import flag, items, mapping, number, rows, share, text
from edgekd.report.tables import DASH, NOT_KNOWN, Table
from edgekd.report.wording import MINUS, count, percent, plural, significant

WIDTH = 360
# Values that one chart shows apart; of more, neighbours are drawn as the worst of them.
SHOWN = 240
# The axis: beyond 60 dB nothing is to be seen, and below 0 the value is lost.
LOWEST, HIGHEST, STEP = -20, 60, 10
# The float student and the master without quantizers are one network from here.
SAME_DB = 60.0
# Own parts in dB that are worth a row, and so many rows.
LEAST, LAYERS = 0.5, 8


@dataclass(frozen=True)
class DriftPart:
    """The report's section; ``state`` as in verdicts, empty ``head`` where nothing was measured."""

    state: str
    head: str
    detail: str
    notes: list[str]
    chart: Markup
    keys: list[tuple[str, str]]
    forms: Table
    losses: Table
    worst: Table


def drift_part(evidence: Evidence) -> DriftPart:
    """Everything that the measurements hold of it, of the candidate that the build chose."""
    found = mapping(evidence.build.get("drift"))
    forms, losses = rows(found.get("forms")), losses_of(found)
    state, head, detail = drift_words(evidence)
    kinds = [text(form.get("form"), 20) for form in forms]
    return DriftPart(
        state,
        head,
        detail,
        _notes(evidence, found, forms),
        _chart(found, forms, losses),
        [(_css(kind), kind) for kind in kinds if kind],
        _form_table(forms, losses),
        _loss_table(losses),
        _worst_table(evidence, mapping(found.get("worst"))),
    )


def _notes(evidence: Evidence, found: dict[str, Any], forms: list[dict[str, Any]]) -> list[str]:
    student, samples = number(found.get("student_db")), number(found.get("samples"))
    notes = []
    if samples is not None:
        notes.append(
            f"Measured on {plural(int(samples), 'test sample')} on the build machine; all but the compiled model are "
            "run by ONNX Runtime without optimizations"
        )
    if student is not None and student < SAME_DB:
        notes.append(
            f"The float network here is the quantized one without its quantizers; its outputs are {decibels(student)} "
            "from those of the float student, because its weights were trained on"
        )
    candidate = text(found.get("candidate"), 60)
    if candidate and evidence.chosen_on_device:
        notes.append(f"It is that of {candidate}, which the build chose")
    notes += [f"{text(form.get('form'), 20)}: {note}" for form in forms if (note := text(form.get("note")))]
    return notes


def _form_table(forms: list[dict[str, Any]], losses: list[Loss]) -> Table:
    cells = []
    for form in forms:
        name = text(form.get("form"), 20)
        fault = next((loss for loss in losses if loss.form == name and loss.at_fault), None)
        seen = sum(loss.form == name for loss in losses) > 1
        parted = flag(form.get("parted")) is True
        cells.append(
            (
                name or "unnamed",
                decibels(number(form.get("db"))) or DASH,
                decibels(number(form.get("step_db"))) or DASH,
                percent(share(form.get("agreement"))) or DASH,
                fault.layer
                if fault
                else "parts, inside not seen"
                if parted
                else "none"
                if seen
                else "none, by outputs",
            )
        )
    columns = ("Form", "Outputs against float", "Against the form before", "Decides as float", "Layer at fault")
    return Table(columns, cells, frozenset({1, 2, 3}))


def _loss_table(losses: list[Loss]) -> Table:
    kept = [loss for loss in losses if loss.own >= LEAST][:LAYERS]
    cells = [(loss.layer, loss.form, decibels(loss.own), decibels(loss.left), loss.value) for loss in kept]
    return Table(("Layer", "Form", "Lost", "Left", "Value"), cells, frozenset({2, 3}))


def _worst_table(evidence: Evidence, worst: dict[str, Any]) -> Table:
    labels = [text(one, 40) for one in items(evidence.manifest.get("labels"))]

    def label(value: Any) -> str:
        place = number(value)
        return labels[int(place)] if place is not None and 0 <= place < len(labels) else NOT_KNOWN

    cells = [
        (
            count(number(row.get("index"))) or NOT_KNOWN,
            label(row.get("float")),
            label(row.get("output")),
            significant(number(row.get("difference"))) or "not finite",
        )
        for row in rows(worst.get("samples"))[:LAYERS]
    ]
    form = text(worst.get("form"), 20) or "quantized"
    return Table(
        ("Test sample", "Float decides", f"The {form} model decides", "Largest difference"), cells, frozenset({0, 3})
    )


def _chart(found: dict[str, Any], forms: list[dict[str, Any]], losses: list[Loss]) -> Markup:
    """dB against float over the values in order: a line a form, a dot for one that shows its outputs alone."""
    values = rows(found.get("rows"))
    names = [name for form in forms if (name := text(form.get("form"), 20))]
    curves = {name: [number(mapping(row.get("db")).get(name)) for row in values] for name in names}
    known = [_held(one) for curve in curves.values() for one in curve if one is not None]
    if not known:
        return Markup("")
    low = STEP * math.floor(min(*known, 20) / STEP)
    high = STEP * math.ceil(max(*known, low + 2 * STEP) / STEP)
    left, right, top, bottom = 30, WIDTH - 6, 40, 200

    def x(index: float) -> float:
        return left + (right - left) * ((index + 0.5) / len(values))

    def y(db: float) -> float:
        return bottom - (bottom - top) * ((_held(db) - low) / (high - low))

    parts = []
    for tick in range(low, high + 1, STEP):
        parts.append(svg.line(left, y(tick), right, y(tick), "grid"))
        parts.append(svg.text(left - 5, y(tick) + 4, f"{tick}".replace("-", MINUS), "tick", "end"))
    parts.append(svg.text(0, 12, "dB", "tick", "start"))
    parts.append(svg.text(left, bottom + 16, "input", "tick", "start"))
    parts.append(svg.text(right, bottom + 16, f"output, {plural(len(values), 'value')}", "tick", "end"))
    if losses:
        parts += _mark(losses[0], values, x, y, top, bottom)
    for name, curve in curves.items():
        points = _thinned([(x(index), y(db)) for index, db in enumerate(curve) if db is not None])
        css = _css(name)
        if len(points) > 1:
            parts.append(svg.polyline(points, f"curve {css}"))
        if len(points) < SHOWN / 6:
            parts += [svg.dot(*point, 4.5 if len(points) == 1 else 2.2, f"dot {css}") for point in points]
    told = [f"{name} {decibels(curve[-1])} at the output" for name, curve in curves.items() if curve[-1] is not None]
    where = f"; {'layer at fault' if losses[0].at_fault else 'costliest layer'}: {losses[0].layer}" if losses else ""
    return svg.picture(WIDTH, bottom + 22, f"Signal to noise against float by layer: {', '.join(told)}{where}", parts)


def _mark(loss: Loss, values: list[dict[str, Any]], x: Any, y: Any, top: float, bottom: float) -> list[Markup]:
    """The layer at fault, or the costliest one, marked and named."""
    index = next(i for i, row in enumerate(values) if (text(row.get("value"), 60) or "unnamed") == loss.value)
    place, css = x(index), "limit" if loss.at_fault else "mark"
    anchor = "start" if place < WIDTH / 3 else "end" if place > WIDTH * 2 / 3 else "middle"
    kind = "at fault" if loss.at_fault else "costliest"
    return [
        svg.line(place, top - 8, place, bottom, css),
        svg.text(place, 12, text(f"{kind}: {loss.layer}", 46), "blame" if loss.at_fault else "value", anchor),
        svg.text(place, 27, f"{MINUS}{decibels(loss.own)} in the {loss.form} form", "tick", anchor),
        svg.dot(place, y(loss.left), 5, "dot blame" if loss.at_fault else "dot even"),
    ]


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `SHOWN` points, the lowest (of the largest y) of each stretch."""
    size = math.ceil(len(points) / SHOWN) or 1
    return [max(points[i : i + size], key=lambda point: point[1]) for i in range(0, len(points), size)]


def _held(db: float) -> float:
    return min(max(db, LOWEST), HIGHEST)


def _css(form: str) -> str:
    return form if form in ("master", "lowered", "compiled", "tapped") else "other"
