"""What a stage is: a pure function from input artifacts and its part of the recipe to one artifact."""

from __future__ import annotations

import hashlib
import json
import time
from abc import ABC, abstractmethod
from functools import cache
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
    """Base of the stages; ``version`` is raised when the same inputs give another output for reasons beyond ``code``.

    ``code`` names the packages and files of edgekd, below its folder, that shape the output: their source is part of
    the key. What a stage gets through its inputs is in their keys already.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    code: ClassVar[tuple[str, ...]] = ()

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
    """SHA-256 over the canonical JSON of the stage, its code and part of the recipe, inputs' keys, package versions."""
    value = {
        "stage": stage.name,
        "version": stage.version,
        "code": {name: source_digest(name) for name in stage.code},
        "part": part,
        "inputs": {name: artifact.key for name, artifact in inputs.items()},
        "versions": versions,
    }
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@cache
def source_digest(name: str, *, root: Path = Path(__file__).parent) -> str:
    """SHA-256 over a file, or every file of a package, of edgekd; ``name`` is relative to ``root``.

    Raises:
        FileNotFoundError: there is nothing of that name: a stage would not notice that its code changed.
    """
    place = root / name
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    whole = hashlib.sha256()
    for path in files:
        if path.suffix != ".pyc":
            whole.update(f"{path.relative_to(root).as_posix()}\0".encode())
            whole.update(hashlib.sha256(path.read_bytes()).digest())
    if not files:
        raise FileNotFoundError(f"edgekd has no {name}")
    return whole.hexdigest()


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
