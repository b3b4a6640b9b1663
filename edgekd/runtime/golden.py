"""Golden outputs: what a model must give on every machine, within a tolerance that says how it is compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .bundle_files import BundleError, check_file
from .sessions import Session


class Match(NamedTuple):
    """Whether one output is its golden one, and the difference in words."""

    output: str
    ok: bool
    detail: str


def compare(got: np.ndarray, want: np.ndarray, tolerance: dict[str, Any]) -> tuple[bool, str]:
    """Whether ``got`` is ``want`` within ``{"kind": "exact" | "max_abs" | "top1", "value": …}``, and in words.

    ``max_abs`` bounds the largest absolute difference, ``top1`` wants the same argmax over the last axis in every
    row. NaN and infinity never match.
    """
    if got.shape != want.shape:
        return False, f"has shape {got.shape}, the golden one {want.shape}"
    if not np.isfinite(got).all() or not np.isfinite(want).all():
        return False, "has NaN or infinite values"
    spread = float(np.max(np.abs(got.astype(np.float64) - want.astype(np.float64)), initial=0.0))
    if tolerance["kind"] == "top1":
        other = int((got.argmax(-1) != want.argmax(-1)).sum())
        return other == 0, f"the largest class differs in {other} of {got[..., 0].size} samples (by up to {spread:.3g})"
    allowed = float(tolerance["value"]) if tolerance["kind"] == "max_abs" else 0.0
    return spread <= allowed, f"differs by at most {spread:.3g}, allowed {allowed:.3g}"


def golden_rows(manifest: dict[str, Any], candidate: dict[str, Any]) -> dict[str, Any]:
    """Golden outputs of a candidate, by output: its own where it has some, else those of the chosen one."""
    return dict(candidate.get("golden") or manifest["golden"]["outputs"])


def load_array(root: Path, manifest: dict[str, Any], name: str) -> np.ndarray:
    """A listed ``.npy``, its hash checked; pickles are refused.

    Raises:
        BundleError: it does not hold or is no array.
    """
    path = check_file(root, name, manifest["files"][name])
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise BundleError(f"is not an array: {error}", str(path)) from error


def load_raw(root: Path, manifest: dict[str, Any]) -> list[np.ndarray]:
    """The golden raw samples, whose shapes may differ.

    Raises:
        BundleError: the file does not hold, or lacks one of the arrays "0", "1", ...
    """
    name = manifest["golden"]["raw"]
    path = check_file(root, name, manifest["files"][name])
    try:
        with np.load(path, allow_pickle=False) as stored:
            return [np.asarray(stored[str(index)]) for index in range(manifest["golden"]["samples"])]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise BundleError(f"does not hold the raw samples: {error}", str(path)) from error


def match_outputs(
    root: Path, manifest: dict[str, Any], candidate: dict[str, Any], session: Session, *, samples: int | None = None
) -> list[Match]:
    """Run the golden inputs, the first ``samples`` or all, and compare every golden output.

    One sample at a time where the model lets the batch vary, as devices run it.

    Raises:
        BundleError: a golden file does not hold.
        SessionError: the model does not take the golden input.
    """
    inputs = load_array(root, manifest, manifest["golden"]["input"])
    name = manifest["inputs"][0]["name"]
    fixed = session.inputs[0].shape[:1]
    step = fixed[0] if fixed and fixed[0] else 1
    count = len(inputs) if samples is None else min(max(samples, step), len(inputs))
    parts = [session.run({name: inputs[start : start + step]}) for start in range(0, count, step)]
    found = []
    for output, row in golden_rows(manifest, candidate).items():
        if output not in parts[0]:
            found.append(Match(output, False, f"the model has no such output; it has {', '.join(parts[0])}"))
            continue
        want = load_array(root, manifest, row["file"])[:count]
        got = np.concatenate([part[output] for part in parts])
        found.append(Match(output, *compare(got, want, row["tolerance"])))
    return found
