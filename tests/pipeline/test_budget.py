"""The budget's verdict."""

from __future__ import annotations

import pytest

from edgekd.pipeline.budget import judge
from edgekd.recipe import Budget


def entry(drop: float | None = 0.0) -> dict:
    return {"latency_ms": None, "accuracy": {"drop_points": drop}, "peak_memory_mb": None, "size_bytes": 1_000_000}


@pytest.mark.parametrize(
    ("drop", "met"),
    # 100 * (0.98 - 0.97) is 1.0000000000000009.
    [(100 * (0.98 - 0.97), True), (1.0, True), (1.01, False), (-3.0, True), (None, None)],
)
def test_a_drop_of_just_the_budget_meets_it(drop: float | None, met: bool | None) -> None:
    verdict = judge(Budget(max_accuracy_drop=1.0), entry(drop))
    assert verdict["met"] is met
    assert bool(verdict["missed"]) == (met is False)
    assert verdict["not_measured"] == (["max_accuracy_drop"] if met is None else [])


def test_what_is_missed_counts_more_than_what_is_not_measured() -> None:
    verdict = judge(Budget(size_mb=0.5, p90_ms=1.0), entry())
    assert verdict["met"] is False
    assert verdict["missed"] == ["size_mb: 1 MB of file, 0.5 allowed"]
    assert verdict["not_measured"] == ["p90_ms"]
