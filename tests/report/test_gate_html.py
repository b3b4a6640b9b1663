"""A gate's HTML page: what stands in it, what must never stand in it, how large it may be, and its charts."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from gate_samples import SAMPLES, fullest, passed, poisoned, real_run, too_wide
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import Page, assert_honest, assert_self_contained
from test_charts import drawn, inside, numbers

from edgekd.gate_result import MOST_LOOKS, GateResult
from edgekd.report.gate import charts, render_gate_html
from edgekd.report.page import LARGEST


def text_of(result: GateResult) -> str:
    return Page(render_gate_html(result)).text.replace("\u00a0", " ")


def with_changes(changes: list[float], *, tolerance: float = 0.02, interval: tuple[float, float] | None = None):
    """The real run with other pairs; changes as shares."""
    result = real_run()
    pairs = [
        result.latency.pairs[i % 12].model_copy(update={"log_ratio": math.log1p(one)}) for i, one in enumerate(changes)
    ]
    latency = result.latency.model_copy(update={"pairs": pairs, "interval": interval})
    asked = result.settings.model_copy(update={"tolerance": tolerance})
    return result.model_copy(update={"latency": latency, "settings": asked})


@pytest.mark.parametrize("make", SAMPLES.values(), ids=SAMPLES)
def test_is_self_contained_honest_and_small(make) -> None:
    page = render_gate_html(make())
    assert_self_contained(page)
    assert_honest(page)
    assert "://" not in page
    assert len(page.encode()) < LARGEST


def test_tells_all_that_was_found() -> None:
    text = text_of(real_run())
    for told in (
        "digits on onnxruntime-cpu",
        "Regression of file size",
        "Exact enough Against itself the old model would have an interval of ±0.93 % after 12 pairs",
        "Latency pass +1.04 % +0.11 to +1.98 % +2 % 0.0196 ms 0.0198 ms",
        "File size regression +16.84 % +5 % 40.1 kB 46.9 kB",
        "McNemar",
        "12 pairs of fresh processes in 14 s",
        "65.0 ns",
        "onnxruntime 1.32.0, 2 threads",
        "Intel(R) Xeon(R) Processor, 2 cores, amx_int8",
        "2026-11-27 21:53 UTC",
        "Interruptions a second",
        "released/digits-onnxruntime-cpu",
    ):
        assert told in text, told
    assert "Disturbed machine" not in text


def test_other_ends_of_a_run() -> None:
    text = text_of(too_wide())
    assert "Too noisy for this tolerance" in text
    assert "--budget-seconds 373" in text
    assert "Disturbed machine The machine was disturbed: some process waited for a CPU 62.0 % of the time" in text
    text = text_of(SAMPLES["failed"]())
    assert "Error" in text
    assert "killed by signal 11" in text
    assert "No pair was measured." in text
    text = text_of(SAMPLES["unpaired"]())
    assert "Stored samples of other times" in text
    assert "Stored machine a laptop Raspberry Pi 5" in text


@pytest.mark.parametrize("make", SAMPLES.values(), ids=SAMPLES)
def test_hostile_text_stays_text(make) -> None:
    page = render_gate_html(poisoned(make()))
    assert_self_contained(page)
    assert "alert(1)" in page
    assert "<script" not in page
    assert not re.search("[\u202e\x1b\x00]", page)
    assert set(Page(page).tags) <= set(Page(render_gate_html(too_wide())).tags)


# What a character becomes in HTML: five bytes by its escape, four by its code, or one.
@pytest.mark.parametrize("character", ['"', "\U0001f600", "x"])
def test_the_fullest_document_stays_under_the_limit(character: str) -> None:
    page = render_gate_html(fullest(character))
    assert len(page.encode()) < LARGEST
    assert_self_contained(page)
    assert "160 of 3000 pairs are drawn" in page
    assert page.count("+443.21") > MOST_LOOKS


def test_the_same_document_gives_the_same_page() -> None:
    assert render_gate_html(real_run()) == render_gate_html(real_run())


def test_looks_stand_on_their_side_of_the_tolerance() -> None:
    result = real_run()
    axis = charts.change_axis(result)
    assert axis is not None
    svg = drawn(charts.looks_chart(result, axis))
    (limit,) = numbers(svg, "line", "x1", "limit")
    undecided, decided = (next(one for one in svg.iter("line") if one.attrib["class"] == f"whisker {css}")
                          for css in ("even", "faster"))  # fmt: skip
    assert float(undecided.attrib["x1"]) < limit < float(undecided.attrib["x2"])
    assert float(decided.attrib["x2"]) < limit
    assert 'aria-label="Intervals at each look: 8 pairs +1.09' in charts.looks_chart(result, axis)


def test_pairs_are_drawn_in_order_and_against_zero() -> None:
    result = with_changes([0.03, -0.01, 0.0, 0.01], interval=(1.0, 1.02))
    axis = charts.change_axis(result)
    assert axis is not None
    svg = drawn(charts.pairs_chart(result, axis)[0])
    xs, ys = (numbers(svg, "circle", key) for key in ("cx", "cy"))
    assert ys == sorted(ys)
    assert xs[1] < xs[2] < xs[3] < xs[0]
    (one,) = numbers(svg, "line", "x1", "one")
    assert xs[2] == pytest.approx(one)
    (band,) = (element for element in svg.iter("rect") if element.attrib["class"] == "band")
    assert float(band.attrib["x"]) == pytest.approx(one)


def test_both_sides_stand_on_one_axis_with_their_medians() -> None:
    svg, note = charts.distributions(passed())
    root = drawn(svg)
    marks = [one.text for one in root.iter("text") if one.attrib["class"] == "value"]
    assert [mark.replace("\u00a0", " ") for mark in marks if mark] == ["old 0.0196 ms", "new 0.0198 ms"]
    for css, top, bottom in (("bar old", 22, 80), ("bar new", 110, 168)):
        bars = [one for one in root.iter("rect") if one.attrib["class"] == css]
        assert len(bars) > 5
        assert all(top <= float(one.attrib["y"]) <= bottom for one in bars)
        assert max(float(one.attrib["height"]) for one in bars) == pytest.approx(bottom - top)
    assert note == ""


def test_a_block_far_beyond_the_others_is_told() -> None:
    told = passed().to_json()
    told["latency"]["pairs"][0]["new"]["blocks_ms"][0] = 9.0
    _, note = charts.distributions(GateResult.model_validate(told))
    assert note.replace("\u00a0", " ") == "The axis is cut; 1 of 172 blocks are beyond it, the slowest took 9.00 ms"


CHANGE = st.floats(-0.999999, 1e6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(CHANGE, min_size=1, max_size=40),
    st.floats(-0.9, 100),
    st.none() | st.tuples(st.floats(1e-300, 1e300), st.floats(1e-300, 1e300)),
)
def test_charts_stay_in_their_frames(changes, tolerance, interval) -> None:
    held = (min(interval), max(interval)) if interval else None
    result = with_changes(changes, tolerance=tolerance, interval=held)
    looks = [look.model_copy(update={"interval": held or look.interval}) for look in result.latency.looks]
    result = result.model_copy(update={"latency": result.latency.model_copy(update={"looks": looks})})
    axis = charts.change_axis(result)
    assert axis is not None
    pairs, _ = charts.pairs_chart(result, axis)
    for svg in (pairs, charts.looks_chart(result, axis), charts.distributions(result)[0]):
        assert inside(svg)
    ElementTree.fromstring(str(pairs))
    page = render_gate_html(result)
    assert_honest(page)
    assert len(page.encode()) < LARGEST
