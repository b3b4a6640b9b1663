"""One sample of a data set, read with whatever can be wrong told as such."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.utils.data import Dataset

from edgekd.errors import BadData, EdgekdError


def read(dataset: Dataset[Any], index: int, where: str) -> tuple[np.ndarray, int]:
    """The raw sample as an array, and its label.

    Raises:
        BadData: the data set fails, or yields no pair of a sample and a whole number.
    """
    try:
        raw, label = dataset[index]
        number = int(label)
        if float(label) != number:
            raise ValueError(f"the label {label} is no whole number")
        return np.asarray(raw), number
    except (EdgekdError, MemoryError):
        raise
    except Exception as error:
        raise BadData(
            f"the sample cannot be read: {type(error).__name__}: {error}",
            where=where,
            remedy="a data set yields pairs of a sample and its label, a whole number",
        ) from error


def check_several(labels: np.ndarray, where: str) -> None:
    """That training labels are of several classes.

    Raises:
        BadData: they are all the same.
    """
    found = np.unique(labels)
    if len(found) == 1:
        raise BadData(
            f"all {len(labels)} training samples have the label {found[0]}",
            where=where,
            remedy="classification needs samples of at least two classes",
        )
