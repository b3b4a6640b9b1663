"""Candidates of small networks: legal forms only, float ones from the float student, each proven."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from edgekd.backends import get_backend
from edgekd.backends.openvino import cpu_capabilities
from edgekd.errors import ProofFailed
from edgekd.forms import QuantForm
from edgekd.measure.proof import onnx_run
from edgekd.pipeline.bundle import BundleStage
from edgekd.pipeline.candidates import make_candidates, session_run
from edgekd.pipeline.drift import drift_of
from edgekd.quantize import export_float, prepare, write_master
from edgekd.stage import Artifact, NoProgress
from edgekd.target import load_target


def write(folder, student: nn.Module, *, drift: float = 0.0) -> None:
    """What the quantize stage leaves; ``drift`` moves the master's weights as quantization-aware training does."""
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(64, 1, 8, 8, generator=generator)
    export_float(student, samples[:2], folder / "float.onnx")
    prepared = prepare(copy.deepcopy(student), samples[:2])
    with torch.no_grad():
        for parameter in prepared.module.parameters():
            parameter.add_(drift * torch.randn(parameter.shape, generator=generator))
    prepared.calibrate([samples])
    write_master(prepared, samples[:2], folder)
    with torch.no_grad():
        outputs = student(samples).numpy()
    np.savez(folder / "proof_samples.npz", samples=samples.numpy(), labels=outputs.argmax(1), outputs=outputs)


def made(target_name, folder, out, **changes):
    target = load_target(target_name).model_copy(update=changes)
    maker = make_candidates(get_backend(target.backend), target, folder, out, NoProgress())
    return {one.row["name"]: one for one in maker.made}, maker.left


@pytest.fixture
def conv(one_thread) -> nn.Module:
    torch.manual_seed(0)
    body = [nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(16 * 16, 5)).eval()


@pytest.mark.parametrize("name", ["onnxruntime-cpu", "openvino-cpu"])
def test_float_is_the_student_and_not_what_training_made_of_it(tmp_path, conv, name):
    write(tmp_path, conv, drift=0.05)
    found, left = made(name, tmp_path, tmp_path / "out")
    x = np.load(tmp_path / "proof_samples.npz")["samples"]
    with torch.no_grad():
        want = conv(torch.from_numpy(x)).numpy()
    assert np.abs(onnx_run(found["float"].compiled.onnx)(x) - want).max() < 1e-5
    assert np.abs(onnx_run(found["int8"].compiled.onnx)(x) - want).max() > 1e-2
    assert not left
    assert list(found)[-1] == "float"


@pytest.mark.parametrize("name", ["onnxruntime-cpu", "openvino-cpu", "jetson"])
def test_a_form_without_integers_is_no_integer_form(tmp_path, one_thread, name):
    """First and last layer in float leave nothing of this network; TensorRT leaves its linear layers in float."""
    torch.manual_seed(0)
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 5)).eval()
    write(tmp_path, student)
    found, _ = made(name, tmp_path, tmp_path / "out")
    for one in found.values():
        graph = onnx.load(one.compiled.onnx).graph
        assert one.row["integer"] == any(node.op_type == "QuantizeLinear" for node in graph.node)
    assert not found[list(found)[-1]].row["integer"]
    assert "int8-float-ends" not in found


def test_every_candidate_is_proven_to_its_compiled_model(tmp_path, conv):
    write(tmp_path, conv)
    found, _ = made("onnxruntime-cpu", tmp_path, tmp_path / "out")
    for one in found.values():
        hops = [hop["hop"] for hop in one.row["proof"]]
        assert hops == ["master" if one.row["integer"] else "float", "lowered", "compiled"]
        assert all(hop["ok"] for hop in one.row["proof"])


def test_half_precision_is_proven_too(tmp_path, conv):
    write(tmp_path, conv)
    found, _ = made("onnxruntime-cpu", tmp_path, tmp_path / "out", precision="fp16")
    assert list(found) == ["float-fp16", "weights-int8", "float"]
    assert [one.row["proof"][1]["kind"] for one in found.values()] == ["rounding", "rounding", "equal"]
    sizes = [one.row["size_bytes"] for one in found.values()]
    assert sizes[1] < sizes[0] < sizes[2]


@pytest.mark.parametrize(("precision", "kind"), [("f32", "kernels"), ("bf16", "rounding")])
def test_the_float_file_is_proven_in_what_the_target_computes_in(tmp_path, conv, precision, kind):
    """``runtime.inference_precision: bf16`` rounds what a float32 file leaves exact."""
    if precision == "bf16" and "BF16" not in cpu_capabilities():
        pytest.skip("OpenVINO says that this CPU has no bf16")
    write(tmp_path, conv)
    runtime = load_target("openvino-cpu").runtime.model_copy(update={"inference_precision": precision})
    found, left = made("openvino-cpu", tmp_path, tmp_path / "out", runtime=runtime)
    one = found["float"]
    assert one.row["meta"]["inference_precision"] == precision
    assert [hop["kind"] for hop in one.row["proof"][1:]] == ["equal", kind]
    assert not left
    target = load_target("openvino-cpu").model_copy(update={"runtime": runtime})
    form = QuantForm.from_json(one.row["form"])
    drift = drift_of(get_backend("openvino"), target, tmp_path, form, one.compiled, tmp_path)
    assert [step.form.kind for step in drift.forms] == ["equal", kind]


def test_a_device_that_computes_in_bf16_stays_within_its_golden_outputs(tmp_path, conv):
    """The target is not here, so its outputs are those of the unoptimized file; this machine stands for the device."""
    if "BF16" not in cpu_capabilities():
        pytest.skip("OpenVINO says that this CPU has no bf16")
    write(tmp_path, conv)
    runtime = load_target("openvino-cpu").runtime.model_copy(update={"inference_precision": "bf16"})
    changes = {"runtime": runtime, "board": "a board that is elsewhere"}
    found, _ = made("openvino-cpu", tmp_path, tmp_path / "out", **changes)
    one, target = found["float"], load_target("openvino-cpu").model_copy(update=changes)
    assert not target.is_here()
    inputs = {
        "compile": Artifact("compile", tmp_path / "out", "", {}),
        "quantize": Artifact("quantize", tmp_path, "", {}),
    }
    run, tolerances = BundleStage(None, target, "")._reference(inputs, one.row)
    x = np.load(tmp_path / "proof_samples.npz")["samples"]
    on_device = session_run(get_backend("openvino").load(one.compiled, target))(x)
    assert np.abs(on_device - run(x)["logits"]).max() <= tolerances["logits"].value


@pytest.mark.parametrize(
    ("small", "accurate", "chosen"), [(False, True, 0), (True, True, 1), (True, False, 0), (False, False, 0)]
)
def test_what_ships_where_floats_are_asked_for(small: bool, accurate: bool, chosen: int):
    from edgekd.pipeline.compile import _float_choice

    rows = [{"form": {"weights": kind}, "accurate": ok} for kind, ok in (("float", True), ("int8", accurate))]
    choice = _float_choice(rows, load_target("rtx"), small=small)
    assert choice.index == chosen
    told = "int8 weights alone" if chosen else "TensorRT for RTX documents int8 for weights only"
    assert choice.reason.startswith("fp16 is asked for")
    assert told in choice.reason


def test_a_form_that_cannot_be_lowered_is_left_out(tmp_path, conv):
    """ARM's forms: a weight that float16 cannot hold, for a channel that is always zero, breaks one of them alone."""
    with torch.no_grad():
        conv[0].weight[0], conv[0].bias[0] = 0, -1
        conv[2].weight[0, 0] = 1e5
    write(tmp_path, conv)
    found, left = made("openvino-cpu", tmp_path, tmp_path / "out", arch="aarch64", isa="neon-dot")
    assert [row["name"] for row in left] == ["float-fp16"]
    assert "which float16 cannot" in left[0]["why"]
    assert {"int8", "float"} <= found.keys()


def test_a_wrong_master_fails_the_build(tmp_path, conv):
    """Only the weights of the file that is lowered change; the table of sites still fits."""
    write(tmp_path, conv)
    model = onnx.load(tmp_path / "float.onnx")
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.ndim == 4:
            tensor.CopyFrom(numpy_helper.from_array(np.full_like(value, np.nan), tensor.name))
    onnx.save(model, tmp_path / "float.onnx")
    with pytest.raises(ProofFailed, match="NaN"):
        made("onnxruntime-cpu", tmp_path, tmp_path / "out")
