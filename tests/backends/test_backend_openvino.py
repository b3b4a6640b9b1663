import numpy as np
import pytest
from tiny_networks import Builder, batch

from edgekd.backends import openvino as module
from edgekd.backends.openvino import OpenVinoBackend
from edgekd.errors import Missing, ProofFailed
from edgekd.forms import CompiledModel, QuantForm
from edgekd.runtime.session_openvino import openvino_core
from edgekd.runtime.sessions import open_session

pytest.importorskip("openvino", reason="OpenVINO is not installed")
BACKEND = OpenVinoBackend()


def test_candidates(make_target, monkeypatch):
    monkeypatch.setattr(module, "cpu_capabilities", lambda: ["FP32", "INT8"])
    forms = BACKEND.candidates(make_target("openvino"))
    assert (forms[0].nonnegative, forms[0].signed, forms[0].bias) == ("u8/255", "s8", "float")
    assert [form.name for form in forms if not form.integer] == ["float"]


def test_bf16_is_offered_only_where_this_cpu_is_the_target_and_has_it(make_target, monkeypatch):
    monkeypatch.setattr(module, "cpu_capabilities", lambda: ["FP32", "BF16"])
    names = [form.name for form in BACKEND.candidates(make_target("openvino"))]
    assert names[-3:] == ["int8-bf16", "float-bf16", "float"]
    elsewhere = [form.name for form in BACKEND.candidates(make_target("openvino", here=False))]
    assert not {"float-bf16", "int8-bf16"} & set(elsewhere)


def test_compile_load_and_coverage(tmp_path, make_target):
    target = make_target("openvino")
    onnx = Builder("openvino").save(tmp_path / "model.onnx")
    compiled = BACKEND.compile(onnx, target, tmp_path)
    layers = BACKEND.coverage(compiled, target)
    assert [layer.op for layer in layers] == ["Convolution", "Convolution", "FullyConnected"]
    assert all(layer.integer for layer in layers)
    assert all(layer.precision in {"u8", "i8"} for layer in layers)
    assert BACKEND.other_layers(compiled, target)
    x = batch(5)
    reference = open_session(onnx, "onnxruntime", threads=1, optimize=False).run({"input": x})["logits"]
    assert np.abs(BACKEND.load(compiled, target).run({"input": x})["logits"] - reference).max() < 0.1


def test_kernels_of_a_file_in_openvinos_own_format_are_timed_without_names(tmp_path, make_target):
    import openvino

    onnx = Builder("openvino").save(tmp_path / "model.onnx")
    openvino.save_model(openvino_core().read_model(onnx), tmp_path / "model.xml")
    own = CompiledModel("openvino", tmp_path / "model.xml", tmp_path / "model.xml")
    times = BACKEND.profile(own, make_target("openvino"), {"input": batch(8)})
    assert any(one.op == "Convolution" and one.integer for one in times)
    assert not any(one.values for one in times)


def test_float_coverage(tmp_path, make_target):
    target = make_target("openvino")
    compiled = BACKEND.compile(Builder("float").save(tmp_path / "model.onnx"), target, tmp_path)
    layers = BACKEND.coverage(compiled, target)
    assert len(layers) == 3
    assert {layer.precision for layer in layers} == {"f32"}


def test_bf16_form_compiles_in_bf16(tmp_path, make_target):
    if "BF16" not in module.cpu_capabilities():
        pytest.skip("this CPU has no bf16")
    target = make_target("openvino")
    form = QuantForm("float-bf16", "openvino", float_groups=frozenset({"all"}), float_type="bf16")
    compiled = BACKEND.compile(Builder("float").save(tmp_path / "model.onnx"), target, tmp_path, form=form)
    assert compiled.meta["inference_precision"] == "bf16"
    assert {layer.precision for layer in BACKEND.coverage(compiled, target)} == {"bf16"}
    assert BACKEND.load(compiled, target).describe()["inference_precision"] == "bf16"


def test_broken_file_fails_the_proof(tmp_path, make_target):
    (tmp_path / "model.onnx").write_bytes(b"not onnx")
    with pytest.raises(ProofFailed, match=r"model\.onnx"):
        BACKEND.compile(tmp_path / "model.onnx", make_target("openvino"), tmp_path)


def test_missing_runtime_is_missing_with_the_install_line(tmp_path, make_target, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    onnx = Builder("float").save(tmp_path / "model.onnx")
    with pytest.raises(Missing, match=r'pip install "edgekd\[openvino\]"'):
        BACKEND.compile(onnx, make_target("openvino"), tmp_path)
