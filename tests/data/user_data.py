"""Factories as users write them, and makers of small files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import TensorDataset

RANDOM = np.random.default_rng(0)


def split(count: int, shape: tuple[int, ...] = (1, 13, 40), classes: int = 3) -> TensorDataset:
    y = torch.arange(count) % classes
    return TensorDataset(torch.randn(count, *shape, generator=torch.Generator().manual_seed(count)), y)


def spectrograms(**changed: Any) -> dict[str, Any]:
    """Audio-like: one channel, an odd shape, no preprocessing."""
    return {"train": split(40), "test": split(12), "classes": ["yes", "no", "stop"]} | changed


def with_validation() -> dict[str, Any]:
    return spectrograms(val=split(10))


def waves() -> dict[str, Any]:
    """One dimension, normalized by the factory's own preprocessing."""
    spec = {"layout": "none", "scale": 2.0, "mean": [1.0], "std": [4.0]}
    return spectrograms(train=split(40, (2, 50)), test=split(12, (2, 50)), preprocess=spec)


def spoilt(kind: str) -> dict[str, Any]:
    train = split(40)
    x, y = train.tensors
    if kind == "nan":
        x[17, 0, 3, 3] = float("nan")
    elif kind == "infinity":
        x[17, 0, 3, 3] = -float("inf")
    elif kind == "label":
        y[17] = 3
    elif kind == "negative":
        y[17] = -1
    elif kind == "one label":
        y[:] = 1
    elif kind == "fraction":
        return spectrograms(train=TensorDataset(x, y + 0.5), val=split(10))
    elif kind == "no pairs":
        return spectrograms(train=TensorDataset(x), val=split(10))
    elif kind == "shape":
        samples = [(x[i, :, :, : 40 - (i == 17)], int(y[i])) for i in range(40)]
        return spectrograms(train=samples, val=split(10))
    elif kind == "text":
        return spectrograms(train=[(np.array(["a"]), i % 3) for i in range(40)], val=split(10))
    elif kind == "fails":
        return spectrograms(train=Failing(), val=split(10))
    return spectrograms(train=train, val=split(10))


class Failing:
    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index == 17:
            raise RuntimeError("the microphone was off")
        return torch.zeros(1, 13, 40), index % 3


def not_a_mapping() -> list[int]:
    return [1, 2]


def lacking() -> dict[str, Any]:
    return {"train": split(4)}


def raising() -> dict[str, Any]:
    raise RuntimeError("no network drive")


NOT_CALLABLE = 3


def image(path: Path, size: tuple[int, int] = (12, 10), mode: str = "RGB", seed: int = 0) -> Path:
    """Noise, width x height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8), mode).save(path)
    return path


def image_folder(root: Path, counts: dict[str, int]) -> Path:
    """So many images in each subfolder."""
    for name, count in counts.items():
        for index in range(count):
            image(root / name / f"{index}.png", seed=hash((name, index)) % 2**32)
    return root


def idx(path: Path, array: np.ndarray) -> None:
    """An IDX file, gzipped when its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def idx_folder(root: Path, *, train: int = 60, test: int = 20, suffix: str = "") -> Path:
    """The four files of Fashion-MNIST, tiny."""
    random = np.random.default_rng(1)
    for part, count in (("train", train), ("t10k", test)):
        idx(root / f"{part}-images-idx3-ubyte{suffix}", random.integers(0, 256, (count, 28, 28)))
        idx(root / f"{part}-labels-idx1-ubyte{suffix}", np.arange(count) % 10)
    return root
