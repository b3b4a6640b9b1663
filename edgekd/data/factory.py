"""Data from the user's own code: a callable that returns a mapping of torch data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgekd.data.reading import read
from edgekd.data.source import DataSource
from edgekd.data.splits import split_validation
from edgekd.errors import BadData
from edgekd.user_code import call
from edgekd.yaml_source import nearest

KEYS = ("train", "test", "val", "classes", "preprocess")


def load_factory(spec: str, args: dict[str, Any], preprocess: dict[str, Any] | None, seed: int) -> DataSource:
    """``train``, ``test``, optionally ``val``: data sets of (raw tensor, label); ``classes``; ``preprocess`` (a spec).

    The tensors are raw: edgekd applies the preprocessing, in training as on the device; without one they are used
    as they are.

    Raises:
        BadData: the callable is missing, fails to return such a mapping, or has other keys than those.
    """
    value = call(spec, BadData, **args)
    if not isinstance(value, Mapping):
        raise BadData(f"returned {type(value).__name__}, not a mapping", where=spec, remedy=f"return {', '.join(KEYS)}")
    lacking = [key for key in ("train", "test", "classes") if key not in value]
    if lacking:
        raise BadData(f"its mapping lacks {', '.join(lacking)}", where=spec, remedy=f"return {', '.join(KEYS)}")
    unknown = [str(key) for key in value if key not in KEYS]
    if unknown:
        raise BadData(
            f"its mapping has an unknown key {unknown[0]!r}", where=spec, remedy=nearest(unknown[0], list(KEYS))
        )
    if isinstance(value["classes"], str) or not isinstance(value["classes"], Sequence):
        raise BadData("classes is no list of names", where=spec, remedy='for example: "classes": ["cat", "dog"]')
    for split in ("train", "test", "val"):
        dataset = value.get(split)
        if dataset is not None and not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise BadData(
                f"{split} is a {type(dataset).__name__}, which cannot be indexed",
                where=spec,
                remedy="give a torch Dataset with __len__ and __getitem__",
            )
        if dataset is not None and len(dataset) == 0:
            raise BadData(f"the {split} split is empty", where=spec, remedy="give it samples")
    train, val = value["train"], value.get("val")
    if val is None:
        labels = np.array([read(train, index, f"{spec}: train[{index}]")[1] for index in range(len(train))], np.int64)
        train, val = split_validation(train, labels, seed)
    return DataSource(
        train=train,
        val=val,
        test=value["test"],
        classes=[str(name) for name in value["classes"]],
        preprocess=preprocess or value.get("preprocess") or {"layout": "none"},
        name=spec,
    )
