"""Any set of layers can be left in float by name: just those are, in the file and in the runtimes' models."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lowered_nets import forms_of, target_of
from strict_nets import master, prepared, rms, samples
from torch import nn

from edgekd.backends import get_backend
from edgekd.errors import ProofFailed
from edgekd.forms import QuantForm
from edgekd.lower import check_lowering, lower
from edgekd.lower.graph import WEIGHTED, Graph
from edgekd.measure.proof import onnx_run
from edgekd.quantize import prepare, write_master

NETS = ["resnet-xs", "mobilenet-xs"]


@cache
def layer_names(net: str) -> list[str]:
    return [layer.node.output[0] for layer in Graph(onnx.load(master(net).path)).layers()]


def float_weights(model: onnx.ModelProto) -> set[str]:
    """The weighted nodes that read their weight as it is."""
    graph = Graph(model)
    return {
        node.output[0] for node in model.graph.node if node.op_type in WEIGHTED and node.input[1] in graph.constants
    }


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_any_subset(backend: str, data: st.DataObject) -> None:
    net = data.draw(st.sampled_from(NETS))
    kept = data.draw(st.sets(st.sampled_from(layer_names(net)), max_size=len(layer_names(net)) - 1))
    form, target = replace(forms_of(backend)["int8"], float_layers=frozenset(kept)), target_of(backend)
    model = lower(master(net), form, vnni=target.has_vnni())
    check_lowering(master(net), model, form, vnni=target.has_vnni())
    assert float_weights(model) == kept
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        compiled = get_backend(backend).compile(path, target, path.parent, form=form)
        x = samples(net, 8, seed=7).numpy()
        found = get_backend(backend).load(compiled, target).run({"input": x})["logits"]
        assert rms(found, onnx_run(path)(x)) < 0.05
        layers = get_backend(backend).coverage(compiled, target)
        assert sum(not layer.integer for layer in layers) == len(kept)
        assert len(layers) == len(layer_names(net))


def test_a_linear_layer_behind_flatten(tmp_path: Path) -> None:
    """ONNX Runtime carries the site through the Reshape and would make integers of the layer's float weights."""
    torch.manual_seed(0)
    body = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 16), nn.ReLU(), nn.Linear(16, 5)]
    x = torch.randn(16, 1, 8, 8)
    ready = prepare(nn.Sequential(*body).eval(), x[:2])
    ready.calibrate([x])
    made, target = write_master(ready, x[:2], tmp_path), target_of("onnxruntime")
    for name, want in (
        ("linear", [True, False, True]),
        ("conv2d", [False, True, True]),
        ("logits", [True, True, False]),
    ):
        form = replace(forms_of("onnxruntime")["int8"], float_layers=frozenset({name}))
        model = lower(made, form, vnni=target.has_vnni())
        check_lowering(made, model, form, vnni=target.has_vnni())
        onnx.save(model, tmp_path / "model.onnx")
        compiled = get_backend("onnxruntime").compile(tmp_path / "model.onnx", target, tmp_path, form=form)
        assert [layer.integer for layer in get_backend("onnxruntime").coverage(compiled, target)] == want


def test_more_float_is_nearer_to_float() -> None:
    """Half of the layers in float leave less of quantization's error than none; all of them nothing of the weights'."""
    net, form = "resnet-xs", forms_of("onnxruntime")["int8"]
    x, names = samples(net, 16, seed=7).numpy(), layer_names(net)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for count in (0, len(names) // 2, len(names)):
            onnx.save(lower(master(net), replace(form, float_layers=frozenset(names[:count]))), Path(folder) / "m.onnx")
            runs.append(onnx_run(Path(folder) / "m.onnx")(x))
    exact = prepared(net).run_float(x)
    errors = [rms(run, exact) for run in runs]
    assert errors[0] > errors[1] > errors[2]


def test_names_that_are_not_there_are_refused() -> None:
    form = replace(forms_of("openvino")["int8"], float_layers=frozenset({"nothing"}))
    with pytest.raises(ValueError, match="nothing"):
        lower(master("resnet-xs"), form)


def test_integers_where_float_was_promised_are_found() -> None:
    form, name = forms_of("openvino")["int8"], layer_names("resnet-xs")[3]
    model = lower(master("resnet-xs"), form)
    with pytest.raises(ProofFailed, match=f"integers in {name}"):
        check_lowering(master("resnet-xs"), model, replace(form, float_layers=frozenset({name})))


def test_forms_travel_as_json() -> None:
    form = replace(forms_of("onnxruntime")["int8"], float_layers=frozenset({"b", "a"}))
    row = form.to_json()
    assert row["float_layers"] == ["a", "b"]
    assert QuantForm.from_json(row) == form
    # Bundles of former versions know no such key.
    del row["float_layers"]
    assert QuantForm.from_json(row) == replace(form, float_layers=frozenset())
