"""The terminal table: every bundle a column, what was not measured says so, at any width."""

from __future__ import annotations

from typing import Any

import pytest
from bundle_samples import bundle_row, cpu_bundle, jetson_bundle
from rich.console import Console

from edgekd.report import terminal_table


def shown(rows: list[dict[str, Any]], width: int = 120) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(terminal_table(rows))
    return capture.get().replace("\u00a0", " ")


def line(page: str, name: str) -> str:
    return next(one for one in page.splitlines() if one.strip().startswith(name))


def test_measured_and_not_measured_side_by_side() -> None:
    page = shown([bundle_row(*cpu_bundle()), bundle_row(*jetson_bundle())])
    assert "onnxruntime-cpu" in page
    assert "98.06 %" in line(page, "accuracy")
    assert "not measured" in line(page, "accuracy")
    assert "0.128 ms" in line(page, "latency p50")
    assert "not measured" in line(page, "latency p50")
    assert "0.55 (−0.61 to 1.70)" in line(page, "points lost")
    assert "1.64×" in line(page, "over float")
    assert "19 of 21 layers" in line(page, "integers")
    assert "met" in line(page, "budget")
    assert "not decided" in line(page, "budget")
    assert "tensorrt builder not installed" in page
    assert "2 cores, no VNNI" in page


@pytest.mark.parametrize("width", [80, 60])
def test_narrow_terminals_lose_nothing(width: int) -> None:
    page = shown([bundle_row(*cpu_bundle()), bundle_row(*jetson_bundle())], width)
    assert "…" not in page
    assert all(len(one) <= width for one in page.splitlines())


def test_not_enough_runs_and_missed_budget() -> None:
    row = bundle_row(*cpu_bundle())
    row["latency_ms"]["p99"] = None
    row["budget"] = {"met": False, "missed": ["p90_ms: 9 ms at p90, 5 allowed"]}
    page = shown([row])
    assert "not enough runs" in line(page, "latency p99")
    assert "missed: p90_ms: 9 ms at p90, 5 allowed" in line(page, "budget")


def test_names_are_no_markup() -> None:
    row = bundle_row(*cpu_bundle()) | {"target": "[red]x[/red][/]\x1b[31m", "checks": {"[bold]": "[/nothing]"}}
    page = shown([row])
    assert "[red]x[/red][/]" in page
    assert "\x1b" not in page


@pytest.mark.parametrize("row", [{}, {"latency_ms": None, "accuracy": None, "budget": None, "checks": None}])
def test_empty_rows(row: dict[str, Any]) -> None:
    page = shown([row])
    assert "not measured" in line(page, "latency p50")
    assert "None" not in page
    assert "nan" not in page


def test_no_rows() -> None:
    assert terminal_table([]).row_count == 0
