"""Which entry of the measurements each figure comes from: the newest that measured it on the target, else the build's.

Latency leads: what stands beside it comes from the same machine and the same model file, so that figures of two
machines or two models never read as one. No figure travels without its `Source`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from edgekd.report.reading import flag, items, mapping, number, pair, rows, text
from edgekd.report.wording import joined
from edgekd.runtime.machine import INTEGER_FLAGS

# What only the build knows of the accuracy; all else belongs to the model that was measured.
BUILD_KEYS = ("teacher", "student", "master", "metric", "samples", "parameters")

Entry = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """Where a figure comes from; ``candidate`` is the model that was measured, where it could be taken for another."""

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
    """A bundle's two JSON files, read with care: nothing in them is trusted to be there.

    ``build``: the build's entry; ``lead``: the newest on the target with a latency, empty where there is none.
    """

    def __init__(self, manifest: Any, measurements: Any) -> None:
        self.manifest = mapping(manifest)
        self.entries = rows(mapping(measurements).get("entries"))
        builds = [entry for entry in self.entries if entry.get("source") == "build"]
        self.build: Entry = (builds or self.entries or [{}])[0]
        self.on_target = [entry for entry in reversed(self.entries) if entry.get("on_target") is True]
        timed = (one for one in self.on_target if number(mapping(one.get("latency_ms")).get("p50")) is not None)
        self.lead: Entry = next(timed, {})
        self.backend = text(self.manifest.get("backend"))
        self.target = mapping(self.manifest.get("target"))
        self.target_name = text(self.target.get("name")) or text(self.build.get("target")) or "the target"

    def find(self, *keys: str) -> tuple[Any, Source]:
        """A measured figure at a path of keys, and where it comes from.

        From the lead or an entry of the same machine and model; without a lead from the newest on the target, else
        from the build's, whose source then says that it is not the target.
        """
        value, entry = self._find(keys)
        return value, self.source(entry)

    def _find(self, keys: tuple[str, ...]) -> tuple[Any, Entry]:
        if self.lead:
            pool = [one for one in self.on_target if _kin(one) == _kin(self.lead)]
        else:
            pool = [*self.on_target, self.build]
        return next(
            ((found, one) for one in pool if (found := _at(one, keys)) is not None), (None, self.lead or self.build)
        )

    def told(self, *keys: str) -> Any:
        """What is no figure of a machine (a proof, a check): the newest on the target that has it, else the build's."""
        return next((found for one in [*self.on_target, self.build] if (found := _at(one, keys)) is not None), None)

    def source(self, entry: Entry) -> Source:
        """Where an entry's figures come from."""
        latency = mapping(entry.get("latency_ms"))
        name = text(latency.get("machine")) or machine_name(entry.get("machine"))
        runtime = runtime_name(latency.get("runtime")) or self._runtime(entry)
        candidate = candidate_of(entry)
        named = candidate if self.chosen_on_device or candidate != self.ships else ""
        return Source(name, runtime, day(entry.get("date")), entry.get("on_target") is True, named)

    def _runtime(self, entry: Entry) -> str:
        """The backend, and its version where the entry is the build's own."""
        version = text(mapping(self.manifest.get("versions")).get(self.backend)) if entry is self.build else ""
        return f"{self.backend} {version}".strip() if version != "absent" else self.backend

    @property
    def measured(self) -> Source | None:
        """The lead, or an entry that measured the compiled accuracy on the target; None without either."""
        if self.lead:
            return self.source(self.lead)
        scored = (one for one in self.on_target if number(_at(one, ("accuracy", "compiled"))) is not None)
        return next((self.source(one) for one in scored), None)

    @property
    def why_not(self) -> str:
        """Why there is no figure of the target, as the newest entry tells it."""
        told = (text(entry.get("not_measured")).rstrip(".") for entry in reversed(self.entries))
        fallback = "no entry of the measurements was taken on it" if self.entries else "there are no measurements"
        return next((why for why in told if why), fallback)

    @property
    def ships(self) -> str:
        """The candidate that the bundle ships as its first choice."""
        return text(self.manifest.get("chosen"))

    @property
    def chosen_on_device(self) -> str:
        """Another candidate than `ships` that finalize chose on the target; empty where it agreed or did not run."""
        finals = (candidate_of(one) for one in self.on_target if one.get("source") == "finalize")
        found = next((name for name in finals if name), "")
        return found if found != self.ships else ""

    @property
    def running(self) -> str:
        """The candidate that the device uses, as far as is known here."""
        return self.chosen_on_device or self.ships

    @property
    def accuracy(self) -> tuple[dict[str, Any], Source]:
        """The build's accuracies with those of the compiled model in use laid over, whose source it is.

        The metric does not depend on how fast a machine is: any target's will do, but only of the same candidate.
        """
        base = mapping(self.build.get("accuracy"))
        own = {key: value for key, value in base.items() if key in BUILD_KEYS}
        for entry in self.on_target:
            over = mapping(entry.get("accuracy"))
            if candidate_of(entry) in ("", self.running) and number(over.get("compiled")) is not None:
                return own | {key: value for key, value in over.items() if value is not None}, self.source(entry)
        same = candidate_of(self.build) in ("", self.running)
        return (base if same else own), self.source(self.build)

    @property
    def candidates(self) -> tuple[list[dict[str, Any]], Source, str]:
        """The candidates as the newest choice on the target saw them (else the build's), its source, and why."""
        packed_why = text(mapping(self.manifest.get("choice")).get("why"), 600)
        for entry in [*self.on_target, self.build]:
            found = rows(entry.get("candidates"))
            if found:
                return found, self.source(entry), text(mapping(entry.get("choice")).get("why"), 600) or packed_why
        listed = [
            row | {"chosen": text(row.get("name")) == self.ships, "integer": _integer(row)}
            for row in rows(self.manifest.get("candidates"))
        ]
        return listed, self.source(self.build), packed_why

    @property
    def size_bytes(self) -> float | None:
        """Bytes of the file that is loaded of the candidate in use."""
        found = number(self._find(("size_bytes",))[0])
        for row in rows(self.manifest.get("candidates")):
            if found is None and text(row.get("name")) == self.running:
                found = number(row.get("size_bytes"))
        return found

    @property
    def speedup(self) -> tuple[float | None, dict[str, Any], Source]:
        """How many times as fast as float, and the comparison of process pairs behind it, of the same entry."""
        value, entry = self._find(("speedup_over_float",))
        return number(value), mapping(entry.get("comparison")), self.source(entry)

    @property
    def speedup_interval(self) -> tuple[float, float] | None:
        """The speed-up's interval: that of the latency ratio, turned over."""
        bounds = pair(self.speedup[1].get("interval"))
        return pair([1 / bounds[1], 1 / bounds[0]]) if bounds and min(bounds) > 0 else None


def candidate_of(entry: Entry) -> str:
    """The name of the model that an entry measured; empty where it does not tell."""
    return text(mapping(entry.get("model")).get("candidate"))


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


def runtime_name(value: Any) -> str:
    """A runtime and its version, without the build number, commit and branch that OpenVINO adds to it."""
    return re.sub(r"(?<=\d)-\d+-[0-9a-f]{6,}\S*", "", text(value))


def day(value: Any) -> str:
    """An ISO date and time as date, hour and minute."""
    whole = text(value, 40)
    zone = " UTC" if whole.endswith(("+00:00", "Z")) else ""
    return whole.replace("T", " ")[:16] + zone


def _at(value: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        value = mapping(value).get(key)
    return value


def _kin(entry: Entry) -> tuple[Any, Any]:
    return entry.get("machine"), mapping(entry.get("model")).get("sha256")


def _integer(row: dict[str, Any]) -> bool | None:
    groups = mapping(row.get("form")).get("float_groups")
    return "all" not in groups if isinstance(groups, list) else flag(row.get("integer"))
