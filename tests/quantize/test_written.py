"""What the ladder judges is what the lowered file computes, and nothing else changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rewritten_nets import Net, conv
from test_ladder import never, same, state
from torch import nn
from torch.nn import functional as F

from edgekd.backends.onnxruntime import X86
from edgekd.forms import QuantForm
from edgekd.lower import lower
from edgekd.lower.numbers import site_parameters
from edgekd.measure.proof import onnx_run
from edgekd.quantize import Outcome, prepare, quantize, write_master
from edgekd.quantize.learned import learn_scales
from edgekd.quantize.prepared import Prepared
from edgekd.quantize.written import Numbers, Written
from edgekd.recipe import QuantizeConfig
from edgekd.stage import NoProgress
from edgekd.target import CalibrationPolicy

FINER = partial(site_parameters, form=QuantForm(name="judged", rules="onnxruntime", floors="u8"))
# A range from zero on, one with a floor, both signs concatenated, a Pad that folds into a convolution, an addition.
NETS = {
    "relu": lambda m, x: m.b(F.max_pool2d(F.relu(m.a(x)), 2)),
    "gelu": lambda m, x: m.b(F.gelu(m.a(x))),
    "cat": lambda m, x: m.c(torch.cat([y := F.relu(m.a(x)), m.b(y)], 1)),
    "pad": lambda m, x: m.b(F.pad(F.relu(m.a(x)), (0, 1, 0, 1))),
    "add": lambda m, x: m.b(F.relu(m.b(y := F.relu(m.a(x))) + y)),
}
X = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def made(name: str) -> Net:
    torch.manual_seed(0)
    return Net(NETS[name], a=conv(3, 4, 3), b=conv(4, 4, 3), c=conv(8, 4, 3)).eval()


@pytest.mark.parametrize(("name", "learned"), [*((name, False) for name in NETS), ("gelu", True)])
def test_the_copy_computes_what_the_lowered_file_does(name: str, learned: bool, tmp_path: Path) -> None:
    untouched = prepare(made(name), X[:2])
    prepared = untouched.copy()
    prepared.calibrate([X])
    if learned:
        learn_scales(prepared)
    before = state(prepared.module)
    with torch.no_grad():
        written = Written(untouched, [X], FINER)(prepared)(X).numpy()
        floating = made(name)(X).numpy()
    assert same(state(prepared.module), before)
    model = lower(write_master(prepared, X[:2], tmp_path), replace(X86, bias="float"))
    (tmp_path / "lowered.onnx").write_bytes(model.SerializeToString())
    lowered = onnx_run(tmp_path / "lowered.onnx")(X.numpy())
    # But for a rounding flip here and there.
    assert np.square(written - lowered).mean() < 0.01 * np.square(lowered - floating).mean()


def climbed(numbers: Numbers | None, allowed_drop: float, estimator: str = "moving-average") -> Outcome:
    net = made("relu")

    def closeness(module: nn.Module) -> float:
        with torch.no_grad():
            return 1 - float((module(X) - net(X)).norm() / net(X).norm())

    return quantize(
        net,
        X.split(32),
        config=QuantizeConfig(method="auto", epochs=0, equalization=False),
        policy=CalibrationPolicy.model_validate({"estimator": estimator}),
        allowed_drop=allowed_drop,
        fit=never,
        evaluate=closeness,
        progress=NoProgress(),
        numbers=numbers,
    )


def test_the_ladder_stops_where_the_forms_own_numbers_are_enough() -> None:
    """And leaves the strict master all the same."""
    plain = climbed(None, 100)
    allowed = 95 * (1 - plain.report["val_ptq"])
    strict, judged = (climbed(numbers, allowed) for numbers in (None, FINER))
    assert [one["name"] for one in strict.report["rungs"]] == ["PTQ", "PTQ with bias correction"]
    assert [one["name"] for one in judged.report["rungs"]] == ["PTQ"]
    assert same(state(judged.prepared.module), state(plain.prepared.module))


def by_value(prepared: Prepared, found: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of quantizers, by the value that flows in."""
    nodes = [node for node in prepared.module.graph.nodes if node.op == "call_module" and node.target in found]
    return {node.args[0].name: found[node.target] for node in nodes}


def test_how_many_steps_a_range_from_zero_on_has() -> None:
    """255 where no value is negative, what is above a floor of all codes, and elsewhere the master's 127."""
    for name, wanted in (("relu", {"x": 127, "relu": 255}), ("gelu", {"conv2d": 127, "gelu": round(254 * 2 / 2.17)})):
        untouched = prepare(made(name), X[:2])
        steps = by_value(untouched, Written(untouched, [X], FINER).steps())
        assert {value: steps[value](2.0) for value in wanted} == wanted


def test_a_search_over_ranges_is_for_the_steps_that_are_judged() -> None:
    """Ranges from zero on are clipped less than for the master's alone; the others are as they were."""
    one, other = (climbed(numbers, 100, "mse").prepared for numbers in (None, FINER))
    strict, judged = (
        by_value(made, {name: float(q.scale.max()) for name, q in made.quantizers()}) for made in (one, other)
    )
    assert judged["relu"] > strict["relu"]
    assert {value for value in strict if strict[value] != judged[value]} == {"relu"}
