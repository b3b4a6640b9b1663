"""Calibrates a small network on images of 224x224, again and again; prints the most KiB held until then, each time."""

from __future__ import annotations

import resource
import sys
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from edgekd.data.calibration import calibration_samples
from edgekd.data.source import DataSource
from edgekd.quantize import prepare
from edgekd.target import load_calibration

IMAGENET = {"layout": "hwc", "scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


class Noise(Dataset[Any]):
    """Images that exist only while they are read."""

    def __init__(self, count: int) -> None:
        self.labels = np.arange(count) % 10

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        image = np.random.default_rng(index).integers(0, 256, (224, 224, 3), np.uint8)
        return image, int(self.labels[index])


def main(estimator: str, counts: list[int]) -> None:
    torch.set_num_threads(1)
    source = DataSource(
        train=Noise(max(*counts, 16)),
        val=Noise(16),
        test=Noise(16),
        classes=[str(i) for i in range(10)],
        preprocess=IMAGENET,
        name="noise",
    )
    net = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU6(), nn.Conv2d(16, 16, 3, stride=2), nn.Hardswish()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)),
    )
    policy = load_calibration(estimator)
    prepared = prepare(net, torch.zeros(2, 3, 224, 224), policy=policy)
    for count in counts:
        prepared.calibrate(calibration_samples(source, policy.model_copy(update={"samples": count})))
        assert all(0 < float(one.scale.max()) < 10 for _, one in prepared.quantizers())
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    main(sys.argv[1], [int(count) for count in sys.argv[2:]])
