"""The main job on embedded data: one training, three targets, every figure and check in its place."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from fast_recipe import FAST, JOBS, TARGETS

import edgekd
from edgekd.bundle import load_bundle
from edgekd.measure.predictions import read_correct
from edgekd.target import load_target


def rows(built):
    return {row["target"]: row for row in built[0].bundles}


def test_one_training_serves_every_target(built):
    result, _ = built
    names = [(row["name"], row["target"]) for row in result.stages]
    shared = [(name, None) for name in ("teacher", "distill", "finetune", "quantize")]
    assert names[:4] == shared
    for target in ("onnxruntime-cpu", "openvino-cpu", "jetson-orin"):
        assert [name for name, of in names if of == target] == ["compile", "measure", "bundle"]


@pytest.mark.parametrize("target", ["onnxruntime-cpu", "openvino-cpu"])
def test_a_cpu_bundle_has_every_figure(built, target):
    row = rows(built)[target]
    assert row["precision"] == "int8"
    accuracy = row["accuracy"]
    assert accuracy["samples"] == 359
    assert accuracy["metric"] == "top1"
    for form in ("teacher", "student", "master", "compiled"):
        assert 0.8 < accuracy[form] <= 1
    assert accuracy["drop_points"] == pytest.approx(100 * (accuracy["teacher"] - accuracy["compiled"]))
    assert row["latency_ms"]["p50"] > 0
    assert row["latency_ms"]["machine"]
    assert target.split("-")[0] in row["latency_ms"]["runtime"]
    assert row["speedup_over_float"] > 0
    assert row["integer_coverage"]["compute"] >= row["integer_coverage"]["integer"] >= 1
    assert row["peak_memory_mb"] > 0
    assert 10_000 < row["size_bytes"] < 200_000
    assert row["checks"]["parity"] == "ok"
    assert row["budget"]["met"] is True


@pytest.mark.parametrize("target", ["onnxruntime-cpu", "openvino-cpu"])
def test_a_bundle_tells_which_test_samples_it_gets_right(built, target):
    row = rows(built)[target]
    assert "correct" not in row["accuracy"]
    bundle = load_bundle(row["path"])
    told = bundle.measurements["entries"][0]["accuracy"]
    correct = read_correct(told["correct"])
    assert len(correct) == told["samples"]
    assert correct.mean() == told["compiled"]
    assert told["correct"]["data"] == bundle.manifest["data_fingerprint"]


def test_a_target_that_is_not_here_shows_no_figure_of_this_machine(built):
    row = rows(built)["jetson-orin"]
    assert row["latency_ms"] is None
    assert row["accuracy"]["compiled"] is None
    assert row["accuracy"]["drop_points"] is None
    assert row["speedup_over_float"] is None
    assert row["integer_coverage"] is None
    assert row["peak_memory_mb"] is None
    assert row["budget"]["met"] is None
    assert "max_accuracy_drop" in row["budget"]["not_measured"]
    assert row["checks"]["tensorrt_builder"] in ("ok", "not installed")
    assert row["accuracy"]["master"] > 0.8


def test_the_proof_covers_every_hop(built):
    _, out = built
    for target, last in (("onnxruntime-cpu", "compiled"), ("openvino-cpu", "compiled"), ("jetson-orin", "lowered")):
        entry = load_bundle(out / f"digits-{target}").measurements["entries"][0]
        hops = [hop["hop"] for hop in entry["proof"]]
        assert hops[:4] == ["float student", "prepared, quantizers off", "fake-quantized", "master"]
        assert hops[-1] == last
        assert all(hop["ok"] for hop in entry["proof"])


def test_the_shipped_file_is_what_was_proven(built):
    _, out = built
    bundle = load_bundle(out / "digits-onnxruntime-cpu")
    manifest = bundle.manifest
    chosen = next(one for one in manifest["candidates"] if one["name"] == manifest["chosen"])
    model = onnx.load(bundle.path / chosen["onnx"])
    assert model.graph.input[0].name == "input"
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param  # the batch is free
    entry = bundle.measurements["entries"][0]
    assert entry["model"]["sha256"] == manifest["files"][chosen["path"]]["sha256"]


def test_every_bundle_verifies_itself(built):
    for row in built[0].bundles:
        checks = edgekd.verify(row["path"])
        assert not [check for check in checks if check["ok"] is False]
        assert checks


def test_a_loaded_bundle_predicts_raw_samples(built):
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    model = edgekd.load(built[1] / "digits-onnxruntime-cpu")
    raw = [image.reshape(1, 8, 8).astype(np.uint8) for image in images[:200]]
    found = model.predict(raw)
    assert np.mean([int(one.label) == label for one, label in zip(found, labels[:200], strict=True)]) > 0.8


def test_a_repeat_does_no_work_and_gives_the_same_bundle(built, targets):
    result, out = built
    before = {row["target"]: load_bundle(row["path"]).identity for row in result.bundles}
    named = [targets[name] for name in TARGETS]
    again = edgekd.build("digits", named, out=out, overrides=FAST, jobs=JOBS)
    assert all(row["cached"] for row in again.stages)
    assert {row["target"]: load_bundle(row["path"]).identity for row in again.bundles} == before


def test_another_recipe_part_redoes_only_what_depends_on_it(built, tmp_path):
    again = edgekd.build("digits", ["jetson"], out=tmp_path, overrides=[*FAST, "finetune.lr=0.0001"], jobs=JOBS)
    done = {row["name"]: row["cached"] for row in again.stages}
    assert done["teacher"]
    assert done["distill"]
    assert not done["finetune"]
    assert not done["quantize"]


def test_build_json_is_one_document(built, run_cli, tmp_path):
    """Also where there is work: for another quantization."""
    arguments = [word for one in (*FAST, "quantize.epochs=0") for word in ("--set", one)]
    arguments += ["--jobs", JOBS, "--target", "jetson", "--out", tmp_path]
    code, out, _ = run_cli("build", "digits", *arguments, "--json")
    assert code == 0
    value = json.loads(out)
    assert {row["name"]: row["cached"] for row in value["stages"]} == {
        **dict.fromkeys(("teacher", "distill", "finetune"), True),
        **dict.fromkeys(("quantize", "compile", "measure", "bundle"), False),
    }
    assert value.keys() == {"bundles", "seconds", "stages"}
    wanted = {"target", "path", "precision", "accuracy", "latency_ms", "speedup_over_float", "integer_coverage"}
    wanted |= {"peak_memory_mb", "size_bytes", "budget", "checks"}
    assert wanted <= value["bundles"][0].keys()
    assert value["stages"][0].keys() == {"name", "target", "cached", "seconds"}
    assert json.loads((tmp_path / "digits-jetson-orin" / "manifest.json").read_text())["schema"] == 1


def test_a_missed_budget_is_exit_code_4_and_the_bundle_is_there(built, targets, run_cli, tmp_path):
    arguments = [word for one in (*FAST, "budget.size_mb=0.001") for word in ("--set", one)]
    arguments += [word for name in TARGETS for word in ("--target", targets[name])]
    code, _, err = run_cli("build", "digits", "--out", tmp_path, *arguments)
    assert code == 4
    assert "size_mb" in err
    assert (tmp_path / "digits-onnxruntime-cpu" / "manifest.json").is_file()


def test_a_folder_that_is_no_bundle_is_not_overwritten(built, run_cli, tmp_path):
    mine = tmp_path / "dist" / "digits-jetson-orin"
    mine.mkdir(parents=True)
    (mine / "thesis.txt").write_text("mine")
    arguments = [word for one in FAST for word in ("--set", one)]
    code, _, err = run_cli("build", "digits", "--target", "jetson", "--out", tmp_path / "dist", *arguments)
    assert code == 2
    assert "digits-jetson-orin" in err
    assert (mine / "thesis.txt").read_text() == "mine"
    assert list((tmp_path / "dist").iterdir()) == [mine]


@pytest.mark.parametrize(
    ("precision", "target"),
    [
        ("fp32", "onnxruntime-cpu"),
        # The same candidates as by size, where another one ships.
        pytest.param("fp16", "onnxruntime-cpu", marks=pytest.mark.slow),
        ("fp16", "openvino-cpu"),
        ("fp16", "cuda"),
    ],
)
def test_float_precisions(built, targets, tmp_path, precision, target):
    # By size, fp16 ships weights stored in int8: the test below.
    asked = [f"quantize.precision={precision}", "quantize.prefer=speed"]
    result = edgekd.build("digits", [targets[target]], out=tmp_path, overrides=[*FAST, *asked], jobs=JOBS)
    row = result.bundles[0]
    assert row["precision"] == precision
    assert row["accuracy"]["master"] is None
    if target != "cuda":
        assert row["accuracy"]["compiled"] == pytest.approx(row["accuracy"]["student"], abs=0.006)
    limit = 60_000 if precision == "fp16" else 110_000
    assert row["size_bytes"] < limit


def test_fp16_by_size_stores_weights_in_int8(built, targets, tmp_path):
    named, asked = [targets["onnxruntime-cpu"]], ["quantize.precision=fp16", "quantize.prefer=size"]
    row = edgekd.build("digits", named, out=tmp_path, overrides=[*FAST, *asked], jobs=JOBS).bundles[0]
    assert load_bundle(row["path"]).manifest["chosen"] == "weights-int8"
    assert row["accuracy"]["compiled"] == pytest.approx(row["accuracy"]["student"], abs=0.006)
    assert row["size_bytes"] < 40_000


def test_the_rtx_target_is_fp16_by_itself(built, tmp_path):
    row = edgekd.build("digits", ["rtx"], out=tmp_path, overrides=FAST, jobs=JOBS).bundles[0]
    assert row["precision"] == "fp16"


@pytest.mark.parametrize(
    ("learned", "name", "target", "parity"),
    [(False, "QAT", "jetson", "ok up to the lowered file"), (True, "QAT with learned scales", "onnxruntime-cpu", "ok")],
)
def test_quantization_aware_training_goes_the_same_way(built, targets, tmp_path, learned, name, target, parity):
    asked = ["quantize.method=qat", f"quantize.learned_scales={str(learned).lower()}"]
    result = edgekd.build("digits", [targets[target]], out=tmp_path, overrides=[*FAST, *asked], jobs=JOBS)
    report = load_bundle(result.bundles[0]["path"]).manifest["quantization"]
    assert report["val_qat"] is not None
    assert report["judged_steps"] == (255 if target == "onnxruntime-cpu" and load_target(target).has_vnni() else 127)
    assert report["rungs"][-1]["name"] == name
    assert report["learned_scales"] is (learned and report["rungs"][-1]["kept"])
    assert result.bundles[0]["checks"]["parity"] == parity
