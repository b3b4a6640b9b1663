"""The document of a gate: all that was compared and found, from which every report is made.

Its JSON schema is `gate.schema.json` beside this file, written by ``python -m edgekd.gate_result``. Times are in
milliseconds or seconds as the names say, ratios are new over old, and what was not measured is null.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

KIND: Literal["edgekd-gate"] = "edgekd-gate"
SCHEMA: Literal[1] = 1
SCHEMA_FILE = Path(__file__).with_name("gate.schema.json")

CheckName = Literal["latency", "memory", "size", "accuracy", "coverage"]
Policy = Literal["fail", "pass", "warn"]
Verdict = Literal["pass", "regression", "inconclusive", "error"]
Interval = tuple[float, float]
# A latency, or a ratio of two: reports take logarithms of them.
Positive = Annotated[float, Field(gt=0)]
RatioInterval = tuple[Positive, Positive]
# What every reader of JSON holds exactly.
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
# A day of measuring plans about 28 looks.
MOST_LOOKS = 60


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Side(_Part):
    """One bundle, and the file of it that ran."""

    path: str = Field(description="The folder as it was given.")
    identity: str = Field(description="SHA-256 of its manifest.json.")
    name: str
    target: str
    backend: str
    precision: str
    candidate: str = Field(description="The candidate that runs here.")
    chosen_by: str = Field(description='"build", or "device" where its finalize step chose.')
    file: str = Field(description="The file that is loaded, relative to the bundle.")
    sha256: str = Field(description="Of that file.")
    size_bytes: Count
    runtime_requirement: str
    versions: dict[str, str | None] = Field(description="Of the packages that built it.")
    data_fingerprint: str
    opened: dict[str, Any] | None = Field(
        description="runtime, version, inference_precision and threads as the timed process opened it; null: not timed."
    )


class Settings(_Part):
    """What was asked for; the tolerances are shares, but for accuracy and coverage, which are points."""

    tolerance: float = Field(description="0.05 allows a latency ratio of 1.05.")
    error: float = Field(description="The chance of a wrong verdict that all gating tests together may have.")
    budget_seconds: float
    seconds_per_pair: float = Field(description="Of timed blocks; a pair's processes start and warm up besides.")
    seed: Count
    on_inconclusive: Policy
    allow_unpaired: bool
    gates: list[CheckName] = Field(
        min_length=1, max_length=5, description="Checks that decide the verdict; the others are shown."
    )
    max_memory_growth: float
    max_size_growth: float
    max_accuracy_drop: float
    max_coverage_drop: float


class Look(_Part):
    """The first ``pairs`` pairs. Each end of the interval is wrong with chance ``error``."""

    pairs: Count
    ratio: Positive
    interval: RatioInterval
    error: float
    verdict: Literal["pass", "regression"] | None = Field(description="null: nothing is decided by it.")


class Witnesses(_Part):
    """What else happened while one process was timed (docs/bench.md); shown, never part of a verdict."""

    cpu_share: float | None
    involuntary_switches: float | None = Field(description="A second.")
    steal_share: float | None
    pressure_share: float | None
    mhz: float | None
    throttled: Count | None
    instructions: float | None = Field(description="In user space, a run.")


class PairSide(_Part):
    """One process of a pair."""

    blocks_ms: list[float] = Field(description="Medians of its blocks; the n-th stands beside the other side's n-th.")
    peak_mb: float | None = Field(description="Peak resident set of the whole process.")
    steady: bool | None = Field(default=None, description="Whether its speed was, when the warm-up ended.")
    witnesses: Witnesses


class Pair(_Part):
    """One pair of fresh processes; the median over blocks of the log ratio new/old is its value."""

    log_ratio: float
    seconds: float
    new: PairSide
    old: PairSide


class Need(_Part):
    """How many pairs as noisy as these decide 9 times of 10, and how long they take."""

    pairs: Count
    seconds: float


class SelfWidth(_Part):
    """The interval that a model would have against itself with as many pairs, from how these spread.

    ``too_wide``: a model as fast as the old one could not have passed at this tolerance; ``need`` is what it takes then
    (null where nothing does: at tolerance 0 no number of pairs tells equal from slower).
    """

    pairs: Count
    half_width: float = Field(description="As a share: 0.01 is one percent to either side.")
    too_wide: bool
    need: Need | None


class Overhead(_Part):
    """What the timing loop itself adds to a run; it is in both sides' figures and not taken off."""

    ns: float
    share: float = Field(description="Of the faster side's median.")


class Failure(_Part):
    """A model that crashed, hung or changed its answers in the middle."""

    side: Literal["new", "old"]
    model: str
    what: str
    blocks_ms: list[tuple[float, float]] = Field(
        default=[], description="Medians (new, old) of the rounds that were measured of the pair in which it failed."
    )


class Latency(_Part):
    """The comparison of latencies. Where it is unpaired, only ratio and medians stand here, and nothing is decided."""

    method: Literal["paired", "unpaired"]
    verdict: Verdict
    why: str
    ratio: Positive | None
    interval: RatioInterval | None = Field(description="Of the last look.")
    new_median_ms: Positive | None
    old_median_ms: Positive | None
    level: float = Field(description="The error of this test after Holm's correction.")
    planned_looks: list[Count] = Field(max_length=MOST_LOOKS)
    looks: list[Look] = Field(max_length=MOST_LOOKS)
    pairs: list[Pair]
    self_width: SelfWidth | None
    need: Need | None = Field(description="Inconclusive: what it takes if the true ratio is the one found.")
    overhead: Overhead | None
    failure: Failure | None
    stored: dict[str, dict[str, Any]] | None = Field(
        description="Unpaired: of each side the machine, runtime, date and number of the samples that it carries."
    )


class Check(_Part):
    """One row of the table. ``change`` is what is held against ``tolerance``: a share, or points (``unit`` says)."""

    name: CheckName
    verdict: Verdict | Literal["not comparable"]
    gates: bool
    new: float | None
    old: float | None
    unit: str
    change: float | None
    change_unit: Literal["share", "points"]
    interval: Interval | None = Field(
        description="Of the change, in its unit: of latency that of the last look, of accuracy 95 %; null: no test."
    )
    tolerance: float
    p_value: float | None = Field(
        description="Of the exact McNemar test; with an allowance the larger of its and Tango's score test's, which is"
        " asymptotic; null where there is none."
    )
    level: float | None = Field(description="What the p-value is held against, after Holm's correction.")
    detail: str


class GateResult(_Part):
    """A whole comparison of two bundles."""

    kind: Literal["edgekd-gate"] = KIND
    schema_version: Literal[1] = SCHEMA
    edgekd: str = Field(description="The version that measured.")
    date: str = Field(description="Of its start, UTC, ISO 8601.")
    seconds: float = Field(description="All of it, start to end.")
    machine: dict[str, Any]
    machine_name: str
    new: Side
    old: Side
    settings: Settings
    latency: Latency
    checks: list[Check] = Field(
        min_length=5, max_length=5, description="latency, memory, size, accuracy, coverage, in this order."
    )
    verdict: Verdict
    exit_code: Count
    summary: str = Field(description="The verdict in one sentence.")

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return self.model_dump(mode="json")


def compared_nothing(checks: Sequence[Check]) -> bool:
    """Whether no check that gates had two figures to compare."""
    return all(check.verdict == "not comparable" for check in checks if check.gates)


def schema_text() -> str:
    """The schema as the committed file has it."""
    found = GateResult.model_json_schema(mode="serialization")
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **found}, indent=1) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
