"""Drift: healthy forms have no layer at fault, and one that was planted is named."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper
from rounded_chain import LAST, LAYERS, SAMPLES, inside, network, saturating

from edgekd.measure.drift import CLEAN, HIGHEST, LIMITS, Form, measure_drift, own_parts, spread
from edgekd.measure.inside import Value, open_inside, untapped, values_of, with_taps
from edgekd.measure.worst import worst_inputs

MASTER = Form("master", "changing", inside(127))
LOWERED = Form("lowered", "relaxing", inside(255))


def product(layer: int) -> str:
    return "logits" if layer == LAST else f"m{layer}"


def test_a_healthy_network_has_no_layer_at_fault():
    compiled = inside(255)
    drift = measure_drift(
        network(),
        [MASTER, LOWERED, Form("compiled", "rounding", lambda x: {"logits": compiled(x)["logits"]})],
        SAMPLES,
        student=open_inside(network())(SAMPLES)["logits"],
    )
    assert [(one.fault, one.parted) for one in drift.forms] == [(None, False)] * 3
    master, lowered, last = drift.forms
    assert all(20 < db < 60 for db in master.db.values())
    assert lowered.db["logits"] > master.db["logits"] + 2, "twice as many codes"
    assert last.db == {"logits": lowered.db["logits"]}
    assert last.step_db == {"logits": HIGHEST}, "the same numbers"
    assert drift.student_db == HIGHEST
    assert master.agreement is not None
    assert master.agreement > 0.9
    assert drift.words().startswith("no layer is at fault; lowered loses most at ")


@pytest.mark.parametrize("layer", range(LAYERS))
def test_a_wrong_weight_scale_is_named(layer):
    wrong = Form("lowered", "relaxing", inside(255, scaled={layer: 1.25}))
    drift = measure_drift(network(), [MASTER, wrong], SAMPLES)
    master, lowered = drift.forms
    assert master.fault is None
    assert lowered.fault == product(layer)
    assert lowered.db[product(layer)] == pytest.approx(20 * np.log10(4), abs=1), "a quarter too large"
    assert f"lowered is at fault at {product(layer)} (body.{layer}): " in drift.words()
    told = drift.to_json()
    assert [form["fault"] for form in told["forms"]] == [None, product(layer)]


@pytest.mark.parametrize("layer", range(LAYERS))
def test_a_saturating_layer_is_named(layer):
    """In exact integers: only one layer's kernel adds pairs of products in 16 bits."""
    tapped = Form("tapped", "rounding", inside(255, products={layer: saturating}))
    found = measure_drift(network(), [LOWERED, tapped], SAMPLES).forms[1]
    assert found.fault == product(layer)
    # The same kernel on seven bits holds every pair: nothing to be found.
    held = replace(tapped, inside=inside(127, products=dict.fromkeys(range(LAYERS), saturating)))
    quiet = measure_drift(network(), [replace(LOWERED, inside=inside(127)), held], SAMPLES).forms[1]
    assert quiet.fault is None
    assert set(quiet.step_db.values()) == {HIGHEST}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_at_fault(bad):
    def broken(x):
        return inside(255)(x) | {"r1": np.full((len(x), 32), bad, np.float32)}

    drift = measure_drift(network(), [MASTER, Form("lowered", "relaxing", broken)], SAMPLES)
    assert drift.forms[1].fault == "r1"
    assert drift.forms[1].db["r1"] == -HIGHEST
    json.dumps(drift.to_json(), allow_nan=False)


def test_outputs_alone_name_no_layer():
    wrong = inside(255, scaled={1: 2.0})
    forms = [MASTER, LOWERED, Form("compiled", "rounding", lambda x: {"logits": wrong(x)["logits"]})]
    last = measure_drift(network(), forms, SAMPLES).forms[2]
    assert (last.parted, last.fault) == (True, None)


def test_rows_hold_every_form_s_figures():
    told = measure_drift(network(), [MASTER, LOWERED], SAMPLES[:20]).to_json()
    assert (told["samples"], told["clean_db"]) == (20, CLEAN)
    assert [row["value"] for row in told["rows"]] == ["m0", "r0", "m1", "r1", "m2", "r2", "logits"]
    for row in told["rows"]:
        for key in ("db", "step_db", "own_db"):
            assert set(row[key]) == {"master", "lowered"}
    assert told["rows"][0]["step_db"]["master"] == told["rows"][0]["db"]["master"]
    assert told["forms"][0]["limit_db"] == LIMITS["changing"]


def chain(*names: str) -> list[Value]:
    return [Value(name, "Conv", name, names[max(i - 1, 0) : i]) for i, name in enumerate(names)]


def test_own_parts():
    values = chain("a", "b", "c", "d")
    # The first form against CLEAN, up to which alone decibels count.
    assert own_parts(values, None, {"a": 50, "b": 30, "c": 31, "d": 25}) == {"a": 0, "b": 10, "c": -1, "d": 6}
    # The next against the one before it; what both lost is nobody's own part.
    before, after = {"a": 50, "b": 30, "c": 29, "d": 25}, {"a": 45, "b": 29, "c": 15, "d": 12}
    assert own_parts(values, before, after) == {"a": 0, "b": 1, "c": 13, "d": -1}
    # Values that are not shown are passed over.
    assert own_parts(values, before, {"b": 29, "d": 12}) == {"b": 1, "d": 12}
    # A value that is still clean costs nothing, whatever it gained before.
    assert own_parts(values, {"a": 20, "b": 38}, {"a": 39, "b": 41}) == {"a": -19, "b": 0}


def test_the_noisiest_input_counts():
    values = [*chain("a", "b"), Value("skip", "Conv", "skip", ("a",)), Value("sum", "Add", "sum", ("b", "skip"))]
    own = own_parts(values, None, {"a": 40, "b": 20, "skip": 38, "sum": 22})
    assert own == {"a": 0, "b": 20, "skip": 2, "sum": -2}


def test_samples_are_spread_and_fewer_where_they_are_large():
    assert list(spread(np.zeros((5, 3)))) == [0, 1, 2, 3, 4]
    small = spread(np.zeros((256, 1, 8, 8)))
    assert (len(small), small[0], small[-1]) == (64, 0, 255)
    assert len(spread(np.zeros((100, 3, 224, 224), np.int8))) == 16


def test_values_are_seen_through_what_moves_them():
    nodes = [
        helper.make_node("Conv", ["input", "stem.0.weight"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["t"], ["u"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["u", "skip.weight"], ["s"]),
        helper.make_node("Add", ["u", "s"], ["a"]),
        helper.make_node("Shape", ["a"], ["size"]),
        helper.make_node("Flatten", ["a"], ["logits"]),
    ]
    weight = np.ones((2, 2, 1, 1), np.float32)
    tensors = [onnx.numpy_helper.from_array(weight, name) for name in ("stem.0.weight", "skip.weight")]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "branches",
        [info("input", onnx.TensorProto.FLOAT, ["batch", 2, 3, 3])],
        [info("logits", onnx.TensorProto.FLOAT, ["batch", 18])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    found = {value.name: value for value in values_of(model)}
    assert list(found) == ["c", "r", "s", "a", "logits"], "the output is there whatever makes it"
    assert found["s"].inputs == ("r",)
    assert found["a"].inputs == ("r", "s")
    assert [value.layer for value in found.values()] == [
        "stem.0",
        "Relu after stem.0",
        "skip",
        "Add after skip",
        "Flatten after skip",
    ]
    values = open_inside(model)(np.ones((2, 2, 3, 3), np.float32))
    assert "size" not in values
    assert values["a"].shape == (2, 2, 3, 3)
    assert with_taps(model) == model, "nothing is quantized here"
    assert list(untapped({"r_tap": weight, "logits": weight})) == ["r", "logits"]


def test_the_worst_inputs():
    samples = np.arange(40, dtype=np.float32).reshape(10, 4)
    wanted = np.zeros((10, 3), np.float32)
    got = wanted.copy()
    got[7, 1], got[2, 0], got[4, 2], got[5, 2] = 0.5, -2, 0.5, np.nan
    worst = worst_inputs(samples, wanted, got, count=4)
    assert list(worst.positions) == [5, 2, 4, 7], "what is not finite first, of equals the first"
    assert list(worst.differences) == [np.inf, 2, 0.5, 0.5]
    np.testing.assert_array_equal(worst.inputs, samples[[5, 2, 4, 7]])
    np.testing.assert_array_equal(worst.got[1], got[2])
    assert len(worst_inputs(samples, wanted, got, largest=2 * samples[0].nbytes).positions) == 2
    assert len(worst_inputs(samples, wanted, got, largest=3).positions) == 0
