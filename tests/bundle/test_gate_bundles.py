"""Bundles compared: refusals, real runs with every verdict, and the document that they leave."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import jsonschema
import numpy as np
import psutil
import pytest
from make_bundle import contents, edit_manifest

from edgekd import cli
from edgekd.bundle import pack
from edgekd.errors import BadBundle, BadInput, Missing
from edgekd.gate_result import SCHEMA_FILE, GateResult
from edgekd.measure.predictions import correct_row
from edgekd.pipeline import gate
from edgekd.pipeline.gate import DEFAULTS, gate_bundles
from edgekd.pipeline.gate_files import FILES, write_gate
from edgekd.report.gate import read_gate
from edgekd.runtime.machine import describe_machine
from edgekd.runtime.measurements import append_entry, new_entry, read_measurements
from edgekd.runtime.process import WorkerProcess
from edgekd.runtime.sequential import Plan, decide

# A verdict from three short pairs: what is tested here is what a verdict leads to.
QUICK = DEFAULTS.model_copy(update={"error": 0.19, "seconds_per_pair": 0.0})


def entry(root: Path, **more) -> None:
    """Add an entry about the chosen file of a bundle."""
    manifest = json.loads((root / "manifest.json").read_text())
    path = next(row["path"] for row in manifest["candidates"] if row["name"] == manifest["chosen"])
    model = {"candidate": manifest["chosen"], "path": path, "sha256": manifest["files"][path]["sha256"]}
    append_entry(root, {**new_entry(manifest, "bench"), "model": model, **more})


def holds(result: GateResult) -> None:
    """The document is of its schema, comes back as it was, and replays to its own verdict."""
    told = json.loads(result.model_dump_json())
    jsonschema.validate(told, json.loads(SCHEMA_FILE.read_text()))
    assert GateResult.model_validate(told) == result
    assert [check.name for check in result.checks] == ["latency", "memory", "size", "accuracy", "coverage"]
    latency = result.latency
    if latency.method == "paired" and latency.failure is None:
        plan = Plan(result.settings.tolerance, latency.level, tuple(latency.planned_looks))
        again = decide([pair.log_ratio for pair in latency.pairs], plan, ended=True)
        assert again.verdict == latency.verdict
        assert [look.pairs for look in again.looks] == [look.pairs for look in latency.looks]


def test_a_slower_model_is_a_regression(bundle, wide, quick, tmp_path):
    old = bundle()
    result = gate_bundles(wide, old, QUICK)
    holds(result)
    checks = {check.name: check for check in result.checks}
    assert (result.verdict, result.exit_code) == ("regression", 3)
    assert (checks["latency"].verdict, checks["size"].verdict) == ("regression", "regression")
    assert checks["accuracy"].verdict == checks["coverage"].verdict == "not comparable"
    assert checks["memory"].new > checks["memory"].old > 1
    assert result.summary.startswith("regression of latency")
    assert result.new.identity != result.old.identity
    assert result.new.opened["runtime"] == "onnxruntime"
    for pair in result.latency.pairs:
        logs = np.log(pair.new.blocks_ms) - np.log(pair.old.blocks_ms)
        assert np.median(logs) == pytest.approx(pair.log_ratio, abs=1e-4)
        assert pair.new.witnesses.cpu_share > 0
    folder = tmp_path / "out" / "deep"
    write_gate(result, folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert read_gate(folder / "gate.json") == result
    assert "regression of latency" in (folder / "gate.md").read_text()
    assert 'type="regression"' in (folder / "gate.xml").read_text()


def test_a_faster_model_passes(bundle, wide, quick):
    result = gate_bundles(bundle(), wide, QUICK)
    holds(result)
    assert (result.verdict, result.exit_code) == ("pass", 0)
    assert result.latency.ratio < 1


@pytest.mark.parametrize(("policy", "code"), [("fail", 6), ("pass", 0), ("warn", 0)])
def test_without_time_it_is_inconclusive(bundle, monkeypatch, capsys, tmp_path, policy, code):
    root = bundle()
    monkeypatch.setattr(gate, "DEFAULTS", QUICK)
    arguments = ["--budget-seconds", "1", "--on-inconclusive", policy, "--out", str(tmp_path / "o"), "--json"]
    monkeypatch.setattr(sys, "argv", ["edgekd", "bench", str(root), "--against", str(root), *arguments])
    ended = 0
    try:
        cli.main()
    except SystemExit as stop:
        ended = int(stop.code or 0)
    out, err = capsys.readouterr()
    assert ended == code
    result = GateResult.model_validate_json(out)
    holds(result)
    assert (result.verdict, result.exit_code) == ("inconclusive", code)
    assert 1 <= len(result.latency.pairs) < 8
    assert ("warning: inconclusive" in err) == (policy == "warn")
    assert json.loads((tmp_path / "o" / "gate.json").read_text()) == json.loads(out)


def test_a_model_that_dies_in_the_middle_is_an_error_with_what_was_measured(bundle, quick, monkeypatch):
    load, loads = WorkerProcess.load, []

    def dies(self, model):
        answer = load(self, model)
        loads.append(1)
        if len(loads) == 4:
            psutil.Process(self.pid).kill()
        return answer

    monkeypatch.setattr(WorkerProcess, "load", dies)
    root = bundle()
    result = gate_bundles(root, root, QUICK)
    holds(result)
    assert (result.verdict, result.exit_code) == ("error", 1)
    assert len(result.latency.pairs) == 1
    assert "SIGKILL" in result.latency.failure.what
    assert "failed after 1 pair" in result.summary


def test_accuracy_can_be_what_is_worse(bundle, quick, tmp_path):
    old, new = bundle(), pack(tmp_path / "new", contents(tmp_path / "parts", name="other")).path
    labels = np.arange(1000)
    before = np.ones(1000, bool)
    after = before.copy()
    after[:40] = False
    for root, correct in ((old, before), (new, after)):
        entry(
            root, accuracy={"correct": correct_row(correct, labels, "d")}, integer_coverage={"integer": 1, "compute": 2}
        )
    settings = QUICK.model_copy(update={"tolerance": 5.0})
    result = gate_bundles(new, old, settings)
    holds(result)
    checks = {check.name: check for check in result.checks}
    assert checks["accuracy"].verdict == "regression"
    assert checks["coverage"].verdict == checks["latency"].verdict == "pass"
    assert (result.verdict, result.exit_code) == ("regression", 3)
    # The accuracy rejected at half the error, so latency had all of it.
    assert result.latency.level == settings.error
    shown = gate_bundles(new, old, settings.model_copy(update={"gates": ["latency", "memory"]}))
    assert shown.verdict == "pass"
    assert [check.gates for check in shown.checks] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m["inputs"][0].update(shape=[None, 3, 14, 14]), r"inputs\[0\]\.shape: .*14.* baseline has .*12"),
        (lambda m: m["inputs"][0].update(dtype="float16"), r"inputs\[0\]\.dtype: float16, the baseline has float32"),
        (lambda m: m["target"].update(name="elsewhere"), r"target\.name: elsewhere"),
        (lambda m: m["target"]["runtime"].update(threads=2), r"threads: 2, the baseline has 1"),
    ],
)
def test_bundles_of_different_inputs_or_targets_are_refused(bundle, wide, monkeypatch, change, told):
    monkeypatch.setattr(gate, "compare_until_decided", lambda *_, **__: pytest.fail("timed"))
    root = bundle()
    edit_manifest(root, change)
    with pytest.raises(BadInput, match=told):
        gate_bundles(root, wide, QUICK)


def test_another_preprocessing_is_told(bundle, wide):
    from edgekd.bundle.comparable import differences

    one, other = (json.loads((root / "manifest.json").read_text()) for root in (bundle(), wide))
    assert differences(one, other) == []
    one["preprocess"]["scale"] = 1 / 255
    assert differences(one, other) == [f"preprocess.scale: {1 / 255}, the baseline has {1 / 64}"]


def test_a_bundle_that_does_not_hold_is_refused(bundle, wide):
    root = bundle()
    (root / "golden" / "input.npy").write_bytes(b"")
    with pytest.raises(BadBundle, match="hashes"):
        gate_bundles(wide, root, QUICK)


def test_another_runtime_version_is_refused_unless_asked_and_decides_nothing(bundle, tmp_path):
    root = bundle()
    edit_manifest(root, lambda manifest: manifest.update(runtime_requirement="onnxruntime>=99"))
    with pytest.raises(BadInput, match=r"onnxruntime>=99[\s\S]*--allow-unpaired"):
        gate_bundles(root, root, QUICK)
    asked = QUICK.model_copy(update={"allow_unpaired": True})
    with pytest.raises(BadInput, match="carries no samples"):
        gate_bundles(root, root, asked)
    latency = {"samples_ns": [2_000_000, 2_100_000, 2_050_000], "machine": "this one", "runtime": "onnxruntime 98"}
    entry(root, latency_ms=latency, peak_memory_mb=5.0)
    assert read_measurements(root)["entries"][-1]["latency_ms"] == latency
    result = gate_bundles(root, root, asked)
    holds(result)
    assert (result.verdict, result.exit_code) == ("inconclusive", 6)
    assert result.latency.method == "unpaired"
    assert (result.latency.ratio, result.latency.interval) == (1.0, None)
    assert "decides nothing" in result.summary
    assert result.latency.stored["old"]["runtime"] == "onnxruntime 98"
    assert result.new.opened is None


@pytest.mark.parametrize("samples", [[0, 0], ["2"], {"a": 1}, [1e99]], ids=repr)
def test_stored_samples_that_are_no_times_are_refused(bundle, samples):
    root = bundle()
    edit_manifest(root, lambda manifest: manifest.update(runtime_requirement="onnxruntime>=99"))
    entry(root, latency_ms={"samples_ns": samples, "machine": "this one"})
    with pytest.raises(BadInput, match=r"measurements\.json: latency_ms\.samples_ns of the file [\s\S]*bench --record"):
        gate_bundles(root, root, QUICK.model_copy(update={"allow_unpaired": True}))


def test_memory_of_another_machine_alone_is_inconclusive(bundle, tmp_path):
    old = bundle()
    new = Path(shutil.copytree(old, tmp_path / "new"))
    latency = {"samples_ns": [2_000_000, 2_100_000]}
    for root, machine in ((old, {"cpu": "another"}), (new, describe_machine())):
        edit_manifest(root, lambda manifest: manifest.update(runtime_requirement="onnxruntime>=99"))
        entry(root, latency_ms=latency, peak_memory_mb=5.0, machine=machine)
    asked = QUICK.model_copy(update={"allow_unpaired": True, "gates": ["memory"]})
    result = gate_bundles(new, old, asked)
    holds(result)
    assert (result.verdict, result.exit_code) == ("inconclusive", 6)
    assert "could be compared (memory: stored figures of different machines); latency" in result.summary
    assert gate_bundles(new, new, asked).verdict == "pass"


def test_accuracy_without_predictions_is_exit_code_6_where_it_alone_decides(bundle, quick, monkeypatch, capsys):
    monkeypatch.setattr(gate, "DEFAULTS", QUICK)
    root = bundle()
    command = ["edgekd", "bench", str(root), "--against", str(root), "--gate", "accuracy", "--budget-seconds", "1"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 6
    told = " ".join(capsys.readouterr().out.split())
    assert "Inconclusive: nothing that decides could be compared (accuracy: the new and the old bundle does not" in told


def test_broken_evidence_is_not_comparable_and_ends_nothing(bundle, quick):
    root = bundle()
    entry(root, accuracy={"correct": "x"}, integer_coverage={"compute": 41})
    edit_manifest(root, lambda manifest: manifest.update(versions={"numpy": 2, "onnx": "1.17"}))
    result = gate_bundles(root, root, QUICK)
    holds(result)
    checks = {check.name: check for check in result.checks}
    assert checks["accuracy"].verdict == checks["coverage"].verdict == "not comparable"
    assert checks["size"].verdict == "pass"
    assert result.new.versions == {"numpy": None, "onnx": "1.17"}


def test_accuracy_of_another_machine_says_so(bundle, wide, quick, tmp_path):
    old, new = bundle(), Path(shutil.copytree(wide, tmp_path / "new"))
    row = correct_row(np.ones(100, bool), np.arange(100), "d")
    evidence = {"accuracy": {"correct": row}, "integer_coverage": {"integer": 1, "compute": 2}}
    entry(old, **evidence, machine=describe_machine() | {"cpu": "another"})
    entry(new, **evidence)
    checks = {check.name: check for check in gate_bundles(new, old, QUICK).checks}
    assert all(checks[name].detail.endswith("; measured on different machines") for name in ("accuracy", "coverage"))
    assert "machines" not in checks["size"].detail
    checks = {check.name: check for check in gate_bundles(new, new, QUICK).checks}
    assert not any("machines" in check.detail for check in checks.values())


def test_another_machine_is_refused(bundle):
    root = bundle()
    edit_manifest(root, lambda manifest: manifest["target"].update(board="Jetson"))
    with pytest.raises(BadInput, match="this machine is not its target, onnxruntime-cpu"):
        gate_bundles(root, root, QUICK)


def test_a_missing_runtime_is_exit_code_5(bundle, monkeypatch):
    from edgekd.runtime import verify
    from edgekd.runtime.sessions import RuntimeInfo

    gone = RuntimeInfo("onnxruntime", False, "", "not installed", "pip install it")
    monkeypatch.setattr(verify, "list_runtimes", lambda **_: [gone])
    root = bundle()
    with pytest.raises(Missing, match="not installed"):
        gate_bundles(root, root, QUICK)


@pytest.mark.parametrize("wrong", ["target", "out"])
def test_what_is_refused_is_one_message_and_exit_code_2(bundle, wide, monkeypatch, capsys, tmp_path, wrong):
    monkeypatch.setattr(gate, "compare_until_decided", lambda *_, **__: pytest.fail("timed"))
    root, out = bundle(), tmp_path / "out"
    if wrong == "target":
        edit_manifest(root, lambda manifest: manifest["target"].update(name="elsewhere"))
    else:
        out.write_text("a file")
    monkeypatch.setattr(
        sys, "argv", ["edgekd", "bench", str(root), "--against", str(wide), "--out", str(out), "--json"]
    )
    with pytest.raises(SystemExit) as stop:
        cli.main()
    told = capsys.readouterr()
    assert (stop.value.code, told.out) == (2, "")
    assert told.err.startswith(f"edgekd: {root if wrong == 'target' else out}: ")
    assert "Traceback" not in told.err
