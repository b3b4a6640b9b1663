"""The overflow bound against real kernels without VNNI: which products meet, what saturates, what is cured."""

from __future__ import annotations

from itertools import combinations, product
from pathlib import Path

import numpy as np
import onnx
import pytest
from narrow_cpu import has_vnni, run_jobs
from onnx import TensorProto, helper, numpy_helper
from strict_nets import master, rms, samples
from test_cures import FORMS, cured, tails

from edgekd.forms import QuantForm
from edgekd.lower import cures, lower
from edgekd.lower.overflow import meeting
from edgekd.measure.proof import onnx_run

# Under qemu it takes half a minute.
EMULATED = [pytest.mark.slow] if has_vnni() else []
CPUS = [
    pytest.param("openvino", "AVX2", id="openvino-avx2"),
    pytest.param("openvino", "AVX512_CORE", id="openvino-avx512"),
    pytest.param("onnxruntime", "AVX2", id="onnxruntime-avx2", marks=EMULATED),
]
# Weight shape (output channels are as many as there are pairs to look at), groups, attributes.
CONVOLUTIONS: dict[str, tuple[tuple[int, ...], int, dict]] = {
    "pointwise": ((16, 1, 1), 1, {}),
    "pointwise of 6 channels": ((6, 1, 1), 1, {}),
    "3x3": ((4, 3, 3), 1, {}),
    "3x3 of 2 channels": ((2, 3, 3), 1, {}),
    "3x3 of 6 channels": ((6, 3, 3), 1, {}),
    "3x3, stride 2": ((16, 3, 3), 1, {"strides": [2, 2]}),
    "3x3, dilated": ((8, 3, 3), 1, {"dilations": [2, 2]}),
    "2x2": ((8, 2, 2), 1, {"strides": [2, 2]}),
    "1-d": ((16, 3), 1, {}),
    "grouped": ((8, 3, 3), 4, {}),
    "grouped, 2 channels": ((2, 3, 3), 4, {}),
    "depthwise": ((1, 3, 3), 0, {}),
    "depthwise 5x5": ((1, 5, 5), 0, {}),
    "depthwise 1-d": ((1, 9), 0, {}),
}
LINEAR = {"linear": 24, "linear of 7": 7}


def pairs_of(kernel: tuple[int, ...]) -> list[tuple[int, int]]:
    """Places of two weights in the flat kernel: all, or of a large kernel a part that has all neighbours in it."""
    positions = int(np.prod(kernel[1:]))
    found = list(combinations(range(int(np.prod(kernel))), 2))
    return [(a, b) for a, b in found if len(found) < 700 or b - a in (1, positions) or (a * b) % 13 == 0]


def save_probe(folder: Path, name: str, kernel: tuple[int, ...], group: int, attributes: dict) -> None:
    """A layer whose every output channel has two weights of 127 and zeros, at activations of 255: 2, or saturated."""
    pairs = pairs_of(kernel)
    count = -(-len(pairs) // (16 * max(group, 1))) * 16 * max(group, 1)
    weight = np.zeros((count, int(np.prod(kernel))), np.int8)
    for channel in range(count):
        weight[channel, list(pairs[channel % len(pairs)])] = 127
    group = count if group == 0 else group
    constants = {
        "scale": np.float32(1 / 255),
        "zero": np.uint8(0),
        "w": weight.reshape(count, *kernel),
        "w_scale": np.full(count, 1 / 127, np.float32),
        "w_zero": np.zeros(count, np.int8),
        "y_scale": np.float32(2.1 / 255),
    }
    side = [11] * (len(kernel) - 1)
    if side:
        dilation = attributes.get("dilations", [1])[0]
        pads = [k // 2 * dilation for k in kernel[1:]] * 2
        layer = helper.make_node("Conv", ["x", "v"], ["y"], group=group, pads=pads, **attributes)
    else:
        layer = helper.make_node("Gemm", ["x", "v"], ["y"], transB=1)
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["v"], axis=0),
        layer,
        helper.make_node("QuantizeLinear", ["y", "y_scale", "zero"], ["p"]),
        helper.make_node("DequantizeLinear", ["p", "y_scale", "zero"], ["out"]),
    ]
    shape = [1, kernel[0] * group, *side]
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, count, *(["side"] * len(side))])],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / f"{name}.onnx"
    )
    np.save(folder / f"{name}.npy", np.ones(shape, np.float32))


def met(out: np.ndarray, kernel: tuple[int, ...]) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The pairs of places (input channel, position) that saturated; read in the middle of the map."""
    middle = out[(0, slice(None), *(side // 2 for side in out.shape[2:]))]
    places = list(product(*(range(size) for size in kernel)))
    assert set(np.round(middle, 2)) <= {np.float32(2.0), np.float32(1.01)}
    return {(places[a], places[b]) for i, (a, b) in enumerate(pairs_of(kernel)) if middle[i] < 1.5}


@pytest.mark.parametrize(("runtime", "isa"), CPUS)
def test_products_meet_as_the_bound_says(runtime: str, isa: str, tmp_path: Path) -> None:
    cases = CONVOLUTIONS | {name: ((inputs,), 1, {}) for name, inputs in LINEAR.items()}
    for name, (kernel, group, attributes) in cases.items():
        save_probe(tmp_path, name, kernel, group, attributes)
    outputs = run_jobs(runtime, isa, tmp_path)
    assert outputs.keys() == cases.keys()
    for name, (kernel, group, _) in cases.items():
        shape = (outputs[name].shape[1], *kernel)
        meet = meeting("Conv" if len(kernel) > 1 else "Gemm", shape, group or shape[0])
        places = [(2 * i, 2 * i + 1) for i in range(kernel[0] // 2)]
        wanted = {((a, *p), (b, *p)) for a, b in places for p in product(*(range(size) for size in kernel[1:]))}
        assert meet != "any", name
        assert met(outputs[name], kernel) == (wanted if meet == "neighbours" else set()), name


@pytest.mark.parametrize(("runtime", "isa"), CPUS)
def test_cured_networks_compute_what_their_file_says(
    runtime: str, isa: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uncured, the compiled model is far from the same file unoptimized; the peers' default falls into it."""
    x = samples("mobilenet-xs-relu6", 8, seed=7).numpy()
    files = {
        "uncured": lower(master("mobilenet-xs-relu6"), FORMS[runtime], vnni=True),
        "cured": cured(master("mobilenet-xs-relu6"), FORMS[runtime])[0],
    }
    if runtime == "openvino":
        monkeypatch.setattr(cures, "CREST", 1e-3)
        files["few codes"], rows = cured(master("mobilenet-xs-relu6"), FORMS[runtime])
        assert sum(row["cure"] == "codes" for row in rows.values()) >= 3
    for name, model in files.items():
        onnx.save(model, tmp_path / f"{name}.onnx")
        np.save(tmp_path / f"{name}.npy", x)
    outputs = run_jobs(runtime, isa, tmp_path)
    error = {name: rms(outputs[name], onnx_run(tmp_path / f"{name}.onnx")(x)) for name in files}
    assert error.pop("uncured") > 0.04
    assert all(value < 0.01 for value in error.values()), error


@pytest.mark.parametrize(("runtime", "isa"), CPUS)
def test_outliers_do_not_saturate(runtime: str, isa: str, tmp_path: Path) -> None:
    """Inputs of ten times the calibrated range, into a layer that keeps full-range weights where that is cheaper."""
    x = 10 * np.random.default_rng(3).normal(size=(4, 3, 10, 10)).astype(np.float32)
    form: QuantForm = FORMS[runtime]
    model, rows = cured(tails("relu"), form)
    assert rows["conv2d_1"]["cure"] == ("codes" if runtime == "openvino" else "weights")
    onnx.save(model, tmp_path / "cured.onnx")
    onnx.save(lower(tails("relu"), form, vnni=True), tmp_path / "uncured.onnx")
    for name in ("cured", "uncured"):
        np.save(tmp_path / f"{name}.npy", x)
    outputs = run_jobs(runtime, isa, tmp_path)
    error = {name: rms(outputs[name], onnx_run(tmp_path / f"{name}.onnx")(x)) for name in outputs}
    assert error["cured"] < 0.01
    assert error["uncured"] > 10 * error["cured"]
