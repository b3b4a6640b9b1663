"""Candidates timed against one other on a device: pairs of fresh processes, short blocks in random order.

The pair is the unit of statistics, never the sample: what differs between two starts of a process would be missed
otherwise. Inside a pair all processes but the running one are stopped.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from .percentile import median_interval
from .process import BLOCK_LIMIT_S, LOAD_LIMIT_S, WorkerProcess
from .selection import Selection

# A block lasts a random time between these, so that no disturbance of a fixed period stays in step with the blocks.
BLOCK_MS = (25.0, 50.0)
MIN_RUNS, MIN_ROUNDS, WARM_CAP_S = 3, 5, 2.0
ERROR = 0.01


class Lap(NamedTuple):
    """One candidate's latency over that of the one it ran against: below 1 is faster."""

    ratio: float
    interval: tuple[float, float]
    confidence: float
    log_ratios: list[float]
    median_ms: float
    against_median_ms: float


def race(
    root: Path, entrants: Sequence[Selection], against: Selection, *, pairs: int, seconds: float, seed: int = 0
) -> list[Lap]:
    """Each of ``entrants`` against the same ``against``, in ``pairs`` (at least 2) rounds of fresh processes.

    ``seconds`` of blocks a pair and entrant, after its start and warm-up. The ratio is the median over pairs of each
    pair's median; its interval holds whatever the distribution (`percentile.median_interval`).

    Raises:
        WorkerFailed: a process crashed or hung, or a candidate does not load or gives wrong outputs.
    """
    if pairs < 2:
        raise ValueError(f"pairs is {pairs}: an interval needs at least 2")
    rng = random.Random(seed)
    measured = [_pair(root, entrants, against, seconds, rng) for _ in range(pairs)] if entrants else []
    return [_conclude([pair[index] for pair in measured]) for index in range(len(entrants))]


def load_arguments(root: Path, selection: Selection) -> dict[str, Any]:
    """A selection as the worker's commands take it."""
    return {"root": str(root.absolute()), **selection._asdict(), "candidate": selection.candidate["name"]}


def _pair(
    root: Path, entrants: Sequence[Selection], against: Selection, seconds: float, rng: random.Random
) -> list[list[tuple[float, float]]]:
    """Block medians in ns, (entrant, against), by entrant and round."""
    everyone, last = [*entrants, against], len(entrants)
    with ExitStack() as stack:
        workers: dict[int, WorkerProcess] = {}
        for index in rng.sample(range(len(everyone)), len(everyone)):
            worker = stack.enter_context(WorkerProcess())
            worker.ask("load", limit_s=LOAD_LIMIT_S, **load_arguments(root, everyone[index]))
            worker.ask("warm", limit_s=LOAD_LIMIT_S, cap_s=WARM_CAP_S)
            worker.stop()
            workers[index] = worker

        def block(index: int, ms: float) -> float:
            samples = workers[index].ask("block", limit_s=BLOCK_LIMIT_S, ms=ms, min_runs=MIN_RUNS)
            workers[index].stop()
            return statistics.median(samples)

        rounds: list[list[tuple[float, float]]] = [[] for _ in entrants]
        end = time.monotonic() + seconds * len(entrants)
        while time.monotonic() < end or len(rounds[0]) < MIN_ROUNDS:
            for index in rng.sample(range(last), last):
                ms = rng.uniform(*BLOCK_MS)
                found = {side: block(side, ms) for side in rng.sample([index, last], 2)}
                rounds[index].append((found[index], found[last]))
    return rounds


def _conclude(pairs: Sequence[Sequence[tuple[float, float]]]) -> Lap:
    logs = [statistics.median(math.log(one / against) for one, against in rounds) for rounds in pairs]
    low, high, confidence = median_interval(logs, ERROR)
    sides = [[statistics.median(block[side] for block in rounds) for rounds in pairs] for side in (0, 1)]
    return Lap(
        ratio=math.exp(statistics.median(logs)),
        interval=(math.exp(low), math.exp(high)),
        confidence=confidence,
        log_ratios=logs,
        median_ms=statistics.median(sides[0]) / 1e6,
        against_median_ms=statistics.median(sides[1]) / 1e6,
    )
