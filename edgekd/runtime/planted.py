"""A known slow-down, for experiments that ask whether a comparison finds it; nothing that ships sets it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from .timing import timed

# Of the calibration: a second of stretches, each long enough for a median of ten runs of two milliseconds.
STRETCHES, STRETCH_MS = 10, 25.0


class BusyDelay:
    """Calls ``run`` and then spins, so that both together take 1 + ``share`` of a run alone in this very process.

    How long to spin is a share of the median of the raw runs between the last two calls of `renew`, so that the delay
    keeps its share while the machine changes speed, and is constant inside a block. That share is calibrated once: a
    run that follows a spin is itself a little slower than one that follows a run. Pairs of processes still measure a
    tenth of a percent more than ``share`` (docs/bench.md).
    """

    def __init__(self, run: Callable[[], Any], share: float) -> None:
        self._run, self._share = run, share
        self._spin_share = share
        self._raw: list[int] = []
        self._delay = 0.0
        self._calibrated = False

    def __call__(self) -> None:
        """One run and its delay."""
        clock = time.perf_counter_ns
        start = clock()
        self._run()
        stop = clock()
        self._raw.append(stop - start)
        end = stop + self._delay
        while clock() < end:
            pass

    def renew(self) -> None:
        """Take the delay from the runs since the last call; the first time that there are any, calibrate it."""
        if not self._raw:
            return
        raw = statistics.median(self._raw)
        if not self._calibrated:
            self._spin_share += self._share - self._measured_share(self._share * raw)
            self._calibrated = True
        self._delay = self._spin_share * raw
        self._raw.clear()

    def _measured_share(self, delay: float) -> float:
        """By how much runs with ``delay`` are longer than without, in stretches that take turns."""
        shares = []
        for _ in range(STRETCHES):
            without, one, other, again = (self._stretch(each) for each in (0.0, delay, delay, 0.0))
            shares.append((one + other) / (without + again) - 1)
        return statistics.median(shares)

    def _stretch(self, delay: float) -> float:
        self._delay = delay
        return statistics.median(timed(self, ms=STRETCH_MS))
