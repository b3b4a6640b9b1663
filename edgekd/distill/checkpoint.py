"""Where a training stands, on disk: written whole or not at all, read without running anything."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values under a temporary name, sync, rename."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """What `save_checkpoint` wrote; None when it is not there or cannot be read."""
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, EOFError, RuntimeError, pickle.UnpicklingError):
        return None
    return value if isinstance(value, dict) else None
