"""Batches of the training split: from memory (on the training device) or through a loader.

What augmentation makes of a sample depends on the seed, the view and the sample's place alone, so that a teacher's
answers to a view can be kept: the student sees the very same inputs again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from edgekd.data.augment import augment
from edgekd.distill.seeding import generator

if TYPE_CHECKING:
    from edgekd.data.source import DataSource

# Samples that are augmented, or answered by the teacher, at once.
CHUNK = 1024


class Batch(NamedTuple):
    """Inputs (B, ...) float32, targets (B,), and the places of the samples among `Feed.inputs` of the view."""

    x: Tensor
    y: Tensor
    rows: Tensor


class Feed(ABC):
    """Batches of an epoch; ``steps`` is their number, ``changes`` whether views differ."""

    steps: int
    changes: bool

    @abstractmethod
    def batches(self, epoch: int, view: int) -> Iterator[Batch]:
        """The batches of ``epoch`` (from 0), whose inputs are augmented as ``view`` says."""

    @abstractmethod
    def inputs(self, view: int) -> Iterator[Tensor]:
        """All inputs of a view, in the order that `Batch.rows` counts."""


def make_feed(
    source: DataSource,
    batch_size: int,
    *,
    seed: int,
    names: Sequence[str],
    device: torch.device,
    layout: torch.memory_format,
) -> Feed:
    """The feed that fits ``source``: from memory where its training split is held there."""
    held = source.tensors("train")
    if held is not None:
        return MemoryFeed(*held, batch_size, seed=seed, names=names, device=device, layout=layout)
    return LoaderFeed(source, batch_size, seed=seed, names=names, device=device, layout=layout)


class MemoryFeed(Feed):
    """Samples moved to the device once and picked by index; every epoch has an order of its own."""

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        batch_size: int,
        *,
        seed: int,
        names: Sequence[str],
        device: torch.device,
        layout: torch.memory_format,
    ) -> None:
        self.x, self.y = x.to(device), y.to(device)
        self.seed, self.names, self.layout = seed, tuple(names), layout
        self.changes = bool(names) and x.dim() == 4
        # Batches of nearly equal size: a rest of one sample would break BatchNorm.
        self.steps = -(-len(y) // batch_size)
        self._view: tuple[int, Tensor] | None = None

    def batches(self, epoch: int, view: int) -> Iterator[Batch]:
        """Every sample once, in an order drawn from the seed and the epoch."""
        x = self._augmented(view)
        order = torch.randperm(len(self.y), generator=generator(self.seed, "order", epoch)).to(self.y.device)
        for rows in order.tensor_split(self.steps):
            yield Batch(_laid_out(x[rows], self.layout), self.y[rows], rows)

    def inputs(self, view: int) -> Iterator[Tensor]:
        """The view in the order of the data."""
        for x in self._augmented(view).split(CHUNK):
            yield _laid_out(x, self.layout)

    def _augmented(self, view: int) -> Tensor:
        if not self.changes:
            return self.x
        if self._view is None or self._view[0] != view:
            # One buffer for all views: the data is held twice, not once a view.
            buffer = torch.empty_like(self.x) if self._view is None else self._view[1]
            for chunk, x in enumerate(self.x.split(CHUNK)):
                random = generator(self.seed, "augment", view, chunk)
                buffer[chunk * CHUNK : chunk * CHUNK + len(x)] = augment(x, self.names, random)
            self._view = (view, buffer)
        return self._view[1]


class LoaderFeed(Feed):
    """Samples read as they are needed; the order belongs to the view, and with it what is augmented together."""

    def __init__(
        self,
        source: DataSource,
        batch_size: int,
        *,
        seed: int,
        names: Sequence[str],
        device: torch.device,
        layout: torch.memory_format,
    ) -> None:
        self.source, self.batch_size, self.seed, self.names = source, batch_size, seed, tuple(names)
        self.device, self.layout = device, layout
        # Even unchanged inputs come in another order in each view.
        self.changes = True
        count = len(source.train)  # type: ignore[arg-type]
        self.steps = -(-count // batch_size)
        if self.steps > 1 and count % batch_size == 1:
            self.steps -= 1

    def batches(self, epoch: int, view: int) -> Iterator[Batch]:
        """The view's batches; a rest of one sample, which would break BatchNorm, is left out."""
        order, begin = generator(self.seed, "order", view), 0
        loader = self.source.loader("train", self.batch_size, shuffle=True, generator=order)
        for number, (x, y) in enumerate(loader):
            if number >= self.steps:
                continue
            x = augment(x, self.names, generator(self.seed, "augment", view, number))
            rows = torch.arange(begin, begin + len(y), device=self.device)
            begin += len(y)
            yield Batch(_laid_out(x.to(self.device), self.layout), y.to(self.device), rows)

    def inputs(self, view: int) -> Iterator[Tensor]:
        """The view's batches' inputs."""
        for batch in self.batches(0, view):
            yield batch.x


def _laid_out(x: Tensor, layout: torch.memory_format) -> Tensor:
    return x.contiguous(memory_format=layout) if x.dim() == 4 else x
