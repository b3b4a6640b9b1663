"""What a stage is: a pure function from input artifacts and its part of the recipe to one artifact."""

from __future__ import annotations

import hashlib
import json
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from edgekd.store import Artifact, Store


class Progress(Protocol):
    """How long work tells where it is."""

    def stage(self, name: str) -> None:
        """A stage begins its work."""

    def task(self, label: str, total: int) -> None:
        """Count ``total`` steps under ``label`` from here on."""

    def advance(self, n: int = 1) -> None:
        """``n`` steps are done."""

    def log(self, text: str) -> None:
        """One line for the person who waits."""


class NoProgress:
    """Progress that nobody watches, for library use."""

    def stage(self, name: str) -> None:
        """Nothing."""

    def task(self, label: str, total: int) -> None:
        """Nothing."""

    def advance(self, n: int = 1) -> None:
        """Nothing."""

    def log(self, text: str) -> None:
        """Nothing."""


class Stage(ABC):
    """Base of the stages; ``version`` is raised whenever the same inputs give another output."""

    name: ClassVar[str]
    version: ClassVar[int]

    @abstractmethod
    def key(self, inputs: dict[str, Artifact]) -> str:
        """Hash of all that the output depends on; see `make_key`."""

    @abstractmethod
    def run(self, inputs: dict[str, Artifact], out: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
        """Fill the folder ``out``; ``scratch`` survives a kill; returns the artifact's JSON-ready meta."""


class StageRun(NamedTuple):
    """What `run_stage` did: the artifact, whether it was there already, and how long it took in seconds."""

    artifact: Artifact
    cached: bool
    seconds: float


def make_key(stage: Stage, part: dict[str, Any], inputs: dict[str, Artifact], versions: dict[str, str]) -> str:
    """SHA-256 over the canonical JSON of the stage, its part of the recipe, its inputs' keys and package versions."""
    value = {
        "stage": stage.name,
        "version": stage.version,
        "part": part,
        "inputs": {name: artifact.key for name, artifact in inputs.items()},
        "versions": versions,
    }
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def run_stage(store: Store, stage: Stage, inputs: dict[str, Artifact], progress: Progress) -> StageRun:
    """The stage's artifact from the store, or its run; two builds at once run it once."""
    begin = time.perf_counter()
    key = stage.key(inputs)
    found = store.get(key, report=progress.log)
    if found is not None:
        return StageRun(found, True, time.perf_counter() - begin)
    progress.stage(stage.name)
    ran = False

    def make(out: Path, scratch: Path) -> dict[str, Any]:
        nonlocal ran
        ran = True
        return stage.run(inputs, out, scratch, progress)

    artifact = store.build(key, stage.name, make, report=progress.log)
    return StageRun(artifact, not ran, time.perf_counter() - begin)
