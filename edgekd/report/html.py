"""The report as one HTML file that loads nothing: inline style and SVG, no script, a policy that forbids the rest."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from edgekd.report import charts, description, mixed, tables
from edgekd.report.drift import drift_part
from edgekd.report.evidence import Evidence
from edgekd.report.figures import key_figures
from edgekd.report.page import LARGEST, render_page
from edgekd.report.reading import items, mapping, number, pair, rows, share, text
from edgekd.report.usage import EXAMPLE, commands
from edgekd.report.verdicts import accuracy_words, verdicts

STAGES = {
    "teacher": "Teacher",
    "distill": "Distillation",
    "finetune": "Fine-tuning",
    "quantize": "Quantization-aware training",
}


def render_html(manifest: Any, measurements: Any, *, identity: str = "") -> str:
    """A bundle's report as one self-contained HTML page, under `LARGEST` bytes.

    ``manifest`` and ``measurements`` are the bundle's two JSON files as mappings, read with care: a missing value is
    told as such. ``identity``: SHA-256 of manifest.json's bytes, when the caller has it.
    """
    evidence = Evidence(manifest, measurements)
    # Long tables are cut first where a network or its names are unusually large.
    for limit in (tables.ROWS, 80, 30, 10):
        page = _render(evidence, limit, identity)
        if len(page.encode()) < LARGEST:
            break
    return page


def _render(evidence: Evidence, limit: int, identity: str) -> str:
    manifest, accuracy = evidence.manifest, evidence.accuracy
    candidates = tables.candidate_rows(evidence)[:limit]
    named = [row.ratio for row in candidates if row.ratio] + [
        end for row in candidates if row.ratio and row.bounds for end in row.bounds
    ]
    axis = charts.ratio_axis(named)
    layers = tables.layer_states(evidence)
    chart, beyond = _histogram(evidence)
    return render_page(
        "report.html.j2",
        title=text(manifest.get("name"), 80) or "unnamed",
        target=evidence.target_name,
        about=text(evidence.target.get("about")),
        precision=text(manifest.get("precision"), 20) or text(evidence.target.get("precision"), 20),
        task=text(manifest.get("task"), 40),
        backend=evidence.backend,
        ships=evidence.ships,
        on_device=evidence.chosen_on_device,
        why_not=evidence.why_not if evidence.measured is None else "",
        built=evidence.source(evidence.build),
        verdicts=verdicts(evidence),
        figures=key_figures(evidence),
        chain=_chain(evidence),
        chain_words=accuracy_words(evidence),
        chain_source=accuracy[1],
        compiled=share(accuracy[0].get("compiled")) is not None,
        histogram=chart,
        beyond=beyond,
        latency_source=evidence.find("latency_ms")[1],
        candidates=[(row, _bar(row, axis)) for row in candidates],
        candidates_source=evidence.candidates[1],
        timed=bool(named),
        baseline=tables.baseline(evidence),
        chosen_name=next((row.name for row in candidates if row.chosen), ""),
        why=evidence.candidates[2],
        proof=tables.proof_table(evidence),
        drift=drift_part(evidence),
        layers=tables.layer_table(evidence, limit),
        layer_states=layers,
        searched=mixed.search_words(evidence),
        search=mixed.search_table(evidence, limit),
        layers_source=evidence.find("layers")[1],
        strip=charts.strip(layers[: 10 * limit]),
        trainings=_trainings(evidence, limit),
        quantization=description.quantization_table(evidence),
        ladder=description.ladder_table(evidence),
        entries=tables.entry_table(evidence, min(limit, 40)),
        machine=description.machine_table(evidence.build),
        versions=description.version_table(evidence),
        preprocess=description.preprocess_table(evidence),
        tensors=description.tensor_table(evidence),
        labels=description.labels_words(evidence),
        classes=len(items(manifest.get("labels"))),
        golden=description.golden_table(evidence),
        commands=commands(evidence),
        example=EXAMPLE,
        reproduce=text(manifest.get("reproduce"), 1000),
        fingerprint=text(manifest.get("data_fingerprint")),
        licences=[(text(name), text(value)) for name, value in sorted(mapping(manifest.get("licences")).items())],
        identity=text(identity, 64),
        files=description.file_table(evidence, limit),
    )


def _chain(evidence: Evidence) -> Markup:
    accuracy, source = evidence.accuracy
    compiled = share(accuracy.get("compiled"))
    bounds = pair(accuracy.get("drop_interval"))
    budget = mapping(mapping(evidence.manifest.get("recipe")).get("budget"))
    known = [(name, share(accuracy.get(name))) for name in ("teacher", "student", "master")]
    # A float build has no master: its row would only ask why.
    chain = [(name, value) for name, value in known if name != "master" or value is not None]
    label = "compiled" if source.on_target or compiled is None else "compiled, not on the target"
    return charts.accuracy_chain(
        [*chain, (label, compiled)],
        teacher=known[0][1],
        bounds=bounds,
        allowed=number(budget.get("max_accuracy_drop")),
    )


def _histogram(evidence: Evidence) -> tuple[Markup, str]:
    latency = mapping(evidence.find("latency_ms")[0])
    samples = [value / 1e6 for one in items(latency.get("samples_ns")) if (value := number(one)) is not None]
    marks = [(name, value) for name in ("p50", "p90", "p99") if (value := number(latency.get(name))) is not None]
    return charts.histogram(samples, [(name, value) for name, value in marks if value > 0])


def _bar(row: tables.CandidateRow, axis: tuple[float, float]) -> Markup:
    return Markup("") if row.ratio is None else charts.ratio_bar(row.ratio, row.bounds, axis, row.state)


def _trainings(evidence: Evidence, limit: int) -> list[tuple[str, list[Markup]]]:
    found = []
    history = mapping(evidence.build.get("history"))
    # JSON may have sorted them by name; they are shown in the order in which they were trained.
    order = [*(name for name in STAGES if name in history), *(name for name in history if name not in STAGES)]
    for name, epochs in [(name, history[name]) for name in order[: min(limit, 12)]]:
        drawn = []
        for key, label in (("metric", "validation"), ("loss", "loss")):
            points = [
                (number(row.get("epoch")) or float(index + 1), value)
                for index, row in enumerate(rows(epochs))
                if (value := number(row.get(key))) is not None
            ]
            shares = key == "metric" and all(0 <= value <= 1 for _, value in points)
            drawn.append(charts.curve(points, label, shares))
        drawn = [one for one in drawn if one]
        if drawn:
            found.append((STAGES.get(name, text(name, 60)), drawn))
    return found
