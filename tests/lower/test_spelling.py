"""HardSigmoid as an addition in ONNX Runtime's file: only where the rounding behind it clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.backends.onnxruntime import ARM, X86
from edgekd.errors import ProofFailed
from edgekd.forms import Master, QuantForm
from edgekd.lower import check_lowering, lower
from edgekd.measure.proof import onnx_run
from edgekd.quantize import prepare, write_master


class Gate(nn.Module):
    """A hardsigmoid of large numbers, its negative side as full as the other."""

    def __init__(self, *, joined: bool) -> None:
        super().__init__()
        self.joined, self.one, self.two = joined, nn.Conv2d(3, 4, 1), nn.Conv2d(8 if joined else 4, 2, 1)
        self.one.weight.data *= 8

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        gate = F.hardsigmoid(y)
        return self.two(torch.cat([gate, y], 1) if self.joined else gate).flatten(2).mean(-1)


def made(folder: Path, *, joined: bool) -> tuple[Master, np.ndarray]:
    torch.manual_seed(0)
    x = torch.randn(8, 3, 6, 6)
    prepared = prepare(Gate(joined=joined).eval(), x[:2])
    prepared.calibrate([x])
    return write_master(prepared, x[:2], folder), x.numpy()


@pytest.mark.parametrize("form", [X86, ARM], ids=["x86", "arm"])
@pytest.mark.parametrize("joined", [False, True])
def test_only_where_the_rounding_ends_at_zero(form: QuantForm, joined: bool, tmp_path: Path) -> None:
    master, x = made(tmp_path, joined=joined)
    model = lower(master, form)
    check_lowering(master, model, form)
    assert any(node.op_type == "HardSigmoid" for node in model.graph.node) == joined
    onnx.save(model, tmp_path / "lowered.onnx")
    found, wanted = (onnx_run(path)(x) for path in (tmp_path / "lowered.onnx", master.path))
    assert np.abs(found - wanted).max() < 0.03 * np.abs(wanted).max()


def test_a_range_beyond_one_keeps_the_operator(tmp_path: Path) -> None:
    """A learned scale may reach there: nothing would end the addition at 1."""
    master, _ = made(tmp_path, joined=False)
    plain = lower(master, X86)
    model = onnx.load(master.path)
    (gate,) = (node for node in model.graph.node if node.op_type == "HardSigmoid")
    (quantize,) = (node for node in model.graph.node if node.input[0] == gate.output[0])
    (scale,) = (one for one in model.graph.initializer if one.name == quantize.input[1])
    scale.CopyFrom(onnx.numpy_helper.from_array(np.array(1.2 / 127, np.float32), scale.name))
    onnx.save(model, master.path)
    sites = tuple(replace(one, scale=1.2 / 127) if one.tensor == gate.output[0] else one for one in master.sites)
    wider = Master(master.path, sites)
    check_lowering(wider, lower(wider, X86), X86)
    assert "HardSigmoid" in {node.op_type for node in lower(wider, X86).graph.node}
    with pytest.raises(ProofFailed):
        check_lowering(wider, plain, X86)
