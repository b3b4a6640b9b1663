import json

import numpy as np
import pytest
from tiny_networks import Builder, batch

from edgekd.backends.tensorrt import TensorRtBackend
from edgekd.backends.tensorrt_layers import parse_layers
from edgekd.errors import BadTarget, Missing, ProofFailed
from edgekd.runtime import tensorrt_api
from edgekd.runtime.sessions import RuntimeMissing
from edgekd.runtime.tensorrt_build import BuildFailed, build_engine

BACKEND = TensorRtBackend()


@pytest.fixture
def rtx():
    try:
        return tensorrt_api.load_tensorrt("tensorrt-rtx")
    except RuntimeMissing as error:
        pytest.skip(f"TensorRT-RTX is not installed: {error.what}")


def test_candidates(make_target):
    forms = BACKEND.candidates(make_target("tensorrt", name="jetson-orin"))
    assert (forms[0].nonnegative, forms[0].signed, forms[0].bias) == ("s8/127", "s8", "float")
    assert forms[0].float_type == "fp16"
    assert forms[0].cure == "none"
    assert [form.name for form in forms[-2:]] == ["float-fp16", "float"]


def test_a_float_precision_offers_its_own_form_and_fp32_to_compare_with(make_target):
    forms = BACKEND.candidates(make_target("tensorrt", name="rtx", flavour="rtx", precision="fp16"))
    assert [form.name for form in forms] == ["float-fp16", "weights-int8", "float"]
    assert (forms[1].weights, forms[1].float_type, forms[1].integer) == ("int8", "fp16", False)
    assert [form.name for form in BACKEND.candidates(make_target("tensorrt", precision="fp32"))] == ["float"]


@pytest.mark.parametrize("half", [False, True])
def test_rtx_builds_quantized_engines_without_a_gpu(tmp_path, rtx, half):
    onnx = Builder("s8", half=half).save(tmp_path / "model.onnx")
    report = build_engine(
        onnx, tmp_path / "model.rtx", "tensorrt-rtx", compute_capabilities=["8.0", "8.6", "8.9", "12.0"]
    )
    assert report.typing == "strong"
    assert report.size_bytes == (tmp_path / "model.rtx").stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.rtx"]


def test_rtx_builds_float_engines(tmp_path, rtx):
    for half in (False, True):
        build_engine(
            Builder("float", half=half).save(tmp_path / "model.onnx"),
            None,
            "tensorrt-rtx",
            compute_capabilities=["8.6"],
        )


def test_rtx_refuses_a_zero_point_and_names_the_node(tmp_path, rtx):
    onnx = Builder("s8").save(tmp_path / "model.onnx", zero_point=-128)
    with pytest.raises(BuildFailed, match=r"QuantizeLinear r1_Q.*[Zz]ero point"):
        build_engine(onnx, None, "tensorrt-rtx", compute_capabilities=["8.6"])


def test_rtx_refuses_unsigned_bytes(tmp_path, rtx):
    onnx = Builder("u8").save(tmp_path / "model.onnx")
    with pytest.raises(BuildFailed, match="input_Q"):
        build_engine(onnx, None, "tensorrt-rtx", compute_capabilities=["8.6"])


def test_rtx_names_the_compute_capabilities_that_it_knows(tmp_path, rtx):
    onnx = Builder("s8").save(tmp_path / "model.onnx")
    with pytest.raises(BuildFailed, match=r"8\.7.*SM86"):
        build_engine(onnx, None, "tensorrt-rtx", compute_capabilities=["8.7"])
    with pytest.raises(BuildFailed, match="strongly typed"):
        build_engine(onnx, None, "tensorrt-rtx", typing="weak")


def test_rtx_refuses_a_file_that_is_not_onnx(tmp_path, rtx):
    (tmp_path / "model.onnx").write_bytes(b"not onnx")
    with pytest.raises(BuildFailed, match=r"model\.onnx"):
        build_engine(tmp_path / "model.onnx", None, "tensorrt-rtx")


def test_compile_without_the_device_ships_onnx_and_checks_it(tmp_path, rtx, make_target):
    target = make_target("tensorrt", name="jetson-orin", arch="aarch64", here=False)
    compiled = BACKEND.compile(Builder("s8", half=True).save(tmp_path / "model.onnx"), target, tmp_path)
    assert compiled.path == tmp_path / "model.onnx"
    assert compiled.meta["builder_check"] == "ok"
    assert compiled.meta["version"].startswith("tensorrt-rtx ")
    assert BACKEND.coverage(compiled, target) == []
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    json.dumps(compiled.meta)
    with pytest.raises(Missing, match="finalize"):
        BACKEND.load(compiled, target)


def test_compile_fails_the_proof_when_the_parser_refuses(tmp_path, rtx, make_target):
    onnx = Builder("s8").save(tmp_path / "model.onnx", zero_point=3)
    with pytest.raises(ProofFailed, match="r1_Q"):
        BACKEND.compile(onnx, make_target("tensorrt", here=False), tmp_path)


def test_compile_where_nothing_is_installed(tmp_path, make_target, monkeypatch):
    def missing(flavor):
        raise RuntimeMissing("no")

    monkeypatch.setattr("edgekd.backends.tensorrt.load_tensorrt", missing)
    compiled = BACKEND.compile(
        Builder("s8").save(tmp_path / "model.onnx"), make_target("tensorrt", here=False), tmp_path
    )
    assert compiled.meta["builder_check"] == "not installed"


def test_dla_is_refused(tmp_path, make_target):
    with pytest.raises(BadTarget, match="DLA"):
        BACKEND.compile(tmp_path / "x.onnx", make_target("tensorrt", dla=True), tmp_path)


def test_probe_never_raises():
    assert BACKEND.probe().install or BACKEND.probe().ok


def test_layers_of_both_inspector_dialects():
    ten = {
        "Name": "c1 + r1",
        "LayerType": "CaskConvolution",
        "ParameterType": "Convolution",
        "Inputs": [{"Name": "x", "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}],
    }
    eleven = {
        "Name": "__myl_ConvAddAct_myl0_2",
        "LayerType": "kgen",
        "Inputs": [{"Name": "x", "Format": "NCHW", "Datatype": "Half"}],
    }
    mover = {"Name": "Reformatting CopyNode for c1", "LayerType": "Reformat", "Inputs": []}
    rows = parse_layers(json.dumps({"Layers": [ten, eleven, mover, "fc"], "Bindings": []}))
    assert [is_compute for _, is_compute in rows] == [True, True, False, True]
    assert [layer.integer for layer, _ in rows] == [True, False, False, False]


@pytest.mark.gpu
@pytest.mark.parametrize("flavour", ["default", "rtx"])
def test_engine_runs_and_agrees_with_onnxruntime(tmp_path, make_target, flavour):
    from edgekd.runtime.sessions import open_session

    target = make_target("tensorrt", flavour=flavour)
    if not tensorrt_api.has_gpu():
        pytest.skip("no NVIDIA GPU")
    try:
        compiled = BACKEND.compile(Builder("s8").save(tmp_path / "model.onnx"), target, tmp_path)
    except Missing as error:
        pytest.skip(error.what)
    session = BACKEND.load(compiled, target)
    reference = open_session(compiled.onnx, "onnxruntime", threads=1, optimize=False)
    for size in (1, 3, 130, 1):
        x = batch(size, seed=size)
        got, want = (s.run({"input": x})["logits"] for s in (session, reference))
        assert np.abs(got - want).max() < 0.1
    assert BACKEND.coverage(compiled, target)
