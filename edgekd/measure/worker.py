"""The measuring process, ``python -m edgekd.measure.worker``: opens one model and runs it on command.

Lines of JSON over stdin and stdout. It says ``{"ready": PID}``, then answers each ``{"do": COMMAND, ...}`` with one
``{"ok": ...}`` or ``{"error": {"kind", "message"}}``; the commands are the methods of `Worker`. It ends when stdin
does and when its parent dies, also while it is stopped. Imports numpy and the inference runtime, nothing heavy.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.measure.spec import ModelSpec, Tolerance, load_arrays
from edgekd.runtime.sessions import Session, open_session

_PR_SET_PDEATHSIG = 1
# Warm-up: the medians of this many windows in a row lie within STEADY of each other.
WINDOWS, WINDOW_MS, STEADY = 4, 25.0, 1.03


class WrongOutputs(ValueError):
    """The model does not give its golden outputs."""


class Worker:
    """The state of one measuring process; each public method is a command of the protocol."""

    def __init__(self) -> None:
        self.feeds: dict[str, np.ndarray] = {}
        self.session: Session

    def load(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Open the model, run it once and check its golden outputs: what was opened, load and first-run time."""
        model = ModelSpec.from_json(spec)
        self.feeds = load_arrays(model.feeds)
        clock = time.perf_counter_ns
        start = clock()
        self.session = open_session(
            model.path, model.runtime, threads=model.threads, precision=model.precision, cores=model.cores
        )
        loaded = clock()
        outputs = self.session.run(self.feeds)
        first = clock()
        if model.golden is not None:
            check_outputs(outputs, load_arrays(model.golden), model.tolerance)
        # A collection in the middle of a run would be timed as the model's.
        gc.collect()
        gc.freeze()
        gc.disable()
        batch = next(iter(self.feeds.values())).shape[:1]
        return {
            "load_ns": loaded - start,
            "first_run_ns": first - loaded,
            "batch": batch[0] if batch else 1,
            "checked": model.golden is not None,
            **self.session.describe(),
        }

    def warm(self, cap_s: float) -> dict[str, Any]:
        """Run until the speed is steady or ``cap_s`` seconds are over."""
        start, medians, runs = time.perf_counter(), [], 0
        while True:
            window = timed(self.session.run, self.feeds, ms=WINDOW_MS, min_runs=3)
            runs += len(window)
            medians.append(float(np.median(window)))
            last = medians[-WINDOWS:]
            steady = len(last) == WINDOWS and max(last) <= STEADY * min(last)
            seconds = time.perf_counter() - start
            if steady or seconds >= cap_s:
                return {"runs": runs, "seconds": seconds, "steady": steady, "run_ns": min(last)}

    def block(
        self, ms: float, min_runs: int = 1, max_runs: int = 100_000, lead_ms: float = 2.0
    ) -> dict[str, list[int]]:
        """Run for ``ms`` after an untimed lead-in (a stopped process comes back with cold caches)."""
        run, feeds = self.session.run, self.feeds
        if lead_ms > 0:
            timed(run, feeds, ms=lead_ms)
        return {"ns": timed(run, feeds, ms=ms, min_runs=min_runs, max_runs=max_runs)}

    def bare(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Read the feeds and no model: what memory is compared with."""
        self.feeds = load_arrays(ModelSpec.from_json(spec).feeds)
        return {}

    def memory(self) -> dict[str, int]:
        """Resident and peak resident bytes.

        From /proc and not from ru_maxrss, which keeps the peak of the process that this one was forked from.
        """
        status = Path("/proc/self/status").read_text()
        rows = dict(line.split(":", 1) for line in status.splitlines())
        return {"resident": 1024 * int(rows["VmRSS"].split()[0]), "peak": 1024 * int(rows["VmHWM"].split()[0])}


def timed(
    run: Callable[[dict[str, np.ndarray]], Any],
    feeds: dict[str, np.ndarray],
    *,
    ms: float,
    min_runs: int = 1,
    max_runs: int = 100_000,
) -> list[int]:
    """Nanoseconds of each run of a block of ``ms`` milliseconds, at least ``min_runs`` and at most ``max_runs``."""
    clock = time.perf_counter_ns
    samples: list[int] = []
    append = samples.append
    end = clock() + int(ms * 1e6)
    while True:
        start = clock()
        run(feeds)
        stop = clock()
        append(stop - start)
        if (stop >= end and len(samples) >= min_runs) or len(samples) >= max_runs:
            return samples


def check_outputs(outputs: dict[str, np.ndarray], golden: dict[str, np.ndarray], tolerance: Tolerance) -> None:
    """Compare outputs with golden ones by name. Raises WrongOutputs: names the output and the difference."""
    for name, want in golden.items():
        if name not in outputs:
            raise WrongOutputs(f"there is no output {name!r}; the model has {', '.join(outputs)}")
        got = outputs[name]
        if got.shape != want.shape:
            raise WrongOutputs(f"output {name!r} has shape {got.shape}, the golden one {want.shape}")
        if tolerance == "top1":
            if not np.isfinite(got).all():
                raise WrongOutputs(f"output {name!r} has NaN or infinite values")
            wrong = int((got.argmax(-1) != want.argmax(-1)).sum())
            if wrong:
                raise WrongOutputs(f"output {name!r}: the largest class differs in {wrong} of {got[..., 0].size} rows")
            continue
        allowed = 0.0 if tolerance == "exact" else float(tolerance)
        if np.array_equal(got, want):  # NaN is never equal: a model that answers NaN is not timed
            continue
        difference = float(np.max(np.abs(got.astype(np.float64) - want.astype(np.float64))))
        if not difference <= allowed:  # also when it is NaN
            raise WrongOutputs(f"output {name!r} differs from the golden one by {difference:g}, allowed {allowed:g}")


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends; a stopped one can be killed too."""
    if hasattr(signal, "SIGKILL") and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def main() -> None:
    """Serve commands until stdin ends; the only argument is the parent's process id."""
    die_with_parent(int(sys.argv[1]))
    # Runtimes print to stdout; the protocol keeps it for itself.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    worker = Worker()
    answer({"ready": os.getpid()})
    for line in sys.stdin:
        arguments = json.loads(line)
        try:
            answer({"ok": getattr(worker, arguments.pop("do"))(**arguments)})
        except Exception as error:
            traceback.print_exc()
            install = getattr(error, "install", "")
            answer({"error": {"kind": type(error).__name__, "message": str(error), "install": install}})


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        os._exit(1)
