"""What a measuring process needs to know of a model: a file it can be handed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ModelSpec:
    """A model file, how its runtime is set, and the inputs it is timed on (an .npz of arrays by name)."""

    label: str
    path: str
    runtime: str
    threads: int
    precision: str
    feeds: str

    @classmethod
    def write(
        cls,
        folder: Path,
        *,
        label: str,
        path: Path,
        runtime: str,
        threads: int,
        precision: str,
        feeds: dict[str, np.ndarray],
    ) -> ModelSpec:
        """A spec whose inputs are stored in ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / f"{label}-feeds.npz"
        np.savez(place, **feeds)  # type: ignore[arg-type]
        return cls(label, str(path), runtime, threads, precision, str(place))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return asdict(self)

    @classmethod
    def from_text(cls, text: str) -> ModelSpec:
        """The inverse of ``json.dumps(spec.to_json())``."""
        return cls(**json.loads(text))
