"""What else can regress from one bundle to the next: memory, file size, accuracy, integer coverage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from edgekd.gate_result import Check, CheckName, Latency, Settings
from edgekd.measure.mcnemar import worse_p_value
from edgekd.measure.predictions import read_correct, same_samples
from edgekd.measure.statistics import paired_drop_interval

# A change of exactly what is allowed is allowed.
_LAST_BIT = 1e-9


def latency_check(found: Latency, settings: Settings) -> Check:
    """The latency's verdict as a row of the table."""
    return Check(
        name="latency",
        verdict=found.verdict,
        gates="latency" in settings.gates,
        new=found.new_median_ms,
        old=found.old_median_ms,
        unit="ms",
        change=found.ratio - 1 if found.ratio is not None else None,
        change_unit="share",
        interval=(found.interval[0] - 1, found.interval[1] - 1) if found.interval else None,
        tolerance=settings.tolerance,
        p_value=None,
        level=found.level,
        detail=found.why,
    )


def memory_check(new_mb: float | None, old_mb: float | None, detail: str, settings: Settings) -> Check:
    """Peak memory of the model and its runtime, in MB; a figure against a tolerance, no test."""
    return _growth("memory", new_mb, old_mb, "MB", settings.max_memory_growth, detail, settings)


def size_check(new_bytes: int, old_bytes: int, settings: Settings) -> Check:
    """The file that is loaded, in bytes."""
    return _growth("size", new_bytes, old_bytes, "bytes", settings.max_size_growth, "the file that is loaded", settings)


def coverage_check(new: Any, old: Any, settings: Settings) -> Check:
    """Layers that compute in integers over all that compute, as the build read it from the compiled model.

    ``new`` and ``old`` are as measurements.json has them; what is not of that form is not compared.
    """
    try:
        shares = _coverage("new", new), _coverage("old", old)
    except ValueError as error:
        return _drop("coverage", None, None, settings.max_coverage_drop, str(error), settings)
    detail = " before ".join(f"{one['integer']} of {one['compute']} layers" for one in (new, old))
    return _drop("coverage", shares[0], shares[1], settings.max_coverage_drop, detail, settings)


def accuracy_p_value(new: Any, old: Any, settings: Settings) -> float | None:
    """Of the new model being worse by more than is allowed; None where the two cannot be paired."""
    try:
        correct, before = _paired(new, old)
    except ValueError:
        return None
    return worse_p_value(before, correct, allowed=settings.max_accuracy_drop / 100)


def accuracy_check(new: Any, old: Any, level: float, settings: Settings) -> Check:
    """Accuracy on the test set, sample by sample; ``new``, ``old`` are rows of `predictions.correct_row`.

    A regression is a drop that is larger than allowed and, at ``level``, no accident of these samples.
    """
    try:
        correct, before = _paired(new, old)
    except ValueError as error:
        return _drop("accuracy", None, None, settings.max_accuracy_drop, str(error), settings)
    p_value = worse_p_value(before, correct, allowed=settings.max_accuracy_drop / 100)
    low, high = paired_drop_interval(before, correct)
    test = "Tango" if settings.max_accuracy_drop > 0 else "McNemar"
    lost, gained = int((before & ~correct).sum()), int((~before & correct).sum())
    detail = (
        f"{lost} samples lost and {gained} gained of {len(correct)}; drop {low:.2f} to {high:.2f} points (95 %),"
        f" {test} p = {p_value:.2g}"
    )
    row = _drop("accuracy", correct.mean(), before.mean(), settings.max_accuracy_drop, detail, settings)
    accident = p_value > level
    verdict = "pass" if accident else row.verdict
    found = {"p_value": p_value, "level": level, "verdict": verdict, "interval": (-high, -low)}
    return row.model_copy(update=found)


def _paired(new: Any, old: Any) -> tuple[np.ndarray, np.ndarray]:
    """Of each side, which samples it gets right.

    Raises:
        ValueError: why the two cannot be paired.
    """
    sides = {"new": new, "old": old}
    missing = [name for name, one in sides.items() if one is None]
    if missing:
        named = " and the ".join(missing)
        raise ValueError(f"the {named} bundle does not tell which test samples its model gets right")
    found = {}
    for name, one in sides.items():
        try:
            found[name] = read_correct(one)
        except ValueError as error:
            raise ValueError(f"which samples the {name} model gets right cannot be read: {error}") from error
    if not same_samples(new, old):
        raise ValueError("the bundles were measured on different test samples")
    return found["new"], found["old"]


def _coverage(name: str, row: Any) -> float:
    """The share of a side.

    Raises:
        ValueError: why there is none.
    """
    if row is None:
        raise ValueError(f"the {name} bundle does not carry the coverage of the file that runs here")
    counts: list[Any] = [row.get(key) if isinstance(row, Mapping) else None for key in ("integer", "compute")]
    if not all(isinstance(one, int) and not isinstance(one, bool) for one in counts) or not 0 <= counts[0] <= counts[1]:
        raise ValueError(f"the {name} bundle's coverage does not tell how many of how many layers: {row!r:.80}")
    if not counts[1]:
        raise ValueError(f"the {name} bundle's file has no layer that computes")
    return float(counts[0] / counts[1])


def _growth(
    name: CheckName,
    new: float | None,
    old: float | None,
    unit: str,
    tolerance: float,
    detail: str,
    settings: Settings,
) -> Check:
    change = new / old - 1 if new is not None and old else None
    worse = change is not None and change > tolerance + _LAST_BIT
    return _row(name, new, old, unit, change, "share", worse, tolerance, detail, settings)


def _drop(
    name: CheckName, new: float | None, old: float | None, tolerance: float, detail: str, settings: Settings
) -> Check:
    """``new`` and ``old`` in [0, 1]; the change in points."""
    change = 100 * (new - old) if new is not None and old is not None else None
    worse = change is not None and change < -tolerance - _LAST_BIT
    return _row(name, new, old, "share", change, "points", worse, tolerance, detail, settings)


def _row(
    name: CheckName,
    new: float | None,
    old: float | None,
    unit: str,
    change: float | None,
    change_unit: Literal["share", "points"],
    worse: bool,
    tolerance: float,
    detail: str,
    settings: Settings,
) -> Check:
    return Check(
        name=name,
        verdict="not comparable" if change is None else "regression" if worse else "pass",
        gates=name in settings.gates,
        new=new,
        old=old,
        unit=unit,
        change=change,
        change_unit=change_unit,
        interval=None,
        tolerance=tolerance,
        p_value=None,
        level=None,
        detail=detail,
    )
