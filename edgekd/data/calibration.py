"""The samples on which quantizers see their ranges."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from edgekd.data.source import DataSource
from edgekd.errors import BadData
from edgekd.target import CalibrationPolicy

# Fewer than this say too little about a range.
FEWEST = 16
# Numbers in the samples that go through a network together: one image of 224x224, 32 of 32x32 and more.
AT_ONCE = 1 << 17


class CalibrationSamples:
    """Preprocessed training samples in batches, read at each pass and let go again, so that memory holds few.

    Iterating gives (B, ...) float32, B at most `samples_at_once`; ``len`` is the number of samples.
    """

    def __init__(self, source: DataSource, indices: Sequence[int]) -> None:
        self.source, self.indices = source, list(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Tensor]:
        size = samples_at_once(self.source.input_shape)
        for start in range(0, len(self), size):
            part = self.indices[start : start + size]
            yield torch.stack([self.source.sample("train", index)[0] for index in part])


def calibration_samples(source: DataSource, policy: CalibrationPolicy) -> CalibrationSamples:
    """At most ``policy.samples`` training samples, drawn with its seed.

    Raises:
        BadData: the training split has fewer than `FEWEST` samples; when iterating, a sample that is no good.
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
    return CalibrationSamples(source, order[: policy.samples].tolist())


def samples_at_once(shape: Sequence[int]) -> int:
    """How many samples of ``shape`` go through a network together; at least one."""
    return max(1, AT_ONCE // max(1, math.prod(shape)))


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
