"""Golden outputs: what a model must give on every machine, within a tolerance that says how it is compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from .bundle_files import BundleError, check_file
from .sessions import Session

# The largest absolute difference, or a kind that has no value.
Tolerance = float | Literal["exact", "top1"]


class Match(NamedTuple):
    """Whether one output is its golden one, and the difference in words."""

    output: str
    ok: bool
    detail: str


def compare(got: np.ndarray, want: np.ndarray, tolerance: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether ``got`` is ``want`` within ``{"kind": "exact" | "max_abs" | "relative" | "top1", "value": …}``, in words.

    ``max_abs`` bounds the largest absolute difference, ``relative`` the same over the largest absolute golden value,
    ``top1`` wants the same argmax over the last axis in every row. NaN and infinity never match.
    """
    if got.shape != want.shape:
        return False, f"has shape {got.shape}, the golden one {want.shape}"
    if not np.isfinite(got).all() or not np.isfinite(want).all():
        return False, "has NaN or infinite values"
    spread = float(np.max(np.abs(got.astype(np.float64) - want.astype(np.float64)), initial=0.0))
    kind = tolerance["kind"]
    if kind == "top1":
        other = int((got.argmax(-1) != want.argmax(-1)).sum())
        return other == 0, f"the largest class differs in {other} of {got[..., 0].size} samples (by up to {spread:.3g})"
    allowed = 0.0 if kind == "exact" else float(tolerance["value"])
    if kind == "relative":
        allowed *= float(np.max(np.abs(want.astype(np.float64)), initial=0.0))
    return spread <= allowed, f"differs by at most {spread:.3g}, allowed {allowed:.3g}"


def tolerance_row(tolerance: Tolerance | Mapping[str, Any]) -> dict[str, Any]:
    """A tolerance as `compare` takes it."""
    if isinstance(tolerance, Mapping):
        return dict(tolerance)
    if isinstance(tolerance, str):
        return {"kind": tolerance, "value": 0.0}
    return {"kind": "max_abs", "value": float(tolerance)}


def match(
    outputs: Mapping[str, np.ndarray],
    golden: Mapping[str, np.ndarray],
    tolerances: Mapping[str, Mapping[str, Any]],
) -> list[Match]:
    """Every golden output against the model's of its name."""
    return [
        Match(name, *compare(outputs[name], want, tolerances[name]))
        if name in outputs
        else Match(name, False, f"is not there; the model has {', '.join(outputs)}")
        for name, want in golden.items()
    ]


def match_outputs(root: Path, manifest: dict[str, Any], candidate: dict[str, Any], session: Session) -> list[Match]:
    """Run a bundle's golden inputs and compare every golden output of the candidate.

    Raises:
        BundleError: a golden file does not hold.
        SessionError: the model does not take the golden input.
    """
    feeds, golden, tolerances = load_golden(root, manifest, candidate)
    return match(run_singly(session, feeds), golden, tolerances)


def run_singly(session: Session, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs of many samples, one at a time (or one of the model's own batches), as devices run it."""
    step = own_batch(session)
    count = len(next(iter(feeds.values())))
    parts = [
        session.run({name: array[start : start + step] for name, array in feeds.items()})
        for start in range(0, count, step)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def own_batch(session: Session) -> int:
    """Samples of one run: 1 where the model lets the batch vary."""
    fixed = session.inputs[0].shape[:1]
    return fixed[0] if fixed and fixed[0] else 1


def golden_rows(manifest: dict[str, Any], candidate: dict[str, Any]) -> dict[str, Any]:
    """Golden outputs of a candidate, by output: its own where it has some, else those of the chosen one."""
    return dict(candidate.get("golden") or manifest["golden"]["outputs"])


def load_golden(
    root: Path, manifest: dict[str, Any], candidate: dict[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Any]]:
    """The golden inputs and a candidate's golden outputs, (N, ...) by name, and the outputs' tolerances.

    Raises:
        BundleError: a golden file does not hold.
    """
    rows = golden_rows(manifest, candidate)
    feeds = {manifest["inputs"][0]["name"]: load_array(root, manifest, manifest["golden"]["input"])}
    outputs = {name: load_array(root, manifest, row["file"]) for name, row in rows.items()}
    return feeds, outputs, {name: row["tolerance"] for name, row in rows.items()}


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
