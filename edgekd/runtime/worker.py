"""A measuring process: opens one candidate of a bundle, checks its golden outputs and runs it on command.

Lines of JSON over stdin and stdout: it answers each ``{"do": COMMAND, ...}`` with ``{"ok": ...}`` or
``{"error": {"kind", "what"}}``; the commands are the methods of `Worker`. It ends when stdin does, and with its parent.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from .bench import bench
from .bundle_files import BundleError
from .golden import load_array, match_outputs
from .manifest import candidate_named, read_manifest
from .model import open_selected
from .selection import Selection
from .sessions import Session
from .timing import timed, warm_up

_PR_SET_PDEATHSIG = 1
_LEAD_MS = 2.0


class Worker:
    """The state of one measuring process; each public method is a command of the protocol."""

    def __init__(self) -> None:
        self.session: Session
        self.feeds: dict[str, Any] = {}

    def load(self, root: str, **selected: Any) -> dict[str, Any]:
        """Open a selection and check every golden output; what does not match is an error."""
        place = Path(root)
        manifest = read_manifest(place)
        selection = _selection(manifest, selected)
        self.session = open_selected(place, manifest, selection)
        for match in match_outputs(place, manifest, selection.candidate, self.session):
            if not match.ok:
                raise BundleError(f"output {match.output} {match.detail}")
        self.feeds = {manifest["inputs"][0]["name"]: load_array(place, manifest, manifest["golden"]["input"])[:1]}
        gc.collect()
        gc.disable()
        return self.session.describe()

    def warm(self, cap_s: float) -> dict[str, Any]:
        """Warm up: see `timing.warm_up`."""
        return warm_up(self._run, cap_s)._asdict()

    def block(self, ms: float, min_runs: int) -> list[int]:
        """Nanoseconds of each run of a block, after a lead-in: a stopped process comes back with cold caches."""
        timed(self._run, ms=_LEAD_MS)
        return timed(self._run, ms=ms, min_runs=min_runs)

    def bench(self, root: str, seconds: float, **selected: Any) -> dict[str, Any]:
        """`bench.bench` in this fresh process."""
        place = Path(root)
        return bench(place, seconds=seconds, selection=_selection(read_manifest(place), selected))

    def _run(self) -> Any:
        return self.session.run(self.feeds)


def _selection(manifest: dict[str, Any], selected: dict[str, Any]) -> Selection:
    return Selection(candidate_named(manifest, selected.pop("candidate")), **selected)


def main() -> None:
    """Serve commands until stdin ends; the only argument is the parent's process id."""
    if sys.platform == "linux":
        # A stopped worker would outlive its parent for ever.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[-1]):
        return
    # Runtimes print to stdout; the protocol keeps it for itself.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        arguments = json.loads(line)
        try:
            answer = {"ok": getattr(worker, arguments.pop("do"))(**arguments)}
        except Exception as error:
            answer = {"error": {"kind": type(error).__name__, "what": str(error)}}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
