import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgekd.runtime
from edgekd.runtime.sessions import RuntimeMissing, SessionError, TensorSpec, list_runtimes, open_session

CPU = ["onnxruntime", "openvino"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """conv-relu-pool with a dynamic batch and two outputs."""
    weights = np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["features"]),
        helper.make_node("Flatten", ["features"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 8]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 8, 1, 1]),
        ],
        [numpy_helper.from_array(weights, "w")],
    )
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def batch(size: int) -> np.ndarray:
    return np.random.default_rng(size).normal(size=(size, 3, 16, 16)).astype(np.float32)


@pytest.mark.parametrize("runtime", CPU)
def test_batch_sizes_may_change_at_every_call(model, runtime):
    session = open_session(model, runtime, threads=1)
    reference = open_session(model, "onnxruntime", threads=1, optimize=False)
    for size in (1, 5, 1, 2, 3, 4, 7, 5, 1):  # more sizes than OpenVINO's session keeps compiled
        got, want = session.run({"input": batch(size)}), reference.run({"input": batch(size)})
        assert set(got) == {"logits", "features"}
        np.testing.assert_allclose(got["logits"], want["logits"], atol=1e-4)
        assert got["features"].shape == (size, 8, 1, 1)


@pytest.mark.parametrize("runtime", CPU)
def test_outputs_are_not_overwritten_by_the_next_run(model, runtime):
    session = open_session(model, runtime, threads=1)
    first = session.run({"input": batch(1)})["logits"]
    kept = first.copy()
    session.run({"input": batch(1) + 1})
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("runtime", CPU)
def test_inputs_may_be_strided_or_read_only(model, runtime):
    session = open_session(model, runtime, threads=1)
    x = batch(2)
    strided = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, 3)), 3, 1)
    strided.setflags(write=False)
    np.testing.assert_allclose(
        session.run({"input": strided})["logits"], session.run({"input": x})["logits"], atol=1e-6
    )


@pytest.mark.parametrize("runtime", CPU)
def test_specs_and_description(model, runtime):
    session = open_session(model, runtime, threads=2)
    assert session.inputs == [TensorSpec("input", (None, 3, 16, 16), "float32")]
    assert [spec.name for spec in session.outputs] == ["logits", "features"]
    described = session.describe()
    assert described["runtime"] == runtime
    assert described["inference_precision"] == "f32"
    assert described["threads"] == 2
    assert described["version"]


@pytest.mark.parametrize("runtime", CPU)
@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "'input' is missing"),
        ({"input": batch(1).astype(np.float64)}, "float64.*takes float32"),
        ({"input": batch(1)[:, :2]}, r"takes \?x3x16x16"),
        ({"input": batch(1)[0]}, r"takes \?x3x16x16"),
        ({"input": batch(1), "mask": batch(1)}, "no input mask"),
    ],
)
def test_wrong_inputs_are_named(model, runtime, inputs, words):
    session = open_session(model, runtime, threads=1)
    session.run({"input": batch(1)})
    with pytest.raises(SessionError, match=words):
        session.run(inputs)
    session.run({"input": batch(1)})


@pytest.mark.parametrize("runtime", CPU)
def test_a_broken_file_is_named(tmp_path, runtime):
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(SessionError, match=r"broken\.onnx"):
        open_session(tmp_path / "broken.onnx", runtime, threads=1).run({"input": batch(1)})


def test_bad_options(model):
    with pytest.raises(SessionError, match="no such model file"):
        open_session(model.with_name("absent.onnx"), "onnxruntime", threads=1)
    with pytest.raises(SessionError, match="unknown runtime"):
        open_session(model, "tflite", threads=1)
    with pytest.raises(SessionError, match="at least 1"):
        open_session(model, "onnxruntime", threads=0)
    with pytest.raises(SessionError, match="optimizations off"):
        open_session(model, "openvino", threads=1, optimize=False)
    with pytest.raises(SessionError, match="no inference precision f16"):
        open_session(model, "onnxruntime", threads=1, precision="f16")
    with pytest.raises(SessionError, match="not an engine"):
        open_session(model, "tensorrt", threads=1)


def test_openvino_precision_is_always_set(model):
    session = open_session(model, "openvino", threads=1)
    hint = session.compiled.get_property("INFERENCE_PRECISION_HINT")
    assert hint.to_string() == "f32"
    assert session.compiled.get_property("NUM_STREAMS") == 1
    assert session.compiled.get_property("INFERENCE_NUM_THREADS") == 1


def test_signals_are_survived_after_sessions_that_overlapped(model):
    code = """if True:
        import faulthandler, signal, subprocess, sys
        from pathlib import Path
        from edgekd.runtime.sessions import open_session
        faulthandler.enable()  # gives the thread an alternate signal stack, as pytest does
        signal.signal(signal.SIGCHLD, lambda *_: None)
        first = open_session(Path(sys.argv[1]), "openvino", threads=1)
        first.compiled
        second = open_session(Path(sys.argv[1]), "openvino", threads=1)
        second.compiled
        del first
        del second
        subprocess.run(["true"])
        print("alive")
    """
    done = subprocess.run([sys.executable, "-c", code, str(model)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_cores_pin_the_threads(model):
    before = os.sched_getaffinity(0)
    try:
        open_session(model, "onnxruntime", threads=1, cores=[min(before)]).run({"input": batch(1)})
        assert os.sched_getaffinity(0) == {min(before)}
    finally:
        os.sched_setaffinity(0, before)


def test_missing_runtime_names_the_install_line(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RuntimeMissing) as caught:
        open_session(model, "openvino", threads=1)
    assert caught.value.install == 'pip install "edgekd[openvino]"'


def test_list_runtimes_tells_all_and_why_not():
    rows = {info.name: info for info in list_runtimes()}
    assert set(rows) == {"onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"}
    for info in rows.values():
        assert info.version if info.ok else info.reason
        assert info.install


@pytest.mark.parametrize("runtime", CPU)
def test_the_folder_runs_alone_under_another_name(model, tmp_path, runtime):
    """As inside a bundle: nothing of edgekd, torch or onnx can be imported."""
    shutil.copytree(
        Path(edgekd.runtime.__file__).parent,
        tmp_path / "edgekd_runtime",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    code = f"""
import sys
for name in ("edgekd", "onnx", "torch", "pydantic", "psutil", "scipy", "rich"):
    sys.modules[name] = None
import numpy as np
from pathlib import Path
from edgekd_runtime.sessions import list_runtimes, open_session
list_runtimes()
session = open_session(Path({str(model)!r}), {runtime!r}, threads=1)
print(session.run({{"input": np.zeros((2, 3, 16, 16), np.float32)}})["logits"].shape)
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "(2, 8)", done.stderr
