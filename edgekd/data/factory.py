"""Data from the user's own code: a callable that returns a mapping of torch data sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekd.data.source import DataSource
from edgekd.data.splits import split_validation
from edgekd.errors import BadData
from edgekd.user_code import call

KEYS = ("train", "test", "val", "classes", "preprocess")


def load_factory(spec: str, args: dict[str, Any], preprocess: dict[str, Any] | None, seed: int) -> DataSource:
    """``train``, ``test``, optionally ``val``: data sets of (raw tensor, label); ``classes``; ``preprocess`` (a spec).

    The tensors are raw: edgekd applies the preprocessing, in training as on the device; without one they are used
    as they are.

    Raises:
        BadData: the callable is missing, fails to return such a mapping, or lacks a key.
    """
    value = call(spec, BadData, **args)
    if not isinstance(value, Mapping):
        raise BadData(f"returned {type(value).__name__}, not a mapping", where=spec, remedy=f"return {', '.join(KEYS)}")
    lacking = [key for key in ("train", "test", "classes") if key not in value]
    if lacking:
        raise BadData(f"its mapping lacks {', '.join(lacking)}", where=spec, remedy=f"return {', '.join(KEYS)}")
    train, val = value["train"], value.get("val")
    for split in ("train", "test", "val"):
        if value.get(split) is not None and len(value[split]) == 0:
            raise BadData(f"the {split} split is empty", where=spec, remedy="give it samples")
    if val is None:
        labels = np.array([int(train[index][1]) for index in range(len(train))], np.int64)
        train, val = split_validation(train, labels, seed)
    return DataSource(
        train=train,
        val=val,
        test=value["test"],
        classes=[str(name) for name in value["classes"]],
        preprocess=preprocess or value.get("preprocess") or {"layout": "none"},
        name=spec,
    )
