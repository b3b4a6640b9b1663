"""The history of gates: what is one series and what is not, its changes, and its page."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gate_samples import START, failed, poisoned, run_on, unpaired
from pages import Page, assert_honest, assert_self_contained
from test_change_points import at_most
from test_charts import drawn, inside, numbers

from edgekd.errors import BadInput
from edgekd.gate_result import GateResult
from edgekd.report.history import charts, collect, render_history
from edgekd.report.history.change_points import ERROR
from edgekd.report.history.series import Run, _changes, stretches
from edgekd.report.page import LARGEST


@pytest.fixture
def write(tmp_path: Path):
    def inner(results: list[GateResult]) -> list[Path]:
        paths = []
        for index, result in enumerate(results):
            paths.append(tmp_path / f"{index}.json")
            paths[-1].write_text(result.model_dump_json(), encoding="utf-8")
        return paths

    return inner


def test_a_slower_model_is_found_in_both_trends(write) -> None:
    results = [run_on(day, slower=1.05 if day >= 20 else 1.0) for day in range(30)]
    (series,) = collect(write(results[::-1])).series
    assert [one.identity for one in series.runs] == [f"{day:064d}" for day in range(30)], "by date, not by file"
    assert {(one.of, one.index) for one in series.changes} == {("latency", 20), ("ratio", 20)}
    assert all(one.after / one.before == pytest.approx(1.05, abs=0.01) for one in series.changes)


def test_no_change_is_told_where_there_is_none(write) -> None:
    history = collect(write([run_on(day) for day in range(30)]))
    assert history.series[0].changes == ()
    page = render_history(history)
    assert "No change found" in Page(page).text
    assert "Too few runs" in Page(render_history(collect(write([run_on(1), run_on(2)])))).text


def test_a_new_baseline_is_no_change_of_the_ratio(write) -> None:
    results = [
        run_on(day, baseline="a" * 64 if day < 15 else "b" * 64, baseline_slower=1.0 if day < 15 else 1.2)
        for day in range(30)
    ]
    (series,) = collect(write(results)).series
    assert series.changes == ()
    svg = drawn(charts.ratio_trend(series))
    assert len([one for one in svg.iter("line") if one.attrib["class"] == "mark"]) == 1


def test_small_steps_add_up_against_one_baseline_and_are_no_ratio_between_many(write) -> None:
    """docs/ci.md: where each run has a baseline of its own only the latency shows them."""
    names = [f"{day:064d}" for day in range(30)]
    own = [
        run_on(day, slower=1.01**day, baseline=names[day - 1], baseline_slower=1.01 ** (day - 1))
        for day in range(1, 30)
    ]
    (found,) = collect(write(own)).series
    assert {one.of for one in found.changes} == {"latency"}
    (found,) = collect(write([run_on(day, slower=1.01 ** (day // 6)) for day in range(30)])).series
    assert {one.of for one in found.changes} == {"latency", "ratio"}


def test_each_search_of_an_unchanged_series_is_wrong_no_more_often_than_told() -> None:
    """400 series of 36 runs with three baselines: one search of the latency, three of the ratio."""
    rng = np.random.default_rng(6)
    wrong = {"latency": 0, "ratio": 0}
    for _ in range(400):
        latencies, ratios = rng.lognormal(0, 0.02, 36), rng.lognormal(0, 0.01, 36)
        runs = [
            Run(START + timedelta(days=i), "", f"{i // 12}", "pass", latencies[i], (1.0, 1.0), ratios[i], None)
            for i in range(36)
        ]
        assert [one[0] for one in stretches(runs)] == ["latency", "ratio", "ratio", "ratio"]
        found = _changes(runs)
        wrong["latency"] += any(one.of == "latency" for one in found)
        wrong["ratio"] += sum(one.of == "ratio" for one in found)
    assert wrong["latency"] <= at_most(ERROR, 400)
    assert 0 < wrong["ratio"] <= at_most(ERROR, 1200)


def test_the_page_tells_how_many_searches_it_holds(write) -> None:
    """Twelve runs against one baseline, nine against another, which are too few for a search; and a lone run."""
    results = [run_on(day, baseline="a" * 64 if day < 12 else "b" * 64) for day in range(21)]
    text = Page(render_history(collect(write([*results, run_on(1, new__name="other")])))).text.replace("\u00a0", " ")
    assert "its ratio another one for each baseline: 2 searches on this page" in text
    assert "Each shows a change where there is none in at most 1 % of cases" in text


@pytest.mark.parametrize(
    "other",
    [
        {"machine__cpu": "another"},
        {"machine__usable_cores": 1},
        {"machine__isa": ["avx2"]},
        {"new__opened__version": "9.9"},
        {"new__opened__runtime": "openvino"},
        {"new__opened__threads": 1},
        {"new__opened__inference_precision": "bf16"},
        {"new__name": "other"},
        {"new__target": "other"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_what_may_not_be_compared_is_another_series(write, other: dict[str, Any]) -> None:
    history = collect(write([run_on(day, **(other if day % 2 else {})) for day in range(12)]))
    assert [len(series.runs) for series in history.series] == [6, 6]


def test_another_candidate_kernel_or_place_is_not(write) -> None:
    history = collect(
        write(
            [
                run_on(day, machine__kernel=f"Linux {day}", new__candidate=f"{day}", new__path=f"/{day}")
                for day in range(4)
            ]
        )
    )
    assert len(history.series) == 1


def test_what_holds_no_ratio_is_left_out_and_told(write) -> None:
    history = collect(write([run_on(1), run_on(1), unpaired(), failed()]))
    assert history.left_out == {"given twice": 1, "unpaired": 1, "without a measured ratio": 1}
    assert "1 document given twice; 1 document unpaired" in Page(render_history(history)).text
    assert "No document holds a measured ratio." in Page(render_history(collect(write([failed()])))).text


def test_a_date_that_is_none_is_refused(write) -> None:
    with pytest.raises(BadInput, match=r"0\.json: date: 'soon' is no date"):
        collect(write([run_on(1, date="soon")]))


def test_the_page_is_self_contained_honest_and_tells_the_change(write) -> None:
    results = [run_on(day, slower=1.05 if day >= 20 else 1.0) for day in range(30)]
    page = render_history(collect(write(results)))
    assert_self_contained(page)
    assert_honest(page)
    assert len(page.encode()) < LARGEST
    text = Page(page).text.replace("\u00a0", " ")
    assert re.search(r"Slower: latency \+[45]\.\d\d %, from 0\.01\d\d ms to 0\.02\d\d ms, since 2026-01-21 00:00", text)
    assert re.search(r"Slower: ratio to the baseline \+[45]\.\d\d % against the same baseline, from", text)
    assert "30 runs" in text


def test_hostile_text_stays_text(write) -> None:
    results = [poisoned(run_on(day)).model_copy(update={"date": run_on(day).date}) for day in range(3)]
    page = render_history(collect(write(results)))
    assert_self_contained(page)
    assert "<script" not in page
    assert "alert(1)" in page


def test_long_histories_stay_under_the_limit(write) -> None:
    results = [run_on(day, slower=1 + 0.1 * (day // 100 % 2)) for day in range(600)]
    results += [run_on(day, machine__cpu=f"cpu {day % 20} {'x' * 500}") for day in range(200)]
    history = collect(write(results))
    assert len(history.series) == 21
    page = render_history(history)
    assert len(page.encode()) < LARGEST
    assert_self_contained(page)
    assert "older runs not drawn" in Page(page).text.replace("\u00a0", " ")
    assert "older series" in Page(page).text


@pytest.mark.parametrize("days", [2, 12, 80])
def test_trends_stay_in_their_frames(write, days: int) -> None:
    results = [run_on(day, slower=1.3 if day > days / 2 else 1.0) for day in range(days - 1)]
    results.append(run_on(days, slower=40.0))
    (series,) = collect(write(results)).series
    for svg in (charts.latency_trend(series), charts.ratio_trend(series)):
        assert inside(svg)
        assert len(numbers(drawn(svg), "circle", "cx")) == (days if days <= charts.SINGLE else 0)


def test_json_of_a_series(write) -> None:
    (series,) = collect(write([run_on(day, slower=1.05 if day >= 8 else 1.0) for day in range(16)])).series
    told = json.loads(json.dumps(series.to_json(), allow_nan=False))
    assert told["runs"][0]["date"] == "2026-01-01T00:00:00+00:00"
    assert {one["of"] for one in told["changes"]} == {"latency", "ratio"}
    assert all(one["since"] == "2026-01-09T00:00:00+00:00" for one in told["changes"])
