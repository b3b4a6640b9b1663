"""The layer that was made sensitive is found, layers have the master's names, and the time is bounded."""

from __future__ import annotations

import json

import onnx
import torch
from strict_nets import make_net, master, prepared, samples
from torch import nn

from edgekd.lower.graph import Graph
from edgekd.quantize import measure_sensitivity, prepare


def planted(place: int) -> nn.Module:
    """One huge weight an output channel of one layer, on an input that is always zero: the others get no codes."""
    torch.manual_seed(0)
    convs = [nn.Conv2d(1, 8, 3, padding=1), *[nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)]]
    with torch.no_grad():
        convs[place - 1].weight[0] = 0
        convs[place - 1].bias[0] = -1
        convs[place].weight[:, 0] = 50
    body = [part for conv in convs for part in (conv, nn.ReLU())]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


def test_the_planted_layer_is_by_far_the_most_sensitive():
    x = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    for place in (1, 2):
        ready = prepare(planted(place), x[:2])
        ready.calibrate([x])
        found = measure_sensitivity(ready, x, seconds=10).layers
        order = sorted(found, key=lambda layer: layer.snr_db)
        assert order[0].name == f"conv2d_{place}"
        assert order[0].snr_db < order[1].snr_db - 10
        assert order[0].agreement <= min(layer.agreement for layer in found)


def test_every_layer_of_the_master_by_its_name(tmp_path):
    for net in ("resnet-xs", "mobilenet-xs"):
        found = measure_sensitivity(prepared(net), samples(net, 16), seconds=5)
        names = [layer.node.output[0] for layer in Graph(onnx.load(master(net).path)).layers()]
        assert [layer.name for layer in found.layers] == names
        assert all(5 < layer.snr_db < 120 for layer in found.layers)
        found.save(tmp_path / "sensitivity.json")
        assert json.loads((tmp_path / "sensitivity.json").read_text())["layers"][0]["name"] == names[0]


def test_it_changes_nothing():
    x = samples("resnet-xs", 8)
    before = prepared("resnet-xs").run_quantized(x.numpy())
    measure_sensitivity(prepared("resnet-xs"), x, seconds=5)
    assert (prepared("resnet-xs").run_quantized(x.numpy()) == before).all()


def test_few_samples_where_the_time_is_short():
    x = torch.randn(64, 1, 20, 20)
    ready = prepare(make_net("resnet-xs"), x[:2])
    ready.calibrate([x])
    found = measure_sensitivity(ready, x, seconds=1e-6)
    assert found.samples == 4
    assert {layer.snr_db for layer in found.layers} == {None}
    assert measure_sensitivity(ready, x, seconds=60).samples == 64
