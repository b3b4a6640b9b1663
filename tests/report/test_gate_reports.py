"""A gate's report in a terminal, as a pull request's comment, and as JUnit XML."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from gate_samples import (
    EXAMPLE,
    NOISE,
    SAMPLES,
    concluded,
    fullest,
    passed,
    poisoned,
    real_run,
    too_wide,
    unpaired,
    with_latency,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from edgekd.errors import BadInput
from edgekd.gate_result import MOST_LOOKS, GateResult
from edgekd.report.gate import gate_table, read_gate, render_gate_html, render_gate_markdown, render_junit
from edgekd.report.gate.markdown import marker
from edgekd.report.gate.told import built_with
from edgekd.report.gate.witnesses import disturbances
from edgekd.report.page import LARGEST

NO_VALUE = re.compile(r"\b(None|nan|inf|NaN|null|True|False)\b")
CHECKS = ("latency", "memory", "size", "accuracy", "coverage")
TOLD = real_run().to_json()


def changed(part: str = "latency", **values: object) -> bytes:
    """The document of the real run, with other values in one of its parts."""
    return json.dumps(TOLD | {part: TOLD[part] | values}).encode()


def shown(result: GateResult, width: int = 120) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(gate_table(result))
    return plain(capture.get())


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def cases(result: GateResult) -> dict[str, ElementTree.Element]:
    root = ElementTree.fromstring(render_junit(result).encode())
    return {one.attrib["name"]: one for one in root.iter("testcase")}


def test_terminal_has_a_line_for_each_check_and_then_the_verdict() -> None:
    lines = [" ".join(line.split()) for line in shown(real_run()).splitlines()]
    for row in (
        "latency 0.0196 ms 0.0198 ms +1.04 % (+0.11 to +1.98 %) +2 % pass",
        "memory 38.5 MB 38.5 MB +0.01 % +10 % pass",
        "file size 40.1 kB 46.9 kB +16.84 % +5 % regression",
        "accuracy 97.49 % 97.21 % −0.28 points (−1.99 to +1.44) 0 points pass",
        "integer coverage 100.00 % 100.00 % 0.00 points −5 points pass",
    ):
        assert lines.count(row) == 1, row
    assert "✕ digits on onnxruntime-cpu: regression of file size" in lines
    assert "an interval of ±0.93 % after 12 pairs: narrow enough" in shown(real_run(), 200)
    assert "disturbed" not in shown(real_run())


def test_too_wide_a_run_tells_how_long_another_would_have_to_be() -> None:
    page = shown(too_wide(), 300)
    assert "! digits on onnxruntime-cpu: inconclusive" in page
    assert "±4.90 % after 48 pairs: too wide for the +2 % that are allowed" in page
    assert "About 310 pairs (6.2 min of measuring, --budget-seconds 373) would do." in page
    assert "disturbed: some process waited for a CPU 62.0 % of the time; the hypervisor took 4.0 %" in page
    for text in (render_gate_markdown(too_wide()), render_junit(too_wide())):
        assert "310 pairs" in plain(text)
        assert "62.0 % of the time" in plain(text)


def test_at_tolerance_zero_no_number_of_pairs_is_promised() -> None:
    told = too_wide().to_json()
    told["settings"]["tolerance"] = 0.0
    told["latency"]["self_width"]["need"] = None
    assert "no number of pairs tells equal from slower" in shown(GateResult.model_validate(told), 300)
    told["settings"]["tolerance"] = 0.001
    assert "More than a day of measuring" in shown(GateResult.model_validate(told), 300)


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("make", SAMPLES.values(), ids=SAMPLES)
def test_narrow_terminals_lose_nothing(make, width: int) -> None:
    page = shown(make(), width)
    assert "…" not in page
    assert all(len(line) <= width for line in page.splitlines())
    assert not NO_VALUE.search(page)


def test_what_decides_nothing_is_told_and_never_red() -> None:
    told = real_run().to_json()
    told["checks"][2]["gates"] = False
    result = concluded(GateResult.model_validate(told))
    assert result.verdict == "pass"
    assert "regression, shown only" in shown(result)
    assert "regression, shown only" in render_gate_markdown(result)
    console = Console(width=120, color_system="standard", force_terminal=True)
    with console.capture() as capture:
        console.print(gate_table(result))
    assert "\x1b[31m" not in capture.get()


def test_witnesses_of_one_kind_are_told_by_themselves() -> None:
    assert disturbances(real_run()) == []
    assert disturbances(SAMPLES["silent"]()) == []
    changes = {
        "steal_share": (0.04, "hypervisor took 4.0 %"),
        "pressure_share": (0.3, "waited for a CPU 30.0 %"),
        "involuntary_switches": (NOISE["involuntary_switches"], "interrupted 190 times a second"),
        "throttled": (2, "slowed down for heat 24 times"),
    }
    for key, (value, words) in changes.items():
        told = real_run().to_json()
        for pair in told["latency"]["pairs"]:
            pair["new"]["witnesses"][key] = pair["old"]["witnesses"][key] = value
        if key == "throttled":
            words = "slowed down for heat 48 times"
        found = disturbances(GateResult.model_validate(told))
        assert len(found) == 1
        assert words in plain(found[0])
    told = real_run().to_json()
    for pair in told["latency"]["pairs"]:
        pair["new"]["steady"], pair["old"]["steady"] = False, True
    assert disturbances(GateResult.model_validate(told)) == []
    told["latency"]["pairs"][0]["old"]["steady"] = False
    assert "warmed up to no steady speed" in disturbances(GateResult.model_validate(told))[0]
    told = real_run().to_json()
    for index, pair in enumerate(told["latency"]["pairs"]):
        pair["old"]["witnesses"]["cpu_share"] = 0.6 if index == 3 else 1.0
        pair["new"]["witnesses"]["mhz"] = 2400 if index else 1200
    found = [plain(one) for one in disturbances(GateResult.model_validate(told))]
    assert found == [
        "the old model's processes got between 0.60 and 1.0 CPUs",
        "the clock went from 1 200 to 2 400 MHz",
    ]


def of_versions(old: str | None, new: str | None, here: str | None) -> GateResult:
    """The real run with bundles that these versions of the runtime built, under the version ``here``."""
    told = real_run().to_json()
    for side, version in (("old", old), ("new", new)):
        told[side]["versions"]["onnxruntime"] = version
        told[side]["opened"] = told[side]["opened"] | {"version": here} if here else None
    return GateResult.model_validate(told)


@pytest.mark.parametrize(
    ("old", "new", "here", "words"),
    [
        ("1.30.0", "1.32.0", "1.32.0", "The old bundle was built with onnxruntime 1.30.0, the new one with 1.32.0"),
        ("1.30.0", "1.32.0", None, "The old bundle was built with onnxruntime 1.30.0, the new one with 1.32.0"),
        ("1.30.0", "1.30.0", "1.32.0", "Both bundles were built with onnxruntime 1.30.0, and 1.32.0 ran here"),
    ],
)
def test_bundles_of_another_version_of_the_runtime_are_told(old, new, here, words) -> None:
    result = of_versions(old, new, here)
    html = render_gate_html(result)
    for page in (shown(result, 300), render_gate_markdown(result), render_junit(result), html):
        assert words in plain(page).replace("\\", "")
    assert ("ran here" in html) == (here is not None)


@pytest.mark.parametrize(
    ("old", "new", "here"),
    [
        ("1.32.0", "1.32.0", "1.32.0"),
        ("1.32.0", "1.32.0", None),
        ("1.32.0", "1.32", "1.32.0+cpu"),  # the same release
        (None, "1.32.0", "1.32.0"),  # what is not known is not told
    ],
)
def test_bundles_of_the_version_that_runs_are_not(old, new, here) -> None:
    result = of_versions(old, new, here)
    assert built_with(result) == ""
    for page in (shown(result, 300), render_gate_markdown(result), render_junit(result), render_gate_html(result)):
        assert "fastest under" not in plain(page)


def test_comment_begins_with_its_marker_and_has_one_table_in_sight() -> None:
    page = render_gate_markdown(real_run())
    assert page.splitlines()[0] == "<!-- edgekd-bench: digits-onnxruntime-cpu -->"
    head, folded = page.split("<details>")
    assert len(re.findall(r"^\| ---", head, re.MULTILINE)) == 1
    assert "### ✕ digits on onnxruntime-cpu: regression of file size" in head
    assert "| Latency | 0.0196 ms | 0.0198 ms | +1.04 % (+0.11 to +1.98 %) | +2 % | ✓ pass |" in plain(head)
    for told in ("McNemar", "65.0 ns", "onnxruntime 1.32.0, 2 threads", "09bdd3f78e55c5a8", "Intel", "more pairs"):
        assert told in folded
    assert folded.rstrip().endswith("</details>")


# What becomes two characters in Markdown, by its escape or by what keeps it from being live.
@pytest.mark.parametrize("character", ["*", "@"])
def test_the_fullest_document_fits_a_comment(character: str) -> None:
    page = render_gate_markdown(fullest(character))
    assert page.count("+443.21") == MOST_LOOKS
    assert len(page) < 60_000, "GitHub takes 65,536 characters"


@given(st.text(), st.text())
def test_marker_stays_one_comment(name: str, target: str) -> None:
    result = real_run()
    new = result.new.model_copy(update={"name": name, "target": target})
    assert re.fullmatch(r"<!-- edgekd-bench: (?!-)[\w.]+(-[\w.]+)* -->", marker(result.model_copy(update={"new": new})))


@pytest.mark.parametrize("make", SAMPLES.values(), ids=SAMPLES)
def test_comment_holds_no_markup_of_others(make) -> None:
    page = render_gate_markdown(poisoned(make()))
    own = re.sub(r"</?(details|summary)>|^> |^<!-- [^>]* -->$|^###", "", page, flags=re.MULTILINE)
    bare = re.sub(r"\\[\\`*_{}\[\]<>#|~&!]", "", own)
    assert not re.search(r"[<>`#]|\]\(", bare)
    assert not re.search(r"@\w|://", page)
    assert not re.search("[\u202e\x1b\x00]", page)
    for block in page.split("\n\n"):
        lines = block.splitlines()
        if lines and lines[0].startswith("|"):
            assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines}) == 1, block
    assert not NO_VALUE.search(render_gate_markdown(make()))


@pytest.mark.parametrize("make", [*SAMPLES.values(), lambda: poisoned(unpaired())], ids=[*SAMPLES, "poisoned"])
def test_junit_is_of_the_common_shape(make) -> None:
    """jenkinsci/xunit-plugin's junit-10.xsd: elements, their order and their attributes."""
    result = make()
    root = ElementTree.fromstring(render_junit(result).encode())
    assert root.tag == "testsuites"
    (suite,) = root
    assert [child.tag for child in suite] == ["properties", *["testcase"] * 5, "system-out"]
    assert [case.attrib["name"] for case in suite.iter("testcase")] == list(CHECKS)
    for element in (root, suite):
        for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"), ("tests", "testcase")):
            assert int(element.attrib[key]) == len(list(suite.iter(tag)))
        assert float(element.attrib["time"]) == pytest.approx(result.seconds, abs=1e-3)
    for case in suite.iter("testcase"):
        assert set(case.attrib) == {"name", "classname", "time"}
        assert len(case) == 1
        assert case[0].tag in ("failure", "error", "skipped", "system-out")
        if case[0].tag in ("failure", "error"):
            assert set(case[0].attrib) == {"message", "type"}
    assert all(set(one.attrib) == {"name", "value"} for one in suite.iter("property"))
    if make in SAMPLES.values():
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
        assert not NO_VALUE.search(render_junit(result))


def test_junit_tells_each_verdict() -> None:
    found = cases(real_run())
    assert plain(found["size"].find("failure").attrib["message"]).startswith("regression: +16.84 %, +5 % allowed")
    assert found["latency"].find("system-out") is not None
    found = cases(SAMPLES["failed"]())
    assert "signal 11" in found["latency"].find("error").text
    assert found["memory"].find("skipped").attrib["message"].startswith("not comparable")
    assert cases(too_wide())["latency"].find("failure").attrib["type"] == "inconclusive"
    lenient = concluded(too_wide(), policy="warn")
    assert lenient.exit_code == 0
    assert cases(lenient)["latency"].find("skipped").attrib["message"].startswith("inconclusive")


@pytest.mark.parametrize(
    ("policy", "code", "tag"), [("fail", 6, "failure"), ("warn", 0, "skipped"), ("pass", 0, "skipped")]
)
def test_a_gate_that_could_compare_nothing_is_inconclusive_and_says_why(policy: str, code: int, tag: str) -> None:
    told = real_run().to_json()
    told["settings"]["gates"] = ["memory", "accuracy"]
    for check in told["checks"]:
        check["gates"] = check["name"] in ("memory", "accuracy")
        check["detail"] = f"no {check['name']} here"
    # A latency that is known does not decide here, and neither does the size, which grew.
    nothing = {"memory": "not comparable", "accuracy": "not comparable"}
    result = concluded(GateResult.model_validate(told), policy=policy, **nothing)
    assert (result.verdict, result.exit_code) == ("inconclusive", code)
    words = "could be compared (memory: no memory here; accuracy: no accuracy here); latency +1.04 %"
    for page in (shown(result, 300), render_junit(result), plain(render_gate_markdown(result))):
        assert words in page
    found = cases(result)
    assert all(found[name].find(tag).attrib["message"].startswith("not comparable") for name in nothing)
    assert all(found[name].find("failure") is None for name in CHECKS if name not in nothing)
    assert found["coverage"].find("system-out") is not None
    one = concluded(GateResult.model_validate(told), policy=policy, **nothing | {"memory": "pass"})
    assert (one.verdict, one.exit_code) == ("pass", 0)
    assert cases(one)["accuracy"].find("skipped") is not None


VERDICTS = st.sampled_from(("pass", "regression", "inconclusive", "not comparable"))


@given(
    st.sampled_from(("pass", "regression", "inconclusive", "error")),
    st.fixed_dictionaries(dict.fromkeys(CHECKS[1:], VERDICTS)),
    st.sampled_from(("fail", "warn", "pass")),
    st.sets(st.sampled_from(CHECKS), min_size=1),
)
def test_junit_fails_exactly_where_the_exit_code_does(latency, others, policy, gates) -> None:
    told = real_run().to_json()
    told["settings"]["gates"] = sorted(gates)
    for check in told["checks"]:
        check["gates"] = check["name"] in gates
    result = concluded(GateResult.model_validate(told), policy=policy, latency=latency, **others)
    root = ElementTree.fromstring(render_junit(result).encode())
    assert (int(root.attrib["failures"]) + int(root.attrib["errors"]) > 0) == (result.exit_code != 0)
    assert (int(root.attrib["errors"]) > 0) == (result.verdict == "error")


# A page's template is read once, which takes longer than a case may.
@settings(deadline=None)
@given(st.text(), st.floats(allow_nan=False, allow_infinity=False), st.floats(1e-300, 1e300))
def test_any_text_and_number_is_written(text: str, change: float, value: float) -> None:
    result = with_latency(real_run(), interval=(1 / value, value), ratio=value)
    held = {"interval": (-value, value)}
    checks = [one.model_copy(update={"detail": text, "change": change, "new": value} | held) for one in result.checks]
    result = result.model_copy(update={"checks": checks, "machine_name": text, "summary": text})
    ElementTree.fromstring(render_junit(result).encode())
    assert render_gate_markdown(result).startswith("<!--")
    assert len(render_gate_html(result).encode()) < LARGEST
    shown(result)


def test_documents_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "gate.json"
    path.write_text(passed().model_dump_json())
    assert read_gate(path) == passed()
    assert read_gate(EXAMPLE) == real_run()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "no document of a gate"),
        (b'{"kind": "edgekd-gate", "schema_version": 2}', "schema version 2; this edgekd reads 1"),
        (b'{"kind": "edgekd-gate", "schema_version": 1}', "Field required"),
        (json.dumps(TOLD | {"verdict": "fine"}).encode(), "verdict: Input should be"),
        (json.dumps(TOLD | {"seconds": float("nan")}).encode(), "seconds: Input should be a finite"),
        (changed(ratio=0), "latency.ratio: Input should be greater than 0"),
        (changed(new_median_ms=-0.02), "latency.new_median_ms: Input should be greater than 0"),
        (changed(old_median_ms=0.0), "latency.old_median_ms: Input should be greater than 0"),
        (changed(interval=[0.0, 1.0]), "latency.interval.0: Input should be greater than 0"),
        (changed(looks=TOLD["latency"]["looks"] * 31), "latency.looks: List should have at most 60"),
        (changed(planned_looks=[*range(8, 69)]), "latency.planned_looks: List should have at most 60"),
        (changed(self_width={"pairs": 10**400, "half_width": 0.1, "too_wide": False, "need": None}), "pairs: Input"),
        (changed("settings", gates=[]), "settings.gates: List should have at least 1"),
        (changed("settings", gates=["size"] * 6), "settings.gates: List should have at most 5"),
        (json.dumps(TOLD | {"checks": TOLD["checks"] * 2}).encode(), "checks: List should"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "gate.json"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"gate\.json: ") as raised:
        read_gate(path)
    assert words in raised.value.render()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        read_gate(tmp_path / "gate.json")
