"""Weights stored in int8, arithmetic in float."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from strict_nets import make_net, rms, samples

from edgekd.backends import get_backend
from edgekd.errors import ProofFailed
from edgekd.forms import Master, QuantForm
from edgekd.lower import check_lowering, lower
from edgekd.lower.graph import Graph
from edgekd.lower.stored import store_int8
from edgekd.measure.proof import onnx_run
from edgekd.quantize import export_float
from edgekd.target import load_target

ALL = frozenset({"all"})
FORMS = [
    QuantForm("weights-int8", "onnxruntime", float_groups=ALL, weights="int8"),
    QuantForm("weights-int8", "openvino", float_groups=ALL, weights="int8"),
    QuantForm("weights-int8", "tensorrt", float_groups=ALL, weights="int8", float_type="fp16"),
    QuantForm("weights-int8", "tensorrt", float_groups=ALL, weights="int8"),
]


def name_of(form: QuantForm) -> str:
    return f"{form.rules}-{form.float_type}"


@pytest.fixture(scope="module", params=["mobilenet-xs", "resnet-xs-relu6"])
def student(request, tmp_path_factory):
    """Its name, its float file, and what it answers."""
    folder, x = tmp_path_factory.mktemp("float"), samples(request.param, 8)
    export_float(make_net(request.param), x[:2], folder / "float.onnx")
    return Master(folder / "float.onnx", ()), x.numpy(), onnx_run(folder / "float.onnx")(x.numpy())


@pytest.mark.parametrize("form", FORMS, ids=name_of)
def test_the_same_network_in_less_than_half_the_file(student, form: QuantForm, tmp_path) -> None:
    source, x, wanted = student
    model = lower(source, form)
    check_lowering(source, model, form)
    onnx.save(model, tmp_path / "model.onnx")
    floats = sum(t.ByteSize() for t in onnx.load(source.path).graph.initializer if t.data_type == 1)
    stored = sum(t.ByteSize() for t in model.graph.initializer if t.data_type in (1, 3, 10))
    assert stored < 0.45 * floats
    got = onnx_run(tmp_path / "model.onnx")(x)
    assert 0 < rms(got, wanted) < 0.03
    sites = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    reads = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert not sites
    assert bool(reads) == (form.rules == "tensorrt")


@pytest.mark.parametrize("name", ["onnxruntime-cpu", "openvino-cpu"])
def test_cpus_decode_it_when_they_load_it(student, name: str, tmp_path) -> None:
    source, x, wanted = student
    target = load_target(name)
    form = next(form for form in FORMS if form.rules == target.backend)
    onnx.save(lower(source, form), tmp_path / "model.onnx")
    backend = get_backend(target.backend)
    compiled = backend.compile(tmp_path / "model.onnx", target, tmp_path, form=form)
    got = backend.load(compiled, target).run({"input": x})["logits"]
    assert rms(got, wanted) < 0.03
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "model.onnx").write_bytes(source.path.read_bytes())
    unstored = backend.compile(plain / "model.onnx", target, plain, form=QuantForm("float", form.rules))
    if target.backend == "onnxruntime":
        kinds = [Counter(layer.op for layer in backend.other_layers(one, target)) for one in (compiled, unstored)]
        assert kinds[0] == kinds[1]


@pytest.mark.parametrize("form", FORMS[2:], ids=name_of)
def test_tensorrt_rtx_builds_it(student, form: QuantForm, tmp_path) -> None:
    from edgekd.runtime.sessions import RuntimeMissing
    from edgekd.runtime.tensorrt_api import load_tensorrt
    from edgekd.runtime.tensorrt_build import build_engine

    try:
        load_tensorrt("tensorrt-rtx")
    except RuntimeMissing as error:
        pytest.skip(f"TensorRT-RTX is not installed: {error.what}")
    onnx.save(lower(student[0], form), tmp_path / "model.onnx")
    report = build_engine(tmp_path / "model.onnx", None, "tensorrt-rtx", compute_capabilities=["8.6"])
    assert report.typing == "strong"


@pytest.mark.parametrize("form", [FORMS[0], FORMS[2]], ids=name_of)
@pytest.mark.parametrize("fault", ["code", "scale", "axis"])
def test_a_wrong_number_is_found(student, form: QuantForm, fault: str) -> None:
    model = lower(student[0], form)
    graph = Graph(model)
    name = next(name for name in graph.constants if name.endswith("_int8_0"))
    if fault == "code":
        codes = graph.array(name).copy()
        codes.flat[7] += 1 if codes.flat[7] < 100 else -1
        graph.set_constant(name, codes)
    elif fault == "scale":
        graph.set_constant(f"{name}_scale", graph.array(f"{name}_scale") * 2)
    else:
        graph.set_constant(name, np.ascontiguousarray(graph.array(name)[::-1]))
    with pytest.raises(ProofFailed):
        check_lowering(student[0], model, form)


def weighted(op: str, weight: np.ndarray, **attributes) -> Graph:
    shape = {"Conv": [1, 4, 5, 5], "ConvTranspose": [1, 8, 5, 5]}.get(op, [3, 8])
    node = helper.make_node(op, ["x", "w"], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    return Graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


@pytest.mark.parametrize("form", [FORMS[0], FORMS[3]], ids=name_of)
@pytest.mark.parametrize(
    ("op", "shape", "axis", "attributes"),
    [
        ("Conv", (8, 4, 3, 3), 0, {}),
        ("ConvTranspose", (8, 4, 3, 3), 1, {}),
        ("Gemm", (16, 8), 0, {"transB": 1}),
        ("Gemm", (8, 16), 1, {}),
        ("MatMul", (8, 16), 1, {}),
    ],
)
def test_every_channel_has_its_scale(op, shape, axis, attributes, form: QuantForm, tmp_path) -> None:
    """Channels of sizes far apart, one of zeros: each is off by at most half of its own step."""
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    sizes = np.geomspace(1e-3, 1e3, shape[axis]).astype(np.float32)
    sizes[1] = 0
    weight *= sizes.reshape([-1 if index == axis else 1 for index in range(len(shape))])
    graph = weighted(op, weight, **attributes)
    store_int8(graph, form)
    graph.model.graph.output.append(helper.make_tensor_value_info(graph.model.graph.node[-1].input[1], 1, shape))
    graph.drop_unused()
    import onnxruntime

    onnx.save(graph.model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    x = np.zeros(session.get_inputs()[0].shape, np.float32)
    _, read = session.run(None, {"x": x})
    steps = np.moveaxis(np.abs(weight), axis, 0).reshape(shape[axis], -1).max(1) / 127
    off = np.moveaxis(np.abs(read - weight), axis, 0).reshape(shape[axis], -1).max(1)
    assert (off <= 0.5001 * steps).all()
    assert len(np.unique(steps)) == shape[axis]
