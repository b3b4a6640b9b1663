"""How often each magnitude occurs, counted as samples come, in constant memory."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

BINS = 4096
# The first range is [0, 2**LEAST): a smaller activation is below any scale that is used (`observers.EPS`).
LEAST = -24
# Elements at a time: counts of a part stay exact in float32, and what is copied stays small.
PART = 1 << 20


class MagnitudeHistogram:
    """Counts of ``|x|`` in `BINS` equal bins over [0, `top`), and how many elements are exactly zero.

    ``top`` is a power of two and doubles when a magnitude reaches it, two bins becoming one: the counts are those of
    all samples at once, however they were split. ``counts`` is (BINS,) int64 and leaves out the zeros.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.zeros = 0
        self._exponent = LEAST

    @property
    def top(self) -> float:
        """Upper end of the last bin."""
        return math.ldexp(1.0, self._exponent)

    @property
    def edges(self) -> np.ndarray:
        """(BINS + 1,) float64."""
        return np.arange(BINS + 1) * (self.top / BINS)

    def add(self, x: Tensor) -> None:
        """Count a finite tensor of any shape."""
        for part in x.detach().reshape(-1).split(PART):
            magnitude = part.abs()
            self._reach(float(magnitude.max()))
            # Division by a power of two is exact, and so is the bin.
            counts = torch.histc(magnitude.div_(self.top), BINS, 0, 1).numpy().astype(np.int64)
            zeros = len(part) - int(torch.count_nonzero(part))
            counts[0] -= zeros
            self.counts += counts
            self.zeros += zeros

    def _reach(self, largest: float) -> None:
        while largest >= self.top:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, np.int64)])
            self._exponent += 1
