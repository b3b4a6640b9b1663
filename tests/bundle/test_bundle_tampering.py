import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_bundle import edit_manifest, relist

from edgekd.bundle import load_model, verify_bundle
from edgekd.errors import BadBundle, Missing


def failed(root) -> list[str]:
    return [check.name for check in verify_bundle(root) if check.ok is False]


def not_run(root) -> list[str]:
    return [check.name for check in verify_bundle(root) if check.ok is None]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_flipped_bit_in_any_listed_file_is_found(packed, tmp_path_factory, data):
    root = flippable(packed, tmp_path_factory)
    name = data.draw(st.sampled_from(sorted(json.loads((root / "manifest.json").read_text())["files"])))
    path = root / name
    good = path.read_bytes()
    if not good:
        return
    place, bit = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(0, 7))
    bad = bytearray(good)
    bad[place] ^= 1 << bit
    path.write_bytes(bad)
    try:
        assert failed(root) == ["hashes"]
        # Nothing of a damaged bundle is loaded, so nothing of it can be said to be right.
        assert not_run(root) == ["preprocessing", "outputs"]
    finally:
        path.write_bytes(good)


def flippable(packed, factory, made={}):  # noqa: B006 (one copy for all examples)
    if "root" not in made:
        made["root"] = shutil.copytree(packed("onnxruntime"), factory.mktemp("flip") / "bundle")
    return made["root"]


def test_every_listed_file_is_missed_when_it_is_gone(bundle):
    root = bundle()
    for name in json.loads((root / "manifest.json").read_text())["files"]:
        (root / name).rename(root / "device-aside")
        (found,) = [check for check in verify_bundle(root) if check.name == "hashes"]
        assert found.ok is False
        assert f"{root / name}: is missing" in found.detail
        (root / "device-aside").rename(root / name)
    assert failed(root) == []


@pytest.mark.parametrize(
    "name",
    [
        "extra.txt",
        "model/int8/model.engine",
        "golden/.hidden",
        "runtime/python/os.py",
        "runtime/python/edgekd_runtime/__init__.so",
        "model/__pycache__/x.pyc",
        "devices/x",
    ],
)
def test_a_file_that_is_not_listed_is_refused(bundle, name):
    root = bundle()
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text("x")
    assert failed(root) == ["unlisted files"]


def test_open_files_may_change_and_caches_may_not_be_planted(bundle):
    root = bundle()
    (root / "report.html").write_text("<p>")
    (root / "device" / "int8").mkdir(parents=True)
    (root / "device" / "int8" / "anything").write_text("x")
    (root / "measurements.json").write_text('{"schema": 1, "entries": [{}]}')
    assert failed(root) == []
    blocker = root / "runtime" / "python" / "edgekd_runtime" / "__pycache__"
    blocker.unlink()  # a tool that leaves caches out
    assert failed(root) == []
    blocker.mkdir()
    (blocker / "model.cpython-311.pyc").write_bytes(b"code")
    assert failed(root) == ["unlisted files"]


@pytest.mark.parametrize(
    "path",
    ["../outside.bin", "/etc/hostname", "model/../../outside.bin", "./golden/input.npy", "model//x", "a\\b", "C:x", ""],
)
def test_a_path_that_leaves_the_bundle_is_refused(bundle, path):
    root = bundle()
    (root.parent / "outside.bin").write_bytes((root / "model/int8/model.onnx").read_bytes())

    def change(manifest):
        manifest["files"][path] = manifest["files"]["model/int8/model.onnx"]
        manifest["candidates"][0]["path"] = path

    edit_manifest(root, change)
    assert failed(root) == ["manifest"]
    with pytest.raises(BadBundle, match="path"):
        load_model(root)


@pytest.mark.parametrize(
    "name", ["model/int8/model.onnx", "model/int8", "manifest.json", "measurements.json", "device"]
)
def test_symbolic_links_are_refused_wherever_they_point(bundle, name):
    root = bundle()
    aside = root.parent / "aside"
    if (root / name).exists():
        (root / name).rename(aside)
    else:
        aside.mkdir()
    (root / name).symlink_to(aside)
    assert failed(root)


def test_a_fifo_in_the_place_of_a_file_does_not_hang(bundle):
    root = bundle()
    (root / "golden" / "input.npy").unlink()
    os.mkfifo(root / "golden" / "input.npy")
    assert set(failed(root)) == {"hashes", "unlisted files"}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_wrong_golden_output_is_found_by_running(bundle, backend):
    root = bundle(backend)
    path = root / "golden" / "logits.npy"
    golden = np.load(path)
    golden[1, 3] += 0.5
    np.save(path, golden)
    relist(root, "golden/logits.npy")
    (check,) = [check for check in verify_bundle(root) if check.ok is False]
    assert check.name == "output logits"
    assert "0.5" in check.detail
    golden[1, 3] = np.nan
    np.save(path, golden)
    relist(root, "golden/logits.npy")
    assert failed(root) == ["output logits"]


def test_a_wrong_preprocessing_is_found(bundle):
    root = bundle()
    edit_manifest(root, lambda manifest: manifest["preprocess"].update(mean=[2.001]))
    assert failed(root) == ["preprocessing"]


def test_a_model_that_is_not_the_listed_one_is_not_loaded(bundle):
    root = bundle()
    shutil.copyfile(root / "model/float/model.onnx", root / "model/int8/model.onnx")
    with pytest.raises(BadBundle, match=r"model\.onnx"):
        load_model(root)
    assert load_model.__doc__
    (root / "golden" / "raw.npz").write_bytes(b"not an archive")
    relist(root, "golden/raw.npz")
    relist(root, "model/int8/model.onnx")
    assert failed(root)[0] == "preprocessing"


def test_a_pickle_in_place_of_an_array_is_refused(bundle):
    root = bundle()
    np.save(root / "golden" / "input.npy", np.array([print], dtype=object), allow_pickle=True)
    relist(root, "golden/input.npy")
    assert "preprocessing" in failed(root)
    assert any("outputs" in name for name in failed(root))


def test_a_runtime_of_another_version_is_told(bundle):
    root = bundle()
    edit_manifest(root, lambda manifest: manifest.update(runtime_requirement="onnxruntime>=99"))
    (check,) = [check for check in verify_bundle(root) if check.ok is False]
    assert check.name == "runtime"
    assert "needs onnxruntime>=99" in check.detail


def test_tensorrt_without_its_library_is_not_run_and_never_ok(bundle):
    root = bundle("tensorrt")
    edit_manifest(root, lambda manifest: manifest["target"]["runtime"].update(flavour="default"))
    if "runtime" not in not_run(root):
        pytest.skip("TensorRT is installed here")
    assert not_run(root) == ["runtime", "outputs"]
    assert failed(root) == []
    with pytest.raises(Missing, match="tensorrt is not installed"):
        load_model(root)
