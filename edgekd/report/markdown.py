"""The report as Markdown: the same words and tables, without charts."""

from __future__ import annotations

from typing import Any

from edgekd.report import description, markup, mixed, tables
from edgekd.report.drift import drift_part
from edgekd.report.evidence import Evidence
from edgekd.report.figures import key_figures
from edgekd.report.markup import escape
from edgekd.report.reading import mapping, text
from edgekd.report.state import SIGNS
from edgekd.report.usage import EXAMPLE, commands
from edgekd.report.verdicts import verdicts


def render_markdown(manifest: Any, measurements: Any, *, identity: str = "") -> str:
    """A bundle's report as GitHub-flavoured Markdown; the same arguments as `render_html`, values escaped alike."""
    evidence = Evidence(manifest, measurements)
    parts = [_head(evidence), _verdicts(evidence), _figures(evidence), _candidates(evidence)]
    parts += [
        _section("Proof", markup.table(tables.proof_table(evidence)), empty="The measurements hold no proof."),
        _drift(evidence),
        _section("Layers", _layers(evidence), empty="Not counted on the target."),
        _section("Mixed precision", escape(mixed.search_words(evidence)), markup.table(mixed.search_table(evidence))),
        _section(
            "Quantization",
            markup.table(description.quantization_table(evidence)),
            markup.table(description.ladder_table(evidence)),
        ),
        _section("All measurements", _entries(evidence)),
        _section("Use it on the device", _usage(evidence)),
        _section("Inputs and outputs", markup.table(description.tensor_table(evidence)), _labels(evidence)),
        _section("Preprocessing", markup.table(description.preprocess_table(evidence))),
        _section("Golden outputs", markup.table(description.golden_table(evidence))),
        _section("Build machine", markup.table(description.machine_table(evidence.build)), empty="Not known."),
        _section("Versions", markup.table(description.version_table(evidence)), empty="Not known."),
        _section("Make it again", _again(evidence)),
        _section("Identity", _identity(evidence, identity)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(evidence: Evidence) -> str:
    name = text(evidence.manifest.get("name"), 80) or "unnamed"
    lines = [f"# {escape(name)} for {escape(evidence.target_name)}"]
    if evidence.measured is None:
        lines.append(
            f"> **Not measured on {escape(evidence.target_name)}.** Not measured here, because "
            f"{escape(evidence.why_not)}."
        )
    facts = (
        ("Precision", text(evidence.manifest.get("precision"), 20)),
        ("Ships", evidence.ships),
        ("Chosen on the device", evidence.chosen_on_device),
        ("Runtime", evidence.backend),
        ("Built", evidence.source(evidence.build).date),
    )
    told = " · ".join(f"{name}: {escape(value)}" for name, value in facts if value)
    return "\n\n".join([*lines, told] if told else lines)


def _verdicts(evidence: Evidence) -> str:
    return "\n".join(
        f"- {SIGNS[verdict.state]} **{escape(verdict.head)}**: {escape(verdict.detail)}"
        for verdict in verdicts(evidence)
    )


def _figures(evidence: Evidence) -> str:
    cells: list[tuple[str, ...]] = []
    for figure in key_figures(evidence):
        parts = tuple(f"{name} {value}" for name, value in figure.parts)
        source = figure.source
        cells.append((figure.label, figure.shown, "; ".join((*parts, *figure.notes)), source))
    return _section("Key figures", markup.table(tables.Table(("Figure", "Value", "About it", "Comes from"), cells)))


def _candidates(evidence: Evidence) -> str:
    found = tables.candidate_rows(evidence)
    if not found:
        return ""
    columns = (
        "Candidate",
        "Ships",
        f"Latency / {tables.baseline(evidence)}",
        "Median",
        "Validation accuracy",
        "Size",
        "Layers",
    )
    cells: list[tuple[str, ...]] = [
        (
            row.name,
            "ships" if row.chosen else "",
            row.ratio_words,
            row.median,
            row.accuracy_words,
            row.size,
            row.kind,
        )
        for row in found
    ]
    timed = any(row.ratio is not None for row in found)
    source = evidence.candidates[1].words() if timed else "No candidate was timed on the target."
    why = evidence.candidates[2]
    return _section(
        "Candidates", f"Why: {escape(why)}." if why else "", escape(source), markup.table(tables.Table(columns, cells))
    )


def _drift(evidence: Evidence) -> str:
    part = drift_part(evidence)
    if not part.head:
        return ""
    head = f"{SIGNS[part.state]} **{escape(part.head)}**: {escape(part.detail)}."
    notes = " ".join(f"{escape(note)}." for note in part.notes)
    worst = markup.table(part.worst)
    told = "The worst inputs, saved in the bundle as drift/input.npy:" if worst else ""
    return _section("Drift", head, notes, markup.table(part.forms), markup.table(part.losses), told, worst)


def _layers(evidence: Evidence) -> str:
    found = tables.layer_table(evidence)
    if not found.rows:
        return ""
    source = escape(evidence.find("layers")[1].words())
    return f"{source}\n\n{markup.folded('All layers', markup.table(found))}"


def _entries(evidence: Evidence) -> str:
    if len(evidence.entries) < 2:
        return ""
    told = "The newest first, times in UTC; a dash is what was not measured."
    return f"{told}\n\n{markup.table(tables.entry_table(evidence))}"


def _usage(evidence: Evidence) -> str:
    lines = "\n".join(f"{command}  # {about}" for command, about in commands(evidence))
    return "\n\n".join(part for part in (markup.code("sh", lines), markup.code("python", EXAMPLE)) if part)


def _labels(evidence: Evidence) -> str:
    found = description.labels_words(evidence)
    return f"Labels: {escape(found)}" if found else ""


def _again(evidence: Evidence) -> str:
    fingerprint = text(evidence.manifest.get("data_fingerprint"))
    told = f"Fingerprint of the data: {escape(fingerprint)}" if fingerprint else ""
    return "\n\n".join(
        part for part in (markup.code("sh", text(evidence.manifest.get("reproduce"), 1000)), told) if part
    )


def _identity(evidence: Evidence, identity: str) -> str:
    found = text(identity, 64)
    first = f"A bundle's identity is the SHA-256 of its manifest.json{f': {escape(found)}' if found else '.'}"
    licences = "; ".join(
        f"{escape(text(name))} {escape(text(value))}"
        for name, value in sorted(mapping(evidence.manifest.get("licences")).items())
    )
    files = markup.table(description.file_table(evidence))
    folded = markup.folded("Files and their hashes", files)
    parts = (first, f"Licences: {licences}" if licences else "", folded)
    return "\n\n".join(part for part in parts if part)


def _section(title: str, *parts: str, empty: str = "") -> str:
    """A heading and what is there of its parts; nothing where there is none and ``empty`` says nothing."""
    there = [part for part in parts if part] or ([empty] if empty else [])
    return "\n\n".join([f"## {title}", *there]) if there else ""
