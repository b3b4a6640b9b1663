"""Which entry of the measurements each figure comes from: the newest that measured it on the target, else the build's.

A figure never travels without its `Source`; what was not taken on the target says so wherever it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekd.report.reading import flag, items, mapping, number, pair, rows, text
from edgekd.report.wording import joined

# The flags that tell how fast integer kernels are; a machine's list has the best of them last.
INTEGER_FLAGS = ("amx_int8", "avx512_vnni", "avx_vnni", "asimddp", "i8mm")


@dataclass(frozen=True)
class Source:
    """Where a figure comes from; ``candidate`` is the model that was measured where it is not the one that ships."""

    machine: str
    runtime: str
    date: str
    on_target: bool
    candidate: str = ""

    def words(self) -> str:
        """Machine and runtime in one line, with a warning where the machine is not the target."""
        model = f"candidate {self.candidate}" if self.candidate else ""
        place = joined(self.machine or "an unknown machine", self.runtime, model)
        return place if self.on_target else f"not the target: {place}"


class Evidence:
    """A bundle's two JSON files, read with care: nothing in them is trusted to be there."""

    def __init__(self, manifest: Any, measurements: Any) -> None:
        self.manifest = mapping(manifest)
        self.entries = rows(mapping(measurements).get("entries"))
        builds = [entry for entry in self.entries if entry.get("source") == "build"]
        self.build = (builds or self.entries or [{}])[0]
        self.backend = text(self.manifest.get("backend"))
        self.target = mapping(self.manifest.get("target"))
        self.target_name = text(self.target.get("name")) or text(self.build.get("target")) or "the target"

    def find(self, *keys: str) -> tuple[Any, Source]:
        """The value at a path of keys, from the newest entry that has it on the target, else the build's."""
        for entry in reversed(self.entries):
            if entry.get("on_target") is True and (value := _at(entry, keys)) is not None:
                return value, self.source(entry)
        return _at(self.build, keys), self.source(self.build)

    def found(self, *keys: str) -> Any:
        """The value alone."""
        return self.find(*keys)[0]

    def source(self, entry: dict[str, Any]) -> Source:
        """Where an entry's figures come from."""
        latency = mapping(entry.get("latency_ms"))
        name = text(latency.get("machine")) or machine_name(entry.get("machine"))
        runtime = text(latency.get("runtime")) or self._runtime(entry)
        candidate = text(mapping(entry.get("model")).get("candidate"))
        other = candidate if candidate != self.ships else ""
        return Source(name, runtime, day(entry.get("date")), entry.get("on_target") is True, other)

    def _runtime(self, entry: dict[str, Any]) -> str:
        """The backend, and its version where the entry is the build's own."""
        version = text(mapping(self.manifest.get("versions")).get(self.backend)) if entry is self.build else ""
        return f"{self.backend} {version}".strip() if version != "absent" else self.backend

    @property
    def measured(self) -> Source | None:
        """The newest measurement on the target that holds a latency, or a compiled accuracy; None without."""
        for keys in (("latency_ms", "p50"), ("accuracy", "compiled")):
            value, source = self.find(*keys)
            if number(value) is not None and source.on_target:
                return source
        return None

    @property
    def why_not(self) -> str:
        """Why there is no figure of the target, as the newest entry tells it."""
        told = [text(entry.get("not_measured")) for entry in reversed(self.entries)]
        fallback = "no entry of the measurements was taken on it" if self.entries else "there are no measurements"
        return next((why for why in told if why), fallback)

    @property
    def ships(self) -> str:
        """The candidate that the bundle ships as its first choice."""
        return text(self.manifest.get("chosen"))

    @property
    def chosen_on_device(self) -> str:
        """Another candidate than `ships` that finalize chose on the target; empty where it agreed or did not run."""
        for entry in reversed(self.entries):
            if entry.get("source") == "finalize" and entry.get("on_target") is True:
                found = text(mapping(entry.get("model")).get("candidate"))
                if found:
                    return found if found != self.ships else ""
        return ""

    @property
    def accuracy(self) -> tuple[dict[str, Any], Source]:
        """The build's accuracies with the compiled model's newer figures laid over; source is the compiled one's."""
        _, source = self.find("accuracy", "compiled")
        base = mapping(self.build.get("accuracy"))
        for entry in reversed(self.entries):
            over = mapping(entry.get("accuracy"))
            if entry.get("on_target") is True and number(over.get("compiled")) is not None:
                own = {key: value for key, value in base.items() if key in BUILD_KEYS}
                return own | {key: value for key, value in over.items() if value is not None}, source
        return base, source

    @property
    def candidates(self) -> tuple[list[dict[str, Any]], Source, str]:
        """The candidates as the newest choice on the target saw them (else the build's), its source, and why."""
        for entry in [*reversed([one for one in self.entries if one.get("on_target") is True]), self.build]:
            found = rows(entry.get("candidates"))
            if found:
                why = text(mapping(entry.get("choice")).get("why"), 600)
                return found, self.source(entry), why or text(mapping(self.manifest.get("choice")).get("why"), 600)
        listed = [
            row | {"chosen": text(row.get("name")) == self.ships, "integer": _integer(row)}
            for row in rows(self.manifest.get("candidates"))
        ]
        return listed, self.source(self.build), text(mapping(self.manifest.get("choice")).get("why"), 600)

    @property
    def size_bytes(self) -> float | None:
        """Bytes of the shipped candidate's compiled file."""
        for row in rows(self.manifest.get("candidates")):
            if row.get("name") == self.manifest.get("chosen") and number(row.get("size_bytes")) is not None:
                return number(row.get("size_bytes"))
        return number(self.found("size_bytes"))

    @property
    def speedup(self) -> tuple[float | None, tuple[float, float] | None, Source]:
        """How many times as fast as float, with its interval, from the comparison of process pairs."""
        compared, source = self.find("comparison")
        ratio, bounds = number(mapping(compared).get("ratio")), pair(mapping(compared).get("interval"))
        if ratio is not None and ratio > 0:
            inverse = pair([1 / bounds[1], 1 / bounds[0]]) if bounds and min(bounds) > 0 else None
            return number(1 / ratio), inverse, source
        value, source = self.find("speedup_over_float")
        return number(value), None, source


# What only the build knows of the accuracy; all else belongs to the model that was measured.
BUILD_KEYS = ("teacher", "student", "master", "metric", "samples", "parameters")


def machine_name(value: Any) -> str:
    """A described machine in one line."""
    machine = mapping(value)
    cores = number(machine.get("usable_cores")) or number(machine.get("cores"))
    best = [text(one) for one in items(machine.get("isa")) if one in INTEGER_FLAGS]
    if machine.get("arch") == "x86_64" and not best:
        best = ["no VNNI"]
    return joined(
        text(machine.get("board")) or text(machine.get("cpu")),
        f"{cores:.0f} cores" if cores else "",
        *best[-1:],
        text(machine.get("gpu")),
    )


def day(value: Any) -> str:
    """An ISO date and time as date, hour and minute."""
    whole = text(value, 40)
    zone = " UTC" if whole.endswith(("+00:00", "Z")) else ""
    return whole.replace("T", " ")[:16] + zone


def _at(value: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        value = mapping(value).get(key)
    return value


def _integer(row: dict[str, Any]) -> bool | None:
    groups = mapping(row.get("form")).get("float_groups")
    return "all" not in groups if isinstance(groups, list) else flag(row.get("integer"))
