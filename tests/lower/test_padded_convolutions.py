"""Convolutions behind zero padding, asymmetric as TensorFlow's "same", in the runtimes: integers, and no Pad left."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import onnx
import pytest
import torch
from lowered_nets import forms_of, target_of
from strict_nets import rms
from torch import Tensor, nn

from edgekd.backends import get_backend
from edgekd.forms import Master
from edgekd.lower import check_lowering, lower
from edgekd.measure.proof import onnx_run
from edgekd.quantize import Prepared, calibrated, write_master
from edgekd.target import CalibrationPolicy

# In u8 the input has zero at 128, hardswish somewhere above 0, ReLU at 0.
NET = (
    nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 32, 3, stride=2), nn.Hardswish(),
    nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(32, 32, 5, stride=2, groups=32), nn.ReLU(),
    nn.ZeroPad2d((2, 2, 1, 1)), nn.Conv2d(32, 48, 3), nn.ReLU(),
    nn.Conv2d(48, 48, 4, padding="same"), nn.Hardswish(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10),
)  # fmt: skip
LAYERS = 5


def samples(seed: int) -> Tensor:
    return torch.randn(16, 3, 14, 12, generator=torch.Generator().manual_seed(seed))


@cache
def master() -> Master:
    return write_master(made(), samples(1)[:2], Path(_folder.name))


@cache
def made() -> Prepared:
    torch.manual_seed(0)
    net = nn.Sequential(*NET).eval()
    for layer in net:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)  # borders are to weigh as much as noise
    return calibrated(net, samples(1).split(8), CalibrationPolicy())


_folder = tempfile.TemporaryDirectory(prefix="edgekd-padded-")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "tensorrt"])
def test_no_pad_is_left_and_all_is_integer(backend: str, tmp_path: Path) -> None:
    target, x = target_of(backend), samples(2).numpy()
    form = next(iter(forms_of(backend).values()))
    for vnni in [target.has_vnni()] if backend == "tensorrt" else [False, target.has_vnni()]:
        model = lower(master(), form, vnni=vnni)
        check_lowering(master(), model, form, vnni=vnni)
    onnx.save(model, tmp_path / "model.onnx")
    assert not [node for node in model.graph.node if node.op_type == "Pad"]
    plain = onnx_run(tmp_path / "model.onnx")(x)
    assert rms(plain, made().run_quantized(x)) < 0.05
    compiled = get_backend(backend).compile(tmp_path / "model.onnx", target, tmp_path, form=form)
    if backend == "tensorrt":
        assert compiled.meta["builder_check"] in ("ok", "not installed") or target.is_here()
        return
    layers = get_backend(backend).coverage(compiled, target)
    assert [layer.integer for layer in layers] == [True] * LAYERS
    others = {layer.op for layer in get_backend(backend).other_layers(compiled, target)}
    assert not others & {"Pad", "DequantizeLinear"}
    found = get_backend(backend).load(compiled, target).run({"input": x})["logits"]
    # Codes of borders that stand for anything but zero would be several times that.
    assert rms(found, plain) < 0.02
