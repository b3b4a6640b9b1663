import numpy as np
import pytest
from tiny_networks import Builder, batch

from edgekd.backends.onnxruntime import OnnxRuntimeBackend
from edgekd.errors import ProofFailed
from edgekd.runtime.sessions import open_session

BACKEND = OnnxRuntimeBackend()


def test_candidates_on_x86(make_target):
    forms = BACKEND.candidates(make_target("onnxruntime"))
    assert forms[0].nonnegative == "u8/255"
    assert forms[0].signed == "u8@128"
    assert forms[0].bias == "int32"
    assert forms[0].cure == "none"
    assert [form.integer for form in forms] == [True, True, True, True, False]
    assert len({form.name for form in forms}) == len(forms)


def test_candidates_without_vnni(make_target):
    forms = BACKEND.candidates(make_target("onnxruntime", vnni=False))
    assert [form.name for form in forms] == [
        "int8",
        "int8-float-gates",
        "int8-float-attention",
        "int8-float-ends",
        "float",
    ]
    assert {form.cure for form in forms if form.integer} == {"cheaper"}


def test_candidates_on_arm_are_signed_bytes(make_target):
    forms = BACKEND.candidates(make_target("onnxruntime", arch="aarch64", vnni=True))
    assert (forms[0].nonnegative, forms[0].signed, forms[0].cure) == ("s8-128", "s8", "none")
    assert not forms[-1].integer


def test_compile_load_and_coverage(tmp_path, make_target):
    target = make_target("onnxruntime")
    onnx = Builder("u8").save(tmp_path / "model.onnx")
    (tmp_path / "out").mkdir()
    compiled = BACKEND.compile(onnx, target, tmp_path / "out")
    assert compiled.path.read_bytes() == onnx.read_bytes()
    assert compiled.meta["inference_precision"] == "f32"
    layers = BACKEND.coverage(compiled, target)
    assert [(layer.op, layer.integer) for layer in layers] == [
        ("QLinearConv", True),
        ("QLinearConv", True),
        ("Gemm", False),  # its bias is float: docs/placement.md
    ]
    others = [layer.op for layer in BACKEND.other_layers(compiled, target)]
    assert "QLinearAdd" in others
    assert "QLinearGlobalAveragePool" in others
    session = BACKEND.load(compiled, target)
    x = batch(7)
    reference = open_session(onnx, "onnxruntime", threads=1, optimize=False).run({"input": x})["logits"]
    assert np.abs(session.run({"input": x})["logits"] - reference).max() < 0.1


def test_coverage_of_a_form_that_does_not_fuse(tmp_path, make_target):
    """TensorRT's form on ONNX Runtime: no Relu is absorbed, so the convolutions stay float."""
    target = make_target("onnxruntime")
    compiled = BACKEND.compile(Builder("s8").save(tmp_path / "model.onnx"), target, tmp_path)
    assert not BACKEND.coverage(compiled, target)[0].integer


def test_float_model_has_no_integer_layer(tmp_path, make_target):
    target = make_target("onnxruntime")
    compiled = BACKEND.compile(Builder("float").save(tmp_path / "model.onnx"), target, tmp_path)
    layers = BACKEND.coverage(compiled, target)
    assert len(layers) == 3
    assert not any(layer.integer for layer in layers)


def test_broken_file_fails_the_proof(tmp_path, make_target):
    (tmp_path / "model.onnx").write_bytes(b"not onnx")
    with pytest.raises(ProofFailed, match=r"model\.onnx"):
        BACKEND.compile(tmp_path / "model.onnx", make_target("onnxruntime"), tmp_path)
