"""Classification: one label a sample, logits as outputs, top-1 accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional


class Classification:
    """Softmax classification over (N, classes) logits and (N,) int64 labels."""

    name = "classification"
    metric_name = "top1"

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Cross entropy, the mean over the batch."""
        return functional.cross_entropy(outputs, targets, label_smoothing=label_smoothing)

    def distill_outputs(self, outputs: Tensor) -> Tensor:
        """The logits themselves."""
        return outputs

    def metric(self, outputs: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
        """``top1``, ``correct`` (N,) bool, ``per_class`` (NaN for a class without samples) and ``worst_class``."""
        correct = outputs.argmax(1) == targets
        count = np.bincount(targets, minlength=outputs.shape[1])
        right = np.bincount(targets[correct], minlength=outputs.shape[1])
        with np.errstate(invalid="ignore"):
            per_class = right / count
        worst = int(np.nanargmin(per_class))
        return {
            "top1": float(correct.mean()),
            "correct": correct,
            "per_class": per_class.tolist(),
            "worst_class": {"index": worst, "accuracy": float(per_class[worst])},
        }

    def decode(self, outputs: np.ndarray, classes: list[str]) -> list[dict[str, Any]]:
        """The likeliest class of each sample and its probability."""
        shifted = np.exp(outputs - outputs.max(1, keepdims=True))
        probability = shifted / shifted.sum(1, keepdims=True)
        best = probability.argmax(1)
        return [{"label": classes[i], "probability": float(p[i])} for i, p in zip(best, probability, strict=True)]
