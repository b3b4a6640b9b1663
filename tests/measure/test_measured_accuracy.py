"""Accuracy figures on small arrays."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.measure import measure_accuracy

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])


def logits(classes: list[int]) -> np.ndarray:
    return np.eye(4, dtype=np.float32)[classes] * 3


def test_figures_by_hand():
    teacher = logits([0, 0, 0, 0, 1, 1, 1, 2, 2, 0])  # 9 right
    outputs = logits([0, 0, 0, 1, 1, 1, 0, 2, 0, 0])  # 6 right: 3/4, 2/3, 1/3
    figures = measure_accuracy(outputs, teacher, LABELS)
    assert figures["compiled"] == pytest.approx(0.6)
    assert figures["drop_points"] == pytest.approx(30.0)
    assert figures["agreement"] == pytest.approx(0.7)
    assert figures["worst_class"] == {"index": 2, "accuracy": pytest.approx(1 / 3)}  # class 3 has no samples
    low, high = figures["drop_interval"]
    assert low < 30 < high


def test_nan_is_wrong_and_agrees_with_nobody():
    """argmax of a row with NaN is the NaN's place: here it would be right by luck."""
    outputs = logits(list(LABELS))
    outputs[0, 0] = np.nan
    outputs[4, 1] = np.inf
    figures = measure_accuracy(outputs, logits(list(LABELS)), LABELS)
    assert figures["compiled"] == pytest.approx(0.8)
    assert figures["agreement"] == pytest.approx(0.8)
    assert figures["worst_class"]["index"] == 1
