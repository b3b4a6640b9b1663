"""What every stage of one build shares: the recipe, the data (loaded at first need), versions, seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from edgekd.data import DataSource


class Context:
    """One build's recipe and data; cheap to make, loads torch and data only when a stage has work to do."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @cached_property
    def fingerprint(self) -> str:
        """The data's fingerprint, found without torch for built-in sets and folders."""
        from edgekd.data.fingerprint import fingerprint

        return fingerprint(self.recipe.data, seed=self.recipe.seed)

    @cached_property
    def source(self) -> DataSource:
        """The data, checked once."""
        from edgekd.data import load_data

        return load_data(self.recipe.data, seed=self.recipe.seed)

    def model(self, spec: str, args: dict[str, Any], weights: Path | None) -> nn.Module:
        """A model of this data's classes and input shape, with ``weights`` when given, checked against the data."""
        import torch

        from edgekd.models import build_model, check_classes, load_weights

        torch.manual_seed(self.recipe.seed)
        source = self.source
        module = build_model(spec, classes=len(source.classes), input_shape=source.input_shape, args=args)
        if weights is not None:
            load_weights(module, weights)
        module.eval()
        with torch.inference_mode():
            outputs = module(torch.zeros(2, *source.input_shape))
        check_classes(int(outputs.shape[-1]), source.classes, where=spec)
        return module

    def batches(
        self, split: str, *, limit: int | None = None, size: int = 256
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Preprocessed float32 batches and int64 labels of a split as numpy, in order; at most ``limit`` samples."""
        seen = 0
        for x, y in self.source.loader(split, size, shuffle=False):
            if limit is not None and seen >= limit:
                return
            room = len(y) if limit is None else min(len(y), limit - seen)
            seen += room
            yield x[:room].numpy(), y[:room].numpy()


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of the packages that shape a stage's output."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def file_digest(path: Path) -> str:
    """SHA-256 of a file, for keys."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
