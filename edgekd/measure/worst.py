"""The samples on which a form differs most from the float network, kept so that anybody can run them again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COUNT = 4
# Bytes of their inputs at most: a bundle is mailed.
LARGEST = 4_000_000


@dataclass(frozen=True)
class WorstInputs:
    """The worst first: ``positions`` (k,) among the samples, their ``inputs`` (k, ...), outputs (k, K) of both."""

    positions: np.ndarray
    inputs: np.ndarray
    wanted: np.ndarray
    got: np.ndarray

    @property
    def differences(self) -> np.ndarray:
        """The largest absolute difference of each sample's outputs (k,); infinite where one is not finite."""
        return _differences(self.wanted, self.got)


def worst_inputs(
    samples: np.ndarray, wanted: np.ndarray, got: np.ndarray, *, count: int = COUNT, largest: int = LARGEST
) -> WorstInputs:
    """At most ``count`` of ``samples`` (N, ...), fewer where more would take ``largest`` bytes, even none.

    ``wanted`` (N, K) are the float network's outputs, ``got`` the form's. Of equals the first is taken.
    """
    count = min(count, len(samples), largest // samples[0].nbytes)
    positions = np.argsort(-_differences(wanted, got), kind="stable")[:count]
    return WorstInputs(positions, samples[positions], wanted[positions], got[positions])


def _differences(wanted: np.ndarray, got: np.ndarray) -> np.ndarray:
    largest = np.abs(got.astype(np.float64) - wanted).max(axis=tuple(range(1, got.ndim)), initial=0.0)
    return np.where(np.isfinite(largest), largest, np.inf)
