"""Accuracy of a compiled model against its teacher, on the same samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekd.measure.predictions import right
from edgekd.measure.statistics import paired_drop_interval


def measure_accuracy(outputs: np.ndarray, teacher: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Figures of the compiled model's ``outputs`` (N, K) beside the ``teacher``'s, for ``labels`` (N,).

    ``compiled`` in [0, 1], ``drop_points`` below the teacher and its 95 % interval, ``agreement`` with the teacher,
    ``worst_class`` with the class's index and accuracy (a class without samples is none). A row of outputs with NaN or
    infinity is wrong and agrees with nobody.
    """
    finite = np.isfinite(outputs).all(1)
    correct, taught = right(outputs, labels), teacher.argmax(1) == labels
    count = np.bincount(labels, minlength=outputs.shape[1])
    hits = np.bincount(labels[correct], minlength=outputs.shape[1])
    per_class = np.divide(hits, count, out=np.ones(len(count)), where=count > 0)
    worst = int(per_class.argmin())
    return {
        "compiled": float(correct.mean()),
        "drop_points": 100 * (float(taught.mean()) - float(correct.mean())),
        "drop_interval": list(paired_drop_interval(taught, correct)),
        "agreement": float((finite & (outputs.argmax(1) == teacher.argmax(1))).mean()),
        "worst_class": {"index": worst, "accuracy": float(per_class[worst])},
    }
