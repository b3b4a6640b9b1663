"""Collecting really measured pairs for gate_rates.py, in a file that a killed run goes on from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from gate_models import feeds, save_chain

from edgekd.runtime.compare import Pair, measure_pairs
from edgekd.runtime.gate import SECONDS, compare_until_decided
from edgekd.runtime.machine import describe_machine, machine_key, machine_name
from edgekd.runtime.process import start
from edgekd.runtime.sequential import plan_within
from edgekd.runtime.session_onnxruntime import OnnxRuntimeSession
from edgekd.runtime.spec import ModelSpec, save_arrays
from edgekd.runtime.staging import equal_paths
from edgekd.runtime.timing import timed
from edgekd.store import write_text_atomic

STATES = ("idle", "loaded")
# Where a delay is planted, both sides spin and the slower one longer: what a spin does to the next run is on both.
SPIN = 0.1
# Enough work for a tenth of a millisecond.
SHORT_LAYERS = 1


@dataclass(frozen=True)
class Condition:
    """One row of the experiment: what is compared with the chain, and at which tolerance.

    ``delay``: by how much it is slower, planted as a busy delay; ``last_kernel``: of one more layer.
    ``wanted``: the least share of comparisons in which the slow-down must be found; None: it is none, and an alarm is a
    false one.
    """

    name: str
    tolerance: float
    delay: float = 0.0
    last_kernel: tuple[int, int] | None = None
    wanted: float | None = None


CONDITIONS = (
    Condition("aa_tolerance_0", 0.0),
    Condition("at_tolerance", 0.02, delay=0.02),
    Condition("planted_5", 0.02, delay=0.05, wanted=0.95),
    Condition("natural", 0.02, last_kernel=(3, 3), wanted=0.95),
    Condition("planted_3", 0.01, delay=0.03, wanted=0.90),
    Condition("natural_3", 0.01, last_kernel=(3, 2), wanted=0.90),
)


class Collection:
    """The pairs of every state and condition: rows of log ratio, seconds, both medians in ms, pressure and steal.

    ``live`` holds whole comparisons: verdict, pairs, seconds, ratio. Their pairs are among ``pairs``. A file that is
    only read, not ``adding``, may be another machine's.
    """

    def __init__(self, path: Path, *, adding: bool = True) -> None:
        self.path = path
        head = {
            "machine": describe_machine(),
            "machine_name": machine_name(),
            "machine_key": machine_key(),
            "runtime": f"onnxruntime {metadata.version('onnxruntime')}",
            "seconds_per_pair": SECONDS,
            "spin": SPIN,
        }
        self.value: dict[str, Any] = {**head, "pairs": {}, "live": {}, "overhead": None}
        if path.exists():
            self.value = json.loads(path.read_text())
            for key in ("machine_key", "runtime", "seconds_per_pair", "spin") if adding else ():
                if self.value.get(key) != head[key]:
                    sys.exit(f"{path}: {key} was {self.value.get(key)}, here it is {head[key]}; give another --file")

    def rows(self, kind: str, state: str, condition: str) -> list[list[Any]]:
        """The rows so far, to be added to; ``kind`` is "pairs" or "live"."""
        found: list[list[Any]] = self.value[kind].setdefault(state, {}).setdefault(condition, [])
        return found

    def save(self) -> None:
        """Write the file, whole or not at all."""
        rows = json.dumps(self.value).replace("]], ", "]],\n").replace("}, ", "},\n")
        write_text_atomic(self.path, rows + "\n")


def collect(
    collection: Collection,
    folder: Path,
    states: Sequence[str],
    conditions: Sequence[Condition],
    count: int,
    *,
    deadline: float = float("inf"),
    say: Callable[[str], object] = print,
) -> None:
    """Measure until each condition has ``count`` pairs in each state, or ``time.monotonic()`` passes ``deadline``.

    A round has one pair of every condition, in random order, so that what the machine goes through meets all alike.
    """
    sides = models(folder, conditions)
    for state in states:
        with load(state):
            pools = {one.name: collection.rows("pairs", state, one.name) for one in conditions}
            while min(map(len, pools.values())) < count and time.monotonic() < deadline:
                # By what is there of all rows: live comparisons may have filled one of them already.
                rng = np.random.default_rng([sum(map(len, pools.values())), STATES.index(state), 1])
                for index in (int(i) for i in rng.permutation(len(conditions))):
                    pool = pools[conditions[index].name]
                    if len(pool) < count:
                        begin = time.monotonic()
                        new, old = sides[index]
                        pair = measure_pairs([new], old, seconds=SECONDS, rng=rng)[0]
                        pool.append(_row(pair, time.monotonic() - begin))
                collection.save()
                done = min(map(len, pools.values()))
                if done % 10 == 0:
                    say(f"{state}: {done} of {count} pairs of each condition")


def collect_live(
    collection: Collection,
    folder: Path,
    states: Sequence[str],
    conditions: Sequence[Condition],
    count: int,
    *,
    budget_s: float,
    say: Callable[[str], object] = print,
) -> None:
    """Whole comparisons, live, until each condition has ``count`` in each state; their pairs are kept like all others.

    Comparisons take turns between conditions, so that what the machine goes through meets all alike.
    """
    sides = models(folder, conditions)
    for state in states:
        with load(state):
            for number in range(count):
                for one, (new, old) in zip(conditions, sides, strict=True):
                    rows = collection.rows("live", state, one.name)
                    if len(rows) > number:
                        continue
                    plan = partial(plan_within, budget_s=budget_s, tolerance=one.tolerance)
                    begin = time.monotonic()
                    run = compare_until_decided(new, old, plan, budget_s=budget_s, seed=number)
                    verdict = "error" if run.failure else run.decision.verdict
                    ratio = float(np.exp(run.decision.looks[-1].mean)) if run.decision.looks else None
                    rows.append([verdict, len(run.pairs), round(time.monotonic() - begin, 2), ratio])
                    measured = zip(run.pairs, run.seconds, strict=True)
                    collection.rows("pairs", state, one.name).extend(_row(*each) for each in measured)
                    collection.save()
                    say(f"{state}, {one.name}, live {number + 1} of {count}: {verdict} after {len(run.pairs)} pairs")


def measure_overhead(folder: Path) -> dict[str, float]:
    """What is timed of a model of about 0.1 ms that is not the runtime's own call.

    ``loop_ns`` of the timing loop, ``call_ns`` of edgekd's session around the runtime's; ``share``: both, of the model.
    """
    spec = ModelSpec(
        save_chain(folder / "short.onnx", layers=SHORT_LAYERS), "onnxruntime", save_arrays(feeds(), folder)
    )
    with start(spec) as worker:
        worker.load(spec)
        worker.warm(2.0)
        median = float(np.median(worker.block(300.0)))
        loop = float(np.median([worker.overhead_ns() for _ in range(5)]))
    inputs = feeds()
    session = OnnxRuntimeSession(spec.path, threads=1)
    # The very session: two of one model differ by more, for where their memory lies.
    bare, names = session._session, [output.name for output in session.outputs]
    call = difference_ns(partial(session.run, inputs), partial(bare.run, names, inputs))
    return {"loop_ns": loop, "call_ns": call, "model_ms": median / 1e6, "share": (loop + call) / median}


def difference_ns(one: Callable[[], Any], other: Callable[[], Any], runs: int = 4000) -> float:
    """How much longer ``one`` takes: the median of differences of neighbouring runs.

    Not of blocks' medians: those wander by more than the microsecond that is looked for.
    """
    differences = []
    for index in range(runs):
        calls = (one, other) if index % 2 else (other, one)
        first, second = (timed(call, ms=0)[0] for call in calls)
        differences.append(first - second if index % 2 else second - first)
    return float(np.median(differences))


def models(folder: Path, conditions: Sequence[Condition]) -> list[tuple[ModelSpec, ModelSpec]]:
    """What each condition compares, new and old, under paths of one length: the chain, and the slower one."""
    base = ModelSpec(save_chain(folder / "base.onnx"), "onnxruntime", save_arrays(feeds(), folder))
    specs = []
    for one in conditions:
        new, old = base, base
        if one.last_kernel is not None:
            new = replace(base, path=save_chain(folder / f"{one.name}.onnx", last_kernel=one.last_kernel))
        if one.delay:
            old = replace(base, planted_delay=SPIN)
            new = replace(base, planted_delay=(1 + SPIN) * (1 + one.delay) - 1)
        specs += [new, old]
    place = folder / f"staged-{time.monotonic_ns()}"
    place.mkdir()
    staged = equal_paths(specs, place)
    return list(zip(staged[::2], staged[1::2], strict=True))


@contextmanager
def load(state: str) -> Iterator[None]:
    """Idle: nothing. Loaded: a process that is busy on the last CPU that this one may use."""
    if state == "idle":
        yield
        return
    cpu = max(os.sched_getaffinity(0))
    # It ends with this process, however that ends.
    code = f"import os\nos.sched_setaffinity(0, {{{cpu}}})\nwhile os.getppid() == {os.getpid()}: sum(range(100000))"
    busy = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


def _row(pair: Pair, seconds: float) -> list[Any]:
    assert pair.sides is not None
    seen = [side.witnesses for side in pair.sides]
    shares = [
        None if None in both else round(sum(both) / 2, 4)  # type: ignore[arg-type]
        for both in ([one.pressure_share for one in seen], [one.steal_share for one in seen])
    ]
    return [round(pair.log_ratio, 7), round(seconds, 3), *(round(ms, 5) for ms in pair.median_ms), *shares]
