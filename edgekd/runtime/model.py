"""A bundle's model, ready to run: raw samples in, labels and probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import preprocess
from .bundle_files import BundleError
from .golden import load_golden
from .machine import usable_cpus
from .manifest import read_manifest
from .selection import Selection, check_cpu, check_selected, select
from .sessions import Session, TensorSpec, open_session
from .spec import ModelSpec, save_arrays


class NotFinalized(BundleError):
    """The bundle is whole, but this device has no engine of its own yet; its finalize step builds one."""


@dataclass(frozen=True)
class Prediction:
    """The likeliest class of one sample: its ``label``, ``index``, ``probability``, and those of all classes."""

    label: str
    index: int
    probability: float
    probabilities: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return {"label": self.label, "index": self.index, "probability": self.probability}


class Model:
    """The model of a bundle on this machine. Not safe for use by several threads at once.

    >>> model = Model.load("dist/digits-onnxruntime-cpu")
    >>> model.predict([raw])[0].label
    """

    def __init__(self, manifest: dict[str, Any], selection: Selection, session: Session) -> None:
        self.manifest, self.selection, self.session = manifest, selection, session
        self.labels: list[str] = manifest["labels"]
        self.inputs: list[TensorSpec] = session.inputs
        self.outputs: list[TensorSpec] = session.outputs

    @classmethod
    def load(cls, bundle: str | Path, *, candidate: str | None = None, threads: int | None = None) -> Model:
        """Open the bundle's model, after its manifest and the hash of the file that is loaded were checked.

        ``candidate`` names one of the manifest's (None: what finalize chose on this device, else what the build
        chose); ``threads`` of a CPU runtime (None: the target's, as far as this machine has them).

        Raises:
            BundleError: the bundle does not hold, or needs its finalize step (NotFinalized) or another CPU (NeedsVnni).
            RuntimeMissing: its runtime is not here.
            SessionError: the runtime does not load the file.
        """
        root = Path(bundle)
        manifest = read_manifest(root)
        selection = select(root, manifest, candidate)
        return cls(manifest, selection, open_selected(root, manifest, selection, threads=threads))

    def preprocess(self, raw: Sequence[np.ndarray]) -> np.ndarray:
        """Raw samples (none with a batch dimension) as one batch of the model's input, (N, ...) float32.

        Raises:
            PreprocessError: a sample does not fit.
        """
        if not len(raw):
            raise preprocess.PreprocessError("there are no samples")
        made = [preprocess.apply(self.manifest["preprocess"], sample) for sample in raw]
        shapes = sorted({sample.shape for sample in made})
        if len(shapes) > 1:
            raise preprocess.PreprocessError(f"samples of one batch become inputs of different shapes: {shapes}")
        return np.stack(made)

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """All outputs by name for a preprocessed batch. Raises SessionError for an input that does not fit."""
        return self.session.run({self.manifest["inputs"][0]["name"]: batch})

    def predict(self, raw: Sequence[np.ndarray]) -> list[Prediction]:
        """One prediction a raw sample; classification: softmax over the last axis of the first output.

        Raises:
            PreprocessError, SessionError: the samples do not fit.
            BundleError: the bundle's task is another.
        """
        if self.manifest["task"] != "classification":
            raise BundleError(f"predict knows classification; this bundle's task is {self.manifest['task']}")
        logits = self.run(self.preprocess(raw))[self.manifest["outputs"][0]["name"]].astype(np.float64)
        if logits.ndim != 2 or logits.shape[1] != len(self.labels):
            raise BundleError(f"the output has shape {logits.shape}, which does not fit {len(self.labels)} labels")
        exponents = np.exp(logits - logits.max(1, keepdims=True))
        shares = exponents / exponents.sum(1, keepdims=True)
        best = shares.argmax(1)
        return [Prediction(self.labels[i], int(i), float(row[i]), row) for i, row in zip(best, shares, strict=True)]

    def describe(self) -> dict[str, Any]:
        """The candidate, the file that runs, who chose it, and the session's own description."""
        chosen = self.selection
        return {"candidate": chosen.candidate["name"], "path": chosen.path, "by": chosen.by, **self.session.describe()}


def open_selected(root: Path, manifest: dict[str, Any], selection: Selection, *, threads: int | None = None) -> Session:
    """A session of the selected file, its hash checked.

    Raises:
        BundleError: the file does not hold.
        NeedsVnni: this CPU would compute it wrongly.
        NotFinalized: TensorRT: there is no engine yet, or it was built for another GPU, driver or TensorRT.
        RuntimeMissing, SessionError: see `sessions.open_session`.
    """
    path = ready_file(root, manifest, selection)
    return open_session(
        path,
        manifest["backend"],
        threads=threads or min(_threads(manifest), usable_cpus()),
        precision=selection.candidate["inference_precision"],
    )


def ready_file(root: Path, manifest: dict[str, Any], selection: Selection) -> Path:
    """The selected file, its hash checked, and for TensorRT that its engine was built for what is here.

    Raises:
        BundleError, NeedsVnni, NotFinalized, RuntimeMissing: as `open_selected`; the file is not opened.
    """
    check_cpu(manifest, selection.candidate)
    path = check_selected(root, manifest, selection)
    if manifest["backend"] == "tensorrt":
        _check_engine(manifest, selection)
    return path


def selected_spec(root: Path, manifest: dict[str, Any], selection: Selection, scratch: Path) -> ModelSpec:
    """The selected file as a measuring process takes it, with every golden sample; these are copied to ``scratch``.

    Raises:
        BundleError, NeedsVnni, NotFinalized, RuntimeMissing: as `ready_file`.
    """
    path = ready_file(root, manifest, selection)
    feeds, golden, tolerances = load_golden(root, manifest, selection.candidate)
    return ModelSpec(
        path=path,
        runtime=manifest["backend"],
        feeds=save_arrays(feeds, scratch),
        threads=_threads(manifest),
        cores=_cores(manifest),
        precision=selection.candidate["inference_precision"],
        golden=save_arrays(golden, scratch, stem="golden"),
        tolerance=tolerances,
        label=selection.candidate["name"],
        singly=True,
    )


def _threads(manifest: dict[str, Any]) -> int:
    return max(1, int(manifest["target"].get("runtime", {}).get("threads") or 1))


def _cores(manifest: dict[str, Any]) -> tuple[int, ...] | None:
    found = manifest["target"].get("runtime", {}).get("cores")
    return tuple(int(core) for core in found) if found else None


def _check_engine(manifest: dict[str, Any], selection: Selection) -> None:
    from .gpu import engine_binding, flavor_of

    here = engine_binding(flavor_of(manifest))
    if selection.path.endswith(".onnx"):
        raise NotFinalized(
            "there is no engine yet: TensorRT builds it on the device", remedy="run the bundle's finalize step"
        )
    if selection.engine is not None and selection.engine != here:
        other = ", ".join(
            f"{key} {selection.engine.get(key)} (here {here[key]})"
            for key in here
            if selection.engine.get(key) != here[key]
        )
        raise NotFinalized(f"the engine was built for {other}", remedy="run the bundle's finalize step again")
