"""The measuring process, on build machines and devices: opens one model and runs it on command.

Lines of JSON over stdin and stdout. It says ``{"ready": PID}``, then answers each ``{"do": COMMAND, ...}`` with one
``{"ok": ...}`` or ``{"error": {"kind", "what", "install"}}``; the commands are the methods of `Worker`. It ends when
stdin does and when its parent dies, also while it is stopped. Imports numpy and the inference runtime, nothing heavy.
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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .golden import match, own_batch, run_singly
from .planted import BusyDelay
from .sessions import Session, open_session
from .spec import ModelSpec, load_arrays
from .timing import overhead_ns, timed, warm_up
from .witness import Watch, difference, own_khz

_PR_SET_PDEATHSIG = 1


class WrongOutputs(ValueError):
    """The model does not give its golden outputs."""


class Worker:
    """The state of one measuring process; each public method is a command of the protocol."""

    def __init__(self) -> None:
        self.feeds: dict[str, np.ndarray] = {}
        self.session: Session
        self.run: Callable[[], Any]
        self.planted: BusyDelay | None = None
        self.watch = Watch()

    def load(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Open the model, run it once and check its golden outputs: what was opened, load and first-run time."""
        model = ModelSpec.from_json(spec)
        every = load_arrays(model.feeds)
        clock = time.perf_counter_ns
        start = clock()
        self.session = open_session(
            model.path, model.runtime, threads=model.threads, precision=model.precision, cores=model.cores
        )
        loaded = clock()
        self.feeds = {name: x[: own_batch(self.session)] for name, x in every.items()} if model.singly else every
        outputs = self.session.run(self.feeds)
        first = clock()
        if model.golden is not None:
            if model.singly:
                outputs = run_singly(self.session, every)
            for one in match(outputs, load_arrays(model.golden), model.tolerance):
                if not one.ok:
                    raise WrongOutputs(f"output {one.output} {one.detail}")
        self.run = partial(self.session.run, self.feeds)
        if model.planted_delay:
            self.run = self.planted = BusyDelay(self.run, model.planted_delay)
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
        return warm_up(self.run, cap_s)._asdict()

    def block(self, ms: float, min_runs: int = 1, max_runs: int = 100_000, lead_ms: float = 2.0) -> dict[str, Any]:
        """Run for ``ms`` after an untimed lead-in (a stopped process comes back with cold caches).

        ``ns`` of each run, and what the `Watch` counted meanwhile.
        """
        if self.planted is not None:
            self.planted.renew()
        machine = self.watch.machine()
        if lead_ms > 0:
            timed(self.run, ms=lead_ms)
        process = self.watch.process()
        samples = timed(self.run, ms=ms, min_runs=min_runs, max_runs=max_runs)
        counted = difference(process, self.watch.process())
        counted |= difference(machine, self.watch.machine())
        return {"ns": samples, "counted": {**counted, "khz": own_khz(), "runs": len(samples), "blocks": 1}}

    def overhead(self) -> dict[str, float]:
        """Nanoseconds that the timing loop itself adds to a run."""
        return {"ns": overhead_ns()}

    def bare(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Read the feeds and no model: what memory is compared with."""
        self.feeds = load_arrays(ModelSpec.from_json(spec).feeds)
        return {}

    def memory(self) -> dict[str, int | None]:
        """Peak resident bytes; null where the kernel does not tell.

        From /proc and not from ru_maxrss, which keeps the peak of the process that this one was forked from.
        """
        try:
            status = Path("/proc/self/status").read_text()
            rows = dict(line.split(":", 1) for line in status.splitlines())
            return {"peak": 1024 * int(rows["VmHWM"].split()[0])}
        except (OSError, KeyError, ValueError):
            return {"peak": None}


def serve(parent: int) -> None:
    """Serve commands until stdin ends or the process ``parent`` does."""
    die_with_parent(parent)
    # Runtimes print to stdout; the protocol keeps it for itself.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    worker = Worker()
    try:
        answer({"ready": os.getpid()})
        for line in sys.stdin:
            arguments = json.loads(line)
            try:
                answer({"ok": getattr(worker, arguments.pop("do"))(**arguments)})
            except BrokenPipeError:
                raise
            except Exception as error:
                traceback.print_exc()
                what, install = getattr(error, "what", str(error)), getattr(error, "install", "")
                answer({"error": {"kind": type(error).__name__, "what": what, "install": install}})
    except BrokenPipeError:  # nobody is there to be told
        os._exit(1)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends; a stopped one can be killed too."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
