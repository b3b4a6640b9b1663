"""The HTML report: what stands in it, what must never stand in it, and how large it may be."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from bundle_samples import cpu_bundle, finalized, float_bundle, jetson_bundle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pages import Page, assert_honest, assert_self_contained

from edgekd.measure.proof import HopResult
from edgekd.report import render_html, render_markdown
from edgekd.report.page import LARGEST

BUNDLES = {"cpu": cpu_bundle, "jetson": jetson_bundle, "float": float_bundle}


def text_of(manifest: Any, measurements: Any) -> str:
    return Page(render_html(manifest, measurements)).text


@pytest.mark.parametrize("make", BUNDLES.values(), ids=BUNDLES)
def test_is_self_contained_and_small(make: Any) -> None:
    page = render_html(*make())
    assert_self_contained(page)
    assert_honest(page)
    assert len(page.encode()) < LARGEST
    assert "://" not in page


def test_tells_what_a_measured_bundle_is() -> None:
    manifest, measurements = cpu_bundle()
    page = text_of(manifest, measurements)
    entry = measurements["entries"][0]
    for told in (
        "digits for onnxruntime-cpu",
        "Measured on onnxruntime-cpu",
        "Budget met",
        "Proven",
        "Faster than float",
        "98.06 %",
        "0.55 points below the teacher",
        "95 % interval of the drop: −0.61 to 1.70 points",
        "top1, 360 test samples",
        f"{entry['latency_ms']['p50']:.3f} ms",
        f"{entry['speedup_over_float']:.2f}×",
        "8 pairs of fresh processes",
        "61.2 MB",
        "84.3 kB",
        "19 of 21",
        "not accurate enough: int8-float-last",
        "prepared, quantizers off",
        "/blocks.2/gate/HardSigmoid",
        "python runtime/python verify",
        "edgekd build digits --target onnxruntime-cpu",
        manifest["files"]["golden/raw.npz"]["sha256"],
    ):
        assert told in page, told
    assert "not measured" not in page.lower().replace("not measured on the target", "")
    assert page.count("Intel(R) Xeon(R) CPU @ 2.20GHz, 2 cores, no VNNI, onnxruntime 1.32.0") >= 5


def test_target_elsewhere_cannot_be_overlooked() -> None:
    manifest, measurements = jetson_bundle()
    page = render_html(manifest, measurements)
    head = page[: page.index("Key figures")]
    assert "Not measured on jetson-orin" in head
    assert "Not measured here, because jetson-orin is not this machine" in head
    text = Page(page).text
    assert "Budget not decided" in text
    assert "Proven up to the lowered graph" in text
    assert "TensorRT's builder not asked" in text
    assert text.count("to be measured on jetson-orin") == 5
    assert "No candidate was timed on the target." in text
    assert not re.search(r"\d ms", text)


def test_figure_of_another_machine_says_so() -> None:
    manifest, measurements = cpu_bundle()
    measurements["entries"][0] |= {"on_target": False, "not_measured": "the target is another machine"}
    page = render_html(manifest, measurements)
    text = Page(page).text
    assert "Not measured on onnxruntime-cpu" in text
    assert "Measured on onnxruntime-cpu" not in text
    cards = [card for card in page.split('<div class="card">')[1:] if not card.startswith("<h3>Size")]
    assert len(cards) == 5
    assert all('<p class="source alien">not the target: ' in card for card in cards)
    assert "Budget not decided" in text, "a figure of another machine decides no budget"
    assert "Faster than float" not in text


def test_newest_on_the_target_wins() -> None:
    manifest, measurements = jetson_bundle()
    text = text_of(manifest, finalized(measurements))
    assert "Measured on jetson-orin NVIDIA Jetson Orin Nano, 6 cores, tensorrt 10.3.0, 2026-12-02 09:30 UTC" in text
    assert "All measurements" in text
    assert "on the device the compiled model gives its golden outputs" in text
    assert "2.13×" in text
    assert "210 MB" in text
    assert "140 kB" in text, "the engine that is loaded, not the ONNX file"
    later = finalized(finalized(measurements), slower=9.0)
    newest = later["entries"][-1]["latency_ms"]["p50"]
    assert f"Latency, median {newest:.3g} ms" in text_of(manifest, later)


def test_measurement_elsewhere_does_not_replace_the_target() -> None:
    manifest, measurements = cpu_bundle()
    foreign = copy.deepcopy(measurements["entries"][0]) | {"source": "bench", "on_target": False}
    foreign["latency_ms"] |= {"p50": 77.7, "machine": "somebody's laptop"}
    unknown = copy.deepcopy(foreign)
    del unknown["on_target"]
    unknown["latency_ms"]["p50"] = 88.8
    measurements["entries"] += [foreign, unknown]
    text = text_of(manifest, measurements)
    key, table = text[: text.index("All measurements")], text[text.index("All measurements") :]
    assert "77.7" not in key
    assert "88.8" not in key
    assert "77.7 ms" in table
    assert "88.8 ms" in table


def test_figures_of_two_machines_do_not_mix() -> None:
    """A bench on another machine of the target has no comparison: the speed-up of the first is not its own."""
    manifest, measurements = cpu_bundle()
    first = measurements["entries"][0]
    bench = {key: copy.deepcopy(first[key]) for key in ("target", "on_target", "model", "latency_ms")}
    bench |= {"source": "bench", "date": "2026-12-24T00:00:00+00:00", "machine": first["machine"] | {"cpu": "Other"}}
    bench["latency_ms"] |= {"machine": "Other, 2 cores"}
    measurements["entries"].append(bench)
    page = render_html(manifest, measurements)
    speed = re.search(r"<h3>Speed over float</h3>\s*<div[^>]*>([^<]*)", page)
    assert speed is not None
    assert speed[1] == "not measured"
    bench["machine"] = first["machine"]
    page = render_html(manifest, measurements)
    assert f"{first['speedup_over_float']:.2f}×" in page, "the same machine and the same model file"


def test_device_that_chooses_otherwise() -> None:
    manifest, measurements = jetson_bundle()
    text = text_of(manifest, finalized(measurements, candidate="float"))
    assert "Chosen on the device float" in text
    assert "finalize chose float there in place of int8" in text
    assert "it is the float model itself" in text
    assert "tensorrt 10.3.0, candidate float" in text
    assert "float chosen" in text


def test_accuracy_of_another_candidate_is_not_shown_as_the_running_ones() -> None:
    manifest, measurements = cpu_bundle()
    longer = finalized(measurements, candidate="float", target="onnxruntime-cpu")
    page = render_html(manifest, longer)
    card = re.search(r"<h3>Accuracy of the compiled model</h3>\s*<div[^>]*>([^<]*)", page)
    assert card is not None
    assert card[1] == "not measured"


def test_slower_than_float_is_told_at_the_top() -> None:
    manifest, measurements = cpu_bundle()
    entry = measurements["entries"][0]
    entry["comparison"] |= {"ratio": 1.4, "interval": [1.3, 1.5]}
    entry["speedup_over_float"] = 1 / 1.4
    entry["choice"]["why"] = "the recipe prefers size"
    text = text_of(manifest, measurements)
    uncertain = copy.deepcopy(measurements)
    uncertain["entries"][0]["comparison"]["confidence"] = 0.5
    assert "Speed beside float not certain 0.714" in text_of(manifest, uncertain)
    assert "Slower than float 0.714 times float's speed (99 % interval 0.667 to 0.769): the recipe prefers size" in text


def test_missed_budget_and_failed_proof() -> None:
    manifest, measurements = cpu_bundle()
    manifest["recipe"]["budget"]["p90_ms"] = 0.01
    measurements["entries"][0]["proof"][3]["ok"] = False
    text = text_of(manifest, measurements)
    assert "Budget missed" in text
    assert "0.01 allowed" in text
    assert "Proof failed past its tolerance: master" in text
    assert "past its tolerance" in text


def test_the_proof_tells_by_which_measure_lowering_held() -> None:
    manifest, measurements = cpu_bundle()
    near = "as near to float as the form before it (mean difference at most 31 %: 14 %)"
    measurements["entries"][0]["proof"].append(
        HopResult("lowered", "relaxing", 1.0, 0.5, 0.3, 1.0, 0.9806, near, True).to_json()
    )
    assert f"within tolerance: {near}" in text_of(manifest, measurements)


def test_budget_recorded_without_a_recipe() -> None:
    manifest, measurements = cpu_bundle()
    del manifest["recipe"]
    measurements["entries"][0]["budget"] = {"met": False, "missed": ["p90_ms: 9 ms at p90, 5 allowed"]}
    assert "Budget missed p90_ms: 9 ms at p90, 5 allowed" in text_of(manifest, measurements)
    del measurements["entries"][0]["budget"]
    assert "Budget not known" in text_of(manifest, measurements)
    assert "No budget to miss" in text_of(manifest | {"recipe": {"budget": {}, "name": "x"}}, measurements)


def test_too_few_runs() -> None:
    manifest, measurements = cpu_bundle()
    measurements["entries"][0]["latency_ms"] |= {"p90": None, "p99": None, "samples_ns": [5, 6], "runs": 2}
    assert "p90 not enough runs p99 not enough runs" in text_of(manifest, measurements)


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'`&{{7*7}}\u202e\x1b[31m"


def poisoned(value: Any) -> Any:
    """Every text of a JSON value replaced or, where it steers, followed by markup; keys of open mappings too."""
    if isinstance(value, dict):
        return {key: poisoned(one) for key, one in value.items()} | {HOSTILE: HOSTILE}
    if isinstance(value, list):
        return [poisoned(one) for one in value]
    return value + HOSTILE if isinstance(value, str) else value


@pytest.mark.parametrize("make", BUNDLES.values(), ids=BUNDLES)
def test_hostile_text_stays_text(make: Any) -> None:
    manifest, measurements = make()
    clean = Page(render_html(manifest, measurements))
    manifest, measurements = poisoned(manifest), poisoned(finalized(measurements))
    for keep in ("backend", "chosen"):
        manifest[keep] = manifest[keep].removesuffix(HOSTILE)
    page = render_html(manifest, measurements, identity=HOSTILE)
    assert_self_contained(page)
    assert "<script" not in page
    assert "alert(1)" in page, "the text itself is shown"
    assert "49" not in re.findall(r"&#34;&#39;`&amp;(\d+)", page)
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert set(Page(page).tags) <= set(clean.tags) | {
        "polyline",
        "circle",
        "rect",
        "dl",
        "dt",
        "dd",
        "li",
        "ul",
        "strong",
        "p",
    }


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [] if not path else [path]
    for key, one in inner:
        if key != "samples_ns":
            found += leaves(one, (*path, key))
    return found


def changed(value: Any, path: tuple[Any, ...], new: Any) -> None:
    """Replace, or for `...` remove, what stands at a path; a path that is gone already is left."""
    *parents, last = path
    for key in parents:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(value, dict) and last in value:
        if new is ...:
            del value[last]
        else:
            value[last] = new
    elif isinstance(value, list) and isinstance(last, int) and last < len(value):
        value[last] = None if new is ... else new


SAMPLES = {name: make() for name, make in BUNDLES.items()} | {
    "final": (jetson_bundle()[0], finalized(jetson_bundle()[1]))
}
for _, _entries in SAMPLES.values():
    for _entry in _entries["entries"]:  # fewer, so that many examples take seconds
        if _entry["latency_ms"]:
            _entry["latency_ms"]["samples_ns"] = _entry["latency_ms"]["samples_ns"][:200]
PATHS = {name: [leaves(part) for part in parts] for name, parts in SAMPLES.items()}
VALUES = st.sampled_from(
    (..., None, float("nan"), float("inf"), -float("inf"), 0, -1, 1e300, 5e-324, 10**400, "", "x", [], {}, [None], True)
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_missing_and_strange_values_are_told_not_printed(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(SAMPLES)))
    parts = copy.deepcopy(SAMPLES[name])
    for part, paths in zip(parts, PATHS[name], strict=True):
        for path in data.draw(st.lists(st.sampled_from(paths), max_size=12, unique=True)):
            changed(part, path, data.draw(VALUES))
    page = render_html(*parts)
    assert_honest(page)
    assert len(page.encode()) < LARGEST
    written = render_markdown(*parts)
    assert not re.search(r"\b(None|nan|inf|NaN|null|True|False)\b", written)


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("name", ["cpu", "jetson"])
def test_any_one_value_may_be_missing_or_of_another_type(name: str, part: int) -> None:
    paths = [path for path in PATHS[name][part] if not any(isinstance(key, int) and key > 0 for key in path)]
    for path in paths:
        for new in (..., {"a": [None]}):
            parts = list(SAMPLES[name])
            parts[part] = copy.deepcopy(parts[part])
            changed(parts[part], path, new)
            assert_honest(render_html(*parts))


@pytest.mark.parametrize("nothing", [{}, None, [], "x", {"entries": None}, {"entries": [{}]}, {"entries": ["x"]}])
def test_nothing_at_all(nothing: Any) -> None:
    page = render_html(nothing, nothing)
    assert_honest(page)
    assert_self_contained(page)
    assert "Not measured on the target" in Page(page).text


def test_large_networks_stay_under_the_limit() -> None:
    manifest, measurements = cpu_bundle()
    entry = measurements["entries"][0]
    name = "/features/denseblock4/denselayer16/" + "<&\"'>" * 30
    entry["layers"] = [
        {"name": f"{name}{i}", "op": "QLinearConv", "integer": i % 3 > 0, "precision": "int8"} for i in range(5000)
    ]
    entry["history"] = {
        stage: [{"epoch": i, "loss": 1 / (i + 1), "metric": i / 3000} for i in range(3000)]
        for stage in ("teacher", "distill")
    }
    entry["candidates"] = entry["candidates"] * 100
    measurements["entries"] += [entry] * 300
    manifest["labels"] = [f"label {i} {name}" for i in range(1000)]
    manifest["files"] = {f"model/{i}/{name}": {"sha256": "0" * 64, "size": i} for i in range(3000)}
    page = render_html(manifest, measurements)
    assert len(page.encode()) < LARGEST
    assert_self_contained(page)
    assert "more are in the bundle’s JSON files" in page


def test_the_same_input_gives_the_same_page() -> None:
    first, again = cpu_bundle(), json.loads(json.dumps(cpu_bundle()))
    assert render_html(*first) == render_html(*again)


def test_template_and_style_are_in_the_wheel_s_package() -> None:
    import edgekd.report

    folder = Path(edgekd.report.__file__).parent
    assert (folder / "report.html.j2").is_file()
    assert (folder / "style.css").is_file()
