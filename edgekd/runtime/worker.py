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
from .lanes import Lanes
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
        self.session = _open(model)
        loaded = clock()
        self.feeds = every
        if model.singly:
            self.feeds = _repeated(every, model.batch or own_batch(self.session))
        outputs = self.session.run(self.feeds)
        first = clock()
        _check(self.session, model, every, outputs)
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

    def lanes(self, spec: dict[str, Any], lanes: int, streams: int) -> dict[str, Any]:
        """Open the model until it is open ``lanes`` times; from now on a run is a query of ``streams`` samples."""
        model = ModelSpec.from_json(spec)
        every = load_arrays(model.feeds)
        sessions = [self.session]
        for _ in range(lanes - 1):
            sessions.append(_open(model))
            _check(sessions[-1], model, every, sessions[-1].run(self.feeds))
        self.run = Lanes([partial(session.run, self.feeds) for session in sessions], streams)
        return {}

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
        lead = timed(self.run, ms=lead_ms) if lead_ms > 0 else []
        process = self.watch.process()
        samples = timed(self.run, ms=ms, min_runs=min_runs, max_runs=max_runs)
        counted = difference(process, self.watch.process())
        counted |= difference(machine, self.watch.machine())
        runs = {"runs": len(samples), "lead_runs": len(lead), "blocks": 1}
        return {"ns": samples, "counted": {**counted, "khz": own_khz(), **runs}}

    def idle(self, seconds: float, runs: int) -> dict[str, list[int]]:
        """Sleep, then the nanoseconds of each of the first ``runs``."""
        time.sleep(seconds)
        return {"ns": timed(self.run, ms=0, min_runs=runs, max_runs=runs)}

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


def _open(model: ModelSpec) -> Session:
    return open_session(
        model.path,
        model.runtime,
        threads=model.threads,
        precision=model.precision,
        cores=model.cores,
        shared=model.shared,
    )


def _check(session: Session, model: ModelSpec, every: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
    """Compare with the golden outputs those of all feeds and, where a batch is timed, also those of the batch."""
    if model.golden is None:
        return
    golden = load_arrays(model.golden)
    checked = [(outputs, golden)]
    if model.singly:
        checked = [(run_singly(session, every), golden)]
        if model.batch:
            checked.append((outputs, _repeated(golden, model.batch)))
    for got, want in checked:
        for one in match(got, want, model.tolerance):
            if not one.ok:
                raise WrongOutputs(f"output {one.output} {one.detail}")


def _repeated(arrays: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """The first ``count`` samples, from the beginning again where there are fewer."""
    return {name: x[np.arange(count) % len(x)] for name, x in arrays.items()}


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
