"""How far up the ladder of quantization a build went, in all forms of the report."""

from __future__ import annotations

from bundle_samples import bundle_row, cpu_bundle, float_bundle
from rich.console import Console

from edgekd.report import render_html, render_markdown, terminal_table
from edgekd.report.description import ladder_table
from edgekd.report.evidence import Evidence


def test_every_rung_with_its_cost() -> None:
    table = ladder_table(Evidence(*cpu_bundle()))
    first, second = ([cell.replace("\u00a0", " ") for cell in row] for row in table.rows)
    assert first == ["PTQ", "97.22 %", "1.39", "3.2 s", ""]
    assert second == ["PTQ with bias correction", "98.61 %", "0.00", "4.5 s", "kept"]


def test_rungs_of_which_no_times_are_known() -> None:
    manifest, measurements = cpu_bundle()
    for entry in measurements["entries"]:
        entry["rung_seconds"] = [None, "soon"]
    assert [row[3] for row in ladder_table(Evidence(manifest, measurements)).rows] == ["", ""]


def test_in_the_pages() -> None:
    for page in (render_html(*cpu_bundle()), render_markdown(*cpu_bundle())):
        assert page.count("PTQ with bias correction") == 2  # why, and the rung
        assert "97.22" in page
    assert "What was tried" not in render_html(*float_bundle())


def test_in_the_terminal() -> None:
    console = Console(width=120, color_system=None)
    row = bundle_row(*cpu_bundle()) | {"quantization": "PTQ with bias correction"}
    with console.capture() as capture:
        console.print(terminal_table([row]))
    line = next(line for line in capture.get().splitlines() if line.strip().startswith("quantized by"))
    assert "PTQ with bias correction" in line
