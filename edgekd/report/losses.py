"""What each layer costs in each form, and the layer at fault, as the measurements tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekd.report.evidence import Evidence
from edgekd.report.reading import flag, mapping, number, rows, text
from edgekd.report.wording import MINUS, SPACE, joined


@dataclass(frozen=True)
class Loss:
    """What one layer costs in one form: ``own`` dB of signal-to-noise, ``left`` dB at its output."""

    form: str
    value: str
    layer: str
    op: str
    own: float
    left: float
    at_fault: bool


def drift_words(evidence: Evidence) -> tuple[str, str, str]:
    """The verdict: good, bad or unknown; its head; what it rests on. Empty where nothing was measured."""
    found = mapping(evidence.build.get("drift"))
    forms, losses = rows(found.get("forms")), losses_of(found)
    if not forms or not losses:
        return "unknown", "", ""
    fault = next((loss for loss in losses if loss.at_fault), None)
    if fault is not None:
        return "bad", f"Layer at fault: {fault.layer}", _told(fault)
    parted = [text(form.get("form"), 20) for form in forms if flag(form.get("parted")) is True]
    if parted:
        return "unknown", "The outputs part, no layer is seen to", f"the {joined(*parted)} model’s outputs are worse"
    return "good", "No layer at fault", f"the costliest is {losses[0].layer}: {_told(losses[0])}"


def losses_of(found: dict[str, Any]) -> list[Loss]:
    """Every layer's own part in every form that shows its inside, layers at fault and large ones first."""
    forms = {text(form.get("form"), 20): form for form in rows(found.get("forms"))}
    losses = []
    for row in rows(found.get("rows")):
        for name, form in forms.items():
            own, left = (number(mapping(row.get(key)).get(name)) for key in ("own_db", "db"))
            if not name or own is None or left is None:
                continue
            value = text(row.get("value"), 60)
            at_fault = bool(value) and text(form.get("fault"), 60) == value
            layer = text(row.get("layer"), 60) or value or "unnamed"
            losses.append(Loss(name, value or "unnamed", layer, text(row.get("op"), 30), own, left, at_fault))
    return sorted(losses, key=lambda loss: (not loss.at_fault, -loss.own))


def decibels(value: float | None) -> str:
    """Decibels; what is beyond float32's own rounding is told as such."""
    if value is None:
        return ""
    if value >= 140:
        return "equal"
    if value <= -140:
        return "not finite"
    return f"{value + 0.0:.1f}{SPACE}dB".replace("-", MINUS)


def _told(loss: Loss) -> str:
    return f"the {loss.form} form loses {decibels(loss.own)} at {loss.value}, and {decibels(loss.left)} are left"
