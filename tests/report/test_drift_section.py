"""The report's drift: the layer at fault is named where one looks first, and nothing is claimed that was not seen."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from bundle_samples import bundle_row, cpu_bundle, drift, finalized, jetson_bundle
from rich.console import Console

from edgekd.report import render_html, render_markdown, terminal_table
from edgekd.report.drift import SHOWN
from edgekd.report.html import LARGEST


def with_drift(found: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    manifest, measurements = cpu_bundle()
    measurements["entries"][0]["drift"] = json.loads(json.dumps(found))
    return manifest, measurements


def section(page: str) -> str:
    return page[page.index("<h2>Drift</h2>") : page.index("<h2>Layers</h2>")]


def test_the_layer_at_fault_is_named_at_the_top_and_in_the_chart():
    page = render_html(*with_drift(drift(fault=4)))
    head, part = page[: page.index("Key figures")], section(page)
    assert "<b>Layer at fault: blocks.4.0</b>" in head
    assert "the lowered form loses 17.1\u00a0dB at conv2d_4, and 16.0\u00a0dB are left" in head
    assert ">at fault: blocks.4.0</text>" in part
    assert 'class="dot blame"' in part
    assert "layer at fault: blocks.4.0" in part, "for screen readers too"
    written = render_markdown(*with_drift(drift(fault=4)))
    assert "✕ **Layer at fault: blocks.4.0**" in written
    assert "| blocks.4.0 | lowered | 17.1\u00a0dB | 16.0\u00a0dB | conv2d\\_4 |" in written


def test_a_healthy_network_has_none():
    page = render_html(*with_drift(drift()))
    assert "at fault" not in page[: page.index("Key figures")]
    part = section(page)
    assert "<b>No layer at fault</b>" in part
    assert ">costliest: blocks.3.0</text>" in part
    assert "blame" not in part
    assert part.count("<polyline") == 2, "master and lowered; the compiled model is a dot"
    assert 'class="dot compiled"' in part


def test_outputs_that_part_without_a_layer_are_no_verdict_on_one():
    found = drift()
    found["forms"][2]["parted"] = True
    page = render_html(*with_drift(found))
    head = page[: page.index("Key figures")]
    assert "The outputs part, no layer is seen to" in head
    assert "Layer at fault:" not in head
    assert "parts, inside not seen" in section(page)


def test_a_tapped_model_says_so():
    found = drift()
    found["forms"].append(
        found["forms"][1] | {"form": "tapped", "fault": "conv2d_6", "note": "compiled anew, with taps"}
    )
    for row in found["rows"]:
        for key in ("db", "own_db"):
            row[key]["tapped"] = row[key]["lowered"] - (9.0 if row["value"] == "conv2d_6" and key == "db" else 0)
    part = section(render_html(*with_drift(found)))
    assert "at fault: blocks.6.0" in part
    assert "tapped: compiled anew, with taps." in part


def test_trained_weights_are_told():
    assert "its weights were trained on" not in section(render_html(*with_drift(drift())))
    part = section(render_html(*with_drift(drift() | {"student_db": 17.4})))
    assert "its outputs are 17.4\u00a0dB from those of the float student" in part


def test_the_worst_inputs_are_listed_by_their_labels():
    part = section(render_html(*with_drift(drift())))
    assert "drift/input.npy" in part
    assert "<td>3</td><td>8</td>" in part
    found = drift()
    found["worst"]["samples"][0] |= {"difference": None, "float": 99}
    part = section(render_html(*with_drift(found)))
    assert "not finite" in part
    assert "<td>not known</td><td>8</td>" in part


@pytest.mark.parametrize("layers", [150, 2000])
def test_a_deep_network_s_chart_stays_small(layers):
    page = render_html(*with_drift(drift(layers, fault=layers // 2)))
    assert len(page.encode()) < LARGEST
    part = section(page)
    assert len(part.encode()) < 16_000
    assert f"at fault: blocks.{layers // 2}.0" in part
    assert max(line.count(",") for line in part.split("<polyline")[1:]) <= SHOWN + 20


def test_nothing_measured_gives_no_section():
    for found in (None, {}, {"forms": [], "rows": []}, {"forms": [{"form": "master"}], "rows": [{"db": {}}]}):
        page = render_html(*with_drift(found))
        assert "<h2>Drift</h2>" not in page
        assert "## Drift" not in render_markdown(*with_drift(found))


def test_another_candidate_on_the_device_is_told_apart():
    manifest, measurements = jetson_bundle()
    measurements["entries"][0]["drift"] = json.loads(json.dumps(drift()))
    page = render_html(manifest, finalized(measurements, candidate="float"))
    assert "It is that of int8, which the build chose" in section(page)


@pytest.mark.parametrize(("fault", "told"), [(None, "25.9 dB (compiled)"), ("blocks.4.0", "at fault: blocks.4.0")])
def test_the_terminal_has_a_line(fault, told):
    row = bundle_row(*cpu_bundle()) | {"drift": {"form": "compiled", "db": 25.9, "fault": fault}}
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(terminal_table([row]))
    assert told in console.export_text()
