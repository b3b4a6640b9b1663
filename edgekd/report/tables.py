"""The tables of a report as plain text cells, the same for HTML and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekd.report.evidence import Evidence, candidate_of
from edgekd.report.figures import NOT_ENOUGH
from edgekd.report.reading import flag, items, mapping, number, pair, rows, share, text
from edgekd.report.verdicts import proof_rows
from edgekd.report.wording import SPACE, interval, joined, megabytes, milliseconds, percent, plural, significant, size

# A report names so many layers, files or entries at most; the rest is in the JSON files.
ROWS = 200
NOT_KNOWN, DASH = "not known", "–"
# A date does not break.
HYPHEN = "\u2011"


@dataclass(frozen=True)
class Table:
    """Rows of text under ``columns``; ``numeric`` columns stand right; ``left_out`` rows are only counted."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numeric: frozenset[int] = frozenset()
    left_out: int = 0


@dataclass(frozen=True)
class CandidateRow:
    """One candidate: its cells, and what its drawing needs (``ratio`` None: not timed)."""

    name: str
    kind: str
    accuracy: str
    accurate: bool | None
    ratio: float | None
    bounds: tuple[float, float] | None
    median: str
    size: str
    chosen: bool
    fault: str

    @property
    def state(self) -> str:
        """Whether it is faster or slower than float, or neither within its interval."""
        if self.bounds is None:
            return "even"
        return "faster" if self.bounds[1] < 1 else "slower" if self.bounds[0] > 1 else "even"

    @property
    def accuracy_words(self) -> str:
        """Its validation accuracy, and whether that keeps what the budget allows."""
        return joined(self.accuracy, {True: "enough", False: "too low", None: ""}[self.accurate])

    @property
    def ratio_words(self) -> str:
        """The latency over float's, with its interval."""
        if self.ratio is None:
            return f"out: {self.fault}" if self.fault else "not timed"
        held = interval(self.bounds) if self.bounds and self.bounds[0] != self.bounds[1] else ""
        return f"{significant(self.ratio)} ({held})" if held else significant(self.ratio)


def candidate_rows(evidence: Evidence) -> list[CandidateRow]:
    """The forms that were tried, in the rules' order."""
    found = []
    packed = {text(row.get("name")): row for row in rows(evidence.manifest.get("candidates"))}
    layers = {text(row.get("name"), 90) for row in rows(mapping(evidence.build.get("search")).get("layers"))}
    for row in evidence.candidates[0]:
        ratio, integer = number(row.get("ratio")), flag(row.get("integer"))
        found.append(
            CandidateRow(
                name=text(row.get("name")) or "unnamed",
                kind=_layers_in(integer, packed.get(text(row.get("name")), {}), layers),
                accuracy=percent(share(row.get("accuracy"))) or "not measured",
                accurate=flag(row.get("accurate")),
                ratio=ratio if ratio is not None and ratio > 0 else None,
                bounds=pair(row.get("interval")),
                median=milliseconds(number(row.get("median_ms"))),
                size=size(number(row.get("size_bytes"))) or NOT_KNOWN,
                chosen=row.get("chosen") is True,
                fault=text(row.get("fault")),
            )
        )
    return found


def _layers_in(integer: bool | None, packed: dict[str, Any], layers: set[str]) -> str:
    """What a candidate's layers compute in; the precision of its floats is set, never the runtime's own choice.

    ``layers``: the weighted ones, of what a form keeps in float by name.
    """
    if integer is None:
        return NOT_KNOWN
    precision = text(packed.get("inference_precision"), 20)
    if integer:
        kept = sum(text(name, 90) in layers for name in items(mapping(packed.get("form")).get("float_layers")))
        floats = f"{plural(kept, 'layer')} kept in float" if kept else ""
        return joined("integer", floats, f"the rest in {precision}" if precision else "")
    stored = text(mapping(packed.get("form")).get("weights")) == "int8"
    return joined(f"float in {precision}" if precision else "float", "weights stored in int8" if stored else "")


def baseline(evidence: Evidence) -> str:
    """The name of the candidate that the others were timed against; a device may have had to do without float."""
    found = (text(row.get("name")) for row in evidence.candidates[0] if row.get("interval") == [1.0, 1.0])
    return next((name for name in found if name), "float")


def proof_table(evidence: Evidence) -> Table:
    """Each hop against the one before it."""
    columns = ("Form", "Meant to be", "Largest difference", "Mean difference", "Same decision", "Accuracy", "Result")
    kinds = {"start": "the start", "equal": "equal", "rounding": "equal but for rounding", "changing": "changed"}
    cells = []
    for hop in proof_rows(evidence):
        kind = text(hop.get("kind"))
        result = {True: "within tolerance", False: "past its tolerance"}.get(flag(hop.get("ok")), NOT_KNOWN)  # type: ignore[arg-type]
        if kind == "start" and hop.get("ok") is True:
            result = "finite"
        elif kind == "changing" and hop.get("ok") is True:
            result = "shown only"
        elif kind == "relaxing" and flag(hop.get("ok")) is not None:
            # It holds by one of two measures.
            result = joined(result, text(hop.get("tolerance"), 240), by=": ")
        cells.append(
            (
                text(hop.get("hop")) or "unnamed",
                kinds.get(kind, kind or NOT_KNOWN),
                joined(significant(number(hop.get("max_abs"))), _part(number(hop.get("max_rel"))), by=" · "),
                _part(number(hop.get("rms_rel"))),
                percent(share(hop.get("agreement"))),
                percent(share(hop.get("accuracy"))),
                result,
            )
        )
    return Table(columns, cells, frozenset({2, 3, 4, 5}))


def _part(value: float | None) -> str:
    """A relative difference: float32 roundings are far below a hundredth of a per cent."""
    if value is None:
        return ""
    return percent(value) if value >= 1e-4 or value == 0 else significant(value, 2)


def layer_states(evidence: Evidence) -> list[bool | None]:
    """Whether each compute layer of the compiled model runs in integers, in their order."""
    return [flag(row.get("integer")) for row in rows(evidence.find("layers")[0])]


def layer_table(evidence: Evidence, limit: int = ROWS) -> Table:
    """The compute layers of the compiled model."""
    found = rows(evidence.find("layers")[0])
    cells = []
    for row in found[:limit]:
        integer = flag(row.get("integer"))
        kind = NOT_KNOWN if integer is None else "integer" if integer else "float"
        cells.append((text(row.get("name"), 90), text(row.get("op"), 40), kind, text(row.get("precision"), 20)))
    return Table(("Layer", "Operation", "Runs in", "Precision"), cells, left_out=max(0, len(found) - limit))


def entry_table(evidence: Evidence, limit: int = ROWS) -> Table:
    """Everything that was ever measured of this bundle, the newest first; a dash is what was not measured."""
    figures = ("p50", "p90", "p99", "× float", "Memory", "Accuracy")
    columns = ("Date", "By", "Machine and runtime", "Target", "Model", *figures)
    cells = []
    for entry in list(reversed(evidence.entries))[:limit]:
        source, latency = evidence.source(entry), mapping(entry.get("latency_ms"))
        missing = DASH if number(latency.get("p50")) is None else NOT_ENOUGH
        here = {True: "yes", False: "no"}.get(flag(entry.get("on_target")), NOT_KNOWN)  # type: ignore[arg-type]
        cells.append(
            (
                source.date.replace(" UTC", "").replace(" ", SPACE).replace("-", HYPHEN) or NOT_KNOWN,
                text(entry.get("source"), 20) or NOT_KNOWN,
                joined(source.machine, source.runtime) or NOT_KNOWN,
                here,
                candidate_of(entry) or NOT_KNOWN,
                *(milliseconds(number(latency.get(name))) or missing for name in ("p50", "p90", "p99")),
                significant(number(entry.get("speedup_over_float"))) or DASH,
                megabytes(number(entry.get("peak_memory_mb"))) or DASH,
                percent(share(mapping(entry.get("accuracy")).get("compiled"))) or DASH,
            )
        )
    return Table(columns, cells, frozenset(range(5, 11)), max(0, len(evidence.entries) - limit))
