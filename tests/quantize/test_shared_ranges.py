"""Ranges that several places share: in training, too, they hold what flows through all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.quantize import prepare, write_master
from edgekd.quantize.learned import learn_scales
from edgekd.quantize.prepared import Prepared
from edgekd.target import CalibrationPolicy

AVERAGING = 0.1


class Parts(nn.Module):
    """Two layers of which one gives ten times the other, and what ``kind`` does with both."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.low, self.high, self.end = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(8, 5, 1)
        with torch.no_grad():
            self.high.weight.copy_(10 * self.low.weight)
            self.high.bias.copy_(10 * self.low.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([F.relu(self.low(x)), F.relu(self.high(x))], 1)
        if self.kind == "shuffle":
            y = F.channel_shuffle(y, 2)
        if self.kind == "split":
            low, high = y.chunk(2, 1)
            y = torch.cat([high, low], 1)
        if self.kind == "select":
            y = torch.cat([y[:, :4], y[:, 4:] + y[:, :4]], 1)
        return self.end(y).mean((2, 3))


def samples() -> Tensor:
    return torch.randn(64, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def calibrated(kind: str) -> Prepared:
    torch.manual_seed(0)
    x = samples()
    made = prepare(Parts(kind).eval(), x[:2], policy=CalibrationPolicy(averaging=AVERAGING, batch_size=64))
    made.calibrate([x])
    return made


def scales(made: Prepared) -> dict[str, float]:
    """Of each place, by the name of the value that flows into it."""
    found = {}
    for node in made.module.graph.nodes:
        called = made.module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if hasattr(called, "calculate_qparams"):
            found[node.args[0].name] = float(called.calculate_qparams()[0].max())
    return found


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("kind", ["concatenation", "shuffle", "split", "select"])
def test_training_keeps_the_calibrated_ranges(kind: str, copied: bool) -> None:
    """The same samples again and again: nothing is there to move to."""
    made = calibrated(kind)
    before = scales(made)
    if copied:
        made = made.copy()
    made.observe(True)
    optimizer = torch.optim.SGD(made.module.parameters(), lr=1e-9)
    for _ in range(60):
        made.module(samples()).square().mean().backward()
        optimizer.step()
    # Rounding in front moves the extremes a little.
    assert scales(made) == pytest.approx(before, rel=0.02)


def test_one_batch_counts_once() -> None:
    """What is twice as wide moves a range by the weight of one batch, in however many places it sits."""
    made = calibrated("split")
    before = scales(made)
    made.fake_quantize(False)
    made.observe(True)
    biases = [value for name, value in made.module.named_parameters() if "bias" in name]
    with torch.no_grad():
        for bias in biases:
            bias.mul_(2)
        for step in range(1, 4):
            made.module(2 * samples())
            # Of the doubled range, what was averaged in by so many batches.
            assert scales(made)["cat"] == pytest.approx(before["cat"] * (2 - (1 - AVERAGING) ** step), rel=1e-5)


def test_the_master_gets_the_ranges_of_training(tmp_path: Path) -> None:
    made = calibrated("concatenation")
    made.observe(True)
    with torch.no_grad():
        for _ in range(20):
            made.module(1.5 * samples())
    sites = write_master(made, samples()[:2], tmp_path).sites
    shared = [site for site in sites if site.tensor.startswith(("relu", "cat"))]
    assert len(shared) == 3
    assert {site.scale for site in shared} == {scales(made)["cat"]}


def test_learned_scales_start_from_the_shared_range() -> None:
    made = calibrated("concatenation")
    before = scales(made)
    learn_scales(made)
    assert scales(made) == pytest.approx(before, rel=1e-6)
