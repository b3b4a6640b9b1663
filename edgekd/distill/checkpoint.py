"""The state of a training after an epoch, in one file that is whole or not there."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekd.errors import StoreFailed
from edgekd.store import write_bytes_atomic

NAME = "checkpoint.pt"


@dataclass
class TrainingState:
    """Where a training stands: ``epoch`` epochs are done.

    ``best`` is the model's state after ``best_epoch`` epochs (0: the state at the start; None: there is none yet).
    Random states are no part of it: they follow from the seed and the epoch (`edgekd.distill.seeding`).
    """

    identity: str
    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int | None = None
    best_metric: float | None = None
    best: dict[str, Tensor] | None = None
    model: dict[str, Any] | None = None
    optimizer: dict[str, Any] | None = None


def save_state(state: TrainingState, scratch: Path) -> Path:
    """Write ``state`` to a temporary file in ``scratch``, sync it, rename it; returns the checkpoint's path.

    Raises:
        StoreFailed: the disk is full or not writable; the checkpoint before is untouched.
    """
    # asdict would copy every tensor.
    value = {name: getattr(state, name) for name in state.__dataclass_fields__}
    if state.best_epoch == state.epoch:
        value["best"] = None
    buffer = io.BytesIO()
    torch.save(value, buffer)
    path = scratch / NAME
    try:
        write_bytes_atomic(path, buffer.getvalue())
    except OSError as error:
        raise StoreFailed(
            f"the training's checkpoint cannot be written: {error.strerror or error}",
            where=str(path),
            remedy="make room (edgekd cache prune) and run the same command again: it goes on from the epoch before",
        ) from error
    return path


def load_state(scratch: Path, identity: str) -> TrainingState | None:
    """The state in ``scratch``, read without running anything; None where there is none of this training."""
    # What a kill amid a write left behind; the stage's lock keeps others out of its scratch folder.
    for left in scratch.glob(f".{NAME}.*"):
        left.unlink(missing_ok=True)
    try:
        value = torch.load(scratch / NAME, map_location="cpu", weights_only=True)
        state = TrainingState(**value)
    except (OSError, EOFError, RuntimeError, TypeError, ValueError, KeyError, pickle.UnpicklingError):
        return None
    if state.identity != identity or state.model is None:
        return None
    if state.best_epoch == state.epoch:
        state.best = state.model
    return state
