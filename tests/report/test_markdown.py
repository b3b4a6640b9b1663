"""The Markdown report: the same words as the HTML one, and no name that becomes markup."""

from __future__ import annotations

import re

import pytest
from bundle_samples import cpu_bundle, finalized, jetson_bundle
from hypothesis import given
from hypothesis import strategies as st

from edgekd.report import render_markdown
from edgekd.report.markup import escape
from edgekd.report.reading import text

SPECIAL = re.compile(r"(?<!\\)(?:\\\\)*[<>|`*_\[\]#!]")


def test_tells_figures_and_where_they_come_from() -> None:
    page = render_markdown(*cpu_bundle())
    assert page.startswith("# digits for onnxruntime-cpu\n")
    assert "- ✓ **Measured on onnxruntime-cpu**" in page
    row = next(line for line in page.splitlines() if line.startswith("| Latency, median"))
    assert "0.128" in row
    assert "p99" in row
    assert row.endswith("onnxruntime 1.32.0 |")
    assert "| int8 | ships | 0.609" in page
    assert "## Golden outputs" in page


def test_target_elsewhere_is_the_first_thing_told() -> None:
    page = render_markdown(*jetson_bundle())
    second = page.split("\n\n")[1]
    assert second.startswith("> **Not measured on jetson-orin.** Not measured here, because jetson-orin is not")
    assert page.count("not measured") >= 5


def test_tables_are_whole() -> None:
    """Every line of a table has as many cells as its head, whatever the names hold."""
    manifest, measurements = cpu_bundle()
    manifest["labels"][0] = "a|b"
    entry = measurements["entries"][0]
    entry["layers"][0]["name"] = "x | y \\| z"
    entry["proof"][0]["hop"] = "<b>|`"
    for block in render_markdown(manifest, finalized(measurements)).split("\n\n"):
        lines = block.splitlines()
        if lines and lines[0].startswith("|"):
            counts = {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines}
            assert len(counts) == 1, block


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "[x](javascript:alert(1))", "**bold**", "a\n\n# b"])
def test_hostile_names_stay_names(name: str) -> None:
    manifest, measurements = cpu_bundle()
    manifest["name"] = name
    manifest["labels"][3] = name
    measurements["entries"][0]["layers"][0]["name"] = name
    page = render_markdown(manifest, measurements)
    own = re.sub(r"</?(details|summary)>", "", page)
    # What is left without everything that is escaped must hold no markup of the name's.
    bare = re.sub(r"\\[\\`*_{}\[\]<>#|~&!]", "", own)
    assert "<" not in bare
    assert "](" not in bare
    assert "**bold" not in bare
    assert "\n# b" not in own


@given(st.text())
def test_escaped_text_holds_no_markup(name: str) -> None:
    assert not SPECIAL.search(escape(text(name)))
    assert "\n" not in text(name)


def test_code_cannot_leave_its_fence() -> None:
    manifest, measurements = cpu_bundle()
    manifest["reproduce"] = "edgekd build ``` <script>alert(1)</script>"
    page = render_markdown(manifest, measurements)
    assert "````sh\nedgekd build ```" in page
