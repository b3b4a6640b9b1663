"""How often the latency gate is wrong, and how often it finds a real slow-down: by really measured pairs.

    uv run python benchmarks/gate_rates.py --quick --json        # 15 minutes, idle machine only
    uv run python benchmarks/gate_rates.py                       # 300 pairs a condition and state, about 90 minutes
    uv run python benchmarks/gate_rates.py --live 20             # and 20 comparisons a row by the gate's own loop, live

A live comparison costs up to a minute, so pairs are measured once, exactly as the gate measures them, and kept; the
whole procedure (looks, trimming, time budget) is then run on random draws of them. Pairs of live comparisons are kept
too. A run that was stopped goes on from its file. States: idle, and with a busy process pinned to the last CPU.

Rows: A/A at tolerance 0 and a planted slow-down of exactly the tolerance (2 %), where an alarm is false; slow-downs of
about 5 % at tolerance 2 % and 3 % at tolerance 1 %, planted and natural (the chain of 19 layers with one more; with a
smaller kernel for 3 %). Where one is planted, both sides spin after each run, the slower one longer by just as much
that their totals differ by it. ``measured_ratio`` tells what they were.

Where an alarm is false, ``centred`` tells the rate of the same pairs, shifted together until their mean is exactly the
tolerance: pairs are a sample, and their mean is not quite what was planted.

Bounds are exact binomial ones, at 95 %, over the draws. Draws share the pool's pairs, so the bounds do not tell how
much another pool would differ; ``pool`` does: its trimmed mean with a 95 % interval, and ``windows``, the comparisons
of pairs in the very order they were measured in.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from gate_pairs import CONDITIONS, STATES, Collection, Condition, collect, collect_live, measure_overhead
from gate_replay import Outcome, lower95, random_draws, upper95, windows

from edgekd.pipeline.alone import measuring_alone
from edgekd.runtime.interval import trimmed_interval
from edgekd.runtime.sequential import LOOKS
from edgekd.stage import NoProgress

RESULTS = Path(__file__).parent / "results"
BUDGET_S, DRAWS, PAIRS = 60.0, 2000, 300
# Pairs that the first look takes: with fewer there is no verdict.
LEAST = LOOKS[0]
# Of the quick form: which rows, and how long to collect.
QUICK, QUICK_S = ("aa_tolerance_0", "at_tolerance", "planted_5", "natural"), 720.0
# Budgets that are tried to tell how long a comparison would have to be.
LONGER = (60.0, 120.0, 240.0, 480.0, 960.0)


def main() -> int:
    """Collect, replay and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of each condition in each state (0, and none live: "
                        "only report, also of another machine's file)")  # fmt: skip
    parser.add_argument("--states", nargs="+", choices=STATES, default=list(STATES))
    parser.add_argument(
        "--rows", nargs="+", choices=[one.name for one in CONDITIONS], metavar="ROW", help="some of them"
    )
    parser.add_argument("--live", type=int, default=0, metavar="N", help="whole comparisons a row")
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--quick", action="store_true", help="four rows on the idle machine, within 15 minutes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--file", type=Path, help=f"where pairs are kept (default {RESULTS.name}/gate_pairs.json, or a "
                        "temporary file with --quick)")  # fmt: skip
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        path = arguments.file or (folder / "pairs.json" if arguments.quick else RESULTS / "gate_pairs.json")
        adding = bool(arguments.pairs or arguments.live)
        collection = Collection(path, adding=adding)
        states = ["idle"] if arguments.quick else arguments.states
        rows = arguments.rows or (QUICK if arguments.quick else [one.name for one in CONDITIONS])
        conditions = [one for one in CONDITIONS if one.name in rows]
        if adding:
            with measuring_alone(_Waiting()):
                deadline = time.monotonic() + QUICK_S if arguments.quick else float("inf")
                # Live ones first: their pairs are the experiment's too.
                collect_live(collection, folder, states, conditions, arguments.live, budget_s=BUDGET_S, say=_say)
                collect(collection, folder, states, conditions, arguments.pairs, deadline=deadline, say=_say)
                if collection.value["overhead"] is None:
                    collection.value["overhead"] = measure_overhead(folder)
                    collection.save()
    found = {state: _state(collection, state, conditions, arguments.draws) for state in states}
    result = {
        **(found["idle"] if arguments.quick else found),
        "budget_seconds": BUDGET_S,
        "overhead": collection.value["overhead"],
        "machine": collection.value["machine_name"],
        "runtime": collection.value["runtime"],
    }
    if arguments.json:
        print(json.dumps(result, indent=1))
    else:
        for state, rows in found.items():
            _print(state, rows)
        print(f"overhead of the harness: {collection.value['overhead']}")
    lacking = [
        f"{name} ({state})"
        for state, rows in found.items()
        for name in (one.name for one in conditions)
        if rows[name] is None
    ]
    if lacking:
        _say(f"fewer than {LEAST} pairs, so no rate: {', '.join(lacking)}; run it again, it goes on from its --file")
    return 1 if lacking else 0


def _state(collection: Collection, state: str, conditions: list[Condition], draws: int) -> dict[str, Any]:
    """The rows of one state, and the median seconds of a comparison that was to find something."""
    rows: dict[str, Any] = {}
    seconds: list[float] = []
    for index, one in enumerate(conditions):
        pool = collection.rows("pairs", state, one.name)
        if len(pool) < LEAST:
            rows[one.name] = None
            continue
        rng = np.random.default_rng([index, STATES.index(state)])
        outcomes = random_draws(pool, one.tolerance, BUDGET_S, draws, rng)
        seconds += [outcome.seconds for outcome in outcomes] if one.wanted else []
        centred = None
        if one.wanted is None:
            shifted = _centred(pool, one)
            centred = _rate(one, random_draws(shifted, one.tolerance, BUDGET_S, draws, rng, replace=True))
        rows[one.name] = {
            **_rate(one, outcomes),
            "seconds_p50": float(np.median([outcome.seconds for outcome in outcomes])),
            "pool": _pool(pool),
            "centred": centred,
            "windows": _rate(one, windows(pool, one.tolerance, BUDGET_S)),
            "live": _live(one, collection.rows("live", state, one.name)),
            "needs_seconds": _needs(one, pool, draws, rng) if one.wanted else None,
        }
    return {**rows, "seconds_p50": float(np.median(seconds)) if seconds else None}


def _rate(one: Condition, outcomes: list[Outcome]) -> dict[str, Any]:
    """Alarms (or what was found) of how many runs, with its bound; None of none."""
    runs = len(outcomes)
    hits = sum(outcome.verdict == "regression" for outcome in outcomes)
    passed = sum(outcome.verdict == "pass" for outcome in outcomes)
    name, bound = ("alarms", "upper95") if one.wanted is None else ("found", "lower95")
    value = (upper95 if one.wanted is None else lower95)(hits, runs) if runs else None
    return {name: hits, "runs": runs, bound: value, "passed": passed}


def _pool(pool: list[list[Any]]) -> dict[str, Any]:
    """What the pairs are like: how many, the ratio they measure with its 95 % interval, and their spread."""
    logs = [row[0] for row in pool]
    mean, low, high = trimmed_interval(logs, error=0.05)
    quarter, three = np.percentile(logs, [25, 75])
    return {
        "pairs": len(pool),
        "measured_ratio": math.exp(mean),
        "interval": [math.exp(low), math.exp(high)],
        "spread": float(np.std(logs, ddof=1)),
        "robust_spread": float((three - quarter) / 1.349),
        "seconds_per_pair": float(np.median([row[1] for row in pool])),
        "model_ms": float(np.median([row[3] for row in pool])),
    }


def _centred(pool: list[list[Any]], one: Condition) -> list[list[Any]]:
    """The pairs with a mean of exactly the tolerance, their spread as measured."""
    excess = trimmed_interval([row[0] for row in pool], error=0.05)[0] - math.log1p(one.tolerance)
    return [[row[0] - excess, *row[1:]] for row in pool]


def _live(one: Condition, rows: list[list[Any]]) -> dict[str, Any] | None:
    if not rows:
        return None
    outcomes = [Outcome(row[0], row[1], row[2]) for row in rows]
    return {**_rate(one, outcomes), "seconds_p50": float(np.median([row[2] for row in rows]))}


def _needs(one: Condition, pool: list[list[Any]], draws: int, rng: np.random.Generator) -> float | None:
    """The shortest of `LONGER` budgets at which what is wanted is found; None: not even then."""
    for budget in LONGER:
        outcomes = random_draws(pool, one.tolerance, budget, max(200, draws // 4), rng)
        hits = sum(outcome.verdict == "regression" for outcome in outcomes)
        if one.wanted is not None and hits >= one.wanted * len(outcomes):
            return budget
    return None


def _print(state: str, rows: dict[str, Any]) -> None:
    print(
        f"\n{state}\n| row | measured ratio | regression | bound | centred | passed | median s | live | needs s |"
        f"\n{'|---' * 9}|"
    )
    for name, row in rows.items():
        if not isinstance(row, dict):
            continue
        hits, bound = (row.get("alarms", row.get("found")), row.get("upper95", row.get("lower95")))
        live, centred = row["live"], row["centred"]
        told = f"{live.get('alarms', live.get('found'))} of {live['runs']}" if live else "-"
        print(
            f"| {name} | {row['pool']['measured_ratio']:.4f} | {hits} of {row['runs']} | {bound:.4f}"
            f" | {centred['alarms'] if centred else '-'} | {row['passed']} | {row['seconds_p50']:.1f} | {told}"
            f" | {row['needs_seconds'] or '-'} |"
        )


class _Waiting(NoProgress):
    def log(self, text: str) -> None:
        _say(text)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
