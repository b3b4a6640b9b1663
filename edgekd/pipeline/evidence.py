"""What bundles carry of earlier measurements, as a gate compares it: that file is unsigned, its values are checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekd.gate_result import Check
from edgekd.runtime.machine import key_of

# Beyond these no clock and no machine tells: nanoseconds of a run (up to twelve days), MB of memory.
TIMES, MEMORY = (1, 1e15), (1e-3, 1e9)


@dataclass(frozen=True)
class Figure:
    """What an entry tells, unchecked, and the machine it was measured on; None: no entry tells it."""

    value: Any = None
    machine: Any = None


def newest(entries: Sequence[dict[str, Any]], sha256: str, wanted: Callable[[dict[str, Any]], Any]) -> Figure:
    """What ``wanted`` finds in the newest entry that has it, of those about the file with that digest."""
    for entry in reversed(entries):
        model = entry.get("model")
        if isinstance(model, dict) and model.get("sha256") == sha256:
            try:
                found = wanted(entry)
            except (KeyError, TypeError):
                continue
            if found:
                return Figure(found, entry.get("machine"))
    return Figure()


def is_samples(value: Any) -> bool:
    """Whether this is a list of times in nanoseconds."""
    return isinstance(value, list) and bool(value) and all(_within(one, TIMES) for one in value)


def stored_memory(new: Mapping[str, Any], old: Mapping[str, Any]) -> tuple[list[float | None], str]:
    """Peak memory in MB that two entries carry, None where it cannot be compared, and what is to be told of it."""
    if not _same_machine(new.get("machine"), old.get("machine")):
        return [None, None], "stored figures of different machines"
    found = [entry.get("peak_memory_mb") for entry in (new, old)]
    if not all(_within(one, MEMORY) for one in found):
        return [None, None], "a bundle does not carry its peak memory in MB"
    return found, "as stored"


def told_of_machines(check: Check, new: Figure, old: Figure) -> Check:
    """``check`` with a word in its detail where the two figures come of different machines.

    A model may saturate where there is no VNNI, and kernels differ, so that the machine can be what changed.
    """
    if check.verdict == "not comparable" or _same_machine(new.machine, old.machine):
        return check
    return check.model_copy(update={"detail": f"{check.detail}; measured on different machines"})


def _same_machine(one: Any, other: Any) -> bool:
    """A machine that is not told is never the same."""
    known = isinstance(one, dict) and isinstance(other, dict) and bool(one)
    return known and key_of(one) == key_of(other)


def _within(value: Any, ends: tuple[float, float]) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and ends[0] <= value <= ends[1]
