"""An image folder: a class per subfolder, with train/, val/ and test/ when the user has split it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset

from edgekd.data.source import DataSource
from edgekd.data.splits import Part, split_validation, stratified
from edgekd.errors import BadData

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
TEST_SHARE = 0.2
# What torchvision's and timm's classifiers are commonly evaluated with.
IMAGENET = {
    "layout": "hwc",
    "resize": {"mode": "bilinear", "size": 256},
    "crop": [224, 224],
    "scale": 1 / 255,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}


class Images(Dataset[tuple[np.ndarray, int]]):
    """Images on disk as (H, W, 3) uint8 and the index of their class."""

    def __init__(self, rows: list[tuple[Path, int]]) -> None:
        self.rows = rows
        self.labels = np.array([label for _, label in rows], np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        path, label = self.rows[index]
        try:
            with Image.open(path) as image:
                return np.asarray(image.convert("RGB")), label
        except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
            raise BadData(
                f"does not decode as an image: {error}", where=str(path), remedy="remove or mend it"
            ) from None


def load_folder(folder: str, preprocess: dict[str, Any] | None, seed: int) -> DataSource:
    """Images of ``folder``: a class per subfolder, or train/ of such, with test/ and val/ where they are there.

    Without test/ a fifth of each class is the test set, without val/ a tenth of the training set validates.

    Raises:
        BadData: missing or empty folder, one class only, or test classes that training lacks.
    """
    root = Path(folder)
    if not root.is_dir():
        raise BadData("there is no such folder", where=folder, remedy="check data.folder")
    split = (root / "train").is_dir()
    base = root / "train" if split else root
    classes = sorted(path.name for path in base.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise BadData("has no class folders", where=str(base), remedy="make one subfolder of images for each class")
    everything = Images(_rows(base, classes))
    labels = everything.labels
    if split and (root / "test").is_dir():
        test: Dataset[Any] = Images(_rows(root / "test", classes))
        rest = np.arange(len(labels))
    else:
        rest, picked = stratified(labels, TEST_SHARE, seed)
        test = Part(everything, picked, labels)
    remaining = Images([everything.rows[i] for i in rest])
    if split and (root / "val").is_dir():
        train: Dataset[Any] = remaining
        val: Dataset[Any] = Images(_rows(root / "val", classes))
    else:
        train, val = split_validation(remaining, labels[rest], seed)
    return DataSource(train=train, val=val, test=test, classes=classes, preprocess=preprocess or IMAGENET, name=folder)


def _rows(base: Path, classes: list[str]) -> list[tuple[Path, int]]:
    index = {name: i for i, name in enumerate(classes)}
    rows = []
    for place in sorted(path for path in base.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if place.name not in index:
            raise BadData(
                f"the class {place.name!r} is not in the training folder", where=str(place), remedy="add or remove it"
            )
        images = sorted(path for path in place.rglob("*") if path.suffix.lower() in ENDINGS)
        if not images:
            raise BadData(
                "has no images", where=str(place), remedy=f"put images there ({', '.join(ENDINGS)}), or remove it"
            )
        rows += [(path, index[place.name]) for path in images]
    if not rows:
        raise BadData("has no images", where=str(base), remedy="make one subfolder of images for each class")
    return rows
