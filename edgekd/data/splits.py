"""In-memory data sets, and the split of a validation set off the training set."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.utils.data import Dataset, Subset

# At most so many samples are taken from the training set for validation, and at most a tenth of it.
VALIDATION_SAMPLES = 5000


class Arrays(Dataset[tuple[np.ndarray, int]]):
    """Samples (N, ...) and labels (N,) held in memory."""

    def __init__(self, samples: np.ndarray, labels: np.ndarray) -> None:
        self.samples, self.labels = samples, np.asarray(labels, np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.samples[index], int(self.labels[index])


class Part(Subset[Any]):
    """A subset that knows its labels without reading samples."""

    def __init__(self, dataset: Dataset[Any], indices: np.ndarray, labels: np.ndarray) -> None:
        super().__init__(dataset, indices.tolist())
        self.labels = labels[indices]


def split_validation(dataset: Dataset[Any], labels: np.ndarray, seed: int) -> tuple[Part, Part]:
    """(train, validation): a tenth of each class, `VALIDATION_SAMPLES` at most in all, drawn with ``seed``."""
    share = min(0.1, VALIDATION_SAMPLES / max(len(labels), 1))
    train, validation = stratified(labels, share, seed)
    return Part(dataset, train, labels), Part(dataset, validation, labels)


def stratified(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices of the rest and of ``share`` of each class (at least one sample of a class that has two)."""
    rng = np.random.default_rng(seed)
    taken = []
    for label in np.unique(labels):
        mine = rng.permutation(np.flatnonzero(labels == label))
        count = max(1, round(share * len(mine))) if len(mine) > 1 else 0
        taken.append(mine[:count])
    held_out = np.sort(np.concatenate(taken)) if taken else np.array([], int)
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out
