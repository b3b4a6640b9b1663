"""One side of a gate: a verified bundle, the file of it that runs here, and the evidence that belongs to that file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.bundle import Bundle, load_bundle, verify_bundle
from edgekd.bundle.failure import bundle_errors
from edgekd.errors import BadBundle, BadInput, ExitCode
from edgekd.gate_result import Side
from edgekd.pipeline.evidence import Figure, is_samples, newest
from edgekd.runtime.bundle_files import MEASUREMENTS
from edgekd.runtime.machine import is_machine_of
from edgekd.runtime.model import selected_spec
from edgekd.runtime.selection import Selection, select
from edgekd.runtime.spec import ModelSpec
from edgekd.runtime.verify import OF_THIS_MACHINE, exit_code


@dataclass(frozen=True)
class GateSide:
    """A bundle in a gate; ``unable`` says why its model cannot be timed here, empty when it can.

    ``missing``: because something is not installed, and not because this is another machine or version.
    """

    bundle: Bundle
    selection: Selection
    unable: str
    missing: bool

    @classmethod
    def read(cls, path: Path) -> GateSide:
        """Verify the bundle at ``path``; its golden outputs are for the measuring processes to check.

        Raises:
            BadBundle: it does not hold.
        """
        checks = verify_bundle(path, run=False)
        if exit_code(checks) == ExitCode.BAD_INPUT:
            failed = next(check for check in checks if check.ok is False and check.name not in OF_THIS_MACHINE)
            raise BadBundle(f"{failed.name}: {failed.detail}", where=str(path), remedy="see: edgekd verify")
        bundle = load_bundle(path)
        with bundle_errors(path):
            selection = select(path, bundle.manifest)
        failed_here = next((check for check in checks if not check.ok), None)
        if failed_here is not None:
            unable = f"{failed_here.name}: {failed_here.detail}"
            return cls(bundle, selection, unable, missing=failed_here.ok is None)
        target = bundle.manifest["target"]
        unable = "" if is_machine_of(target) else f"this machine is not its target, {target['name']}"
        return cls(bundle, selection, unable, missing=False)

    def spec(self, scratch: Path) -> ModelSpec:
        """What a measuring process opens."""
        with bundle_errors(self.bundle.path):
            return selected_spec(self.bundle.path, self.bundle.manifest, self.selection, scratch)

    @property
    def size_bytes(self) -> int:
        """Of the file that runs here: an engine is the device's own."""
        if self.selection.engine is None:
            return int(self.bundle.manifest["files"][self.selection.path]["size"])
        return (self.bundle.path / self.selection.path).stat().st_size

    def evidence(self, wanted: Callable[[dict[str, Any]], Any]) -> Figure:
        """What ``wanted`` finds in the newest entry of measurements.json about this very file."""
        return newest(self.bundle.measurements["entries"], self.selection.sha256, wanted)

    def correct(self) -> Figure:
        """Which test samples it gets right (`measure.predictions`)."""
        return self.evidence(lambda one: one["accuracy"]["correct"])

    def coverage(self) -> Figure:
        """Its integer coverage, ``integer`` of ``compute`` layers."""
        return self.evidence(lambda one: one["integer_coverage"])

    def stored(self) -> dict[str, Any]:
        """The newest entry that has samples of its latency, all of them times.

        Raises:
            BadInput: there is none, or its samples are none.
        """
        entry = self.evidence(lambda one: one if one["latency_ms"]["samples_ns"] else None).value
        what = ""
        if entry is None:
            what = "carries no samples of the latency of the file that would run here"
        elif not is_samples(entry["latency_ms"]["samples_ns"]):
            what = "latency_ms.samples_ns of the file that would run here is no list of nanoseconds from 1 on"
        if what:
            raise BadInput(
                what,
                where=str(self.bundle.path / MEASUREMENTS),
                remedy="measure it on its target: python runtime/python bench --record",
            )
        return dict(entry)

    def to_document(self, opened: dict[str, Any] | None) -> Side:
        """This side as the gate's document names it."""
        manifest, chosen = self.bundle.manifest, self.selection
        keys = ("runtime", "version", "inference_precision", "threads")
        return Side(
            path=str(self.bundle.path),
            identity=self.bundle.identity,
            name=manifest["name"],
            target=manifest["target"]["name"],
            backend=manifest["backend"],
            precision=manifest["precision"],
            candidate=chosen.candidate["name"],
            chosen_by=chosen.by,
            file=chosen.path,
            sha256=chosen.sha256,
            size_bytes=self.size_bytes,
            runtime_requirement=manifest["runtime_requirement"],
            versions=_texts(manifest.get("versions")),
            data_fingerprint=str(manifest.get("data_fingerprint")),
            opened={key: opened[key] for key in keys} if opened else None,
        )


def _texts(value: Any) -> dict[str, str | None]:
    found = value if isinstance(value, dict) else {}
    return {name: one if isinstance(one, str) else None for name, one in found.items()}
