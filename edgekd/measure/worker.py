"""A measuring process: ``python -m edgekd.measure.worker SPEC`` loads a model and runs what it is told on stdin.

One JSON line in, one out. ``{"do": "warm", "seconds": s}`` runs until latencies stand still; ``{"do": "block",
"seconds": s}`` runs for so long and answers every latency in nanoseconds; ``{"do": "memory"}`` answers the peak
resident set. It ends with its stdin, and with its parent even when that is killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

# The last so many runs, in two halves, must agree within the share: then the model is warm.
STEADY_RUNS, STEADY_SHARE = 20, 0.05
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve commands until stdin ends."""
    _die_with_parent()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a runtime prints must not mix with the answers
    spec = json.loads(sys.argv[1])
    base = _peak_kb()
    if spec["path"]:
        from edgekd.runtime.sessions import open_session

        begin = time.perf_counter_ns()
        session: Any = open_session(
            Path(spec["path"]), spec["runtime"], threads=spec["threads"], precision=spec["precision"]
        )
        with np.load(spec["feeds"]) as stored:
            feeds = {name: stored[name] for name in stored.files}
        loaded = time.perf_counter_ns()
        session.run(feeds)
        first = time.perf_counter_ns()
        told = {"load_ns": loaded - begin, "first_ns": first - loaded, "runtime": session.describe()}
    else:
        session, feeds, told = None, {}, {}
    _answer(answers, told | {"base_kb": base})
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "warm":
            _answer(answers, {"runs": _warm(session, feeds, command["seconds"])})
        elif command["do"] == "block":
            _answer(answers, {"ns": _block(session, feeds, command["seconds"])})
        else:
            _answer(answers, {"peak_kb": _peak_kb()})


def _block(session: Any, feeds: dict[str, np.ndarray], seconds: float) -> list[int]:
    """Latencies of one run after another for ``seconds``, at least one."""
    run, clock = session.run, time.perf_counter_ns
    taken: list[int] = []
    now = clock()
    end = now + int(seconds * 1e9)
    while now < end or not taken:
        run(feeds)
        after = clock()
        taken.append(after - now)
        now = after
    return taken


def _warm(session: Any, feeds: dict[str, np.ndarray], most: float) -> int:
    taken: list[int] = []
    end = time.monotonic() + most
    while time.monotonic() < end:
        taken += _block(session, feeds, 0.0)
        if len(taken) >= 2 * STEADY_RUNS:
            older, newer = np.median(taken[-2 * STEADY_RUNS : -STEADY_RUNS]), np.median(taken[-STEADY_RUNS:])
            if abs(newer / older - 1) < STEADY_SHARE:
                break
    return len(taken)


def _peak_kb() -> int:
    """Peak resident set in KiB. getrusage would also count the parent's pages before exec; VmHWM does not."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise OSError("this kernel does not tell VmHWM")


def _die_with_parent() -> None:
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent or parent == 1 != int(os.environ.get("EDGEKD_PARENT", parent)):
        os._exit(1)  # it was gone before the kernel was told


def _answer(stream: Any, value: dict[str, Any]) -> None:
    stream.write(json.dumps(value) + "\n")
    stream.flush()


if __name__ == "__main__":
    main()
