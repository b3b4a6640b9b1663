"""The latency part of a gate's document, from what was measured live or from what bundles carry."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekd import gate_result as document
from edgekd.runtime.compare import Pair
from edgekd.runtime.gate import Failure, GateRun
from edgekd.runtime.need import aa_half_width, pairs_needed
from edgekd.runtime.sequential import Look

# Nanoseconds are what clocks tell; block medians have halves of them.
_DIGITS = 7


def paired_latency(run: GateRun) -> document.Latency:
    """What a live comparison found."""
    medians = np.median([pair.median_ms for pair in run.pairs], axis=0) if run.pairs else None
    last = run.decision.looks[-1] if run.decision.looks else None
    failed = run.failure is not None
    verdict: document.Verdict = "error" if failed else (run.decision.verdict or "inconclusive")
    need = None
    if verdict == "inconclusive":
        need = _need(run, last.mean - run.plan.limit if last else 0.0)
    found = document.Latency(
        method="paired",
        verdict=verdict,
        why="",
        ratio=math.exp(last.mean) if last else None,
        interval=_interval(last) if last else None,
        new_median_ms=float(medians[0]) if medians is not None else None,
        old_median_ms=float(medians[1]) if medians is not None else None,
        level=run.plan.error,
        planned_looks=list(run.plan.looks),
        looks=[_look(look, run.plan.share) for look in run.decision.looks],
        pairs=[_pair(pair, seconds) for pair, seconds in zip(run.pairs, run.seconds, strict=True)],
        self_width=_self_width(run),
        need=need,
        overhead=_overhead(run),
        failure=_failure(run.failure) if run.failure else None,
        stored=None,
    )
    return found.model_copy(update={"why": _why(found, run.plan.tolerance)})


def unpaired_latency(new: Mapping[str, Any], old: Mapping[str, Any], level: float) -> document.Latency:
    """Stored figures beside each other. They decide nothing: see ``why``.

    ``new`` and ``old`` are entries of measurements.json with a ``latency_ms`` that has its raw samples.
    """
    medians = [float(np.median(one["latency_ms"]["samples_ns"])) / 1e6 for one in (new, old)]
    stored = {
        side: {
            "machine": one["latency_ms"].get("machine"),
            "runtime": one["latency_ms"].get("runtime"),
            "date": one.get("date"),
            "runs": len(one["latency_ms"]["samples_ns"]),
        }
        for side, one in (("new", new), ("old", old))
    }
    differing = [key for key in ("machine", "runtime") if stored["new"][key] != stored["old"][key]]
    told = f" and the {' and the '.join(differing)} differ" if differing else ""
    return document.Latency(
        method="unpaired",
        verdict="inconclusive",
        why=(
            f"{_percent(medians[0] / medians[1] - 1)} by samples that were stored at other times{told}: one process"
            " of each was seen, and processes of the same model differ by percents, so this decides nothing"
        ),
        ratio=medians[0] / medians[1],
        interval=None,
        new_median_ms=medians[0],
        old_median_ms=medians[1],
        level=level,
        planned_looks=[],
        looks=[],
        pairs=[],
        self_width=None,
        need=None,
        overhead=None,
        failure=None,
        stored=stored,
    )


def _why(found: document.Latency, tolerance: float) -> str:
    if found.failure is not None:
        return f"the {found.failure.side} model failed after {_pairs(len(found.pairs))}: {found.failure.what}"
    if found.ratio is None or found.interval is None:
        need = f", about {found.need.seconds:.0f} s" if found.need else ""
        count = len(found.pairs)
        return f"the time budget had room for {_pairs(count)}, and a verdict needs {found.planned_looks[0]}{need}"
    low, high = (_percent(end - 1) for end in found.interval)
    told = f"{_percent(found.ratio - 1)} ({low} to {high}) after {_pairs(len(found.pairs))}"
    allowed = f"the {_percent(tolerance)} that are allowed"
    if found.verdict == "regression":
        return f"{told}: more than {allowed}"
    if found.verdict == "pass":
        return f"{told}: less than {allowed}"
    if len(found.pairs) < found.planned_looks[0]:
        reason = f"a verdict needs {found.planned_looks[0]} pairs, and the time budget had room for fewer"
    else:
        reason = f"the interval holds {allowed}"
    more = f"; about {found.need.pairs} pairs ({found.need.seconds:.0f} s) would decide" if found.need else ""
    return f"{told}: {reason}{more}"


def _interval(look: Look) -> tuple[float, float]:
    # A t of one degree of freedom may reach beyond what numbers hold.
    low, high = (math.exp(min(max(end, -700.0), 700.0)) for end in (look.low, look.high))
    return low, high


def _look(look: Look, share: float) -> document.Look:
    return document.Look(
        pairs=look.pairs, ratio=math.exp(look.mean), interval=_interval(look), error=share, verdict=look.verdict
    )


def _pair(pair: Pair, seconds: float) -> document.Pair:
    assert pair.sides is not None
    sides = [
        document.PairSide(
            blocks_ms=[round(block[index] / 1e6, _DIGITS) for block in pair.blocks_ns],
            peak_mb=side.peak_bytes / 1e6 if side.peak_bytes else None,
            steady=side.steady,
            witnesses=document.Witnesses(**side.witnesses.to_json()),
        )
        for index, side in enumerate(pair.sides)
    ]
    return document.Pair(log_ratio=pair.log_ratio, seconds=round(seconds, 3), new=sides[0], old=sides[1])


def _failure(failure: Failure) -> document.Failure:
    blocks = [(round(new / 1e6, _DIGITS), round(old / 1e6, _DIGITS)) for new, old in failure.blocks_ns]
    return document.Failure(side=failure.side, model=failure.label, what=failure.what, blocks_ms=blocks)


def _self_width(run: GateRun) -> document.SelfWidth | None:
    if len(run.pairs) < 2:
        return None
    half, limit = aa_half_width(run.log_ratios, run.plan), run.plan.limit
    too_wide = half >= limit
    return document.SelfWidth(
        pairs=len(run.pairs),
        half_width=math.expm1(min(half, 700.0)),
        too_wide=too_wide,
        need=_need(run, max(limit, 0.0)) if too_wide else None,
    )


def _need(run: GateRun, distance: float) -> document.Need | None:
    if len(run.pairs) < 2:  # how far they spread is not known
        pairs: int | None = run.plan.looks[0] if run.pairs else None
    else:
        pairs = pairs_needed(run.log_ratios, run.plan.error, distance)
    return document.Need(pairs=pairs, seconds=pairs * float(np.median(run.seconds))) if pairs else None


def _overhead(run: GateRun) -> document.Overhead | None:
    sides = [side for pair in run.pairs for side in pair.sides or ()]
    if not sides:
        return None
    ns = float(np.median([side.overhead_ns for side in sides]))
    fastest = min(float(np.median([pair.median_ms[index] for pair in run.pairs])) for index in (0, 1))
    return document.Overhead(ns=ns, share=ns / (1e6 * fastest))


def _pairs(count: int) -> str:
    return f"{count} pair{'' if count == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:+.2f} %" if abs(share) < 10 else f"x {1 + share:.3g}"
