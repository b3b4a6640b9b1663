"""A fault in the middle of the master fails the proof, which names the hop and the layer where it starts."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from digits_net import trained
from strict_nets import master, prepared, samples
from torch import nn

from edgekd.errors import ProofFailed
from edgekd.forms import Master
from edgekd.lower.graph import Graph
from edgekd.measure.proof import Hop, first_difference, onnx_inside, onnx_run, prove
from edgekd.quantize import Prepared, prepare, write_master
from edgekd.target import CalibrationPolicy

# Untrained: their outputs hardly depend on what happens in the middle, so only the values inside tell.
UNTRAINED = ["mobilenet-xs-relu6", "resnet-xs", "mobilenet-xs"]


@cache
def digits() -> tuple[nn.Module, Prepared, Master, np.ndarray, np.ndarray]:
    """The trained network, prepared, its master, and test samples with labels; shared, so leave them as they are."""
    net, source = trained()
    x, _ = source.tensors("train")
    made = prepare(net, x[:2], policy=CalibrationPolicy())
    made.calibrate(x[:96].split(32))
    samples, labels = source.tensors("test")
    return net, made, write_master(made, x[:2], Path(_folder.name)), samples[:200].numpy(), labels[:200].numpy()


_folder = tempfile.TemporaryDirectory(prefix="edgekd-digits-")


def hops(path: Path) -> list[Hop]:
    net, made = digits()[:2]
    return [
        Hop("float student", torch_run(net)),
        Hop("prepared, quantizers off", made.run_float, "equal"),
        Hop("fake-quantized", made.run_quantized, "changing", made.intermediates),
        Hop("master", onnx_run(path), "rounding", partial(onnx_inside, path)),
    ]


def torch_run(net: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    def run(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net(torch.from_numpy(x)).numpy()

    return run


def test_the_master_holds() -> None:
    results = prove(hops(digits()[2].path), *digits()[3:])
    assert [result.ok for result in results] == [True] * 4
    assert results[1].max_rel < 1e-5
    assert results[3].agreement > 0.99
    assert results[0].accuracy > 0.8


def spoilt(source: Path, tmp_path: Path, change: Callable[[Graph], str]) -> tuple[Path, str]:
    """A master with one number changed, and the first value that is computed with it."""
    graph = Graph(onnx.load(source))
    affected = change(graph)
    onnx.save(graph.model, tmp_path / "master.onnx")
    return tmp_path / "master.onnx", affected


def middle(graph: Graph):
    layers = graph.layers()
    return layers[len(layers) // 2]


def a_scale(graph: Graph) -> str:
    """Of the site in front of the middle layer."""
    layer = middle(graph)
    site = graph.site_of(layer.node.input[0])
    assert site is not None
    (dequantize,) = graph.consumers[site.output[0]]
    scale = graph.array(site.input[1])
    name = graph.set_constant("spoilt_scale", (scale * np.float32(1.3)).astype(np.float32))
    dequantize.input[1] = name
    return graph.users(site.input[0])[0].output[0]


def a_channel_of_weights(graph: Graph) -> str:
    layer = middle(graph)
    weight = graph.array(layer.weight).copy()
    weight[1] *= -1
    graph.set_constant(layer.weight, weight)
    return layer.node.output[0]


def one_weight(graph: Graph) -> str:
    """The largest one of a layer, its sign turned: within the range, so that nothing but the numbers tells."""
    layer = middle(graph)
    weight = graph.array(layer.weight).copy()
    weight.flat[np.abs(weight).argmax()] *= -1
    graph.set_constant(layer.weight, weight)
    return layer.node.output[0]


def a_weight_scale(graph: Graph) -> str:
    layer = middle(graph)
    scale = graph.array(layer.dequantize.input[1]).copy()
    scale[2] *= 2
    layer.dequantize.input[1] = graph.set_constant("spoilt_scale", scale)
    return layer.node.output[0]


def a_bias(graph: Graph) -> str:
    layer = middle(graph)
    bias = graph.array(layer.node.input[2]).copy()
    bias[0] += 3 * np.abs(bias).max()
    graph.set_constant(layer.node.input[2], bias)
    return layer.node.output[0]


CHANGES = [a_scale, a_channel_of_weights, one_weight, a_weight_scale, a_bias]


@pytest.mark.parametrize("change", CHANGES)
def test_a_fault_in_the_middle_is_named(tmp_path: Path, change: Callable[[Graph], str]) -> None:
    _, made, master, x, labels = digits()
    path, affected = spoilt(master.path, tmp_path, change)
    inside = [name for name in made.intermediates(x[:2]) if "quantize_" not in name]
    assert 5 < inside.index(affected) < len(inside) - 5, "in the middle"
    with pytest.raises(ProofFailed, match=rf"it starts at {affected}\b") as caught:
        prove(hops(path), x, labels)
    assert caught.value.where == "hop fake-quantized -> master"


def test_a_fault_in_the_last_layer_is_named(tmp_path: Path) -> None:
    def change(graph: Graph) -> str:
        head = graph.producer["logits"]
        bias = graph.array(head.input[2])
        graph.set_constant(head.input[2], bias + np.float32(20) * (np.arange(10) == 3).astype(np.float32))
        return "logits"

    path, affected = spoilt(digits()[2].path, tmp_path, change)
    with pytest.raises(ProofFailed, match=f"it starts at {affected}"):
        prove(hops(path), *digits()[3:])


def test_a_conversion_that_changes_the_network_is_named() -> None:
    """The second hop: BatchNorm with another eps is another network."""
    net, wrong = copy.deepcopy(digits()[0]), hops(digits()[2].path)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eps = 1e-3
    wrong[0] = Hop("float student", torch_run(net))
    with pytest.raises(ProofFailed) as caught:
        prove(wrong, *digits()[3:])
    assert caught.value.where == "hop float student -> prepared, quantizers off"


@pytest.mark.parametrize("net", UNTRAINED)
def test_values_inside_name_the_layer_of_any_network(tmp_path: Path, net: str) -> None:
    """Gates and depthwise convolutions too; ``one_weight`` may not matter to an untrained network."""
    x = samples(net, 16, seed=21).numpy()
    ours = prepared(net).intermediates(x)
    assert first_difference(ours, onnx_inside(master(net).path, x)) is None
    for change in CHANGES:
        if change is not one_weight:
            path, affected = spoilt(master(net).path, tmp_path, change)
            assert first_difference(ours, onnx_inside(path, x)) == affected, change.__name__
