"""Which cure a layer beyond the overflow bound gets, and that no code the site can produce saturates it then."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from pair_sums import exact, multiply_pairs, padded_positions, position_major, worst
from strict_nets import master, samples
from torch import nn

from edgekd.backends.onnxruntime import X86
from edgekd.backends.openvino import X86 as OPENVINO
from edgekd.errors import ProofFailed
from edgekd.forms import Master, QuantForm
from edgekd.lower import check_lowering, cures, lower, overflow_rows
from edgekd.lower.cures import how_weights_meet
from edgekd.lower.graph import Graph
from edgekd.quantize import prepare, write_master

FORMS = {"onnxruntime": replace(X86, cure="cheaper"), "openvino": replace(OPENVINO, cure="cheaper")}
NETS = ["resnet-xs", "mobilenet-xs-relu6"]


def cured(one: Master, form: QuantForm) -> tuple[onnx.ModelProto, dict[str, dict]]:
    """The checked file and its rows by layer."""
    model = lower(one, form, vnni=False)
    check_lowering(one, model, form, vnni=False)
    return model, {row["layer"]: row for row in overflow_rows(one, model, form, vnni=False)}


def saturates(weights: np.ndarray, meet: str, largest: int) -> bool:
    """Emulated at the worst activations, in the orders of both runtimes."""
    if meet == "none":
        return False
    for order in (position_major, padded_positions):
        rows = order(weights) if weights.ndim > 2 else weights
        x = worst(rows, largest)
        if not np.array_equal(multiply_pairs(x, rows), exact(x, rows)):
            return True
    return False


def layers_of(one: Master, model: onnx.ModelProto) -> dict[str, tuple[np.ndarray, str]]:
    """int8 weights and how they meet, by the layer's output."""
    original, graph, found = Graph(onnx.load(one.path)), Graph(model), {}
    for layer in original.layers():
        weight = graph.producer[graph.producer[layer.node.output[0]].input[1]]
        found[layer.node.output[0]] = (graph.array(weight.input[0]), how_weights_meet(original, layer))
    return found


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("net", NETS)
def test_no_layer_saturates_and_most_would(net: str, backend: str) -> None:
    model, rows = cured(master(net), FORMS[backend])
    plain = lower(master(net), replace(FORMS[backend], cure="none"), vnni=False)
    before = layers_of(master(net), plain)
    assert rows.keys() == before.keys()
    for name, (weights, meet) in layers_of(master(net), model).items():
        row = rows[name]
        assert not saturates(weights, meet, 127 if row["cure"] == "codes" else 255), name
        if meet != "any":  # which takes the worst of all orders
            assert saturates(before[name][0], meet, 255) == row["saturates"]
        if row["cure"] != "weights":
            assert np.array_equal(weights, before[name][0]), "full range"
        assert (row["cure"] == "") == (not row["saturates"]) == (row["noise_db"] is None)
    dense = [name for name, (_, meet) in before.items() if meet != "none"]
    assert sum(rows[name]["saturates"] for name in dense) > len(dense) / 2
    assert not any(rows[name]["saturates"] for name in before.keys() - set(dense))


def test_with_vnni_nothing_is_cured() -> None:
    one, form = master("resnet-xs"), FORMS["openvino"]
    assert lower(one, form).graph == lower(one, replace(form, cure="none")).graph
    assert overflow_rows(one, lower(one, form), form) == []
    with pytest.raises(ProofFailed, match="other weights"):
        check_lowering(one, lower(one, form, vnni=False), form)


class Tails(nn.Module):
    """A few large neighbours among many small weights: coarser steps would cost them dearly."""

    def __init__(self, act: nn.Module, *, joined: bool = False) -> None:
        super().__init__()
        self.act, self.joined = act, joined
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(32 if joined else 16, 4)
        with torch.no_grad():
            self.first.weight.mul_(6)
            self.second.weight.mul_(0.1)
            self.second.weight[:, 4:6, 1, 1] = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.act(self.first(x))
        z = torch.relu(self.second(y))
        return self.head((torch.cat([y, z], 1) if self.joined else z).mean((2, 3)))


class Forked(Tails):
    """The first convolution is read by two activations, so that the one in front of the second has a site."""

    def __init__(self) -> None:
        super().__init__(nn.ReLU(), joined=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        z = torch.relu(self.second(self.act(y)))
        return self.head(torch.cat([nn.functional.gelu(y).mean((2, 3)), z.mean((2, 3))], 1))


@cache
def tails(name: str) -> Master:
    act = nn.ReLU6() if "relu6" in name else nn.ReLU()
    torch.manual_seed(0)
    x = torch.randn(16, 3, 10, 10)
    net = Forked() if name == "forked" else Tails(act, joined="joined" in name)
    made = prepare(net.eval(), x[:2])
    made.calibrate(x.split(8))
    folder = tempfile.TemporaryDirectory(prefix="edgekd-tails-")
    _kept.append(folder)
    return write_master(made, x[:2], Path(folder.name))


_kept: list[tempfile.TemporaryDirectory] = []


@pytest.mark.parametrize("act", ["relu", "relu6"])
def test_the_cheaper_cure_is_chosen(act: str) -> None:
    """OpenVINO clips in its kernels. ONNX Runtime would run the layer in front in float, so there it is weights."""
    one = tails(act)
    model, rows = cured(one, FORMS["openvino"])
    kinds = {name: row["cure"] for name, row in rows.items()}
    assert kinds == {"conv2d": "weights", "conv2d_1": "codes", "logits": "weights"}
    assert rows["conv2d_1"]["noise_db"] > 35
    weights = cured(one, replace(FORMS["openvino"], cure="weights"))[1]["conv2d_1"]
    assert weights["cure"] == "weights"
    assert weights["noise_db"] < rows["conv2d_1"]["noise_db"]
    assert {row["cure"] for row in cured(one, FORMS["onnxruntime"])[1].values()} == {"weights"}
    # The master's own numbers: 127 steps, clipped at their end.
    graph, (site,) = Graph(model), [site for site in one.sites if site.tensor == rows["conv2d_1"]["site"]]
    clip = graph.producer[site.tensor]
    (quantize,) = graph.consumers[site.tensor]
    assert clip.op_type == "Clip"
    assert graph.array(clip.input[2]) == np.float32(site.scale) * np.float32(127)
    assert graph.array(quantize.input[1]) == np.float32(site.scale)
    assert graph.array(quantize.input[2]) == np.uint8(0)


def codes_at(model: onnx.ModelProto, tensor: str, x: np.ndarray) -> np.ndarray:
    """What a site's Q writes, unoptimized."""
    model = copy.deepcopy(model)
    (quantize,) = [n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == tensor]
    model.graph.output.add(name=quantize.output[0])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run([quantize.output[0]], {"input": x})[0]


def test_outliers_stay_in_127_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs a hundred times as large as those of calibration; every site that can have the cure has it."""
    monkeypatch.setattr(cures, "CREST", 1e-3)
    for net in ("resnet-xs", "mobilenet-xs-relu6"):
        model, rows = cured(master(net), FORMS["openvino"])
        few = {row["site"] for row in rows.values() if row["cure"] == "codes"}
        assert len(few) >= 3
        signs = {site.tensor: site.sign for site in master(net).sites}
        assert {signs[site] for site in few} == {"nonnegative"}
        x = 100 * samples(net, 4, seed=9).numpy()
        assert {codes_at(model, site, x).max() for site in few} == {127}


@pytest.mark.parametrize("harm", ["no clip", "higher", "more codes"])
def test_the_check_recomputes_the_choice(harm: str) -> None:
    one = tails("relu")
    model, rows = cured(one, FORMS["openvino"])
    graph, site = Graph(model), rows["conv2d_1"]["site"]
    clip = graph.producer[site]
    if harm == "no clip":
        clip.op_type = "Relu"
        del clip.input[1:]
    elif harm == "higher":
        graph.set_constant(clip.input[2], graph.array(clip.input[2]) * np.float32(2))
    else:
        graph.set_constant(f"{site}_scale", graph.array(f"{site}_scale") * np.float32(127 / 255))
    with pytest.raises(ProofFailed, match="another scale" if harm == "more codes" else "codes beyond 127"):
        check_lowering(one, model, FORMS["openvino"], vnni=False)


def test_shared_scales_keep_all_codes() -> None:
    """A site whose scale may have to equal another's, as in front of a concatenation, does not change alone."""
    _, rows = cured(tails("joined"), FORMS["openvino"])
    assert rows["conv2d_1"]["site"] == "relu"
    assert rows["conv2d_1"]["cure"] == "weights"


def test_an_activation_that_no_kernel_computes_keeps_all_codes() -> None:
    """The convolution in front has a second reader; its site, which tells so, is gone from OpenVINO's file."""
    model, rows = cured(tails("forked"), FORMS["openvino"])
    assert Graph(model).producer[rows["conv2d_1"]["site"]].op_type == "Relu"
    assert "conv2d" in {site.tensor for site in tails("forked").sites}
    assert "conv2d" not in {site.tensor for site in Graph(model).sites()}
    assert rows["conv2d_1"]["cure"] == "weights"
