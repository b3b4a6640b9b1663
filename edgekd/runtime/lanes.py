"""Several sessions of one model in one process, each run by a thread of its own: the streams of a runtime."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

Run = Callable[[], Any]


class Lanes:
    """One call is a query of ``streams`` samples, shared evenly among ``runs``; it returns when the last one is done.

    The first lane is the calling thread, so that one lane alone costs no thread.
    """

    def __init__(self, runs: Sequence[Run], streams: int) -> None:
        shares = [streams // len(runs) + (lane < streams % len(runs)) for lane in range(len(runs))]
        self._mine, self._share = runs[0], shares[0]
        self._done: SimpleQueue[Exception | None] = SimpleQueue()
        self._others: list[SimpleQueue[None]] = []
        for run, share in zip(runs[1:], shares[1:], strict=True):
            begin: SimpleQueue[None] = SimpleQueue()
            self._others.append(begin)
            threading.Thread(target=self._serve, args=(begin, run, share), daemon=True).start()

    def __call__(self) -> None:
        """Run one query; raises what a lane raised."""
        for begin in self._others:
            begin.put(None)
        try:
            for _ in range(self._share):
                self._mine()
        finally:
            failures = [self._done.get() for _ in self._others]
        for failure in failures:
            if failure is not None:
                raise failure

    def _serve(self, begin: SimpleQueue[None], run: Run, share: int) -> None:
        while True:
            begin.get()
            failure = None
            try:
                for _ in range(share):
                    run()
            except Exception as error:
                failure = error
            self._done.put(failure)
