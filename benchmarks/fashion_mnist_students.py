"""What int8 costs three students of the fashion-mnist recipe on each backend: dense with ReLU, ReLU6, hardswish.

    uv run python benchmarks/fashion_mnist_students.py --save benchmarks/results/fashion_mnist_students.json

distills each student and builds it for onnxruntime-cpu, openvino-cpu and jetson, then runs every int8 candidate over
the 10 000 test images: the compiled model where the target is here, else its lowered graph in the reference runtime.
``--weights NAME=FILE`` takes a student that is trained already.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.backends import get_backend
from edgekd.forms import CompiledModel
from edgekd.measure import describe_machine
from edgekd.measure.proof import onnx_run
from edgekd.pipeline import build
from edgekd.pipeline.candidates import session_run
from edgekd.pipeline.context import Context
from edgekd.recipe import Recipe, load_recipe
from edgekd.runtime.manifest import read_manifest
from edgekd.stage import NoProgress
from edgekd.target import load_target

TARGETS = ("onnxruntime-cpu", "openvino-cpu", "jetson-orin")
STUDENTS: dict[str, list[str]] = {
    "resnet-xs relu": ["student.model=edgekd:resnet-xs"],
    "dscnn-s relu6": ["student.model=edgekd:dscnn-s", "student.args={act: relu6}"],
    "mobilenet-xs hardswish": ["student.model=edgekd:mobilenet-xs", "student.args={act: hardswish}"],
}
# The form in which all layers that a backend can run on integers are.
FULL = "int8"
PACKAGES = ("torch", "torchao", "onnx", "onnxruntime", "openvino")


class Lines(NoProgress):
    """Progress as lines."""

    def log(self, text: str) -> None:
        """One line."""
        print(text, flush=True)


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=list(STUDENTS))
    parser.add_argument("--epochs", type=int, help="of distillation; default: the recipe's")
    parser.add_argument("--weights", nargs="*", default=[], metavar="NAME=FILE", help="students trained already")
    parser.add_argument("--trained", default="by this run", help="how those were, for the record")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    given = dict(pair.split("=", 1) for pair in options.weights)
    rows = []
    for name in options.students:
        overrides = [*STUDENTS[name], "measure.pairs=4", "measure.seconds=0.3"]
        if name in given:
            overrides += [f"student.weights={given[name]}", "distill.epochs=0", "finetune.epochs=0"]
        elif options.epochs:
            overrides.append(f"distill.epochs={options.epochs}")
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(name, load_recipe("fashion-mnist", overrides), Path(folder))
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "seed": load_recipe("fashion-mnist").seed,
        "students_trained": options.trained,
        "rows": rows,
        "worst_drop_points": max(row["drop_points"] for row in rows if row["candidate"] == FULL),
        "widest_spread_points": max(spread(rows, name) for name in options.students),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.save:
        options.save.write_text(text + "\n")


def measure(name: str, recipe: Recipe, out: Path) -> list[dict[str, Any]]:
    """A row for each backend and int8 candidate; the drop is from the float student, on the same images."""
    result = build(recipe, TARGETS, out=out, progress=Lines())
    context = Context(recipe)
    images, labels = (np.concatenate(parts) for parts in zip(*context.batches("test"), strict=True))
    rows = []
    for bundle in result.bundles:
        root = Path(bundle["path"])
        manifest = read_manifest(root)
        target = load_target(bundle["target"])
        backend = get_backend(target.backend)
        for candidate in manifest["candidates"]:
            if not candidate["name"].startswith("int8"):
                continue
            run = onnx_run(root / candidate["onnx"])
            if target.is_here():
                meta = {"inference_precision": candidate["inference_precision"]}
                compiled = CompiledModel(backend.name, root / candidate["path"], root / candidate["onnx"], meta)
                run = session_run(backend.load(compiled, target))
            outputs = np.concatenate([run(images[at : at + 256]) for at in range(0, len(images), 256)])
            student, found = bundle["accuracy"]["student"], context.score(outputs, labels)
            rows.append(
                {
                    "student": name,
                    "target": target.name,
                    "candidate": candidate["name"],
                    "chosen": candidate["name"] == manifest["chosen"],
                    "ran_on": "its runtime" if target.is_here() else "the reference runtime, as lowered",
                    "float_accuracy": student,
                    "accuracy": found,
                    "drop_points": round(100 * (student - found), 4),
                    "samples": len(labels),
                    "method": manifest["quantization"]["method"],
                    "why": manifest["quantization"]["why"],
                }
            )
    return rows


def spread(rows: list[dict[str, Any]], student: str) -> float:
    """Points between the best and the worst backend, each in its full int8 form."""
    found = [row["accuracy"] for row in rows if row["student"] == student and row["candidate"] == FULL]
    return round(100 * (max(found) - min(found)), 4)


if __name__ == "__main__":
    main()
