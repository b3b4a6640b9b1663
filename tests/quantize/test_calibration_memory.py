"""Memory does not grow with the number of calibration samples: peaks of fresh processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# One preprocessed image (KiB).
SAMPLE = 3 * 224 * 224 * 4 / 1024


def peaks(estimator: str, *counts: int) -> list[int]:
    """KiB that a fresh process held at most after each of its calibrations."""
    script = Path(__file__).parent / "calibrate_once.py"
    command = [sys.executable, str(script), estimator, *map(str, counts)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.split()]


def test_many_samples_need_the_memory_of_one() -> None:
    """What grows is less than a quarter of the samples themselves, activations left aside."""
    one, many = peaks("mse", 1, 50)
    assert many - one < SAMPLE * 50 / 4


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["mse", "moving-average"])
def test_a_thousand_samples(estimator: str) -> None:
    (one,), (thousand,) = peaks(estimator, 1), peaks(estimator, 1000)
    assert thousand < 1.5 * one
    assert thousand - one < SAMPLE * 1000 / 10
