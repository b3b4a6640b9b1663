"""Drift: how far each form of one network is from the float network, value by value, and the layer that is at fault.

The measure is the signal-to-noise ratio in dB, 20 log10(|x| / |x - y|) of a value x and of what a form makes of it
(as in ``onnxruntime.quantization.qdq_loss_debug``), over all samples. A form's *gap* at a value is how many dB it lies
below the form before it; both count up to `CLEAN` only, and the first form is held against `CLEAN` itself. A layer's
*own* part of a gap is the gap at its output less the largest gap among its inputs: near 0 where it passes on what came
in, large where it adds noise or makes more of it, and never more than its output lies below `CLEAN`. It is a proxy:
what a layer makes of exact inputs would take a run of the network for each of them. The layer at fault is the one of
the largest own part, where that is past what the step between the two forms explains (`LIMITS`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekd.measure.inside import HALF, Inside, Value, open_inside, values_of
from edgekd.measure.proof import Kind

# What float32 itself rounds: equal values count as this, NaN and infinity as its negative.
HIGHEST = 150.0
# An ideal 8-bit quantizer of a normal distribution whose range is four standard deviations leaves 40.8 dB,
# 10 log10(12 (254 / 8)^2); noise below that is no layer's fault.
CLEAN = 40.0
# dB of an own part from which a layer is at fault. Of rounding: half of the noise is new. Of relaxing: more than the
# bit that weights may lose on a CPU without VNNI. Of quantizing: two bits, which hard layers may cost.
LIMITS: dict[Kind, float] = {"equal": 3.0, "kernels": 3.0, "rounding": 3.0, "relaxing": 7.0, "changing": 12.0}
# Samples looked into: 64 small ones, 16 of 3 x 224 x 224; and elements of an input that are run at once.
FEWEST, MOST, ELEMENTS, AT_ONCE = 16, 64, 2_400_000, 310_000


@dataclass(frozen=True)
class Form:
    """A form as it is looked into: ``inside`` maps samples (N, ...) to the values that it shows, by name.

    ``kind`` is how it relates to the form before it (`edgekd.measure.proof`); ``note``: how it was looked into.
    """

    name: str
    kind: Kind
    inside: Inside
    note: str = ""


@dataclass(frozen=True)
class FormDrift:
    """A form's figures by the names of the values: dB against float, against the form before, the layer's own part.

    ``agreement``: the share of samples that it decides as the float network does.
    """

    form: Form
    db: Mapping[str, float]
    step_db: Mapping[str, float]
    own_db: Mapping[str, float]
    agreement: float | None = None

    @property
    def costliest(self) -> str | None:
        """The value with the largest own part."""
        return max(self.own_db, key=lambda name: self.own_db[name], default=None)

    @property
    def parted(self) -> bool:
        """Whether that is more than the step from the form before explains."""
        return max(self.own_db.values(), default=0.0) >= LIMITS[self.form.kind]

    @property
    def fault(self) -> str | None:
        """The value whose layer is at fault; None also where the form parts and shows nothing but its outputs."""
        return self.costliest if self.parted and len(self.own_db) > 1 else None


@dataclass(frozen=True)
class Drift:
    """The forms in the proof's order at the network's values in theirs, measured on so many ``samples``.

    ``student_db``: the float network's outputs against those of the float student, where these were given.
    """

    samples: int
    values: tuple[Value, ...]
    output: str
    forms: tuple[FormDrift, ...]
    student_db: float | None = None

    def words(self) -> str:
        """Where the forms part, in one line."""
        for one in self.forms:
            if one.fault is not None:
                return f"{one.form.name} is at fault at {self._place(one, one.fault)}"
        one = next(one for one in reversed(self.forms) if len(one.own_db) > 1 or one is self.forms[0])
        if one.costliest is None:
            return "no value could be compared with the float network"
        return f"no layer is at fault; {one.form.name} loses most at {self._place(one, one.costliest)}"

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping: a summary of each form, and a row a value; dB in hundredths."""
        return {
            "samples": self.samples,
            "clean_db": CLEAN,
            "student_db": _rounded(self.student_db),
            "forms": [
                {
                    "form": one.form.name,
                    "kind": one.form.kind,
                    "limit_db": LIMITS[one.form.kind],
                    "db": _rounded(one.db.get(self.output)),
                    "step_db": _rounded(one.step_db.get(self.output)),
                    "agreement": one.agreement,
                    "parted": one.parted,
                    "fault": one.fault,
                    "costliest": one.costliest,
                    "note": one.form.note,
                }
                for one in self.forms
            ],
            "rows": [
                {"value": value.name, "layer": value.layer, "op": value.op}
                | {
                    key: {
                        one.form.name: round(getattr(one, key)[value.name], 2)
                        for one in self.forms
                        if value.name in getattr(one, key)
                    }
                    for key in ("db", "step_db", "own_db")
                }
                for value in self.values
            ],
        }

    def _place(self, one: FormDrift, name: str) -> str:
        layer = next(value.layer for value in self.values if value.name == name)
        return f"{name} ({layer}): {one.own_db[name]:.1f} dB lost there, {one.db[name]:.1f} dB left"


def measure_drift(
    network: Any, forms: Sequence[Form], samples: np.ndarray, *, student: np.ndarray | None = None
) -> Drift:
    """Each of ``forms`` against the float ``network`` (``onnx.ModelProto``), at the values that they share by name.

    ``samples`` is (N, ...) float32; ``student`` (N, K) what the float student makes of them.
    """
    values, output, reference = values_of(network), network.graph.output[0].name, open_inside(network)
    against = [{value.name: _Noise() for value in values} for _ in forms]
    steps = [{value.name: _Noise() for value in values} for _ in forms]
    agreed: list[list[np.ndarray]] = [[] for _ in forms]
    taught = _Noise()
    at_once = max(1, AT_ONCE // samples[0].size)
    for begin in range(0, len(samples), at_once):
        batch = samples[begin : begin + at_once]
        wanted = before = reference(batch)
        if student is not None:
            taught.add(student[begin : begin + at_once], wanted[output])
        for index, form in enumerate(forms):
            got = _as_named(form.inside(batch))
            for name in against[index].keys() & got.keys():
                if got[name].shape == wanted[name].shape:
                    against[index][name].add(wanted[name], got[name])
                    if name in before:
                        steps[index][name].add(before[name], got[name])
            if wanted[output].ndim == 2 and wanted[output].shape == got[output].shape:
                agreed[index].append(wanted[output].argmax(1) == got[output].argmax(1))
            before = got
    found: list[FormDrift] = []
    for index, form in enumerate(forms):
        db = _decibels(against[index])
        own = own_parts(values, found[-1].db if found else None, db)
        agreement = float(np.concatenate(agreed[index]).mean()) if agreed[index] else None
        found.append(FormDrift(form, db, _decibels(steps[index]), own, agreement))
    return Drift(len(samples), tuple(values), output, tuple(found), taught.db)


def own_parts(
    values: Sequence[Value], before: Mapping[str, float] | None, after: Mapping[str, float]
) -> dict[str, float]:
    """Each value's own part in dB, of the gap between two forms; ``before`` None: the float network.

    A value that one of them does not show is passed over: what is behind it is held against the values in front of it.
    """
    gaps: dict[str, float] = {}
    own: dict[str, float] = {}
    for value in values:
        came_in = max((gaps[name] for name in value.inputs), default=0.0)
        gaps[value.name] = came_in
        if value.name in after and (before is None or value.name in before):
            start = CLEAN if before is None else before[value.name]
            gaps[value.name] = min(start, CLEAN) - min(after[value.name], CLEAN)
            own[value.name] = min(gaps[value.name] - came_in, max(CLEAN - after[value.name], 0.0))
    return own


def spread(samples: np.ndarray) -> np.ndarray:
    """Which of ``samples`` (N, ...) are looked into, ascending: evenly spread, since they may be sorted by class."""
    count = min(len(samples), int(np.clip(ELEMENTS // samples[0].size, FEWEST, MOST)))
    positions: np.ndarray = np.linspace(0, len(samples) - 1, count).round().astype(int)
    return positions


class _Noise:
    """The signal-to-noise ratio of what is added, batch by batch."""

    def __init__(self) -> None:
        self.signal = self.noise = 0.0

    def add(self, wanted: np.ndarray, got: np.ndarray) -> None:
        exact = wanted.astype(np.float64).ravel()
        difference = got.ravel() - exact
        self.signal += float(exact @ exact)
        self.noise += float(difference @ difference)

    @property
    def db(self) -> float | None:
        """None where there is no signal, or none that is finite."""
        if not 0 < self.signal < math.inf:
            return None
        if not math.isfinite(self.noise):
            return -HIGHEST
        ratio = 10 * math.log10(self.signal / self.noise) if self.noise else HIGHEST
        return min(max(ratio, -HIGHEST), HIGHEST)


def _decibels(noises: Mapping[str, _Noise]) -> dict[str, float]:
    return {name: db for name, noise in noises.items() if (db := noise.db) is not None}


def _as_named(got: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A form in half precision has other names at its ends."""
    return {name.removesuffix(HALF): value for name, value in got.items()} | got


def _rounded(db: float | None) -> float | None:
    return None if db is None else round(db, 2)
