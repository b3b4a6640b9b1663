"""Whether one bundle can be the baseline of another: the same inputs, for the same target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What makes two targets of one name the same: where the model runs, and with what.
TARGET_KEYS = ("name", "backend", "arch", "isa", "board")


def differences(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[str]:
    """What keeps two manifests from being compared, a line each; none where they can be.

    Precision, labels, outputs, candidates and recipe may differ: that is what a new version changes.
    """
    found = []
    if new["task"] != old["task"]:
        found.append(f"task: {new['task']}, the baseline has {old['task']}")
    for key in TARGET_KEYS:
        one, other = new["target"].get(key), old["target"].get(key)
        if one != other:
            found.append(f"target.{key}: {one}, the baseline has {other}")
    for key in ("threads", "cores"):
        one, other = (side["target"].get("runtime", {}).get(key) for side in (new, old))
        if one != other:
            found.append(f"target.runtime.{key}: {one}, the baseline has {other}")
    if len(new["inputs"]) != len(old["inputs"]):
        found.append(f"{len(new['inputs'])} inputs, the baseline has {len(old['inputs'])}")
    for index, (mine, theirs) in enumerate(zip(new["inputs"], old["inputs"], strict=False)):
        for key in ("name", "dtype", "shape"):
            if mine.get(key) != theirs.get(key):
                found.append(f"inputs[{index}].{key}: {mine.get(key)}, the baseline has {theirs.get(key)}")
    for key in sorted({*new["preprocess"], *old["preprocess"]}):
        one, other = new["preprocess"].get(key), old["preprocess"].get(key)
        if one != other:
            found.append(f"preprocess.{key}: {one}, the baseline has {other}")
    return found
