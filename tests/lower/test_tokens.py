"""Linear layers on tokens in ONNX Runtime: one integer kernel each, the master's numbers, and a check of all of it."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from lowered_nets import target_of
from strict_nets import rms
from torch import Tensor, nn

from edgekd.backends import get_backend
from edgekd.backends.onnxruntime import ARM, X86
from edgekd.errors import ProofFailed
from edgekd.forms import CompiledModel, Master, QuantForm
from edgekd.lower import check_lowering, lower, overflow_rows
from edgekd.lower.graph import Graph
from edgekd.lower.tokens import added_bias
from edgekd.measure.proof import onnx_run
from edgekd.quantize import prepare, write_master


class Mixer(nn.Module):
    """Linear layers on 12 tokens of 16 features: GELU between two, a ReLU, a residual addition, a vector at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.beside, self.head = (
            nn.Linear(*ends) for ends in ((16, 24), (24, 16), (16, 16), (16, 4))
        )
        with torch.no_grad():
            # Pruned channels beside large biases: codes of these would leave int32.
            self.up.weight[3] *= 1e-7
            self.up.bias[3] = -300.0
            self.beside.weight[4] *= 0
            self.beside.bias[4] = 20.0

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.down(nn.functional.gelu(self.up(x)))
        return self.head((y + torch.relu(self.beside(y))).mean(1))


# Of the master, in front of their biases.
LAYERS = {"val_33", "val_41", "val_50"}


def samples(seed: int = 1) -> Tensor:
    return torch.randn(16, 12, 16, generator=torch.Generator().manual_seed(seed))


@cache
def mixer() -> tuple[nn.Module, Master]:
    torch.manual_seed(0)
    net = Mixer().eval()
    made = prepare(net, samples()[:2])
    made.calibrate(samples().split(8))
    return net, write_master(made, samples()[:2], Path(_folder.name))


_folder = tempfile.TemporaryDirectory(prefix="edgekd-tokens-")


def lowered(form: QuantForm = X86, *, vnni: bool = True) -> onnx.ModelProto:
    master = mixer()[1]
    model = lower(master, form, vnni=vnni)
    check_lowering(master, model, form, vnni=vnni)
    return model


def compiled(model: onnx.ModelProto, folder: Path, form: QuantForm = X86) -> CompiledModel:
    onnx.save(model, folder / "model.onnx")
    return get_backend("onnxruntime").compile(folder / "model.onnx", target_of("onnxruntime"), folder, form=form)


def test_one_integer_kernel_a_layer(tmp_path: Path) -> None:
    backend, target, model = get_backend("onnxruntime"), target_of("onnxruntime"), compiled(lowered(), tmp_path)
    assert Counter(layer.op for layer in backend.coverage(model, target)) == {"QGemm": 4}
    assert not {"Add", "Relu"} & {layer.op for layer in backend.other_layers(model, target)}
    # The compiled kernels go by the names of the master's products.
    times = backend.profile(model, target, {"input": samples()[:1].numpy()})
    assert {name for one in times if one.op == "QGemm" for name in one.values} >= LAYERS


def test_numbers(tmp_path: Path) -> None:
    """Of any batch, with dead channels beside large biases; without the site in front of the GELU nearer to float."""
    net, master = mixer()
    x = samples(2).numpy()
    session = get_backend("onnxruntime").load(compiled(lowered(), tmp_path), target_of("onnxruntime"))
    found, file, strict = session.run({"input": x})["logits"], onnx_run(tmp_path / "model.onnx"), onnx_run(master.path)
    with torch.no_grad():
        wanted = net(samples(2)).numpy()
    assert rms(found, file(x)) < 0.01
    assert 1e-4 < rms(found, wanted) < rms(strict(x), wanted) < 0.1
    one = np.concatenate([session.run({"input": x[i : i + 1]})["logits"] for i in range(3)])
    assert rms(one, found[:3]) < 1e-5


def test_sites() -> None:
    """All but the one that the GELU would read; each bias in units of its layer's scales."""
    graph = Graph(lowered())
    assert {site.tensor for site in mixer()[1].sites} - {site.tensor for site in graph.sites()} == {"linear"}
    for name in LAYERS:
        data, weight, bias = graph.producer[name].input
        scales = graph.array(graph.site_of(data).input[1]) * graph.array(graph.producer[weight].input[1])
        assert np.array_equal(graph.array(graph.producer[bias].input[1]), scales)
        assert np.abs(graph.array(graph.producer[bias].input[0])).max() <= 2**30


def test_unsigned_and_signed_bytes_are_the_same_numbers(tmp_path: Path) -> None:
    runs = []
    for form in (X86, ARM):
        onnx.save(lowered(form), tmp_path / "model.onnx")
        runs.append(onnx_run(tmp_path / "model.onnx")(samples(2).numpy()))
    assert np.array_equal(*runs)


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_one_in_float(name: str, tmp_path: Path) -> None:
    form = replace(X86, float_layers=frozenset({name}))
    model = compiled(lowered(form), tmp_path, form)
    integer = [layer.integer for layer in get_backend("onnxruntime").coverage(model, target_of("onnxruntime"))]
    assert sorted(integer) == [False, True, True, True]
    assert {node.output[0] for node in lowered(form).graph.node if node.op_type == "Gemm"} == {*LAYERS, "logits"} - {
        name
    }


def test_bounds_without_vnni() -> None:
    form = replace(X86, cure="weights")
    rows = overflow_rows(mixer()[1], lowered(form, vnni=False), form, vnni=False)
    assert {row["layer"] for row in rows} == {*LAYERS, "logits"}
    assert all(row["cure"] == "weights" for row in rows if row["saturates"])


def nudge(name: str, by: float) -> Callable[[Graph], object]:
    def change(graph: Graph) -> None:
        value = graph.array(name).copy()
        value.reshape(-1)[-1] += value.dtype.type(by)
        graph.set_constant(name, value)

    return change


def other_input(graph: Graph) -> None:
    graph.producer["val_50_rows"].input[0] = graph.producer["val_41_rows"].input[0]


def other_weight(graph: Graph) -> None:
    graph.producer["val_41"].input[1] = graph.producer["val_50"].input[1]


def scaled(graph: Graph) -> None:
    graph.producer["val_41"].attribute.append(onnx.helper.make_attribute("alpha", 2.0))


CHANGES = {
    "bias": nudge("up.bias_int32", 7),
    "scale of the bias": nudge("up.bias_scale", 0.1),
    "zero point of the bias": nudge("up.bias_zero_point", 1),
    "weight": nudge("down.weight_int8", -3),
    "tokens": nudge("linear_tokens_shape", 1),
    "rows": nudge("val_33_rows_shape", 1),
    "input": other_input,
    "other weight": other_weight,
    "alpha": scaled,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_the_check_finds_any_other(change: Callable[[Graph], object]) -> None:
    graph = Graph(lowered())
    change(graph)
    with pytest.raises(ProofFailed):
        check_lowering(mixer()[1], graph.model, X86)


def test_a_size_that_is_not_known() -> None:
    """The layer stays a product: a Reshape can leave one size alone."""
    graph = Graph(onnx.load(mixer()[1].path))
    node = graph.producer["val_33"]
    assert added_bias(graph, node) is graph.producer["linear"]
    graph.shapes["linear"] = [0, 0, 24]
    assert added_bias(graph, node) is None
