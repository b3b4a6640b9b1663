"""Weights of nothing but zeros, in a channel or a whole layer, through the master and every CPU backend."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from lowered_nets import forms_of, target_of
from torch import nn

from edgekd.backends import get_backend
from edgekd.forms import Master
from edgekd.lower import check_lowering, lower
from edgekd.measure.proof import onnx_run
from edgekd.quantize import Prepared, prepare, write_master


class Pruned(nn.Module):
    """A residual branch that ends in zeros, as ``zero_init_residual`` starts it, and channels that are pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.last = nn.Sequential(nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.head = nn.Linear(16, 8)
        with torch.no_grad():
            self.stem[1].weight[3] = 0
            self.depthwise.weight[5] = 0
            self.last[1].weight.zero_()
            self.head.weight[2] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(torch.relu(x + self.last(self.depthwise(x))).mean((2, 3)))


@cache
def pruned() -> tuple[Prepared, torch.Tensor, np.ndarray]:
    """Prepared and calibrated, samples, and the float network's outputs; shared, so leave them as they are."""
    torch.manual_seed(0)
    net, x = Pruned().eval(), torch.randn(24, 3, 12, 12)
    made = prepare(net, x[:2])
    made.calibrate(x.split(8))
    with torch.no_grad():
        return made, x, net(x).numpy()


def test_scales_and_outputs_are_numbers() -> None:
    made, x, want = pruned()
    assert all(bool((one.scale > 0).all() and one.scale.isfinite().all()) for _, one in made.quantizers())
    assert np.abs(made.run_quantized(x.numpy()) - want).max() < 0.05 * np.abs(want).max()
    assert any("one value only" in note for note in made.notes), "the branch's end"


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_compiled_forms(tmp_path: Path, backend: str) -> None:
    made, x, want = pruned()
    master: Master = write_master(made, x[:2], tmp_path)
    close = 0.05 * np.abs(want).max()
    assert np.abs(onnx_run(master.path)(x.numpy()) - want).max() < close
    target = target_of(backend)
    for form in (form for form in forms_of(backend).values() if form.integer):
        model = lower(master, form, vnni=target.has_vnni())
        check_lowering(master, model, form, vnni=target.has_vnni())
        place = tmp_path / form.name
        place.mkdir()
        onnx.save(model, place / "model.onnx")
        session = get_backend(backend).load(
            get_backend(backend).compile(place / "model.onnx", target, place, form=form), target
        )
        found = session.run({"input": x.numpy()})["logits"]
        assert np.isfinite(found).all(), form.name
        assert np.abs(found - want).max() < close, form.name
