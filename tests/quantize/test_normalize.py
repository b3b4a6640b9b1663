"""The master's spelling of means: pooling for images alone, the same numbers for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from strict_nets import rms
from torch import Tensor, nn

from edgekd.measure.proof import onnx_run
from edgekd.quantize import export_float, prepare, write_master

MEANS: dict[str, Callable[[Tensor], Tensor]] = {
    "image": lambda x: x.mean((2, 3)),
    "image, from the end": lambda x: x.mean((-1, -2), keepdim=True).flatten(1),
    "image, one axis from the end": lambda x: x.mean((2, -1)),
    "signal": lambda x: (x.flatten(2) * x.flatten(2).mean((-2, -1), keepdim=True).sigmoid()).mean(2),
    "volume": lambda x: x.unflatten(1, (2, 4)).mean((-2, -1)).flatten(1),
    "volume, its middle": lambda x: x.unflatten(1, (2, 4)).mean((2, 3)).flatten(1),
}


class Averaging(nn.Module):
    """A convolution, a mean of what it gives, (batch, 8, 4, 4), and a head."""

    def __init__(self, mean: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.mean, self.head = nn.Conv2d(3, 8, 3), mean, nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mean(self.conv(x).relu()))


@pytest.mark.parametrize("name", MEANS)
def test_a_mean_over_two_dimensions(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = Averaging(MEANS[name]).eval(), torch.randn(16, 3, 6, 6)
    made = prepare(net, x[:2])
    made.calibrate([x])
    master = write_master(made, x[:2], tmp_path)
    assert rms(onnx_run(master.path)(x.numpy()), made.run_quantized(x.numpy())) < 0.01
    export_float(net, x[:2], tmp_path / "float.onnx")
    with torch.no_grad():
        want = net(x).numpy()
    assert np.abs(onnx_run(tmp_path / "float.onnx")(x.numpy()) - want).max() < 1e-5 * np.abs(want).max()
    for file in ("master.onnx", "float.onnx"):
        operators = {node.op_type for node in onnx.load(tmp_path / file).graph.node}
        assert ("GlobalAveragePool" in operators) == name.startswith("image")
        assert ("ReduceMean" in operators) != name.startswith("image")
