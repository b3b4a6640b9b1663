"""Float forms, from a master and from a plain float file."""

from __future__ import annotations

import onnx
import pytest
import torch
from lowered_nets import forms_of, outputs
from onnx import TensorProto
from strict_nets import make_net, master, prepared, rms, samples
from torch import nn

from edgekd.errors import BadModel
from edgekd.forms import Master, QuantForm
from edgekd.lower import check_lowering, lower
from edgekd.measure.proof import onnx_run
from edgekd.quantize import export_float

ALL_FLOAT = frozenset({"all"})
FORMS = [
    QuantForm("float", "onnxruntime", float_groups=ALL_FLOAT),
    QuantForm("float-fp16", "onnxruntime", float_groups=ALL_FLOAT, float_type="fp16"),
    QuantForm("float-bf16", "openvino", float_groups=ALL_FLOAT, float_type="bf16"),
    QuantForm("float", "tensorrt", float_groups=ALL_FLOAT),
    QuantForm("float-fp16", "tensorrt", float_groups=ALL_FLOAT, float_type="fp16"),
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.rules}-{form.name}")
@pytest.mark.parametrize("net", ["mobilenet-xs", "resnet-xs-relu6"])
@pytest.mark.parametrize("start", ["master", "float file"])
def test_float_forms(net: str, form: QuantForm, start: str, tmp_path) -> None:
    x = samples(net, 8)
    source = master(net)
    if start == "float file":
        export_float(make_net(net), x[:2], tmp_path / "float.onnx")
        source = Master(tmp_path / "float.onnx", ())
    model = lower(source, form)
    check_lowering(source, model, form)
    onnx.save(model, tmp_path / "model.onnx")
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"QuantizeLinear", "DequantizeLinear"}
    types = {tensor.data_type for tensor in model.graph.initializer} - {TensorProto.INT64}
    half = form.float_type == "fp16"
    assert TensorProto.FLOAT16 in types if half else types == {TensorProto.FLOAT}
    assert [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)] == [1, 1]
    got = onnx_run(tmp_path / "model.onnx")(x.numpy())
    assert rms(got, prepared(net).run_float(x.numpy())) < (5e-3 if half else 1e-5)


def test_half_the_size() -> None:
    sizes = [lower(master("resnet-xs"), form).ByteSize() for form in FORMS]
    assert sizes[1] < 0.6 * sizes[0]
    assert sizes[4] < 0.6 * sizes[3]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_every_float_candidate_in_its_runtime(backend: str) -> None:
    names = [name for name, form in forms_of(backend).items() if not form.integer]
    assert names
    for name in names:
        exact = prepared("mobilenet-xs").run_float(samples("mobilenet-xs", 16, seed=7).numpy())
        tolerance = {"fp32": 1e-5, "fp16": 5e-3, "bf16": 0.03}[forms_of(backend)[name].float_type]
        assert rms(outputs("mobilenet-xs", backend, name)[2], exact) < tolerance, name


def test_a_weight_that_float16_cannot_hold() -> None:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        model = onnx.load(master("resnet-xs").path)
        bias = next(tensor for tensor in model.graph.initializer if tensor.name == "head.linear.bias")
        value = onnx.numpy_helper.to_array(bias).copy()
        value[1] = 1e5
        bias.CopyFrom(onnx.numpy_helper.from_array(value, bias.name))
        onnx.save(model, Path(folder) / "master.onnx")
        with pytest.raises(BadModel, match=r"head\.linear\.bias holds 100000, which float16 cannot"):
            lower(Master(Path(folder) / "master.onnx", master("resnet-xs").sites), FORMS[4])


def test_untouched_by_lowering() -> None:
    """The master's file is read, never written."""
    before = master("resnet-xs").path.read_bytes()
    for form in FORMS:
        lower(master("resnet-xs"), form)
    assert master("resnet-xs").path.read_bytes() == before


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_the_scales_of_a_resize_stay_float32(mode: str, tmp_path) -> None:
    """ONNX has them in no other type."""
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Upsample(scale_factor=2, mode=mode), nn.Conv2d(8, 4, 1), nn.Flatten()]
    net, x = nn.Sequential(*body).eval(), torch.randn(4, 3, 8, 8)
    export_float(net, x[:2], tmp_path / "float.onnx")
    source = Master(tmp_path / "float.onnx", ())
    model = lower(source, FORMS[4])
    check_lowering(source, model, FORMS[4])
    (resize,) = [node for node in model.graph.node if node.op_type == "Resize"]
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert types[resize.input[2]] == TensorProto.FLOAT
    others = {kind for name, kind in types.items() if name != resize.input[2]}
    assert others - {TensorProto.INT64} == {TensorProto.FLOAT16}
    onnx.save(model, tmp_path / "model.onnx")
    with torch.no_grad():
        assert rms(onnx_run(tmp_path / "model.onnx")(x.numpy()), net(x).numpy()) < 5e-3
