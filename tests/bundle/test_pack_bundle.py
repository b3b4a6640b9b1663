import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from make_bundle import contents, edit_manifest, raw_samples, tree

import edgekd.runtime
from edgekd.bundle import append_measurement, load_bundle, load_model, pack, verify_bundle
from edgekd.errors import BadBundle, BadInput

CPU = ["onnxruntime", "openvino"]


@pytest.mark.parametrize("backend", CPU)
def test_a_packed_bundle_verifies_and_predicts_what_its_goldens_say(packed, backend):
    root = packed(backend)
    assert [check.ok for check in verify_bundle(root)] == [True] * 6
    model = load_model(root)
    golden = np.load(root / "golden" / "logits.npy")
    predictions = model.predict(raw_samples())
    assert [one.index for one in predictions] == golden.argmax(1).tolist()
    assert [one.label for one in predictions] == [f"class {i}" for i in golden.argmax(1)]
    want = np.exp(golden) / np.exp(golden).sum(1, keepdims=True)
    np.testing.assert_allclose([one.probabilities for one in predictions], want, atol=0.02)
    assert model.describe()["runtime"] == backend
    assert model.describe()["inference_precision"] == "f32"


def test_the_same_parts_give_the_same_bytes(tmp_path):
    made = [pack(tmp_path / name / "out", contents(tmp_path / name / "parts")) for name in "ab"]
    one, other = (tree(bundle.path) for bundle in made)
    assert one == other
    assert made[0].identity == made[1].identity
    assert sorted(one) == sorted(["manifest.json", "measurements.json", *made[0].manifest["files"], *no_cache(one)])


def test_the_worst_inputs_travel(tmp_path):
    worst = tmp_path / "drift"
    worst.mkdir()
    for name, array in (("index", np.arange(2)), ("input", np.ones((2, 3), np.float32))):
        np.save(worst / f"{name}.npy", array)
    bundle = pack(tmp_path / "out", contents(tmp_path / "parts", drift=worst))
    assert bundle.manifest["drift"] == {"index": "drift/index.npy", "input": "drift/input.npy"}
    assert set(bundle.manifest["drift"].values()) <= set(bundle.manifest["files"])
    assert all(check.ok for check in verify_bundle(bundle.path))
    np.testing.assert_array_equal(np.load(bundle.path / "drift" / "index.npy"), [0, 1])
    edit_manifest(bundle.path, lambda manifest: manifest["drift"].update(input="drift/other.npy"))
    with pytest.raises(BadBundle, match=r"drift/other\.npy"):
        load_bundle(bundle.path)


def test_the_summary_tells_the_drift(tmp_path):
    drift = {
        "forms": [
            {"form": "lowered", "db": 30.5, "fault": None},
            {"form": "compiled", "db": 21.0, "fault": None},
            {"form": "tapped", "db": 22.0, "fault": "relu_1"},
        ],
        "rows": [{"value": "relu_1", "layer": "Relu after 2"}],
    }
    bundle = pack(tmp_path / "out", contents(tmp_path / "parts"), entry={"source": "build", "drift": drift})
    assert bundle.summary()["drift"] == {"form": "compiled", "db": 21.0, "fault": "Relu after 2"}
    plain = pack(tmp_path / "plain", contents(tmp_path / "parts"), entry={"source": "build"})
    assert plain.summary()["drift"] is None


def no_cache(files) -> list[str]:
    """Empty files that keep Python from writing its cache; nothing else has such a name."""
    found = [name for name in files if "__pycache__" in name]
    assert len(found) == 2
    assert all(name.endswith("/__pycache__") and files[name] == b"" for name in found)
    return found


def test_the_runtime_that_travels_is_the_one_that_runs_here(packed):
    source = Path(edgekd.runtime.__file__).parent
    copy = packed("onnxruntime") / "runtime" / "python" / "edgekd_runtime"
    assert {p.name: p.read_bytes() for p in copy.glob("*.py")} == {p.name: p.read_bytes() for p in source.glob("*.py")}


def test_what_is_packed_needs_an_empty_folder_and_valid_contents(tmp_path):
    parts = contents(tmp_path / "parts")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="empty folder"):
        pack(tmp_path / "full", parts)
    with pytest.raises(BadInput, match="chosen"):
        pack(tmp_path / "a", replace(parts, chosen="int4"))
    with pytest.raises(BadInput, match="runtime_requirement"):
        pack(tmp_path / "b", replace(parts, runtime_requirement="onnxruntime~=1"))
    with pytest.raises(BadInput, match="JSON"):
        pack(tmp_path / "c", replace(parts, choice={"why": float("nan")}))


def test_the_summary_takes_figures_of_one_machine_and_model(tmp_path):
    first = {"source": "build", "on_target": True, "machine": {"cpu": "a"}, "accuracy": {"compiled": 0.9}}
    figures = {"latency_ms": {"p50": 2.0, "samples_ns": [1]}, "speedup_over_float": 2.0, "peak_memory_mb": 9.0}
    bundle = pack(tmp_path / "out", contents(tmp_path / "parts"), entry={**first, **figures})
    model = bundle.measurements["entries"][0]["model"]
    assert model["sha256"] == bundle.manifest["files"][model["path"]]["sha256"]
    row = bundle.summary()
    assert (row["accuracy"], row["latency_ms"], row["speedup_over_float"]) == ({"compiled": 0.9}, {"p50": 2.0}, 2.0)
    assert row["size_bytes"] == (bundle.path / model["path"]).stat().st_size

    other = {"source": "bench", "on_target": True, "machine": {"cpu": "b"}, "model": model}
    append_measurement(bundle.path, {**other, "latency_ms": {"p50": 3.0}})
    row = load_bundle(bundle.path).summary()
    # The new machine's latency never stands beside the old one's speed-up; the accuracy is the build's.
    assert (row["latency_ms"], row["speedup_over_float"], row["peak_memory_mb"]) == ({"p50": 3.0}, None, None)
    assert row["accuracy"] == {"compiled": 0.9}


def test_appended_measurements_stay_and_broken_ones_are_left_alone(bundle):
    root = bundle()
    workers = [subprocess.Popen([sys.executable, "-c", APPEND, str(root), str(number)]) for number in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    found = [entry["number"] for entry in load_bundle(root).measurements["entries"]]
    assert sorted(found) == sorted(f"{worker}-{i}" for worker in range(3) for i in range(10))
    (root / "measurements.json").write_text('{"schema": 1, "entries": [')
    with pytest.raises(BadBundle, match="not JSON"):
        append_measurement(root, {"number": "lost"})
    assert (root / "measurements.json").read_text() == '{"schema": 1, "entries": ['
    assert [check.name for check in verify_bundle(root) if check.ok is False] == ["measurements"]


APPEND = """
import sys
from pathlib import Path
from edgekd.bundle import append_measurement
for i in range(10):
    append_measurement(Path(sys.argv[1]), {"number": f"{sys.argv[2]}-{i}"})
"""


def test_reading_and_verifying_imports_nothing_heavy(packed):
    code = (
        "import sys; from pathlib import Path; import edgekd.bundle as b; root = Path(sys.argv[1]);"
        "b.load_bundle(root); ok = all(c.ok for c in b.verify_bundle(root)); b.load_model(root);"
        "print(ok, sorted({'torch', 'onnx', 'pydantic', 'scipy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(packed("onnxruntime"))], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "True []"


@pytest.mark.parametrize("broken", ["missing", "file", "no manifest"])
def test_what_is_no_bundle_is_told(tmp_path, broken):
    place = tmp_path / "place"
    if broken == "file":
        place.write_text("not a folder")
    if broken == "no manifest":
        place.mkdir()
    for use in (load_bundle, verify_bundle, load_model):
        with pytest.raises(BadBundle) as told:
            use(place)
        assert str(place) in str(told.value)


def test_a_manifest_of_another_schema_is_refused(bundle):
    root = bundle()
    edit_manifest(root, lambda manifest: manifest.update(schema=2))
    with pytest.raises(BadBundle, match="schema"):
        load_bundle(root)
    (root / "manifest.json").write_text('{"schema": 1, "schema": 1}')
    with pytest.raises(BadBundle, match="twice"):
        load_bundle(root)
    assert json.dumps([check.to_json() for check in verify_bundle(root)])
