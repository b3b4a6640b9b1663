"""What a bundle is measured for: scenarios after MLPerf Inference, and what they may use of the machine.

Source: mlcommons/inference_policies, inference_rules.adoc, "Scenarios". The standard library only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .machine import allowed_cores, usable_cpus
from .sessions import SessionError

Scenario = Literal["single-stream", "offline", "multi-stream"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)
# MLPerf's multi-stream query has 8 samples.
STREAMS = 8
BATCHES = (1, 8, 32)
MOST_SAMPLES, MOST_CORES = 4096, 4096


@dataclass(frozen=True)
class Settings:
    """How to measure one bundle alone.

    ``single-stream``: one sample after the other; ``offline``: as many samples as possible, in batches of each of
    ``batch_sizes``; ``multi-stream``: queries of ``streams`` samples, the next one when the last sample is done.
    ``threads`` of the whole process (None: the target's); ``cores`` pins it (None: the target's, or not at all).
    ``seconds`` of timed runs, in all.
    """

    scenario: Scenario = "single-stream"
    seconds: float = 5.0
    batch_sizes: tuple[int, ...] = ()
    streams: int | None = None
    threads: int | None = None
    cores: tuple[int, ...] | None = None

    def check(self) -> None:
        """Refuse what does not belong together or is not there.

        Raises:
            SessionError: says which option, and what would do.
        """
        if self.scenario not in SCENARIOS:
            raise SessionError(f"unknown scenario {self.scenario!r}: known are {', '.join(SCENARIOS)}")
        if self.batch_sizes and self.scenario != "offline":
            raise SessionError(f"batch sizes belong to the scenario offline; {self.scenario} runs single samples")
        if self.streams is not None and self.scenario != "multi-stream":
            raise SessionError(f"streams belong to the scenario multi-stream; {self.scenario} has one")
        for name, values in (("batch size", self.batch_sizes), ("number of streams", (self.streams or 1,))):
            wrong = [value for value in values if not 1 <= value <= MOST_SAMPLES]
            if wrong:
                raise SessionError(f"a {name} of {wrong[0]} is not between 1 and {MOST_SAMPLES}")
        if self.threads is not None and self.threads < 1:
            raise SessionError(f"threads is {self.threads}, must be at least 1")
        check_cores(self.cores)


def check_cores(cores: Collection[int] | None) -> None:
    """Refuse cores that do not exist or are not this process'; the kernel would leave them out without a word.

    Raises:
        SessionError: names the first of them, and those that there are.
    """
    if cores is None:
        return
    allowed = allowed_cores()
    there = f"this process may use {', '.join(map(str, allowed))}"
    if not cores:
        raise SessionError(f"no core is named to run on; {there}")
    for core in cores:
        if core not in allowed:
            raise SessionError(f"there is no core {core} to run on; {there}")


def parse_cores(text: str) -> tuple[int, ...]:
    """Core numbers written as ``0,1`` or ``0-3``, as taskset(1) takes them.

    Raises:
        SessionError: it is not such a list.
    """
    cores: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)) or int(last or first) < int(first):
            raise SessionError(f"{text!r} is no list of cores such as 0,1 or 0-3")
        cores += range(int(first), min(int(last or first), int(first) + MOST_CORES) + 1)
    return tuple(dict.fromkeys(cores))


def threads_here(wanted: int, cores: Sequence[int] | None) -> int:
    """How many of the wanted threads a process may use: never more than its cgroups' quota, or its cores."""
    return min(wanted, usable_cpus(), len(set(cores)) if cores else wanted)


def batches_of(manifest: Mapping[str, Any], wanted: Sequence[int]) -> tuple[int, ...]:
    """The batch sizes to measure: the wanted ones, or `BATCHES`; a model of a fixed batch has its own only.

    Raises:
        SessionError: a size that the model does not take.
    """
    shape = manifest["inputs"][0]["shape"]
    own = shape[0] if shape else None
    if not isinstance(own, int):
        return tuple(dict.fromkeys(wanted)) or BATCHES
    other = [size for size in wanted if size != own]
    if other:
        raise SessionError(
            f"a batch of {other[0]} cannot run: the model's batch is fixed at {own}; only one that was exported with a"
            " dynamic batch takes other sizes"
        )
    return (own,)
