"""Trains the reference teacher of the fashion-mnist recipe, and keeps the log of how it was made.

    uv run python benchmarks/fashion_mnist_teacher.py

writes edgekd/recipes/fashion-mnist-teacher.safetensors and benchmarks/results/fashion_mnist_teacher.json. It goes on
where it stopped when --scratch names a folder that is kept.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from edgekd.data.load import load_data
from edgekd.distill import predict, train_teacher
from edgekd.models import build_model, save_weights
from edgekd.recipe import DataConfig, TeacherConfig
from edgekd.stage import NoProgress
from edgekd.tasks import get_task

ROOT = Path(__file__).parent.parent


class Lines(NoProgress):
    """Progress as lines."""

    def log(self, text: str) -> None:
        """One line."""
        print(text, flush=True)


def main() -> None:
    """Train, evaluate on the test set once, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--width", type=float, default=0.75)
    parser.add_argument("--scratch", type=Path, help="folder of the checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", help="folder of the IDX files; default: Debian's package, else a download")
    parser.add_argument("--weights", type=Path, default=ROOT / "edgekd/recipes/fashion-mnist-teacher.safetensors")
    parser.add_argument("--log", type=Path, default=ROOT / "benchmarks/results/fashion_mnist_teacher.json")
    options = parser.parse_args()

    data = DataConfig(name="fashion-mnist", path=options.data, batch_size=256, augment=("flip", "shift", "cutout"))
    config = TeacherConfig(
        model="edgekd:resnet-s",
        args={"width": options.width},
        epochs=options.epochs,
        lr=options.lr,
        weight_decay=0.05,
        warmup_epochs=2,
        label_smoothing=0.1,
    )
    source, task = load_data(data, seed=options.seed), get_task("classification")
    torch.manual_seed(options.seed)
    teacher = build_model(config.model, classes=len(source.classes), input_shape=source.input_shape, args=config.args)
    begin = time.perf_counter()
    scratch = options.scratch or Path(tempfile.mkdtemp(prefix="teacher-"))
    scratch.mkdir(parents=True, exist_ok=True)
    fitted = train_teacher(
        teacher, source, config=config, data=data, task=task, seed=options.seed, scratch=scratch, progress=Lines()
    )
    seconds = time.perf_counter() - begin
    accuracy = task.metric(*predict(teacher, source, "test"))["top1"]
    save_weights(teacher, options.weights)
    log: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else _cpu(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "seed": options.seed,
        "teacher": config.model_dump(mode="json"),
        "data": data.model_dump(mode="json", exclude={"path"}),
        "parameters": sum(parameter.numel() for parameter in teacher.parameters()),
        "seconds_of_this_run": round(seconds, 1),
        "test_accuracy": accuracy,
        "history": fitted.history,
    }
    options.log.parent.mkdir(parents=True, exist_ok=True)
    options.log.write_text(json.dumps(log, indent=1, default=str))
    print(f"test accuracy {100 * accuracy:.2f} % after {seconds:.0f} s; {options.weights.stat().st_size} bytes")


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.split(':', 1)[1].strip()}, {torch.get_num_threads()} threads"
    return platform.machine()


if __name__ == "__main__":
    main()
