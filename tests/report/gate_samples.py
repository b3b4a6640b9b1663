"""Documents of gates to report on: a real run, and what else may come out of one."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.gate_result import MOST_LOOKS, GateResult, Witnesses
from edgekd.measure.gate_checks import latency_check
from edgekd.measure.gate_verdict import exit_code_of, summary_of, verdict_of

START = datetime(2026, 1, 1, tzinfo=UTC)
EXAMPLE = Path(__file__).with_name("gate_example.json")
NOISE = {"pressure_share": 0.62, "involuntary_switches": 190.0, "steal_share": 0.04}


def real_run() -> GateResult:
    """Passed but for the file size, which is a regression."""
    return GateResult.model_validate(json.loads(EXAMPLE.read_text()))


def concluded(result: GateResult, *, policy: str = "fail", **verdicts: str) -> GateResult:
    """``result`` with other verdicts of its checks, and what the pipeline makes of them."""
    latency = verdicts.get("latency", result.latency.verdict)
    settings = result.settings.model_copy(update={"on_inconclusive": policy})
    result = with_latency(result, verdict=latency)
    rows = [latency_check(result.latency, settings), *result.checks[1:]]
    checks = [check.model_copy(update={"verdict": verdicts.get(check.name, check.verdict)}) for check in rows]
    verdict = verdict_of(result.latency, checks)
    return result.model_copy(
        update={
            "settings": settings,
            "checks": checks,
            "verdict": verdict,
            "exit_code": int(exit_code_of(verdict, settings)),
            "summary": summary_of(verdict, result.latency, checks, settings),
        }
    )


def with_latency(result: GateResult, **changes: Any) -> GateResult:
    """``result`` with another latency part."""
    return result.model_copy(update={"latency": result.latency.model_copy(update=changes)})


def passed() -> GateResult:
    return concluded(real_run(), size="pass")


def too_wide() -> GateResult:
    """Inconclusive on a machine that was too noisy for the tolerance."""
    told = real_run().to_json()
    told["latency"] |= {
        "interval": [0.96, 1.06],
        "why": "+1.04 % (-4.00 % to +6.00 %) after 48 pairs: the interval holds the +2.00 % that are allowed",
        "self_width": {"pairs": 48, "half_width": 0.049, "too_wide": True, "need": {"pairs": 310, "seconds": 372.4}},
        "need": {"pairs": 900, "seconds": 1080.0},
    }
    told["latency"]["looks"][-1]["verdict"] = None
    for pair in told["latency"]["pairs"]:
        for side in ("new", "old"):
            pair[side]["witnesses"] |= NOISE
    return concluded(GateResult.model_validate(told), latency="inconclusive", size="pass")


def failed() -> GateResult:
    """The new model crashed in the first pair."""
    failure = {"side": "new", "model": "digits", "what": "the process was killed by signal 11"}
    told = real_run().to_json()
    told["latency"] |= {
        **dict.fromkeys(("ratio", "interval", "new_median_ms", "old_median_ms", "self_width", "need", "overhead")),
        "looks": [],
        "pairs": [],
        "failure": failure,
        "why": f"the new model failed after 0 pairs: {failure['what']}",
    }
    told["checks"][1] |= {"new": None, "old": None, "change": None, "verdict": "not comparable"}
    return concluded(GateResult.model_validate(told), latency="error")


def unpaired() -> GateResult:
    """Stored samples of two machines."""
    told = real_run().to_json()
    side = {"machine": "Raspberry Pi 5", "runtime": "onnxruntime 1.30.0", "date": "2026-01-02T00:00:00Z", "runs": 5000}
    told["latency"] |= {
        **dict.fromkeys(("interval", "self_width", "need", "overhead")),
        "method": "unpaired",
        "looks": [],
        "pairs": [],
        "planned_looks": [],
        "stored": {"new": side, "old": side | {"machine": "a laptop"}},
    }
    for name in ("new", "old"):
        told[name]["opened"] = None
    return concluded(GateResult.model_validate(told), latency="inconclusive", memory="not comparable")


def silent() -> GateResult:
    """A machine that tells nothing of itself."""
    told = real_run().to_json()
    nothing = dict.fromkeys(Witnesses.model_fields)
    for pair in told["latency"]["pairs"]:
        for side in ("new", "old"):
            pair[side] |= {"witnesses": nothing, "peak_mb": None}
    return GateResult.model_validate(told | {"machine": {}, "machine_name": ""})


def run_on(day: int, *, slower: float = 1.0, baseline: str = "a" * 64, baseline_slower: float = 1.0, **more: Any):
    """The real run on another day, with every time of the new side multiplied; a noise of 0.5 % by the day."""
    noise = math.exp(0.005 * np.random.default_rng(day).normal())
    told = real_run().to_json()
    latency = told["latency"]
    factor = slower * noise
    latency["new_median_ms"] *= factor
    latency["ratio"] *= factor / baseline_slower
    latency["interval"] = [end * factor / baseline_slower for end in latency["interval"]]
    for pair in latency["pairs"]:
        pair["new"]["blocks_ms"] = [value * factor for value in pair["new"]["blocks_ms"]]
    told["old"]["identity"] = baseline
    told["new"]["identity"] = f"{day:064d}"
    told["date"] = (START + timedelta(days=day)).isoformat()
    for key, value in more.items():
        place, _, last = key.rpartition("__")
        inner = told
        for part in place.split("__") if place else []:
            inner = inner[part]
        inner[last] = value
    return GateResult.model_validate(told)


SAMPLES = {
    "real": real_run,
    "passed": passed,
    "too wide": too_wide,
    "failed": failed,
    "unpaired": unpaired,
    "silent": silent,
}
HOSTILE = "<script>alert(1)</script>-->|`[x](javascript:1) @everyone ![i](http://x.y/z)\u202e\x1b[31m\x00\ufffe\n# h"


def poisoned(result: GateResult) -> GateResult:
    """Every text that a user may have chosen, followed by markup."""
    told = result.to_json()
    for side in ("new", "old"):
        for key in ("path", "identity", "name", "target", "backend", "precision", "candidate", "file", "sha256"):
            told[side][key] += HOSTILE
        told[side]["versions"] = {
            f"{name}{HOSTILE}": f"{value}{HOSTILE}" for name, value in told[side]["versions"].items()
        } | {"onnxruntime": f"1.2{HOSTILE}"}
        if told[side]["opened"]:
            told[side]["opened"] |= {"version": HOSTILE, "runtime": HOSTILE}
        if told["latency"]["stored"]:
            told["latency"]["stored"][side]["machine"] = HOSTILE
    for check in told["checks"]:
        check["detail"] += HOSTILE
    if told["latency"]["failure"]:
        told["latency"]["failure"]["what"] = HOSTILE
    told["machine"] |= {"cpu": HOSTILE, "board": HOSTILE}
    return GateResult.model_validate(
        told | {"machine_name": HOSTILE, "summary": told["summary"] + HOSTILE, "date": HOSTILE, "edgekd": HOSTILE}
    )


def fullest(character: str) -> GateResult:
    """As much as a document may hold, every text of one character alone, and numbers with many digits."""
    long, many = character * 2000, 2**53 - 1
    texts = ("path", "identity", "name", "target", "backend", "precision", "candidate", "file", "sha256")
    told = real_run().to_json()
    latency = told["latency"]
    for side in ("new", "old"):
        told[side] |= dict.fromkeys(texts, long) | {"chosen_by": "device", "size_bytes": many}
        told[side]["versions"] = {f"{i}{long}": long for i in range(500)} | {"onnxruntime": f"{side}{long}"}
        told[side]["opened"] = {"runtime": long, "version": long, "inference_precision": long, "threads": many}
    stored = dict.fromkeys(("machine", "runtime", "date", "runs"), long)
    witnesses = dict.fromkeys(Witnesses.model_fields, 123456789012.3456) | {"throttled": many}
    pairs = [json.loads(json.dumps(pair)) for pair in latency["pairs"]]
    for index, pair in enumerate(pairs):
        for side in ("new", "old"):
            pair[side]["witnesses"] = witnesses | {"cpu_share": 1e300 / (index + 1), "mhz": 1e300 / (index + 1)}
    look = latency["looks"][0] | {"pairs": many, "ratio": 5.4321, "interval": [1e-300, 10.98765]}
    latency |= {
        "looks": [look] * MOST_LOOKS,
        "pairs": [pairs[i % len(pairs)] | {"log_ratio": 0.01 * math.sin(i)} for i in range(3000)],
        "self_width": {"pairs": many, "half_width": 1e300, "too_wide": True, "need": {"pairs": many, "seconds": 1e300}},
        "stored": {"new": stored, "old": stored},
        "interval": [1e-300, 1e300],
        "new_median_ms": 1e300,
        "old_median_ms": 1e300,
    }
    for check in told["checks"]:
        check |= {"detail": long, "change": -1e300, "interval": [-1e300, 1e300], "new": 1e300, "old": 1e300}
    keys = ("cpu", "board", "arch", "gpu", "gpu_driver", "kernel", "governor")
    numbers = dict.fromkeys(("cores", "usable_cores", "cpu_quota", "memory_mb"), 1e290)
    told["machine"] = dict.fromkeys(keys, long) | numbers | {"isa": [f"{i}{long[:300]}" for i in range(2000)]}
    return GateResult.model_validate(
        told | {"machine_name": long, "summary": long, "date": long, "edgekd": long, "seconds": 1e300}
    )
