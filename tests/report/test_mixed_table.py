"""The report tells how mixed precision was searched, and which layers the shipped candidate keeps in float."""

from __future__ import annotations

from bundle_samples import cpu_bundle

from edgekd.report import render_html, render_markdown
from edgekd.report.evidence import Evidence
from edgekd.report.mixed import search_table, search_words
from edgekd.report.tables import candidate_rows

SEARCH = {
    "accuracy": {"why": "1 of 3 layers in float keep the accuracy", "evaluations": 2},
    "speed": {
        "why": "layers that gain nothing from integers",
        "tried": [{"name": "int8-paying", "float_layers": 1, "promised_gain": 0.12, "made": True}],
    },
    "layers": [
        {"name": "conv2d", "snr_db": 12.34, "agreement": 0.5, "integer_us": 10.0, "float_us": 20.5},
        {"name": "<b>", "snr_db": None, "agreement": None, "integer_us": None, "float_us": None},
    ],
    "seconds": 21.04,
}


def searched():
    manifest, measurements = cpu_bundle()
    build = measurements["entries"][0]
    build["search"] = SEARCH
    shipped = next(row for row in manifest["candidates"] if row["name"] == manifest["chosen"])
    shipped["form"]["float_layers"] = ["conv2d"]
    return manifest, measurements


def test_words_and_rows() -> None:
    evidence = Evidence(*searched())
    words = search_words(evidence)
    assert "1 of 3 layers in float keep the accuracy; 2 compiled models tried" in words
    assert "int8-paying (1 layer in float, 12\u00a0% less time by the profile)" in words
    assert "21 seconds" in words
    table = search_table(evidence)
    assert [cell.replace("\u00a0", " ") for cell in table.rows[0][:3]] == ["conv2d", "12.3 dB", "50.00 %"]
    assert table.rows[0][3:5] == ("10.0 µs", "20.5 µs")
    assert table.rows[0][-1] == "yes"
    assert table.rows[1][1:] == ("not measured", "–", "–", "–", "")
    assert search_table(evidence, limit=1).left_out == 1
    assert next(row.kind for row in candidate_rows(evidence) if row.chosen).startswith("integer, 1 layer kept in float")


def test_both_reports_show_it_and_escape_names() -> None:
    page, text = render_html(*searched()), render_markdown(*searched())
    assert "Mixed precision" in page
    assert "&lt;b&gt;" in page
    assert "12.3 dB" in page
    assert "## Mixed precision" in text
    assert "12.3 dB" in text


def test_nothing_is_said_where_nothing_was_searched() -> None:
    evidence = Evidence(*cpu_bundle())
    assert search_words(evidence) == ""
    assert not search_table(evidence).rows
    assert "Mixed precision" not in render_html(*cpu_bundle())
    assert "Mixed precision" not in render_markdown(*cpu_bundle())
