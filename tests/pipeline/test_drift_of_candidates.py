"""The drift of real candidates: healthy ones, a lowered file with a wrong weight scale, and a runtime that is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drift_nets import Tokens, WrongRuntime, chain, spoil, write
from onnx import numpy_helper

from edgekd.backends import get_backend
from edgekd.errors import ProofFailed
from edgekd.forms import Master
from edgekd.lower import lower
from edgekd.measure.worst import worst_inputs
from edgekd.pipeline import candidates
from edgekd.pipeline.drift import drift_of, save_worst
from edgekd.quantize.post_training import Techniques
from edgekd.stage import NoProgress
from edgekd.target import load_target


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("quantize")
    write(place)
    return place


def compiled(folder: Path, out: Path, name: str, backend: Any = None) -> tuple[Any, Any, Any, Any]:
    """Backend, target, the rules' first form and its compiled model."""
    target = load_target(name)
    backend = backend(get_backend(target.backend)) if backend else get_backend(target.backend)
    form = get_backend(target.backend).candidates(target)[0]
    model = lower(Master.load(folder), form, vnni=target.has_vnni())
    (out / "model.onnx").write_bytes(model.SerializeToString())
    return backend, target, form, backend.compile(out / "model.onnx", target, out, form=form)


@pytest.mark.parametrize("name", ["onnxruntime-cpu", "openvino-cpu", "jetson"])
def test_a_healthy_candidate(folder, tmp_path, name):
    backend, target, form, model = compiled(folder, tmp_path, name)
    drift = drift_of(backend, target, folder, form, model, tmp_path)
    here = target.is_here()
    assert [one.form.name for one in drift.forms] == ["master", "lowered", *(["compiled"] if here else [])]
    assert not any(one.parted for one in drift.forms)
    assert all(one.db["logits"] > 25 for one in drift.forms)
    assert drift.student_db is not None
    assert drift.student_db > 100, "the master without quantizers is the float student"
    assert [value.layer for value in drift.values if value.op == "Conv"] == ["0", "2", "4"]
    json.dumps(drift.to_json(), allow_nan=False)


@pytest.mark.parametrize("technique", ["equalization", "adaround", "bias_correction"])
def test_what_rounding_changed_is_noise_and_no_float(tmp_path, technique):
    """Weights on their grid, moved biases and one that is new: against the master's own there would be less noise."""
    write(tmp_path, Techniques(**{technique: True}))
    backend, target, form, model = compiled(tmp_path, tmp_path, "onnxruntime-cpu")
    drift = drift_of(backend, target, tmp_path, form, model, tmp_path)
    assert drift.student_db is not None
    assert drift.student_db > 100
    with np.load(tmp_path / "float_weights.npz") as changed:
        names = set(changed.files)
    if technique == "equalization":
        assert not names, "the same function, told by the master itself"
    else:
        assert {name.rpartition(".")[2] for name in names if "." in name} == {
            "weight" if technique == "adaround" else "bias"
        }
    assert ("conv2d_bias" in names) == (technique == "bias_correction")
    assert not any(one.parted for one in drift.forms)


def test_a_bias_that_two_layers_shared_is_the_float_one_of_both(tmp_path):
    """Correction gives the second layer one of its own."""
    write(tmp_path, Techniques(bias_correction=True), net=partial(chain, shared=True))
    backend, target, form, model = compiled(tmp_path, tmp_path, "onnxruntime-cpu")
    drift = drift_of(backend, target, tmp_path, form, model, tmp_path)
    assert drift.student_db is not None
    assert drift.student_db > 100
    assert not any(one.parted for one in drift.forms)


@pytest.mark.parametrize(
    "techniques",
    [Techniques(), Techniques(equalization=True), Techniques(adaround=True), Techniques(bias_correction=True)],
)
def test_linear_layers_on_tokens_are_held_against_their_own_weights(tmp_path, techniques):
    """The master has them transposed, the square one too, whose shape does not tell."""
    student = write(tmp_path, techniques, net=Tokens)
    backend, target, form, model = compiled(tmp_path, tmp_path, "onnxruntime-cpu")
    drift = drift_of(backend, target, tmp_path, form, model, tmp_path)
    assert drift.student_db is not None
    assert drift.student_db > 100
    assert not any(one.parted for one in drift.forms)
    with np.load(tmp_path / "float_weights.npz") as changed:
        found = dict(changed)
    kinds = {name.replace("_", ".").rpartition(".")[2] for name in found}
    assert kinds == ({"weight"} if techniques.adaround else {"bias"} if techniques.bias_correction else set())
    weights = {name: value.numpy() for name, value in student.state_dict().items()}
    if techniques.adaround:
        assert found.keys() == {name for name in weights if name.endswith(".weight")}
    for name in found.keys() & weights.keys():
        turned = name in ("square.weight", "wide.weight", "narrow.weight")
        np.testing.assert_array_equal(found[name], weights[name].T if turned else weights[name])


@pytest.mark.parametrize(("changes", "least", "most"), [({}, 130, 150), ({"weights": "int8"}, 25, 60)])
def test_float_forms_are_held_against_the_float_student(folder, tmp_path, changes, least, most):
    target = load_target("onnxruntime-cpu")
    backend = get_backend(target.backend)
    form = replace(backend.candidates(target)[-1], **changes)
    model = lower(Master(folder / "float.onnx", ()), form)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    made = backend.compile(tmp_path / "model.onnx", target, tmp_path, form=form)
    drift = drift_of(backend, target, folder, form, made, tmp_path)
    assert [one.form.name for one in drift.forms] == ["lowered", "compiled"]
    assert not any(one.parted for one in drift.forms)
    assert least <= drift.forms[0].db["logits"] <= most
    assert set(drift.forms[0].db) == {value.name for value in drift.values}


def test_a_wrong_weight_scale_in_the_lowered_file(folder, tmp_path):
    backend, target, form, model = compiled(folder, tmp_path, "onnxruntime-cpu")
    spoil(model.onnx, "2.weight", 1.3, tmp_path / "wrong.onnx")
    wrong = replace(model, path=tmp_path / "wrong.onnx", onnx=tmp_path / "wrong.onnx")
    drift = drift_of(backend, target, folder, form, wrong, tmp_path)
    master, lowered, last = drift.forms
    assert (master.fault, lowered.fault, last.parted) == (None, "conv2d_1", False)
    assert "lowered is at fault at conv2d_1 (2): " in drift.words()


@pytest.mark.parametrize("name", ["onnxruntime-cpu", "openvino-cpu"])
def test_a_wrong_runtime_is_tapped(folder, tmp_path, name):
    backend, target, form, model = compiled(folder, tmp_path, name, lambda real: WrongRuntime(real, "2.weight", 1.3))
    drift = drift_of(backend, target, folder, form, model, tmp_path)
    by_name = {one.form.name: one for one in drift.forms}
    assert not by_name["lowered"].parted, "its file is right"
    assert (by_name["compiled"].parted, by_name["compiled"].fault) == (True, None)
    assert by_name["tapped"].fault == "relu_1", "the first site behind the wrong layer"
    assert "4 layers run in integers, 4 in the model that ships" in by_name["tapped"].form.note
    assert "tapped is at fault at relu_1 (Relu after 2): " in drift.words()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inner", "model.onnx"], "nothing is left of the taps"


def test_a_failed_proof_names_the_layer(folder, tmp_path, monkeypatch):
    real = candidates.lowered

    def wrong(*args, **kwargs):
        model = real(*args, **kwargs)
        for tensor in model.graph.initializer:
            if tensor.name == "2.weight_scale":
                tensor.CopyFrom(numpy_helper.from_array(3 * numpy_helper.to_array(tensor), tensor.name))
        return model

    monkeypatch.setattr(candidates, "lowered", wrong)
    target = load_target("onnxruntime-cpu")
    with pytest.raises(ProofFailed, match=r"by layer: lowered is at fault at conv2d_1 \(2\): \d+\.\d dB lost there"):
        candidates.make_candidates(get_backend("onnxruntime"), target, folder, tmp_path, NoProgress())


def test_the_worst_inputs_are_files(tmp_path):
    random = np.random.default_rng(0)
    samples, wanted = random.normal(size=(9, 1, 4, 4)).astype(np.float32), random.normal(size=(9, 3)).astype(np.float32)
    got = wanted.copy()
    got[5] = np.nan
    got[2] += 0.25
    worst = worst_inputs(samples, wanted, got, count=2)
    told = save_worst(worst, np.array([50, 20]), "compiled", tmp_path / "drift")
    assert told["form"] == "compiled"
    assert [row["index"] for row in told["samples"]] == [50, 20]
    assert [row["difference"] for row in told["samples"]] == [None, pytest.approx(0.25, abs=1e-5)]
    stored = {path.stem: np.load(path) for path in (tmp_path / "drift").iterdir()}
    assert set(stored) == {"index", "input", "float", "output"}
    np.testing.assert_array_equal(stored["input"], samples[[5, 2]])
    np.testing.assert_array_equal(stored["output"], got[[5, 2]])
    assert save_worst(
        worst_inputs(samples, wanted, got, largest=1), np.array([], int), "lowered", tmp_path / "none"
    ) == {
        "form": "lowered",
        "samples": [],
    }
    assert not (tmp_path / "none").exists()
