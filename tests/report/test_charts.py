"""Charts: what is drawn lies inside its frame and in the right order."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from edgekd.report import charts


def drawn(svg: Markup) -> ElementTree.Element:
    return ElementTree.fromstring(str(svg))


def numbers(element: ElementTree.Element, tag: str, key: str, css: str = "") -> list[float]:
    return [float(one.attrib[key]) for one in element.iter(tag) if not css or one.attrib["class"] == css]


def inside(svg: Markup) -> bool:
    root = drawn(svg)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    xs = [*numbers(root, "circle", "cx"), *numbers(root, "line", "x1"), *numbers(root, "line", "x2")]
    xs += [*numbers(root, "rect", "x"), *numbers(root, "text", "x")]
    ys = [*numbers(root, "circle", "cy"), *numbers(root, "line", "y1"), *numbers(root, "line", "y2")]
    return all(-0.1 <= x <= width + 0.1 for x in xs) and all(-0.1 <= y <= height + 0.1 for y in ys)


def test_accuracy_chain_orders_by_accuracy() -> None:
    rows = [("teacher", 0.99), ("student", 0.95), ("master", 0.97), ("compiled", 0.93)]
    svg = charts.accuracy_chain(rows, teacher=0.99, bounds=(4.0, 8.0), allowed=1.0)
    xs = numbers(drawn(svg), "circle", "cx")
    assert sorted(xs) == [xs[3], xs[1], xs[2], xs[0]]
    whisker = [one for one in drawn(svg).iter("line") if one.attrib["class"] == "whisker"]
    ends = sorted(float(whisker[0].attrib[key]) for key in ("x1", "x2"))
    assert ends[0] < xs[3] < ends[1]
    assert inside(svg)


def test_accuracy_chain_without_the_compiled_model() -> None:
    svg = charts.accuracy_chain([("teacher", 0.9), ("compiled", None)], teacher=0.9, bounds=(0, 1), allowed=None)
    assert len(numbers(drawn(svg), "circle", "cx")) == 1
    assert "not measured" in svg
    assert charts.accuracy_chain([("teacher", None)], teacher=None, bounds=None, allowed=None) == ""


@given(st.lists(st.floats(0, 1), min_size=1, max_size=4), st.none() | st.floats(0, 100))
def test_accuracy_chain_stays_in_its_frame(values: list[float], allowed: float | None) -> None:
    rows = [(f"form {index}", value) for index, value in enumerate(values)]
    assert inside(charts.accuracy_chain(rows, teacher=values[0], bounds=(-2.0, 3.0), allowed=allowed))


def test_accuracy_axis_ends_at_100() -> None:
    svg = charts.accuracy_chain([("teacher", 0.994), ("compiled", 0.986)], teacher=0.994, bounds=(-0.7, 2.4), allowed=1)
    ticks = [float(one.text or "") for one in drawn(svg).iter("text") if re.fullmatch(r"[\d.]+", one.text or "")]
    assert max(ticks) == 100
    assert inside(svg)


def test_histogram_counts_every_run() -> None:
    values = np.random.default_rng(0).lognormal(0, 0.1, 2000)
    svg, beyond = charts.histogram([*list(values), 50.0], [("p50", float(np.median(values)))])
    root = drawn(svg)
    assert inside(svg)
    heights = numbers(root, "rect", "height", "bar")
    assert max(heights) == pytest.approx(104, abs=0.2)
    peak = numbers(root, "rect", "x", "bar")[heights.index(max(heights))]
    mark = numbers(root, "line", "x1", "mark")[0]
    assert abs(peak - mark) < 60, "the median stands near the tallest bar"
    found = re.fullmatch(r"The axis is cut; (\d+) of 2.001 runs are beyond it, the slowest took 50.0.ms", beyond)
    assert found is not None
    assert 1 <= int(found[1]) <= 21


def test_long_tail_does_not_press_the_others_into_one_bar() -> None:
    rng = np.random.default_rng(0)
    values = [*rng.lognormal(np.log(0.036), 0.05, 9000), *rng.uniform(0.05, 2, 500)]
    svg, note = charts.histogram(values, [("p50", 0.036), ("p99", 1.6)])
    assert note.startswith("The axis is logarithmic")
    heights = sorted(numbers(drawn(svg), "rect", "height", "bar"))
    assert sum(height > 10 for height in heights) >= 3
    assert inside(svg)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=30))
def test_histogram_of_anything(values: list[float]) -> None:
    svg, _ = charts.histogram(values, [])
    assert svg == "" or inside(svg)
    assert "nan" not in svg


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_ratio_bar_is_left_of_one_when_faster(ratio: float, other: float) -> None:
    axis = charts.ratio_axis([ratio, other])
    svg = charts.ratio_bar(ratio, (min(ratio, other), max(ratio, other)), axis, "even")
    assert inside(svg)
    one, dot = numbers(drawn(svg), "line", "x1", "one")[0], numbers(drawn(svg), "circle", "cx")[0]
    if abs(np.log(ratio)) > 0.05 * (axis[1] - axis[0]):
        assert (dot < one) == (ratio < 1)


@given(st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=300))
def test_strip_is_as_wide_as_its_layers(layers: list[bool | None]) -> None:
    root = drawn(charts.strip(layers))
    kinds = {True: "integer", False: "float", None: "unsure"}
    for state, kind in kinds.items():
        count = layers.count(state)
        wide = sum(numbers(root, "rect", "width", kind))
        gaps = len(numbers(root, "rect", "width", kind))
        assert wide == pytest.approx(600 * count / len(layers), abs=1.2 * gaps + 0.1)


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(allow_nan=False, allow_infinity=False)), max_size=300))
def test_curve_of_anything(points: list[tuple[float, float]]) -> None:
    svg = charts.curve(points, "loss", share=False)
    assert svg == "" or inside(svg)
    assert "nan" not in svg
    assert svg.count(",") <= charts.CURVE_POINTS + 60


def test_labels_are_escaped() -> None:
    svg = charts.accuracy_chain([("<b>\"'", 0.5)], teacher=None, bounds=None, allowed=None)
    assert "<b>" not in svg
    assert drawn(svg).attrib["aria-label"].startswith("Accuracy: <b>\"' 50.00")
