"""The latency gate, live: pairs of fresh processes until a verdict, or the end of the time budget."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from .compare import Pair, measure_pairs
from .process import REFUSED, WorkerFailed
from .sequential import LOOKS, Decision, Plan, decide
from .sessions import RuntimeMissing
from .spec import ModelSpec
from .staging import LABELS, equal_paths

# Seconds of blocks a pair. Starting, loading and warming up two processes takes 0.8 s and more, so that much shorter
# pairs waste the time; much longer ones leave too few pairs, whose spread is what is trusted (docs/bench.md).
SECONDS = 0.6


@dataclass(frozen=True)
class Failure:
    """Which model failed in the middle, and how; ``blocks_ns`` are the rounds of the pair in which it did.

    Of a round (new, old) block medians in ns, as in `compare.Pair`.
    """

    side: Literal["new", "old"]
    label: str
    where: str
    what: str
    blocks_ns: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class GateRun:
    """What was measured until ``decision``; ``seconds`` each pair took, start to end.

    ``failure``: a process crashed, hung, changed its answers or lost its runtime; the pairs before it are kept, and
    decide nothing.
    """

    plan: Plan
    pairs: tuple[Pair, ...]
    seconds: tuple[float, ...]
    decision: Decision
    failure: Failure | None = None

    @property
    def log_ratios(self) -> list[float]:
        """The pairs' values, in the order they were measured."""
        return [pair.log_ratio for pair in self.pairs]


def compare_until_decided(
    new: ModelSpec,
    old: ModelSpec,
    plan: Plan | Callable[[Sequence[float]], Plan],
    *,
    budget_s: float = 60.0,
    seconds: float = SECONDS,
    seed: int = 0,
    after_pair: Callable[[int], object] = lambda _: None,
) -> GateRun:
    """``new`` against ``old`` until ``plan`` decides, its looks are over, or another pair would outlast the budget.

    ``plan`` may be what makes one of the seconds that pairs took (`sequential.plan_within`); it is asked when the first
    look is due. At least one pair is measured, whatever the budget. ``seconds`` of blocks a pair, ``seed`` of the
    orders; ``after_pair`` is told the number of pairs so far. The same pairs, replayed by `sequential.decide`, tell the
    same.

    Raises:
        RuntimeMissing: a runtime is not here.
        WorkerFailed: before anything was timed: a model does not load or does not give its golden outputs.
    """
    begin = time.monotonic()
    rng = np.random.default_rng(seed)
    pairs: list[Pair] = []
    took: list[float] = []
    failure = None
    decision = Decision(None, ())
    with tempfile.TemporaryDirectory(prefix="edgekd-") as folder:
        sides = equal_paths([new, old], Path(folder))
        while True:
            start = time.monotonic()
            ended = bool(pairs) and start - begin + float(np.median(took)) > budget_s
            if callable(plan) and (ended or len(pairs) == LOOKS[0]):
                plan = plan(took)
            if not callable(plan):
                decision = decide([pair.log_ratio for pair in pairs], plan, ended=ended)
            if decision.verdict is not None:
                break
            try:
                pairs += measure_pairs(sides[:1], sides[1], seconds=seconds, rng=rng)
            except (WorkerFailed, RuntimeMissing) as error:
                side: Literal["new", "old"] = "new" if error.label == LABELS[0] else "old"
                named = new if side == "new" else old
                where = str(named.path)
                if isinstance(error, RuntimeMissing):
                    if not pairs:
                        raise
                    failure = Failure(side, named.name, where, error.what)
                elif not pairs and error.kind in REFUSED:
                    raise WorkerFailed(error.what, label=named.name, where=where, kind=error.kind) from error
                else:
                    failure = Failure(side, named.name, where, error.what, tuple(error.rounds[0]))
                break
            took.append(time.monotonic() - start)
            after_pair(len(pairs))
    return GateRun(plan(took) if callable(plan) else plan, tuple(pairs), tuple(took), decision, failure)
