"""What a measuring process is to open and run, as a value that travels as JSON."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgekd.runtime.sessions import Precision, RuntimeName

if TYPE_CHECKING:
    from edgekd.backends.base import Backend
    from edgekd.forms import CompiledModel
    from edgekd.target import Target

Tolerance = float | Literal["exact", "top1"]


@dataclass(frozen=True)
class ModelSpec:
    """One model to measure.

    ``feeds`` is an ``.npz`` of the inputs of one run by name; ``golden`` one of the outputs that these must give,
    within ``tolerance``: the largest absolute difference, "exact", or "top1" (same argmax over the last axis).
    ``threads`` are what is wanted; a worker never gets more than the machine lets it have. ``cores`` pins it.
    """

    path: Path
    runtime: RuntimeName
    feeds: Path
    threads: int = 1
    precision: Precision = "f32"
    golden: Path | None = None
    tolerance: Tolerance = "exact"
    label: str = ""
    cores: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls,
        backend: Backend,
        model: CompiledModel,
        target: Target,
        feeds: Mapping[str, np.ndarray],
        scratch: Path,
        **more: Any,
    ) -> ModelSpec:
        """The spec of a compiled model with its target's threads and its own precision; feeds go to ``scratch``."""
        return cls(
            path=absolute(model.path),
            runtime=backend.name,  # type: ignore[arg-type]
            feeds=save_arrays(feeds, scratch),
            threads=target.runtime.threads,
            precision=model.meta.get("inference_precision", target.runtime.inference_precision),
            **{"label": model.path.parent.name, **more},
        )

    def with_golden(self, outputs: Mapping[str, np.ndarray], folder: Path, tolerance: Tolerance) -> ModelSpec:
        """The same model, whose outputs are checked before it is timed; ``outputs`` belong to the feeds."""
        return replace(self, golden=save_arrays(outputs, folder, stem="golden"), tolerance=tolerance)

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
            "tolerance": self.tolerance,
            "label": self.label,
            "cores": list(self.cores) if self.cores is not None else None,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> ModelSpec:
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
