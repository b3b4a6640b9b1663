"""Two or more models timed against each other: pairs of fresh processes, short blocks in random order.

Inside a pair all sides but the running one are stopped, because runtimes' worker threads spin after a run. A pair's
value is the logarithm of the ratio of adjacent block medians, its median over the blocks. The pair is the unit of
statistics, never the sample: what differs between two starts of a process (memory layout) would be missed otherwise.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgekd.measure.process import Worker
from edgekd.measure.spec import ModelSpec
from edgekd.measure.statistics import trimmed_interval

BLOCK_SECONDS = 0.03
WARM_SECONDS = 5.0
# The whole error of an interval, for one look at the given number of pairs.
ERROR = 0.01


@dataclass(frozen=True)
class Comparison:
    """Latency of ``label`` over that of ``against``: below 1 is faster; interval at ``confidence`` over ``pairs``."""

    label: str
    against: str
    ratio: float
    low: float
    high: float
    confidence: float
    log_ratios: tuple[float, ...]
    median_ms: float

    @property
    def within_noise(self) -> bool:
        """Whether the interval holds 1: neither is shown to be faster."""
        return self.low <= 1 <= self.high

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return {
            "label": self.label,
            "against": self.against,
            "ratio": self.ratio,
            "interval": [self.low, self.high],
            "confidence": self.confidence,
            "pairs": len(self.log_ratios),
            "log_ratios": list(self.log_ratios),
            "median_ms": self.median_ms,
        }


def compare(
    one: ModelSpec, against: ModelSpec, *, pairs: int = 8, seconds: float = 2.0, error: float = ERROR, seed: int = 0
) -> Comparison:
    """``one`` against ``against`` in ``pairs`` pairs of fresh processes of about ``seconds`` each.

    Raises:
        WorkerFailed: a process crashed or hung.
    """
    return compare_all([one], against, pairs=pairs, seconds=seconds, error=error, seed=seed)[0]


def compare_all(
    specs: Sequence[ModelSpec],
    against: ModelSpec,
    *,
    pairs: int = 8,
    seconds: float = 2.0,
    error: float = ERROR,
    seed: int = 0,
) -> list[Comparison]:
    """Each of ``specs`` against the same ``against``, all interleaved; ``seconds`` of blocks a pair and model."""
    rng = np.random.default_rng(seed)
    logs: list[list[float]] = [[] for _ in specs]
    medians: list[list[float]] = [[] for _ in specs]
    for _ in range(pairs):
        for index, (log, median) in enumerate(_pair(specs, against, seconds, rng)):
            logs[index].append(log)
            medians[index].append(median)
    found = []
    for spec, values, median in zip(specs, logs, medians, strict=True):
        mean, low, high = trimmed_interval(values, error=error)
        found.append(
            Comparison(
                spec.label,
                against.label,
                math.exp(mean),
                math.exp(low),
                math.exp(high),
                1 - error,
                tuple(values),
                float(np.median(median)),
            )
        )
    return found


Verdict = Literal["regression", "pass", "inconclusive"]


def verdict(comparison: Comparison, tolerance: float) -> Verdict:
    """Regression when the interval lies wholly above 1 + ``tolerance``, pass when wholly below."""
    if comparison.low > 1 + tolerance:
        return "regression"
    return "pass" if comparison.high < 1 + tolerance else "inconclusive"


def _pair(
    specs: Sequence[ModelSpec], against: ModelSpec, seconds: float, rng: np.random.Generator
) -> list[tuple[float, float]]:
    """(log ratio, median in ms) of each spec from one set of fresh processes, started in random order."""
    everyone = [*specs, against]
    with ExitStack() as stack:
        workers: list[Worker | None] = [None] * len(everyone)
        for index in rng.permutation(len(everyone)):
            worker = stack.enter_context(Worker(everyone[index]))
            worker.ask("warm", WARM_SECONDS)
            worker.stop()
            workers[index] = worker
        rounds: list[list[float]] = []
        end = time.monotonic() + seconds * len(everyone)
        while time.monotonic() < end or len(rounds) < 4:
            row = [0.0] * len(everyone)
            for index in rng.permutation(len(everyone)):
                worker = workers[index]
                assert worker is not None
                worker.go_on()
                row[index] = float(np.median(worker.ask("block", BLOCK_SECONDS)["ns"][1:] or [np.nan]))
                worker.stop()
            rounds.append(row)
    table = np.array(rounds)
    with np.errstate(invalid="ignore"):
        logs = np.log(table[:, :-1] / table[:, -1:])
    return [
        (float(np.nanmedian(logs[:, index])), float(np.nanmedian(table[:, index])) / 1e6) for index in range(len(specs))
    ]
