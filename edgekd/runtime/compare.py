"""Models timed against one other: pairs of fresh processes, short blocks in random order; on every machine alike.

The pair is the unit of statistics, never the sample: what differs between two starts of a process (memory layout)
would be missed otherwise. Inside a pair all processes but the running one are stopped, because runtimes' worker
threads spin after a run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from .interval import trimmed_interval
from .process import WorkerFailed, WorkerProcess, start
from .spec import ModelSpec
from .witness import Witnesses

# A block lasts a random time between these, so that no disturbance of a fixed period stays in step with the blocks.
BLOCK_MS = (25.0, 50.0)
# Runs in a block and rounds in a pair, at least: what slow models get, whose runs outlast a block.
MIN_RUNS, MIN_ROUNDS = 3, 5
WARM_CAP_S = 2.0
# Bytes of environment that move a process' stack at most.
PADDING = 4096
# The whole error of an interval: the chance that it misses the true ratio.
ERROR = 0.01


@dataclass(frozen=True)
class Side:
    """One process of a pair: what it opened, what else was seen, peak resident bytes, ns that timing adds to a run.

    ``steady``: whether its speed was, when the warm-up ended.
    """

    opened: dict[str, Any]
    steady: bool
    witnesses: Witnesses
    peak_bytes: int | None
    overhead_ns: float


@dataclass(frozen=True)
class Pair:
    """One model against another in one pair of fresh processes: block medians in ns, (one, against) a round."""

    blocks_ns: tuple[tuple[float, float], ...]
    sides: tuple[Side, Side] | None = None

    @property
    def log_ratio(self) -> float:
        """The pair's value: the median over rounds of the log ratio of adjacent blocks."""
        return float(np.median([math.log(one / against) for one, against in self.blocks_ns]))

    @property
    def median_ms(self) -> tuple[float, float]:
        """Median latency of each side."""
        one, against = np.median(np.array(self.blocks_ns), axis=0) / 1e6
        return float(one), float(against)


@dataclass(frozen=True)
class Comparison:
    """Latency of ``label`` over that of ``against``: below 1 is faster; ``low``, ``high`` hold with ``confidence``."""

    label: str
    against: str
    ratio: float
    low: float
    high: float
    confidence: float
    log_ratios: tuple[float, ...]
    median_ms: float
    against_median_ms: float

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
            "against_median_ms": self.against_median_ms,
        }


def compare(
    one: ModelSpec, against: ModelSpec, *, pairs: int = 8, seconds: float = 2.0, error: float = ERROR, seed: int = 0
) -> Comparison:
    """``one`` against ``against``; see `compare_all`."""
    return compare_all([one], against, pairs=pairs, seconds=seconds, error=error, seed=seed)[0]


def compare_all(
    specs: Sequence[ModelSpec],
    against: ModelSpec,
    *,
    pairs: int = 8,
    seconds: float = 2.0,
    error: float = ERROR,
    seed: int = 0,
    after_pair: Callable[[], object] = lambda: None,
) -> list[Comparison]:
    """Each of ``specs`` against the same ``against``, interleaved, in ``pairs`` pairs (at least 2) of fresh processes.

    ``seconds`` of blocks a pair and model, after its start and warm-up; ``error`` of each interval; ``seed`` of the
    orders; ``after_pair`` is called after each pair, to show progress.

    Raises:
        RuntimeMissing: a runtime is not here.
        WorkerFailed: a process crashed or hung, or a model does not load or gives wrong outputs; names the model.
    """
    if pairs < 2:
        raise ValueError(f"pairs is {pairs}: an interval needs at least 2")
    rng = np.random.default_rng(seed)
    measured: list[list[Pair]] = []
    for _ in range(pairs if specs else 0):
        measured.append(measure_pairs(specs, against, seconds=seconds, rng=rng))
        after_pair()
    columns = zip(*measured, strict=True)
    return [conclude(spec.name, against.name, column, error) for spec, column in zip(specs, columns, strict=True)]


def measure_pairs(
    specs: Sequence[ModelSpec], against: ModelSpec, *, seconds: float, rng: np.random.Generator
) -> list[Pair]:
    """One pair of each of ``specs`` with ``against``, which they share, from fresh processes started in random order.

    Every round takes the specs in random order, and for each a block of its own and one of ``against``, in random
    order too: what slows the machine for longer than a block meets both.

    Raises:
        RuntimeMissing, WorkerFailed: as `compare_all`; a WorkerFailed has the ``rounds`` so far, of each spec.
    """
    everyone = [*specs, against]
    with ExitStack() as stack:
        workers: dict[int, WorkerProcess] = {}
        opened: dict[int, dict[str, Any]] = {}
        steady: dict[int, bool] = {}
        run_s = [0.0] * len(everyone)
        for index in (int(i) for i in rng.permutation(len(everyone))):
            spec = everyone[index]
            worker = stack.enter_context(start(spec, padding=int(rng.integers(PADDING))))
            opened[index] = worker.load(spec)
            first_s = opened[index]["first_run_ns"] / 1e9
            warmed = worker.warm(WARM_CAP_S, run_s=first_s)
            run_s[index], steady[index] = warmed["run_ns"] / 1e9, bool(warmed["steady"])
            worker.stop()
            workers[index] = worker

        def block(index: int, ms: float) -> float:
            samples = workers[index].block(ms, min_runs=MIN_RUNS, run_s=run_s[index])
            workers[index].stop()
            return float(np.median(samples))

        last = len(specs)
        rounds: list[list[tuple[float, float]]] = [[] for _ in specs]
        end = time.monotonic() + seconds * len(specs)
        try:
            while time.monotonic() < end or len(rounds[0]) < MIN_ROUNDS:
                for index in (int(i) for i in rng.permutation(len(specs))):
                    ms = float(rng.uniform(*BLOCK_MS))
                    sides = [index, last] if rng.random() < 0.5 else [last, index]
                    found = {side: block(side, ms) for side in sides}
                    rounds[index].append((found[index], found[last]))
            seen = [_side(workers[index], opened[index], steady[index]) for index in range(len(everyone))]
        except WorkerFailed as error:
            error.rounds = rounds
            raise
    return [Pair(tuple(row), (one, seen[last])) for row, one in zip(rounds, seen[:last], strict=True)]


def _side(worker: WorkerProcess, opened: dict[str, Any], steady: bool) -> Side:
    return Side(opened, steady, Witnesses.of(worker.counted), worker.peak_memory(), worker.overhead_ns())


def conclude(label: str, against: str, pairs: Sequence[Pair], error: float = ERROR) -> Comparison:
    """What measured pairs tell, by a trimmed interval over the pairs' values; the same pairs tell the same.

    Raises:
        ValueError: fewer than two pairs.
    """
    logs = tuple(pair.log_ratio for pair in pairs)
    mean, low, high = trimmed_interval(logs, error=error)
    medians = np.median([pair.median_ms for pair in pairs], axis=0)
    return Comparison(
        label=label,
        against=against,
        ratio=math.exp(mean),
        low=math.exp(low),
        high=math.exp(high),
        confidence=1 - error,
        log_ratios=logs,
        median_ms=float(medians[0]),
        against_median_ms=float(medians[1]),
    )
