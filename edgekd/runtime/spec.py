"""What a measuring process is to open and run, as a value that travels as JSON."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .golden import Tolerance, tolerance_row
from .sessions import Precision, RuntimeName

Spec = TypeVar("Spec", bound="ModelSpec")


@dataclass(frozen=True)
class ModelSpec:
    """One model to measure.

    ``feeds`` is an ``.npz`` of inputs by name; ``golden`` one of the outputs that these must give, each within its
    ``tolerance`` by name (see `golden.compare`). All of ``feeds`` are one run; where they are ``singly`` many, each
    sample (or each of the model's own batches, where it has a fixed one) is a run, and the first one is timed.
    ``threads`` are what is wanted; a worker never gets more than the machine lets it have. ``cores`` pins it.
    ``batch`` samples are one timed run instead (the feeds, repeated), and their outputs are checked too.
    ``shared``: the process opens the model several times, to run it at once.
    ``planted_delay`` slows every run down by that share (see `planted.BusyDelay`); only experiments set it.
    """

    path: Path
    runtime: RuntimeName
    feeds: Path
    threads: int = 1
    precision: Precision = "f32"
    golden: Path | None = None
    tolerance: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    label: str = ""
    cores: tuple[int, ...] | None = None
    singly: bool = False
    batch: int | None = None
    shared: bool = False
    planted_delay: float = 0.0

    def with_golden(
        self: Spec, outputs: Mapping[str, np.ndarray], folder: Path, tolerance: Tolerance | Mapping[str, Any]
    ) -> Spec:
        """The same model, whose outputs are checked before it is timed; ``outputs`` belong to the feeds.

        ``tolerance`` is one for all outputs: the largest absolute difference, "exact", "top1", or a row of
        `golden.compare`, such as ``{"kind": "relative", "value": 1e-3}``.
        """
        rows = {name: tolerance_row(tolerance) for name in outputs}
        return replace(self, golden=save_arrays(outputs, folder, stem="golden"), tolerance=rows)

    @property
    def name(self) -> str:
        """The label, or the file's name where none was given."""
        return self.label or self.path.name

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping, `from_json` reads it."""
        return {
            "path": str(absolute(self.path)),
            "runtime": self.runtime,
            "feeds": str(absolute(self.feeds)),
            "threads": self.threads,
            "precision": self.precision,
            "golden": str(absolute(self.golden)) if self.golden else None,
            "tolerance": {name: dict(row) for name, row in self.tolerance.items()},
            "label": self.label,
            "cores": list(self.cores) if self.cores is not None else None,
            "singly": self.singly,
            "batch": self.batch,
            "shared": self.shared,
            "planted_delay": self.planted_delay,
        }

    @classmethod
    def from_json(cls: type[Spec], row: Mapping[str, Any]) -> Spec:
        """The inverse of `to_json`."""
        golden, cores = row.get("golden"), row.get("cores")
        paths = {"path": Path(row["path"]), "feeds": Path(row["feeds"]), "golden": Path(golden) if golden else None}
        return cls(**{**row, **paths, "cores": tuple(cores) if cores is not None else None})


def save_arrays(arrays: Mapping[str, np.ndarray], folder: Path, *, stem: str = "feeds") -> Path:
    """Write arrays to ``folder`` as ``.npz``, named by their content, so that equal feeds share one file."""
    data = io.BytesIO()
    np.savez(data, **arrays)  # type: ignore[arg-type]
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    path = absolute(folder) / f"{stem}-{digest.hexdigest()[:16]}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(data.getvalue())
        temporary.replace(path)
    return path


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` by name; pickles are refused."""
    with np.load(path, allow_pickle=False) as stored:
        return {name: np.asarray(stored[name], order="C") for name in stored.files}


def absolute(path: Path) -> Path:
    """An absolute path that keeps symbolic links."""
    return Path(os.path.abspath(path))
