"""The proof's judgement on small arrays, and the values inside real ONNX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.errors import ProofFailed
from edgekd.measure.proof import (
    DISAGREEING,
    EQUAL,
    SAMPLES_INSIDE,
    Hop,
    first_difference,
    onnx_inside,
    onnx_run,
    prove,
)

RANDOM = np.random.default_rng(0)
SAMPLES = RANDOM.normal(size=(200, 6)).astype(np.float32)
WEIGHTS = [RANDOM.normal(size=(6, 6)).astype(np.float32) for _ in range(3)]
LABELS = np.zeros(200, int)


def forms(*changes):
    """``run`` and ``inside`` of three products; ``changes`` (layer, function) act on what they give."""

    def inside(x):
        values = {}
        for i, weight in enumerate(WEIGHTS):
            x = x @ weight if i == 2 else np.maximum(x @ weight, 0)
            for layer, change in changes:
                if layer == i:
                    x = change(x)
            values[f"layer{i}"] = x
        return values

    return lambda x: inside(x)["layer2"], inside


def hop(name: str, *changes, kind="rounding", blind: bool = False) -> Hop:
    run, inside = forms(*changes)
    return Hop(name, run, kind, None if blind else inside)


def noise(size: float):
    return lambda x: x + size * np.abs(x).max() * np.random.default_rng(1).uniform(-1, 1, x.shape).astype(x.dtype)


def shift(channel: int, by: float):
    def change(x):
        x = x.copy()
        x[:, channel] += by
        return x

    return change


def spoil(value: float):
    def change(x):
        x = x.copy()
        x[0, 0] = value
        return x

    return change


def test_three_kinds_of_hops_that_hold():
    results = prove(
        [
            hop("float"),
            hop("prepared", (1, noise(1e-7)), kind="equal"),
            hop("fake-quantized", (0, noise(0.3)), kind="changing"),
            hop("master", (0, noise(0.3)), (2, noise(0.001))),
        ],
        SAMPLES,
        LABELS,
    )
    assert [row.hop for row in results] == ["float", "prepared", "fake-quantized", "master"]
    assert [row.kind for row in results] == ["start", "equal", "changing", "rounding"]
    assert all(row.ok for row in results)
    start, equal, changing, rounding = results
    assert start.max_abs is start.agreement is None
    assert 0 < equal.max_rel <= EQUAL
    assert equal.agreement >= 0.98  # some outputs are all 0, where anything decides
    assert changing.rms_rel > 0.05
    assert changing.agreement < 1
    assert 0 < rounding.rms_rel < 0.05
    assert start.accuracy == np.mean(forms()[0](SAMPLES).argmax(1) == LABELS)
    assert set(rounding.to_json()) == {
        "hop", "kind", "max_abs", "max_rel", "rms_rel", "agreement", "accuracy", "tolerance", "ok",
    }  # fmt: skip


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_an_equal_hop_is_held_to_float_rounding_and_names_the_layer(layer):
    with pytest.raises(ProofFailed) as error:
        prove([hop("float"), hop("prepared", (layer, noise(1e-3)), kind="equal")], SAMPLES, LABELS)
    assert f"it starts at layer{layer}" in str(error.value)
    assert error.value.where == "hop float -> prepared"
    assert "allowed: largest difference at most 1e-05" in error.value.remedy


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_channel_that_moved_is_named_among_flips(layer):
    after = hop("lowered", (0, noise(0.002)), (layer, shift(3, 4.0)))
    with pytest.raises(ProofFailed, match=rf"lowered differs from master: largest .*; it starts at layer{layer}\n"):
        prove([hop("master"), after], SAMPLES, LABELS)


def test_decisions_that_change_fail_though_the_numbers_are_near():
    """All samples lie on the edge between two classes."""
    samples = np.zeros((100, 2), np.float32)
    near = Hop("master", lambda x: x + np.float32([1, 0.999]))
    other = Hop("lowered", lambda x: x + np.float32([0.999, 1]))
    with pytest.raises(ProofFailed, match=r"decisions equal on 0.0%; its values inside are not known by name"):
        prove([near, other], samples, np.zeros(100, int))
    result = prove([near, Hop("lowered", other.run, "changing")], samples, np.zeros(100, int))[1]
    assert (result.agreement, result.accuracy) == (0, 0)


@pytest.mark.parametrize(("count", "flipped", "ok"), [(200, 4, True), (200, 5, False), (10, 1, True), (10, 2, False)])
def test_the_share_of_decisions_that_may_change(count, flipped, ok):
    assert DISAGREEING == 0.02
    first = np.tile(np.float32([1, 0.99]), (count, 1))
    second = first.copy()
    second[:flipped] = [0.99, 1]
    rows = np.arange(count)[:, None]
    hops = [Hop(name, lambda x, values=values: values[x[:, 0]]) for name, values in [("a", first), ("b", second)]]
    if ok:
        assert prove(hops, rows, np.zeros(count, int))[1].ok
    else:
        with pytest.raises(ProofFailed):
            prove(hops, rows, np.zeros(count, int))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["equal", "rounding", "changing"])
def test_nan_fails_every_kind_and_names_its_layer(kind, value):
    words = "bad gives NaN or infinite outputs where float does not; it starts at layer1"
    with pytest.raises(ProofFailed, match=words), np.errstate(invalid="ignore"):
        prove([hop("float"), hop("bad", (1, spoil(value)), kind=kind)], SAMPLES, LABELS)


def test_nan_in_one_late_sample_is_found_inside():
    """Its place in its batch is past the samples that are looked into otherwise."""
    marked = SAMPLES.copy()
    marked[150] = 77
    assert SAMPLES_INSIDE < 150

    def bad(x):
        x = x.copy()
        x[x.max(1) > 70] = np.nan
        return x

    with pytest.raises(ProofFailed, match="it starts at layer0"), np.errstate(invalid="ignore"):
        prove([hop("float"), hop("bad", (0, bad))], marked, LABELS)


def test_nan_fails_the_first_hop():
    with pytest.raises(ProofFailed, match="float gives NaN or infinite outputs") as error:
        prove([hop("float", (2, spoil(np.nan))), hop("prepared", (2, spoil(np.nan)))], SAMPLES, LABELS)
    assert error.value.remedy


def test_outputs_of_another_shape_fail():
    with pytest.raises(ProofFailed, match=r"shape \(200, 5\), master of \(200, 6\)"):
        prove([hop("master"), Hop("lowered", lambda x: x[:, :5])], SAMPLES, LABELS)


def test_a_fault_with_no_layer_of_its_own():
    spread = hop("lowered", (2, noise(0.6)))
    with pytest.raises(ProofFailed, match="no single value inside is at fault"):
        prove([hop("master"), Hop("lowered", spread.run, inside=hop("master").inside)], SAMPLES, LABELS)
    with pytest.raises(ProofFailed, match="not known by name"):
        prove([hop("master"), hop("lowered", (2, noise(0.6)), blind=True)], SAMPLES, LABELS)


def test_first_difference_passes_over_what_cannot_be_compared():
    x = RANDOM.normal(size=(8, 3, 4, 4))
    moved = x.copy()
    moved[:, 1] += 1
    assert first_difference({"a": x}, {"a": x}) is None
    assert first_difference({"a": x}, {"b": moved}) is None
    assert first_difference({"a": x}, {"a": moved[:4]}) is None
    assert first_difference({"a": x, "b": x}, {"b": moved, "a": x}) == "b"
    assert first_difference({"a": x, "b": x}, {"b": moved, "a": moved}) == "a"
    flips = x + 0.02 * RANDOM.choice([-1, 1], size=x.shape)
    assert first_difference({"a": x}, {"a": flips}) is None
    assert first_difference({"a": x}, {"a": flips}, "equal") == "a"
    constant = np.zeros((4, 2))
    assert first_difference({"a": constant}, {"a": constant + 1}) == "a"
    broken = np.where(x > 2, np.nan, x)
    assert first_difference({"a": broken, "b": x}, {"a": broken, "b": moved}) == "b"
    assert first_difference({"a": np.zeros((0, 3))}, {"a": np.zeros((0, 3))}) is None


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A product, its sites, a rectifier and a second product that gives the output."""
    random = np.random.default_rng(4)
    constants = {
        "w0": random.normal(size=(6, 6)).astype(np.float32),
        "w1": random.normal(size=(6, 6)).astype(np.float32),
        "scale": np.float32(0.05),
        "zero": np.int8(0),
    }
    nodes = [
        helper.make_node("MatMul", ["input", "w0"], ["m0"]),
        helper.make_node("QuantizeLinear", ["m0", "scale", "zero"], ["m0_q"]),
        helper.make_node("DequantizeLinear", ["m0_q", "scale", "zero"], ["m0_dq"]),
        helper.make_node("Relu", ["m0_dq"], ["r0"]),
        helper.make_node("MatMul", ["r0", "w1"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 6])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    path = tmp_path_factory.mktemp("proof") / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_the_inside_of_an_onnx_file(model):
    values = onnx_inside(model, SAMPLES)
    assert list(values) == ["m0", "r0", "logits"]
    np.testing.assert_array_equal(values["logits"], onnx_run(model)(SAMPLES))
    assert (values["r0"] >= 0).all()
    codes = values["r0"] / np.float32(0.05)
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-3)


@pytest.mark.parametrize(("weight", "layer"), [("w0", "m0"), ("w1", "logits")])
def test_a_wrong_weight_of_an_onnx_file_is_named_also_in_the_last_layer(model, tmp_path, weight, layer):
    loaded = onnx.load(model)
    for tensor in loaded.graph.initializer:
        if tensor.name == weight:
            value = numpy_helper.to_array(tensor).copy()
            value[:, 2] = 3.0
            tensor.CopyFrom(numpy_helper.from_array(value, weight))
    other = tmp_path / "other.onnx"
    onnx.save(loaded, other)
    hops = [Hop(path.stem, onnx_run(path), inside=lambda x, path=path: onnx_inside(path, x)) for path in (model, other)]
    samples = np.abs(SAMPLES)
    with pytest.raises(ProofFailed, match=f"it starts at {layer}\n"):
        prove(hops, samples, LABELS)


def test_a_file_that_the_reference_refuses(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(ProofFailed, match="cannot load") as error:
        onnx_run(tmp_path / "broken.onnx")
    assert error.value.where.endswith("broken.onnx")


@pytest.mark.parametrize(("own", "size", "holds"), [(0.0, 0.1, False), (0.15, 0.1, True), (0.15, 0.2, False)])
def test_rounding_may_move_a_form_as_far_as_quantizing_did(own: float, size: float, holds: bool) -> None:
    """Networks that quantize badly flip much: a form moves from its file by less than the file is from float."""
    floating, master = hop("float").run(SAMPLES), hop("master", (2, noise(own)), blind=True)
    hops = [master, hop("compiled", (2, noise(own)), (2, noise(size)), blind=True)]
    if holds:
        assert prove(hops, SAMPLES, LABELS, floating=floating)[1].ok
        with pytest.raises(ProofFailed):
            prove(hops, SAMPLES, LABELS)
    else:
        with pytest.raises(ProofFailed, match="differs from master"):
            prove(hops, SAMPLES, LABELS, floating=floating)
