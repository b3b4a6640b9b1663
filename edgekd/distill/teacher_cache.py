"""A fixed teacher's answers, computed once a view of the data and kept in files: epochs share the views.

The student sees the very inputs that its teacher answered to (Beyer et al., 2022, "Knowledge distillation: A good
teacher is patient and consistent", section 3).
"""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from edgekd.distill.feed import Feed
from edgekd.distill.placement import switch_mode
from edgekd.errors import BadModel, StoreFailed
from edgekd.stage import Progress
from edgekd.store import write_bytes_atomic

# A pass of the teacher is worth a line from this long on (seconds).
TELL_AFTER = 2.0


class TeacherCache:
    """Outputs of ``teacher`` (a module that returns one (N, K) tensor) for each of ``views`` augmented views.

    ``folder`` belongs to one training: what lies in it is trusted when its number of rows fits.
    """

    def __init__(
        self, teacher: nn.Module, feed: Feed, *, views: int, folder: Path, fabric: Fabric, progress: Progress
    ) -> None:
        self.teacher, self.feed, self.folder = teacher, feed, folder
        self.views = views if feed.changes else 1
        self.fabric, self.progress = fabric, progress
        self._now: tuple[int, Tensor] | None = None

    def view_of(self, epoch: int) -> int:
        """Epochs go round the views."""
        return epoch % self.views

    def outputs(self, view: int) -> Tensor:
        """(N, K) float32 on the training device, row i for the i-th sample of `Feed.inputs` of the view.

        Raises:
            BadModel: the teacher answers with NaN or infinity.
            StoreFailed: the disk is full.
        """
        if self._now is None or self._now[0] != view:
            array = self._read(view)
            if array is None:
                array = self._compute(view)
            self._now = (view, torch.from_numpy(array).to(self.fabric.device))
        return self._now[1]

    def _compute(self, view: int) -> np.ndarray:
        begin = time.perf_counter()
        switch_mode(self.teacher, False)
        self.teacher.to(self.fabric.device)
        # The feed runs outside of inference mode: the tensors that it keeps serve training too.
        array = np.concatenate([self._answer(x) for x in self.feed.inputs(view)])
        if not np.isfinite(array).all():
            raise BadModel(
                "the teacher answers with NaN or infinity",
                where="teacher",
                remedy="its weights do not fit the data or its preprocessing; check both",
            )
        seconds = time.perf_counter() - begin
        if seconds > TELL_AFTER:
            self.progress.log(f"the teacher answered to view {view + 1} of {self.views}, {seconds:.1f} s")
        buffer = io.BytesIO()
        np.save(buffer, array)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_bytes_atomic(self._path(view), buffer.getvalue())
        except OSError as error:
            raise StoreFailed(
                f"the teacher's answers cannot be written: {error.strerror or error}",
                where=str(self.folder),
                remedy="make room (edgekd cache prune), then run the same command again",
            ) from error
        return array

    def _answer(self, x: Tensor) -> np.ndarray:
        with torch.inference_mode(), self.fabric.autocast():
            return self.teacher(x).float().cpu().numpy()

    def _read(self, view: int) -> np.ndarray | None:
        try:
            return np.load(self._path(view), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None

    def _path(self, view: int) -> Path:
        return self.folder / f"view-{view}.npy"
