"""An image folder: a class per subfolder, with train/, val/ and test/ when the user has split it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset

from edgekd.data.image_files import image_files
from edgekd.data.source import DataSource
from edgekd.data.splits import Part, split_validation, stratified
from edgekd.errors import BadData

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
    files = image_files(Path(folder))
    everything = Images(files.rows["train"])
    labels = everything.labels
    if "test" in files.rows:
        test: Dataset[Any] = Images(files.rows["test"])
        rest = np.arange(len(labels))
    else:
        rest, picked = stratified(labels, TEST_SHARE, seed)
        test = Part(everything, picked, labels)
    remaining = Images([everything.rows[i] for i in rest])
    if "val" in files.rows:
        train: Dataset[Any] = remaining
        val: Dataset[Any] = Images(files.rows["val"])
    else:
        train, val = split_validation(remaining, labels[rest], seed)
    return DataSource(
        train=train, val=val, test=test, classes=files.classes, preprocess=preprocess or IMAGENET, name=folder
    )
