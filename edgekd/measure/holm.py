"""Holm's correction for the gate's two tests, one of which is sequential and must know its level before it starts.

Source: Holm, "A simple sequentially rejective multiple test procedure" (1979). Of two tests the one with the smaller
p-value is held against half the error and, if it rejects, the other against all of it. The accuracy's p-value is there
at once; so latency is tested at the whole error if accuracy rejected at half, else at half, and if latency then
rejects, accuracy has the whole error: the same rejections, without a p-value of the sequential test.
"""

from __future__ import annotations


def latency_level(error: float, p_accuracy: float | None) -> float:
    """The error of the latency test; ``p_accuracy`` is None where accuracy is no test that gates."""
    if p_accuracy is None:
        return error
    return error if p_accuracy <= error / 2 else error / 2


def accuracy_level(error: float, latency_rejects: bool | None) -> float:
    """What the accuracy's p-value is held against; ``latency_rejects`` is None where latency does not gate."""
    return error if latency_rejects is None or latency_rejects else error / 2
