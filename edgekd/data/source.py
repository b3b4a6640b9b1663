"""A data set with its splits, read raw and preprocessed alike for training, calibration and the device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from edgekd.data.reading import check_several, read
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
        quick = getattr(train, "labels", None)
        if quick is not None:
            check_several(np.asarray(quick), name)
        self._held: dict[str, tuple[Tensor, Tensor]] = {}

    @cached_property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one preprocessed sample, without the batch."""
        return tuple(self._sample("train", 0)[0].shape)

    def sample(self, split: str, index: int) -> tuple[Tensor, int]:
        """One preprocessed float32 sample of `input_shape` and its label, checked.

        Raises:
            BadData: unreadable, NaN or infinity, a label out of range, not fitting the spec or the other shapes.
        """
        x, label = self._sample(split, index)
        if tuple(x.shape) != self.input_shape:
            raise BadData(
                f"the sample has the shape {tuple(x.shape)}, others have {self.input_shape}",
                where=f"{self.name}: {split}[{index}]",
                remedy="give data.preprocess a resize and a crop that make all samples alike",
            )
        return x, label

    def _sample(self, split: str, index: int) -> tuple[Tensor, int]:
        where = f"{self.name}: {split}[{index}]"
        raw, label = self._read(split, index)
        try:
            x = preprocess.apply(self.preprocess, raw)
        except preprocess.PreprocessError as error:
            raise BadData(str(error), where=where, remedy="mend data.preprocess or the sample") from None
        if not np.isfinite(x).all():
            raise BadData("the sample holds NaN or infinity", where=where, remedy="remove or mend it")
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
                x[index], y[index] = self.sample(split, index)
            if split == "train":
                check_several(y.numpy(), self.name)
            self._held[split] = (x, y)
        return self._held[split]

    def loader(
        self, split: str, batch_size: int, *, shuffle: bool, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Preprocessed batches: (B, ...) float32 and (B,) int64; the last one may be smaller."""
        held = self.tensors(split)
        if held is None:
            dataset = _Preprocessed(self, split)
            batches = DataLoader(
                dataset, batch_size, shuffle=shuffle, generator=generator, num_workers=2, collate_fn=_collate
            )
            for batch in batches:
                if isinstance(batch, _Fault):
                    raise BadData(batch.what, where=batch.where, remedy=batch.remedy)
                yield batch
            return
        x, y = held
        order = torch.randperm(len(y), generator=generator) if shuffle else torch.arange(len(y))
        for picked in order.split(batch_size):
            yield x[picked], y[picked]

    def raw(self, split: str, indices: Sequence[int]) -> list[np.ndarray]:
        """Raw samples as the device will get them."""
        return [self._read(split, index)[0] for index in indices]

    def labels(self, split: str) -> np.ndarray:
        """All labels of a split: (N,) int64."""
        dataset = getattr(self, split)
        quick = getattr(dataset, "labels", None)
        if quick is not None:
            return np.asarray(quick, np.int64)
        if split in self._held:
            return self._held[split][1].numpy()
        return np.array([self._read(split, index)[1] for index in range(len(dataset))], np.int64)

    def digest(self) -> str:
        """SHA-256 over samples, labels, classes and preprocessing: the fingerprint of data that is not in files."""
        whole = hashlib.sha256(json.dumps([self.classes, self.preprocess], sort_keys=True).encode())
        for split in SPLITS:
            for index in range(len(getattr(self, split))):
                raw, label = self._read(split, index)
                whole.update(f"\n{split} {label} {raw.dtype.str} {raw.shape} ".encode())
                whole.update(np.ascontiguousarray(raw).tobytes())
        return whole.hexdigest()

    def _read(self, split: str, index: int) -> tuple[np.ndarray, int]:
        return read(getattr(self, split), index, f"{self.name}: {split}[{index}]")


class _Fault(NamedTuple):
    """A `BadData` on its way out of a worker process, which would dress it up in its traceback."""

    what: str
    where: str
    remedy: str


class _Preprocessed(Dataset[Any]):
    def __init__(self, source: DataSource, split: str) -> None:
        self.source, self.split = source, split

    def __len__(self) -> int:
        return len(getattr(self.source, self.split))

    def __getitem__(self, index: int) -> tuple[Tensor, int] | _Fault:
        try:
            return self.source.sample(self.split, index)
        except BadData as error:
            return _Fault(error.what, error.where, error.remedy)


def _collate(items: list[Any]) -> Any:
    return next((item for item in items if isinstance(item, _Fault)), None) or default_collate(items)
