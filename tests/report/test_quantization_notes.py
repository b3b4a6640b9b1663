"""What calibration noted stands in the report's table of quantization."""

from __future__ import annotations

from edgekd.report.description import quantization_table
from edgekd.report.evidence import Evidence

NOTE = "calibration saw one value only at relu: what else may flow there is not known"


def test_notes_are_told() -> None:
    table = quantization_table(Evidence({"quantization": {"calibration": "mse", "notes": [NOTE]}}, {}))
    assert ("Noted", NOTE) in table.rows


def test_nothing_noted_is_no_row() -> None:
    for notes in ([], None, "no list"):
        table = quantization_table(Evidence({"quantization": {"calibration": "mse", "notes": notes}}, {}))
        assert [row[0] for row in table.rows] == ["Calibration"]
