"""The samples on which quantizers see their ranges."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgekd.data.source import DataSource
from edgekd.errors import BadData
from edgekd.target import CalibrationPolicy

# Fewer than this say too little about a range.
FEWEST = 16


def calibration_samples(source: DataSource, policy: CalibrationPolicy) -> Tensor:
    """(N, ...) float32 preprocessed training samples, N at most ``policy.samples``, drawn with its seed.

    Raises:
        BadData: the training split has fewer than `FEWEST` samples.
    """
    check_enough(source)
    labels = source.labels("train")
    rng = np.random.default_rng(policy.seed)
    order = rng.permutation(len(labels))
    if policy.class_balanced:
        # Rank of each sample inside its class: sorting by it takes the classes in turn.
        rank = np.empty(len(labels), int)
        for label in np.unique(labels):
            mine = order[labels[order] == label]
            rank[mine] = np.arange(len(mine))
        order = order[np.argsort(rank[order], kind="stable")]
    picked = order[: policy.samples]
    return torch.stack([source.sample("train", int(index))[0] for index in picked])


def check_enough(source: DataSource) -> None:
    """That the training split can calibrate.

    Raises:
        BadData: it has fewer than `FEWEST` samples.
    """
    count = len(source.train)  # type: ignore[arg-type]
    if count < FEWEST:
        raise BadData(
            f"the training split has {count} samples; calibration needs at least {FEWEST}",
            where=source.name,
            remedy="add training samples",
        )
