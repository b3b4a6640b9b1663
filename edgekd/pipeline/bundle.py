"""The stage that packs a target's bundle, and its publication among the user's files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.backends import get_backend
from edgekd.bundle import (
    Contents,
    Golden,
    GoldenOutput,
    PackedCandidate,
    Tolerance,
    append_measurement,
    golden_outputs,
    load_bundle,
    make_golden,
    pack,
    publish,
    verify_bundle,
)
from edgekd.errors import ProofFailed
from edgekd.forms import QuantForm
from edgekd.measure.proof import onnx_run
from edgekd.pipeline.budget import judge
from edgekd.pipeline.candidates import compiled_model, session_run
from edgekd.pipeline.context import Context, versions
from edgekd.report import render_html
from edgekd.runtime.spec import load_arrays
from edgekd.runtime.verify import OF_THIS_MACHINE
from edgekd.stage import Artifact, Progress, Stage, make_key
from edgekd.store import write_text_atomic
from edgekd.target import Target

GOLDEN_SAMPLES = 8
# Packages whose versions a bundle names.
NAMED_PACKAGES = ("edgekd", "torch", "torchao", "onnx", "onnxruntime", "openvino", "tensorrt-rtx-cu13-bindings")
# Allowed difference of a golden output over the largest one, for what no run on the target has shown: rounding flips
# of an integer network stay below a tenth (docs/placement.md), half precision has 10 bits, another order of sums few.
# Floats count as what they are computed in, which a target may ask for whatever the file holds.
UNSEEN = {"int8": 0.1, "f16": 0.02, "bf16": 0.1, "f32": 1e-3}
# What was seen on this machine may be twice as much on another one, and a float kernel never gives the same bits.
SEEN_FACTOR, SEEN_LEAST = 2.0, 1e-3


class BundleStage(Stage):
    """The hand-off bundle of one target, report included."""

    name = "bundle"
    version = 1
    code = ("runtime", "bundle", "report", "pipeline")

    def __init__(self, context: Context, target: Target, reproduce: str, beside: Sequence[Target] = ()) -> None:
        """``reproduce``: the command without its targets; empty: the recipe of the manifest is what is built.

        ``beside``: targets that must be built with this one for it to come out the same.
        """
        self.context, self.target = context, target
        command = reproduce or "edgekd build recipe.yaml"  # the manifest's recipe, as a file
        self.command = " ".join([command, *(f"--target {shlex.quote(one.called)}" for one in (target, *beside))])

    def key(self, inputs: dict[str, Artifact]) -> str:
        """Hash of the recipe, the inputs and the command."""
        part = {
            "recipe": _portable(self.context.recipe.model_dump(mode="json")),
            "target": self.target.model_dump(mode="json"),
            "reproduce": self.command,
        }
        return make_key(self, part, inputs, versions(*NAMED_PACKAGES))

    def run(self, inputs: dict[str, Artifact], out: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
        """Write the folder that docs/bundle.md describes."""
        context, recipe, target = self.context, self.context.recipe, self.target
        folder = inputs["compile"].path
        rows = json.loads((folder / "choice.json").read_text())["candidates"]
        chosen = next(row for row in rows if row["chosen"])
        golden = self._golden(inputs, chosen)
        entry = json.loads((inputs["measure"].path / "entry.json").read_text())
        entry["budget"] = judge(recipe.budget, entry)
        source = context.source
        drift = inputs["measure"].path / "drift"
        contents = Contents(
            name=recipe.name,
            task=recipe.task,
            target=target.model_dump(mode="json"),
            precision="int8" if chosen["integer"] else chosen["form"]["float_type"],
            backend=target.backend,
            candidates=[
                PackedCandidate(
                    row["name"],
                    folder / row["onnx"],
                    folder / row["path"],
                    row["form"],
                    row["meta"]["inference_precision"],
                    None if row is chosen else self._outputs(inputs, row, golden.input),
                    needs_vnni(target, row["form"]),
                )
                for row in rows
            ],
            chosen=chosen["name"],
            choice={"measured_here": target.is_here()},
            inputs=[
                {
                    "name": "input",
                    "dtype": "float32",
                    "shape": [None, *source.input_shape],
                    "about": "a preprocessed sample",
                }
            ],
            outputs=[
                {
                    "name": "logits",
                    "dtype": "float32",
                    "shape": [None, len(source.classes)],
                    "about": "one score a label; softmax makes probabilities of them",
                }
            ],
            labels=source.classes,
            preprocess=source.preprocess,
            golden=golden,
            quantization=inputs["quantize"].meta["quantization"],
            recipe=_portable(recipe.model_dump(mode="json")),
            data_fingerprint=context.fingerprint,
            reproduce=self.command,
            versions=versions(*NAMED_PACKAGES),
            runtime_requirement=f"{target.library}{target.runtime.versions}",
            licences={
                "edgekd_runtime": "Apache-2.0",
                "model": "as its data and its teacher allow; the recipe does not say",
            },
            drift=drift if drift.is_dir() else None,
        )
        bundle = pack(out, contents, entry=entry)
        write_text_atomic(
            out / "report.html", render_html(bundle.manifest, bundle.measurements, identity=bundle.identity)
        )
        return {}

    def _golden(self, inputs: dict[str, Artifact], chosen: dict[str, Any]) -> Golden:
        source = self.context.source
        picked = self.context.picked("test", GOLDEN_SAMPLES)
        return make_golden(source.raw("test", picked), source.preprocess, *self._reference(inputs, chosen))

    def _outputs(self, inputs: dict[str, Artifact], row: dict[str, Any], batch: np.ndarray) -> dict[str, GoldenOutput]:
        run, tolerances = self._reference(inputs, row)
        return golden_outputs(run, batch, tolerances)

    def _reference(
        self, inputs: dict[str, Artifact], row: dict[str, Any]
    ) -> tuple[Callable[[np.ndarray], dict[str, np.ndarray]], dict[str, Tolerance]]:
        """What gives a candidate's golden outputs, and how far another machine may be from them."""
        folder = inputs["compile"].path
        unoptimized = onnx_run(folder / row["onnx"])
        compiled = None
        samples = load_arrays(inputs["quantize"].path / "proof_samples.npz")["samples"]
        if self.target.is_here():
            model = compiled_model(folder, row, self.target)
            compiled = session_run(get_backend(self.target.backend).load(model, self.target))
        run = compiled or unoptimized
        outputs = run(samples)
        largest = float(np.abs(outputs).max())
        if compiled is None:
            value = UNSEEN["int8" if row["integer"] else row["meta"]["inference_precision"]] * largest
        else:
            spread = float(np.abs(outputs - unoptimized(samples)).max())
            value = SEEN_FACTOR * spread + SEEN_LEAST * largest
        return lambda x: {"logits": run(x)}, {"logits": Tolerance("max_abs", round(value, 6))}


def needs_vnni(target: Target, form: dict[str, Any]) -> bool:
    """Whether a form was lowered without a cure for a CPU that saturates; a GPU does not, wherever it is."""
    return target.backend != "tensorrt" and QuantForm.from_json(form).integer and form["cure"] == "none"


def publish_and_verify(packed: Path, destination: Path) -> dict[str, Any]:
    """Put a packed bundle among the user's files and check it there; its row of ``build --json``.

    Raises:
        ProofFailed: the published bundle does not hold.
        BadInput, StoreFailed: something else is at the place, or it cannot be written.
    """
    bundle = publish(packed, destination)
    entry = load_bundle(packed).measurements["entries"][0]
    if entry not in bundle.measurements["entries"]:  # the same bundle, measured anew
        append_measurement(bundle.path, entry)
        bundle = load_bundle(bundle.path)
    report, place = (
        render_html(bundle.manifest, bundle.measurements, identity=bundle.identity),
        bundle.path / "report.html",
    )
    if not place.is_file() or place.read_text(encoding="utf-8") != report:
        write_text_atomic(place, report)
    # A device's file does not have to hold on this machine's runtime.
    elsewhere = () if entry["on_target"] else (*OF_THIS_MACHINE, "output")
    checks = verify_bundle(bundle.path)
    failed = [check for check in checks if check.ok is False and not check.name.startswith(elsewhere)]
    if failed:
        raise ProofFailed(
            f"the bundle does not verify: {failed[0].name}: {failed[0].detail}",
            where=str(destination),
            remedy="this is a fault of edgekd or of the disk: build again, and report it when it stays",
        )
    return bundle.summary() | {"path": str(destination)}


def _portable(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe without this machine's folders: of each path only its name is told."""
    for part, key in (("data", "folder"), ("data", "path"), ("teacher", "weights"), ("student", "weights")):
        if recipe[part].get(key):
            recipe[part][key] = Path(recipe[part][key]).name
    # Names have no folder; files of the user's own do.
    recipe["targets"] = [Path(name).name for name in recipe["targets"]]
    recipe["quantize"]["calibration"] = Path(recipe["quantize"]["calibration"]).name
    return recipe
