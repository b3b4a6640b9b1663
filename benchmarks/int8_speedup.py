"""How much faster int8 is than float: torchvision networks at 224x224, batch 1, paired in fresh processes.

    uv run python benchmarks/int8_speedup.py --models resnet18 mobilenet_v2 --json

prints for each network and CPU backend every candidate's latency over the float one's, with the interval over process
pairs. Weights are random with BatchNorm statistics that are not trivial: latency does not depend on them.
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
import torch
from torchvision import models

from edgekd.backends import get_backend
from edgekd.lower import check_lowering, lower
from edgekd.measure import ModelSpec, compare_all, describe_machine
from edgekd.quantize import prepare, write_master
from edgekd.target import load_target

TARGETS = ("onnxruntime-cpu", "openvino-cpu")
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "torchvision", "torchao", "onnx", "onnxruntime", "openvino")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["resnet18", "mobilenet_v2"])
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=1.0, help="of runs of each candidate in a pair")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, help=f"write the result here, for example into {RESULTS.name}/")
    options = parser.parse_args()
    rows = []
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(name, Path(folder), options.pairs, options.seconds, options.seed)
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "seed": options.seed,
        "rows": rows,
    }
    text = json.dumps(result, indent=1)
    if options.save:
        options.save.parent.mkdir(parents=True, exist_ok=True)
        options.save.write_text(text + "\n")
    if options.json:
        print(text)
        return
    for row in rows:
        low, high = row["interval"]
        print(
            f"{row['model']:20} {row['target']:16} {row['form']:18} "
            f"{row['median_ms']:8.2f} ms  {row['ratio']:.2f} of float ({low:.2f} to {high:.2f})"
        )


def measure(name: str, folder: Path, pairs: int, seconds: float, seed: int) -> list[dict[str, Any]]:
    """A row for each backend and candidate of one network."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    module = models.get_model(name, weights=None).eval()
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.5, 1.5, generator=generator)
    batches = [torch.randn(4, 3, 224, 224, generator=generator) for _ in range(4)]
    prepared = prepare(module, batches[0][:2])
    prepared.calibrate(batches)
    master = write_master(prepared, batches[0][:2], folder)
    feeds = {"input": batches[0][:1].numpy().astype(np.float32)}
    rows = []
    for target_name in TARGETS:
        target = load_target(target_name)
        backend = get_backend(target.backend)
        specs = []
        for form in backend.candidates(target):
            model = lower(master, form, vnni=target.has_vnni())
            check_lowering(master, model, form, vnni=target.has_vnni())
            place = folder / target_name / form.name
            place.mkdir(parents=True)
            (place / "model.onnx").write_bytes(model.SerializeToString())
            compiled = backend.compile(place / "model.onnx", target, place, form=form)
            specs.append(ModelSpec.of(backend, compiled, target, feeds, folder, label=form.name))
        for one in compare_all(specs[:-1], specs[-1], pairs=pairs, seconds=seconds, seed=seed):
            rows.append(
                {
                    "model": name,
                    "target": target_name,
                    "form": one.label,
                    "ratio": one.ratio,
                    "interval": [one.low, one.high],
                    "median_ms": one.median_ms,
                    "pairs": pairs,
                }
            )
    return rows


if __name__ == "__main__":
    main()
