import importlib.util
import json
import os
import shutil
import signal

import numpy as np
import pytest
from make_bundle import edit_manifest, relist, tree

from edgekd.bundle import append_measurement, load_bundle, load_model, verify_bundle
from edgekd.errors import BadBundle
from edgekd.runtime.bench import bench
from edgekd.runtime.bundle_files import BundleError
from edgekd.runtime.engines import ensure_engine
from edgekd.runtime.finalize import finalize
from edgekd.runtime.manifest import read_manifest
from edgekd.runtime.model import selected_spec
from edgekd.runtime.process import WorkerFailed, start
from edgekd.runtime.scenario import Settings
from edgekd.runtime.selection import select

QUICK = {"pairs": 2, "seconds": 0.05, "bench_seconds": 0.1}


def choice(root) -> dict:
    return json.loads((root / "device" / "choice.json").read_text())


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_choice_is_measured_recorded_and_followed(bundle, backend):
    root = bundle(backend)
    before = {name: data for name, data in tree(root).items() if name != "measurements.json"}
    entry = finalize(root, **QUICK)
    assert entry == load_bundle(root).measurements["entries"][-1]
    name = choice(root)["candidate"]
    rows = {row["name"]: row for row in entry["candidates"]}
    assert [row["name"] for row in entry["candidates"] if row["chosen"]] == [name]
    assert all(row["golden"] and row["median_ms"] > 0 for row in rows.values())
    assert rows["float"]["ratio"] == 1.0
    low, high = rows["int8"]["interval"]
    assert low <= rows["int8"]["ratio"] <= high
    # Never slower than float: what is chosen was measured to be at most 1 % above it.
    assert rows[name]["ratio"] <= 1.01
    assert entry["speedup_over_float"] == (None if name == "float" else 1 / rows["int8"]["ratio"])
    assert entry["model"] == {
        "candidate": name,
        "path": f"model/{name}/model.onnx",
        "sha256": read_manifest(root)["files"][f"model/{name}/model.onnx"]["sha256"],
    }
    assert entry["source"] == "finalize"
    assert entry["on_target"] is True
    assert entry["machine"]["cores"] == os.cpu_count()
    assert {name: data for name, data in tree(root).items() if name in before} == before
    assert load_model(root).describe()["by"] == "device"
    assert load_model(root).describe()["candidate"] == name
    assert all(check.ok for check in verify_bundle(root))


def test_the_recipe_may_prefer_size(bundle):
    root = bundle()
    edit_manifest(root, lambda manifest: manifest["recipe"].update(quantize={"prefer": "size"}))
    entry = finalize(root, **QUICK)
    assert choice(root)["candidate"] == "int8"
    assert entry["choice"]["why"].startswith("the recipe prefers size")
    assert entry["comparison"]["pairs"] == 2
    assert bench(root, Settings(seconds=0.1))["model"]["candidate"] == "int8"


@pytest.mark.parametrize(("asked", "kept"), [("fp16", True), ("int8", False)])
def test_a_float_precision_that_is_asked_for_is_kept_a_chosen_one_is_not(bundle, asked, kept):
    root = bundle()

    def change(manifest):
        manifest.update(precision="fp32", chosen="float")
        manifest["target"]["precision"] = asked
        manifest["recipe"]["quantize"] = {"prefer": "size"}

    edit_manifest(root, change)
    # The bundle's own goldens are the chosen candidate's.
    edit_manifest(root, lambda m: m["golden"].update(outputs=m["candidates"][1]["golden"]))
    edit_manifest(root, lambda m: m["candidates"][0].update(golden=golden_of("golden/logits.npy")))
    why = finalize(root, **QUICK)["choice"]["why"]
    assert choice(root)["candidate"] == ("float" if kept else "int8")
    assert ("fp16 is asked for" in why) is kept


def golden_of(name) -> dict:
    return {"logits": {"file": name, "tolerance": {"kind": "max_abs", "value": 0.1}}}


def spoil(root, name):
    np.save(root / name, np.load(root / name) + 0.5)
    relist(root, name)


def test_a_candidate_whose_golden_outputs_do_not_hold_is_out(bundle):
    root = bundle()
    spoil(root, "golden/float/logits.npy")
    entry = finalize(root, **QUICK)
    assert choice(root)["candidate"] == "int8"
    row = next(row for row in entry["candidates"] if row["name"] == "float")
    assert not row["golden"]
    assert "differs by at most 0.5" in row["fault"]
    spoil(root, "golden/logits.npy")
    with pytest.raises(BundleError, match="no candidate can be used"):
        finalize(root, **QUICK)


def test_what_the_build_found_not_accurate_enough_is_out(bundle):
    root = bundle()
    rows = [{"name": "float", "accurate": True, "accuracy": 0.9}, {"name": "int8", "accurate": False, "accuracy": 0.1}]
    append_measurement(root, {"source": "build", "candidates": rows})
    entry = finalize(root, **QUICK)
    assert choice(root)["candidate"] == "float"
    assert [row["accuracy"] for row in entry["candidates"]] == [0.1, 0.9]
    assert "not accurate enough" in entry["candidates"][0]["fault"]


def test_a_broken_candidate_does_not_stop_the_others(bundle):
    root = bundle()
    (root / "model/int8/model.onnx").write_bytes(b"this is no ONNX file")
    relist(root, "model/int8/model.onnx")
    finalize(root, **QUICK)
    assert choice(root)["candidate"] == "float"
    assert all(check.ok for check in verify_bundle(root))


@pytest.mark.parametrize(
    "change",
    [
        {"candidate": "int4"},
        {"onnx_sha256": "0" * 64},
        {"sha256": "0" * 64},
        {"path": "model/float/model.onnx"},
        {"path": "../float.onnx"},
        {"path": "device/int8/../../../x.engine", "engine": {"gpu": "x"}},
        {"path": "device/int8/model.engine", "engine": {"gpu": "x"}},
        {"path": None},
    ],
)
def test_a_choice_of_another_bundle_is_refused(bundle, change):
    root = bundle()
    row = read_manifest(root)["files"]["model/int8/model.onnx"]
    good = {
        "candidate": "int8",
        "onnx_sha256": row["sha256"],
        "path": "model/int8/model.onnx",
        "sha256": row["sha256"],
        "engine": None,
    }
    (root / "device").mkdir()
    place = root / "device" / "choice.json"
    place.write_text(json.dumps(good))
    assert load_model(root).describe()["by"] == "device"
    place.write_text(json.dumps(good | change))
    assert [check.name for check in verify_bundle(root) if check.ok is False] == ["device choice"]
    with pytest.raises(BadBundle):
        load_model(root)
    place.write_text("[]")
    with pytest.raises(BadBundle, match="finalize"):
        load_model(root)


def test_a_folder_that_leads_elsewhere_is_not_written_to(bundle, tmp_path):
    root = bundle()
    (tmp_path / "elsewhere").mkdir()
    (root / "device").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="device"):
        finalize(root, **QUICK)
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_measuring_process_that_dies_or_hangs_is_told(bundle, tmp_path):
    root = bundle()
    manifest = read_manifest(root)
    spec = selected_spec(root, manifest, select(root, manifest), tmp_path)
    with start(spec) as worker:
        opened = worker.load(spec)
        # All golden samples were checked, one is timed.
        assert (opened["checked"], opened["batch"]) == (True, 1)
        worker.stop()
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerFailed, match="SIGKILL during 'block'"):
            worker.block(1)
    with start(spec) as worker:
        worker.load(spec)
        with pytest.raises(WorkerFailed, match="no answer to 'block' within"):
            worker.command("block", 0.2, ms=60_000)
        assert worker._process.returncode == -signal.SIGKILL


def test_every_golden_sample_counts_before_anything_is_timed(bundle):
    """The last one is wrong, the first one is timed."""
    root = bundle()
    golden = np.load(root / "golden" / "logits.npy")
    golden[-1] += 0.5
    np.save(root / "golden" / "logits.npy", golden)
    relist(root, "golden/logits.npy")
    with pytest.raises(WorkerFailed, match=r"int8: output logits differs by at most 0\.5"):
        bench(root, Settings(seconds=0.1))


def test_an_engine_is_a_cache_bound_to_what_made_it(bundle):
    """With the real builder of TensorRT-RTX, which needs no GPU."""
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("TensorRT-RTX is not installed")
    root = bundle("tensorrt")
    edit_manifest(root, lambda manifest: manifest["target"]["runtime"].update(flavour="rtx"))
    manifest = read_manifest(root)
    row = manifest["candidates"][0]
    here = {"gpu": "a", "compute_capability": "8.6", "driver": "1", "runtime": "tensorrt-rtx 1"}
    built: list[str] = []
    first = ensure_engine(root, manifest, row, here, built.append)
    assert first.path == "device/int8/model.rtx"
    assert first.engine == here
    assert ensure_engine(root, manifest, row, here, built.append) == first
    assert len(built) == 1
    for key in here:
        ensure_engine(root, manifest, row, here | {key: "other"}, built.append)
    assert len(built) == 5
    (root / first.path).write_bytes(b"damaged")
    ensure_engine(root, manifest, row, here | {"runtime": "other"}, built.append)
    assert len(built) == 6
    assert (root / first.path).stat().st_size > 1000
    shutil.copyfile(root / "model/float/model.onnx", root / "model/int8/model.onnx")
    with pytest.raises(BundleError, match=r"model\.onnx"):
        ensure_engine(root, manifest, row, here, built.append)


@pytest.mark.gpu
def test_finalize_builds_runs_and_keeps_engines(bundle):
    root = bundle("tensorrt")
    rtx = {"flavour": "rtx", "threads": 1}

    def change(manifest):
        manifest["target"]["runtime"] = rtx
        manifest["runtime_requirement"] = "tensorrt-rtx>=1.0"

    edit_manifest(root, change)
    said: list[str] = []
    entry = finalize(root, **QUICK, say=said.append)
    assert sum("building" in line for line in said) == 2
    assert entry["model"]["path"].endswith(".rtx")
    assert entry["engine"]["gpu"]
    assert all(check.ok for check in verify_bundle(root))
    said.clear()
    finalize(root, **QUICK, say=said.append)
    assert not any("building" in line for line in said)
