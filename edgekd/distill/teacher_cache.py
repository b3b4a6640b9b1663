"""Outputs of a fixed teacher, computed once for a few augmented views of the training set.

A view augments every sample by random numbers that depend on the seed and the view alone, so the cached outputs belong
to the student's very input, and a long distillation costs a few passes of the teacher ("Knowledge distillation: a good
teacher is patient and consistent", Beyer et al., 2022, asks for that consistency).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.data.augment import augment
from edgekd.data.source import DataSource
from edgekd.distill.predict import evaluation_mode
from edgekd.stage import Progress

CHUNK = 1024


class View(NamedTuple):
    """An augmented training set (N, ...) and the teacher's outputs on it (N, K), on the training's device."""

    samples: Tensor
    outputs: Tensor


class TeacherCache:
    """A fixed teacher; its outputs are kept in ``folder`` a view, so a resumed training finds them."""

    def __init__(
        self,
        teacher: nn.Module,
        source: DataSource,
        *,
        names: tuple[str, ...],
        views: int,
        seed: int,
        folder: Path,
        progress: Progress,
    ) -> None:
        self.source, self.names, self.seed, self.folder, self.progress = source, names, seed, folder, progress
        # Without augmentation all views are the same.
        self.views = views if names else 1
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.teacher = teacher.to(self.device)
        evaluation_mode(self.teacher)
        self._now: tuple[int, View] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def view(self, epoch: int) -> View:
        """The view of ``epoch``: they are taken in turn."""
        number = epoch % self.views
        if self._now is None or self._now[0] != number:
            self._now = None  # free the old one first
            self._now = (number, self._make(number))
        return self._now[1]

    def outputs(self, x: Tensor) -> Tensor:
        """The teacher's outputs on a batch, for data too large to be held."""
        with torch.no_grad():
            return self.teacher(x.to(self.device)).float()

    def _make(self, number: int) -> View:
        held = self.source.tensors("train")
        assert held is not None
        generator = torch.Generator().manual_seed(self.seed * 1009 + number)
        samples = torch.cat([augment(part, self.names, generator) for part in held[0].split(CHUNK)]).to(self.device)
        path = self.folder / f"teacher-view-{number}.npy"
        if path.exists():
            return View(samples, torch.from_numpy(np.load(path)).to(self.device))
        self.progress.log(f"  teacher: outputs of view {number + 1} of {self.views}")
        channels_last = samples.dim() == 4
        parts = []
        for part in samples.split(CHUNK):
            parts.append(self.outputs(part.contiguous(memory_format=torch.channels_last) if channels_last else part))
        outputs = torch.cat(parts)
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("wb") as stream:
            np.save(stream, outputs.cpu().numpy())
        os.replace(temporary, path)
        return View(samples, outputs)
