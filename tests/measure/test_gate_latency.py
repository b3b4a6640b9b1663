"""What the document says of runs that the time budget cut short."""

from __future__ import annotations

import pytest

from edgekd.measure.gate_latency import paired_latency
from edgekd.runtime.compare import Pair, Side
from edgekd.runtime.gate import GateRun
from edgekd.runtime.sequential import decide, plan_within
from edgekd.runtime.witness import Witnesses


def run_of(pairs: int, seconds: float) -> GateRun:
    side = Side({}, steady=True, witnesses=Witnesses(), peak_bytes=None, overhead_ns=50.0)
    made = tuple(Pair(((1e9 + 1e6 * index, 1e9),), (side, side)) for index in range(pairs))
    plan = plan_within([seconds] * pairs, budget_s=60, tolerance=0.05)
    decision = decide([pair.log_ratio for pair in made], plan, ended=True)
    return GateRun(plan, made, (seconds,) * pairs, decision)


@pytest.mark.parametrize("pairs", [1, 2])
def test_too_few_pairs_say_how_long_a_verdict_takes(pairs: int):
    latency = paired_latency(run_of(pairs, 60.0 / pairs))
    assert latency.verdict == "inconclusive"
    assert latency.need is not None
    assert (latency.need.pairs, latency.need.seconds) == (8, pytest.approx(480 / pairs))
    assert "a verdict needs 8" in latency.why
    assert f"{480 / pairs:.0f} s" in latency.why
