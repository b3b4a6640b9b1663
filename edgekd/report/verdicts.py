"""What the figures amount to, in words: measured on the target or not, budget, proof, accuracy, speed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekd.report.evidence import Evidence
from edgekd.report.losses import drift_words
from edgekd.report.reading import items, mapping, number, pair, rows, share, text
from edgekd.report.state import Verdict
from edgekd.report.wording import drop, interval, joined, percent, plural, points, significant

# The confidence of a speed's interval below which it decides nothing.
ENOUGH = 0.9


def verdicts(evidence: Evidence) -> list[Verdict]:
    """The lines of a report's top, the one that limits all others first."""
    found = [
        _measured(evidence),
        _budget(evidence),
        _proof(evidence),
        _drift(evidence),
        _builder(evidence),
        _speed(evidence),
    ]
    return [verdict for verdict in found if verdict is not None]


def _measured(evidence: Evidence) -> Verdict:
    source = evidence.measured
    if source is None:
        return Verdict(
            "unknown", f"Not measured on {evidence.target_name}", f"Not measured here, because {evidence.why_not}"
        )
    detail = joined(source.machine or "an unknown machine", source.runtime, source.date)
    chosen = evidence.chosen_on_device
    more = f". finalize chose {chosen} there in place of {evidence.ships or 'the first choice'}" if chosen else ""
    return Verdict("good", f"Measured on {evidence.target_name}", detail + more)


@dataclass(frozen=True)
class Limit:
    """One line of the budget: ``value`` None where it was not measured on the target."""

    key: str
    about: str
    value: float | None
    allowed: float

    @property
    def words(self) -> str:
        """The figure beside what is allowed."""
        found = points(self.value) if self.key == "max_accuracy_drop" else significant(self.value)
        return f"{self.about}: {found or 'not measured'}, {self.allowed:g} allowed"


def limits(evidence: Evidence) -> list[Limit]:
    """The recipe's budget with the figures that this report shows."""
    accuracy, source = evidence.accuracy
    latency, timed = evidence.find("latency_ms")
    memory, held = evidence.find("peak_memory_mb")
    figures = {
        "max_accuracy_drop": ("points of accuracy lost", accuracy.get("drop_points"), source.on_target),
        "p90_ms": ("ms at p90", mapping(latency).get("p90"), timed.on_target),
        "peak_memory_mb": ("MB of memory", memory, held.on_target),
        "size_mb": ("MB of file", _millions(evidence.size_bytes), True),
    }
    budget = mapping(mapping(evidence.manifest.get("recipe")).get("budget"))
    found = []
    for key, (about, value, counts) in figures.items():
        allowed = number(budget.get(key))
        if allowed is not None:
            found.append(Limit(key, about, number(value) if counts else None, allowed))
    return found


def _millions(count: float | None) -> float | None:
    return None if count is None else count / 1e6


def _budget(evidence: Evidence) -> Verdict:
    known = limits(evidence)
    if not known:
        return _recorded_budget(evidence)
    missed = [one for one in known if one.value is not None and one.value > one.allowed]
    unknown = [one for one in known if one.value is None]
    detail = "; ".join(one.words for one in known)
    if missed:
        return Verdict("bad", "Budget missed", detail)
    if unknown:
        return Verdict("unknown", "Budget not decided", detail)
    return Verdict("good", "Budget met", detail)


def _recorded_budget(evidence: Evidence) -> Verdict:
    recorded = mapping(evidence.told("budget"))
    missed = [text(one) for one in items(recorded.get("missed")) if text(one)]
    if missed or recorded.get("met") is False:
        return Verdict("bad", "Budget missed", "; ".join(missed) or "the build says so, without a figure")
    if mapping(evidence.manifest.get("recipe")) or recorded.get("met") is True:
        return Verdict("good", "No budget to miss", "the recipe sets no limit")
    return Verdict("unknown", "Budget not known", "neither the recipe nor the measurements tell")


def proof_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """The proof's hops, the newest on the target or the build's."""
    return rows(evidence.told("proof"))


def _proof(evidence: Evidence) -> Verdict:
    hops = proof_rows(evidence)
    if not hops:
        return Verdict("unknown", "Not proven", "the measurements hold no proof")
    failed = [text(hop.get("hop")) or "unnamed hop" for hop in hops if hop.get("ok") is False]
    if failed:
        return Verdict("bad", "Proof failed", f"past its tolerance: {', '.join(failed)}")
    unsure = [text(hop.get("hop")) or "unnamed hop" for hop in hops if hop.get("ok") is not True]
    if unsure:
        return Verdict("unknown", "Not wholly proven", f"no result for {', '.join(unsure)}")
    told = (
        f"{plural(len(hops) - 1, 'step')} from {text(hops[0].get('hop')) or 'the first form'} to {{}} within tolerance"
    )
    golden = bool(evidence.lead) and text(evidence.told("checks", "golden")) == "ok"
    if evidence.chosen_on_device:
        # The hops end in the candidate that the build chose.
        held = "gives its golden outputs there" if golden else "was not compared"
        detail = f"{told.format(evidence.ships)}; {evidence.chosen_on_device}, which the device uses, {held}"
        return Verdict("good" if golden else "unknown", f"Proven for {evidence.ships}", detail)
    last = text(hops[-1].get("hop")) or "the last form"
    if last == "compiled":
        return Verdict("good", "Proven", told.format("the compiled model"))
    told = told.format(f"the {last} graph")
    if golden:
        return Verdict("good", "Proven", f"{told}; on the device the compiled model gives its golden outputs")
    return Verdict("unknown", f"Proven up to the {last} graph", f"{told}; the compiled model itself was not compared")


def _drift(evidence: Evidence) -> Verdict | None:
    """A layer at fault says so at the top; its section tells the rest."""
    state, head, detail = drift_words(evidence)
    return Verdict("bad" if state == "bad" else "unknown", head, detail) if head and state != "good" else None


def _builder(evidence: Evidence) -> Verdict | None:
    """Whether TensorRT takes the graph; only its own builder can tell."""
    state = text(evidence.told("checks", "tensorrt_builder"))
    if evidence.backend == "tensorrt" and evidence.lead:
        return Verdict("good", "TensorRT builds it", "the engine was built and run on the device")
    if state == "ok":
        return Verdict("good", "TensorRT builds it", "its parser and builder took the lowered graph")
    if state:
        return Verdict("unknown", "TensorRT's builder not asked", f"it is {state}")
    if evidence.backend == "tensorrt":
        return Verdict("unknown", "TensorRT's builder not asked", "no check is recorded")
    return None


def _speed(evidence: Evidence) -> Verdict | None:
    """A model slower than its float form says so at the top."""
    speedup, compared, source = evidence.speedup
    bounds, confidence = evidence.speedup_interval, number(compared.get("confidence"))
    if speedup is None or not source.on_target or bounds is None:
        return None
    held = f"{percent(confidence, 0)} interval " if confidence is not None else ""
    told = f"{significant(speedup)} times float's speed ({held}{interval(bounds)})"
    if confidence is not None and confidence < ENOUGH:
        return Verdict("unknown", "Speed beside float not certain", f"{told}: more pairs of processes would tell")
    if bounds[1] < 1:
        return Verdict("unknown", "Slower than float", joined(told, evidence.candidates[2], by=": "))
    if bounds[0] > 1:
        return Verdict("good", "Faster than float", told)
    return Verdict("unknown", "As fast as float within noise", told)


def accuracy_words(evidence: Evidence) -> str:
    """The compiled accuracy against the teacher's, with interval and number of samples."""
    accuracy, _ = evidence.accuracy
    compiled = share(accuracy.get("compiled"))
    if compiled is None:
        return ""
    bounds = pair(accuracy.get("drop_interval"))
    held = f"95 % interval {interval(bounds, 'points')} points" if bounds else ""
    samples = number(accuracy.get("samples"))
    return joined(
        percent(compiled),
        drop(number(accuracy.get("drop_points"))),
        held,
        f"{plural(int(samples), 'test sample')}" if samples is not None else "",
    )
