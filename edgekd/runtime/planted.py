"""A known slow-down, for experiments that ask whether a comparison finds it; nothing that ships sets it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


class BusyDelay:
    """Calls ``run`` and then spins for ``share`` of what a run takes.

    That is the median of the runs between the last two calls of `renew`, so that the delay keeps its share while the
    machine changes speed, and is constant inside a block.

    A run that follows a spin is itself a little slower than one that follows a run. Who needs an exact ratio compares
    with the same model that spins too: 1 + ``share`` of one over 1 + ``share`` of the other.
    """

    def __init__(self, run: Callable[[], Any], share: float) -> None:
        self._run, self._share = run, share
        self._raw: list[int] = []
        self._delay = 0.0

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
        """Take the delay from the runs since the last call, if there are any."""
        if self._raw:
            self._delay = self._share * statistics.median(self._raw)
            self._raw.clear()
