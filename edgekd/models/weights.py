"""Weights, loaded without running anything: safetensors, or a checkpoint that torch reads with weights_only."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgekd.errors import BadModel

# How trainers commonly nest the weights in a checkpoint.
NESTS = ("state_dict", "model_state_dict", "model", "module")


def load_weights(module: nn.Module, path: Path) -> None:
    """Load ``path`` into ``module``, all keys and shapes fitting.

    Raises:
        BadModel: no such file, not safe to load, or keys that do not fit (named).
    """
    state = _read(path)
    own = module.state_dict()
    # DataParallel and compile write prefixes of their own.
    for prefix in ("module.", "_orig_mod."):
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    # Counters of BatchNorm do not change what a network computes; old files lack them.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in sorted(state) if key not in own and not key.endswith("num_batches_tracked")]
    misshaped = [
        f"{key} is {tuple(state[key].shape)}, the model wants {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    problems = [
        f"{title}: {', '.join(keys[:5])}{f' and {len(keys) - 5} more' if len(keys) > 5 else ''}"
        for title, keys in (("missing", missing), ("not in the model", unexpected), ("other shapes", misshaped))
        if keys
    ]
    if problems:
        raise BadModel(
            "the weights do not fit the model; " + "; ".join(problems),
            where=str(path),
            remedy="give the model that these weights were trained in, with the same args and classes",
        )
    bad = [key for key, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if bad:
        raise BadModel(f"the weights hold NaN or infinity: {', '.join(bad[:5])}", where=str(path))
    module.load_state_dict(state, strict=False)


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the module's state as safetensors, under a temporary name first."""
    temporary = path.with_name(f".{path.name}.tmp")
    # Cloned: weights that a network uses twice share their memory, which the format refuses.
    save_file({key: value.detach().cpu().contiguous().clone() for key, value in module.state_dict().items()}, temporary)
    os.replace(temporary, path)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise BadModel("there is no such weights file", where=str(path), remedy="check the path")
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise BadModel(f"is not a safetensors file: {error}", where=str(path)) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception:  # a damaged pickle fails in any way; torch's own words advise to load it unsafely
        raise BadModel(
            "refused: it holds more than weights, or is damaged",
            where=str(path),
            remedy="save plain weights: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')",
        ) from None
    while isinstance(value, Mapping):
        nest = next((key for key in NESTS if isinstance(value.get(key), Mapping)), None)
        if nest is None:
            break
        value = value[nest]
    if not isinstance(value, Mapping) or not all(
        isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items()
    ):
        raise BadModel("holds no mapping of names to tensors", where=str(path), remedy="save model.state_dict()")
    return dict(value)
