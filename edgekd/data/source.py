"""A data set with its splits, read raw and preprocessed alike for training, calibration and the device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from edgekd.errors import BadData
from edgekd.runtime import preprocess

SPLITS = ("train", "val", "test")
# A split that is no larger than this after preprocessing is held in memory (bytes).
IN_MEMORY = 1 << 30


class DataSource:
    """Splits of (raw sample, int label) and the preprocessing that makes model inputs of raw samples.

    A raw sample is a uint8 image or any float tensor, as the data set yields it; ``preprocess`` is a spec of
    `edgekd.runtime.preprocess`.
    """

    def __init__(
        self,
        *,
        train: Dataset[Any],
        val: Dataset[Any],
        test: Dataset[Any],
        classes: Sequence[str],
        preprocess: dict[str, Any],
        name: str,
    ) -> None:
        self.train, self.val, self.test = train, val, test
        self.classes, self.preprocess, self.name = list(classes), preprocess, name
        if len(self.classes) < 2:
            raise BadData(
                f"the data has {len(self.classes)} class ({', '.join(self.classes)})",
                where=name,
                remedy="classification needs at least two classes",
            )
        for split in SPLITS:
            if len(getattr(self, split)) == 0:
                raise BadData(f"the {split} split is empty", where=name, remedy="give it samples")
        self._held: dict[str, tuple[Tensor, Tensor]] = {}

    @cached_property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one preprocessed sample, without the batch."""
        return tuple(self.sample("train", 0)[0].shape)

    def sample(self, split: str, index: int) -> tuple[Tensor, int]:
        """One preprocessed float32 sample and its label, checked.

        Raises:
            BadData: NaN or infinity, a label out of range, a sample that does not fit the spec or the other shapes.
        """
        raw, label = getattr(self, split)[index]
        where = f"{self.name}: {split}[{index}]"
        try:
            x = preprocess.apply(self.preprocess, np.asarray(raw))
        except preprocess.PreprocessError as error:
            raise BadData(str(error), where=where, remedy="mend data.preprocess or the sample") from None
        if not np.isfinite(x).all():
            raise BadData("the sample holds NaN or infinity", where=where, remedy="remove or mend it")
        label = int(label)
        if not 0 <= label < len(self.classes):
            raise BadData(
                f"label {label} is out of range: there are {len(self.classes)} classes, 0 to {len(self.classes) - 1}",
                where=where,
                remedy="mend the label, or list all classes",
            )
        return torch.from_numpy(x), label

    def tensors(self, split: str) -> tuple[Tensor, Tensor] | None:
        """All of a split, preprocessed: (N, ...) float32 and (N,) int64; None where it is too large to be held.

        Raises:
            BadData: as `sample`, naming the sample at fault.
        """
        count = len(getattr(self, split))
        if count * int(np.prod(self.input_shape)) * 4 > IN_MEMORY:
            return None
        if split not in self._held:
            x = torch.empty(count, *self.input_shape)
            y = torch.empty(count, dtype=torch.int64)
            for index in range(count):
                sample, y[index] = self.sample(split, index)
                if sample.shape != x.shape[1:]:
                    raise self._misshaped(split, index, sample)
                x[index] = sample
            self._held[split] = (x, y)
        return self._held[split]

    def loader(
        self, split: str, batch_size: int, *, shuffle: bool, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Preprocessed batches: (B, ...) float32 and (B,) int64; the last one may be smaller."""
        held = self.tensors(split)
        if held is None:
            dataset = _Preprocessed(self, split)
            yield from DataLoader(dataset, batch_size, shuffle=shuffle, generator=generator, num_workers=2)
            return
        x, y = held
        order = torch.randperm(len(y), generator=generator) if shuffle else torch.arange(len(y))
        for picked in order.split(batch_size):
            yield x[picked], y[picked]

    def raw(self, split: str, indices: Sequence[int]) -> list[np.ndarray]:
        """Raw samples as the device will get them."""
        return [np.asarray(getattr(self, split)[index][0]) for index in indices]

    def labels(self, split: str) -> np.ndarray:
        """All labels of a split: (N,) int64."""
        dataset = getattr(self, split)
        quick = getattr(dataset, "labels", None)
        if quick is not None:
            return np.asarray(quick, np.int64)
        held = self.tensors(split)
        if held is not None:
            return held[1].numpy()
        return np.array([int(dataset[index][1]) for index in range(len(dataset))], np.int64)

    def digest(self) -> str:
        """SHA-256 over every raw sample and label: the fingerprint of data that is not found in files."""
        whole = hashlib.sha256()
        for split in SPLITS:
            dataset = getattr(self, split)
            for index in range(len(dataset)):
                raw, label = dataset[index]
                whole.update(f"{split}{int(label)}".encode() + np.ascontiguousarray(np.asarray(raw)).tobytes())
        return whole.hexdigest()

    def _misshaped(self, split: str, index: int, sample: Tensor) -> BadData:
        return BadData(
            f"the sample has the shape {tuple(sample.shape)}, others have {self.input_shape}",
            where=f"{self.name}: {split}[{index}]",
            remedy="give data.preprocess a resize and a crop that make all samples alike",
        )


class _Preprocessed(Dataset[tuple[Tensor, int]]):
    def __init__(self, source: DataSource, split: str) -> None:
        self.source, self.split = source, split

    def __len__(self) -> int:
        return len(getattr(self.source, self.split))

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        sample, label = self.source.sample(self.split, index)
        if tuple(sample.shape) != self.source.input_shape:
            raise self.source._misshaped(self.split, index, sample)
        return sample, label
