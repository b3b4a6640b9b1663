"""Two bundles compared on this machine: may the new one replace the old one?"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.bundle.comparable import differences
from edgekd.errors import BadInput, Missing
from edgekd.gate_result import CheckName, GateResult, Settings
from edgekd.installation import version
from edgekd.measure.fresh import worker_errors
from edgekd.measure.gate_checks import (
    accuracy_check,
    accuracy_p_value,
    coverage_check,
    latency_check,
    memory_check,
    size_check,
)
from edgekd.measure.gate_latency import paired_latency, unpaired_latency
from edgekd.measure.gate_verdict import exit_code_of, summary_of, verdict_of
from edgekd.measure.holm import accuracy_level, latency_level
from edgekd.pipeline.alone import measuring_alone
from edgekd.pipeline.baseline import GateSide
from edgekd.pipeline.evidence import stored_memory, told_of_machines
from edgekd.runtime.gate import SECONDS, GateRun, compare_until_decided
from edgekd.runtime.machine import describe_machine, machine_name
from edgekd.runtime.measurements import now
from edgekd.runtime.memory import bare_memory
from edgekd.runtime.sequential import ERROR, LOOKS, Plan, plan_within
from edgekd.stage import NoProgress, Progress

CHECKS: tuple[CheckName, ...] = ("latency", "memory", "size", "accuracy", "coverage")
DEFAULTS = Settings(
    tolerance=0.05,
    error=ERROR,
    budget_seconds=60.0,
    seconds_per_pair=SECONDS,
    seed=0,
    on_inconclusive="fail",
    allow_unpaired=False,
    gates=list(CHECKS),
    # A peak moves by a few percent with what the allocator does; the size is exact, the rest is a matter of taste.
    max_memory_growth=0.10,
    max_size_growth=0.05,
    max_accuracy_drop=0.0,
    max_coverage_drop=5.0,
)


def gate_bundles(
    new: Path, old: Path, settings: Settings = DEFAULTS, *, progress: Progress | None = None
) -> GateResult:
    """``new`` against its baseline ``old``: latency live in paired processes, memory, size, accuracy, coverage.

    A model that crashes or hangs in the middle gives a result too, with the verdict error.

    Raises:
        BadInput: bundles of different inputs or targets, or a model that cannot be timed here (a version of the runtime
            that it does not allow, or another machine) without ``allow_unpaired``; BadBundle: one does not hold, or
            answers wrongly.
        Missing: a runtime is not here.
        WorkerFailed: a process without a model failed.
    """
    progress = progress or NoProgress()
    date, begin = now(), time.monotonic()
    sides = GateSide.read(new), GateSide.read(old)
    _check_comparable(sides)
    # What the bundles carry is read, and found wanting, before a minute is spent on measuring.
    correct, coverage = [side.correct() for side in sides], [side.coverage() for side in sides]
    covered = coverage_check(coverage[0].value, coverage[1].value, settings)
    gating = {name: name in settings.gates for name in CHECKS}
    p_accuracy = accuracy_p_value(correct[0].value, correct[1].value, settings) if gating["accuracy"] else None
    level = latency_level(settings.error, p_accuracy if gating["latency"] else None)
    opened: list[Any] = [None, None]
    unable = [side for side in sides if side.unable]
    if unable and not settings.allow_unpaired:
        kind = Missing if unable[0].missing else BadInput
        raise kind(
            f"its model cannot be timed here: {unable[0].unable}",
            where=str(unable[0].bundle.path),
            remedy="bring what it needs, or compare what the bundles carry, which decides nothing: --allow-unpaired",
        )
    if unable:
        entries = [side.stored() for side in sides]
        latency = unpaired_latency(entries[0], entries[1], level)
        memory, told = stored_memory(*entries)
    else:
        with tempfile.TemporaryDirectory() as scratch, measuring_alone(progress), worker_errors(of_bundle=True):
            run, bare = _measure(sides, settings, level, Path(scratch), progress)
        latency = paired_latency(run)
        memory = [_memory(run, index, bare[index]) for index in (0, 1)]
        told = f"median of {len(run.pairs)} processes, less one without a model"
        if run.pairs and run.pairs[-1].sides is not None:
            opened = [side.opened for side in run.pairs[-1].sides]
    rejected = latency.verdict == "regression" if gating["latency"] else None
    accuracy = accuracy_check(correct[0].value, correct[1].value, accuracy_level(settings.error, rejected), settings)
    checks = [
        latency_check(latency, settings),
        memory_check(memory[0], memory[1], told, settings),
        size_check(sides[0].size_bytes, sides[1].size_bytes, settings),
        told_of_machines(accuracy, *correct),
        told_of_machines(covered, *coverage),
    ]
    verdict = verdict_of(latency, checks)
    return GateResult(
        edgekd=version(),
        date=date,
        seconds=round(time.monotonic() - begin, 3),
        machine=describe_machine(),
        machine_name=machine_name(),
        new=sides[0].to_document(opened[0]),
        old=sides[1].to_document(opened[1]),
        settings=settings,
        latency=latency,
        checks=checks,
        verdict=verdict,
        exit_code=int(exit_code_of(verdict, settings)),
        summary=summary_of(verdict, latency, checks, settings),
    )


def _check_comparable(sides: tuple[GateSide, GateSide]) -> None:
    new, old = (side.bundle for side in sides)
    found = differences(new.manifest, old.manifest)
    if found:
        raise BadInput(
            f"cannot be compared with {old.path}: {'; '.join(found)}",
            where=str(new.path),
            remedy="give a baseline with the same inputs and target",
        )


def _measure(
    sides: tuple[GateSide, GateSide], settings: Settings, level: float, scratch: Path, progress: Progress
) -> tuple[GateRun, list[int | None]]:
    """The live comparison, and the memory of a process without each model."""
    specs = [side.spec(scratch) for side in sides]
    progress.task("pairs", LOOKS[0])
    run = compare_until_decided(
        specs[0],
        specs[1],
        _plan(settings, level, progress),
        budget_s=settings.budget_seconds,
        seconds=settings.seconds_per_pair,
        seed=settings.seed,
        after_pair=lambda _: progress.advance(),
    )
    return run, [bare_memory(spec) for spec in specs]


def _plan(settings: Settings, level: float, progress: Progress) -> Plan | Callable[[Sequence[float]], Plan]:
    """What plans the looks when the first is due; the bar then shows how far the last one is."""

    def plan(took: Sequence[float]) -> Plan:
        made = plan_within(took, budget_s=settings.budget_seconds, tolerance=settings.tolerance, error=level)
        progress.task("pairs", made.looks[-1])
        progress.advance(len(took))
        return made

    return plan


def _memory(run: GateRun, index: int, bare: int | None) -> float | None:
    """MB that a side's model and runtime take at their peak, as `runtime.memory.peak_memory` defines it."""
    peaks = [pair.sides[index].peak_bytes for pair in run.pairs if pair.sides is not None]
    known = [peak for peak in peaks if peak is not None]
    return (float(np.median(known)) - bare) / 1e6 if known and bare is not None else None
