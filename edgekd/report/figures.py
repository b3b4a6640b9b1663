"""The key figures: six cards, each with the machine and runtime it comes from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from edgekd.report.evidence import Evidence, Source
from edgekd.report.reading import flag, mapping, number, pair, share, text
from edgekd.report.wording import (
    NOT_MEASURED,
    count,
    drop,
    interval,
    joined,
    megabytes,
    milliseconds,
    percent,
    plural,
    significant,
    size,
)

NOT_ENOUGH = "not enough runs"
SIZE = "Size"


@dataclass(frozen=True)
class Figure:
    """One key figure; ``value`` is empty where it was not measured, ``alien`` where it was, but not on the target."""

    label: str
    value: str
    notes: tuple[str, ...] = ()
    source: str = ""
    alien: bool = False
    parts: tuple[tuple[str, str], ...] = ()

    @property
    def shown(self) -> str:
        """The value, or that there is none."""
        return self.value or NOT_MEASURED


def key_figures(evidence: Evidence) -> list[Figure]:
    """Accuracy, latency, speed over float, size, memory, integer coverage."""
    makers = (_accuracy, _latency, _speedup, _size, _memory, _coverage)
    found = [make(evidence) for make in makers]
    if evidence.measured is not None:
        return found
    waiting = f"to be measured on {evidence.target_name}"
    return [one if one.value or one.label == SIZE else replace(one, source=waiting) for one in found]


def _figure(label: str, value: str, source: Source, notes: tuple[str, ...] = (), **more: Any) -> Figure:
    """A figure of the target; without a value it has no source either."""
    kept = tuple(note for note in notes if note)
    if not value:
        return Figure(label, "", kept)
    return Figure(label, value, kept, source.words(), alien=not source.on_target, **more)


def _accuracy(evidence: Evidence) -> Figure:
    accuracy, source = evidence.accuracy
    metric, samples = text(accuracy.get("metric"), 40), number(accuracy.get("samples"))
    about = joined(metric, f"{plural(int(samples), 'test sample')}" if samples is not None else "")
    compiled = share(accuracy.get("compiled"))
    if compiled is None:
        master = share(accuracy.get("master"))
        reference = f"reference on the build machine, not the target: master {percent(master)}" if master else ""
        return _figure("Accuracy of the compiled model", "", source, (about, reference))
    bounds = pair(accuracy.get("drop_interval"))
    worst = mapping(accuracy.get("worst_class"))
    agreement = share(accuracy.get("agreement"))
    return _figure(
        "Accuracy of the compiled model",
        percent(compiled),
        source,
        (
            drop(number(accuracy.get("drop_points"))),
            f"95 % interval of the drop: {interval(bounds, 'points')} points" if bounds else "",
            about,
            f"agrees with the teacher on {percent(agreement)}" if agreement is not None else "",
            _worst(evidence, worst),
        ),
    )


def _worst(evidence: Evidence, worst: dict[str, Any]) -> str:
    reached, index = share(worst.get("accuracy")), number(worst.get("index"))
    if reached is None or index is None:
        return ""
    labels = evidence.manifest.get("labels")
    known = isinstance(labels, list) and 0 <= index < len(labels)
    name = text(labels[int(index)], 40) if known else ""  # type: ignore[index]
    return f"worst class {name or count(index)}: {percent(reached)}"


def _latency(evidence: Evidence) -> Figure:
    found, source = evidence.find("latency_ms")
    latency = mapping(found)
    median = number(latency.get("p50"))
    parts = tuple((name, milliseconds(number(latency.get(name))) or NOT_ENOUGH) for name in ("p50", "p90", "p99"))
    runs, throughput = number(latency.get("runs")), number(latency.get("throughput"))
    load, first = number(latency.get("load_ms")), number(latency.get("first_ms"))
    threads, batch = number(latency.get("threads")), number(latency.get("batch"))
    setting = joined(
        f"batch {count(batch)}" if batch is not None else "",
        plural(int(threads), "thread") if threads is not None else "",
        f"float layers in {text(latency.get('inference_precision'), 20)}"
        if text(latency.get("inference_precision"))
        else "",
    )
    return _figure(
        "Latency, median",
        milliseconds(median),
        source,
        (
            joined(
                plural(int(runs), "run") if runs is not None else "",
                f"{significant(throughput)} samples a second" if throughput is not None else "",
            ),
            setting,
            joined(
                f"loads in {milliseconds(load)}" if load is not None else "",
                f"first run {milliseconds(first)}" if first is not None else "",
            ),
            "the machine did not become steady in the warm-up" if latency.get("steady") is False else "",
        )
        if median is not None
        else (),
        parts=parts if median is not None else (),
    )


def _speedup(evidence: Evidence) -> Figure:
    value, compared, source = evidence.speedup
    bounds, confidence, pairs = (
        evidence.speedup_interval,
        number(compared.get("confidence")),
        number(compared.get("pairs")),
    )
    if not compared and (value == 1 or (value is None and _is_baseline(evidence))):
        return _figure("Speed over float", "1×", source, ("it is the float model itself",))
    held = f"{percent(confidence, 0)} interval " if confidence is not None else "interval "
    both = (number(compared.get("median_ms")), number(compared.get("against_median_ms")))
    return _figure(
        "Speed over float",
        f"{significant(value)}×" if value is not None else "",
        source,
        (
            f"{held}{interval(bounds)}" if bounds else "",
            plural(int(pairs), "pair of fresh processes", "pairs of fresh processes") if pairs is not None else "",
            f"{milliseconds(both[0])} against {milliseconds(both[1])}" if None not in both else "",
        )
        if value is not None
        else (),
    )


def _is_baseline(evidence: Evidence) -> bool:
    """Whether the device chose the float form that the others were timed against."""
    return bool(evidence.lead) and any(
        row.get("chosen") is True and row.get("integer") is False and row.get("ratio") == 1
        for row in evidence.candidates[0]
        if text(row.get("name")) == evidence.running
    )


def _size(evidence: Evidence) -> Figure:
    found = number(evidence.size_bytes)
    parameters = mapping(mapping(evidence.build.get("accuracy")).get("parameters"))
    student, teacher = number(parameters.get("student")), number(parameters.get("teacher"))
    smaller = f"student {count(student)} parameters" if student is not None else ""
    larger = f"teacher {count(teacher)}" if teacher is not None else ""
    note = f"the file of candidate {evidence.running}" if evidence.running else "the file that is loaded"
    return Figure(SIZE, size(found), (joined(smaller, larger),) if student is not None else (), note if found else "")


def _memory(evidence: Evidence) -> Figure:
    value, source = evidence.find("peak_memory_mb")
    note = "of a fresh process, less the same process without the model"
    return _figure("Peak memory", megabytes(number(value)), source, (note,) if number(value) is not None else ())


def _coverage(evidence: Evidence) -> Figure:
    found, source = evidence.find("integer_coverage")
    whole, compute = number(mapping(found).get("integer")), number(mapping(found).get("compute"))
    if whole is None or compute is None:
        floats = not evidence.manifest.get("quantization") and flag(_ships_integer(evidence)) is False
        return Figure("Integer layers", "", ("a float build: none is expected",) if floats else ())
    part = f"{percent(whole / compute, 0)} of the compute layers" if compute > 0 else ""
    note = (part, "counted in the compiled model")
    return _figure("Integer layers", f"{count(whole)} of {count(compute)}", source, note)


def _ships_integer(evidence: Evidence) -> bool | None:
    for row in evidence.candidates[0]:
        if row.get("chosen") is True:
            return flag(row.get("integer"))
    return None
