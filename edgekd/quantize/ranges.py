"""The range of one site, estimated while samples flow through it (`CalibrationPolicy.estimator`)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchao.quantization.pt2e import FakeQuantizeBase

from edgekd.quantize.clipping import Steps, entropy_range, mse_range, percentile_range, strict_steps
from edgekd.quantize.histogram import MagnitudeHistogram
from edgekd.quantize.observers import set_range
from edgekd.target import CalibrationPolicy


class SiteRange:
    """What one site has seen: extremes, their moving average over batches, and where needed a histogram.

    ``steps`` are those of the grid for which the least mean square error is searched. ``lowest`` and ``highest`` are
    those of all elements; infinite or NaN when one of them is.
    """

    def __init__(self, policy: CalibrationPolicy, steps: Steps = strict_steps) -> None:
        self.policy, self.steps = policy, steps
        self.lowest, self.highest = math.inf, -math.inf
        self._batch = (math.inf, -math.inf)
        self._mean = (0.0, 0.0)
        self._batches = 0
        self._histogram = MagnitudeHistogram() if policy.estimator in ("percentile", "mse", "entropy") else None

    def see(self, x: Tensor) -> None:
        """Take in a tensor of any shape, a part of the current batch."""
        low, high = (float(value) for value in torch.aminmax(x.detach()))
        if not (math.isfinite(low) and math.isfinite(high)):
            low = high = math.nan
        self._batch = (_least(self._batch[0], low), -_least(-self._batch[1], -high))
        self.lowest, self.highest = _least(self.lowest, low), -_least(-self.highest, -high)
        if self._histogram is not None and math.isfinite(low):
            self._histogram.add(x)

    def end_batch(self) -> None:
        """Average this batch's extremes in; a plain mean until it has as many batches as the average weighs."""
        self._batches += 1
        newest = max(self.policy.averaging, 1 / self._batches)
        (low, high), (new_low, new_high) = self._mean, self._batch
        self._mean = (low + newest * (new_low - low), high + newest * (new_high - high))
        self._batch = (math.inf, -math.inf)

    @property
    def finite(self) -> bool:
        """Whether no NaN or infinity was seen."""
        return math.isfinite(self.lowest) and math.isfinite(self.highest)

    @property
    def constant(self) -> bool:
        """Whether one value was seen and no other."""
        return self.lowest == self.highest

    def estimate(self) -> float:
        """The largest magnitude to be represented; never beyond what was seen, such as a ReLU6's bound."""
        largest = max(-self.lowest, self.highest)
        if self.policy.estimator == "moving-average":
            return max(-self._mean[0], self._mean[1])
        if self._histogram is None or largest == 0:
            return largest
        estimators = {
            "percentile": lambda seen: percentile_range(seen, self.policy.percentile),
            "mse": lambda seen: mse_range(seen, largest, steps=self.steps),
            "entropy": lambda seen: entropy_range(seen, largest),
        }
        return min(estimators[self.policy.estimator](self._histogram), largest)

    def settle(self, quantizer: FakeQuantizeBase) -> None:
        """Give a quantizer the estimate, so that its own moving average goes on from there in training.

        A tighter range than batches reach on average stays as much tighter when their extremes move.
        """
        wanted, reached = self.estimate(), max(-self._mean[0], self._mean[1])
        if wanted < reached:
            set_range(quantizer, *self._mean, ratio=wanted / reached)
        else:
            set_range(quantizer, max(self.lowest, -wanted), min(self.highest, wanted))


def _least(one: float, other: float) -> float:
    """The smaller, and NaN where either is."""
    return math.nan if math.isnan(one) or math.isnan(other) else min(one, other)
