"""The parent's hold on a measuring process: freshly executed, bounded in time, stoppable, never left behind."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from typing import Any

from edgekd.errors import WorkerFailed
from edgekd.measure.spec import ModelSpec

START_SECONDS, ANSWER_SECONDS = 300.0, 60.0


class Worker:
    """A context manager around one `edgekd.measure.worker` process; ``told`` is what it said of itself at start."""

    def __init__(self, spec: ModelSpec | None) -> None:
        self.spec = spec
        self.label = spec.label if spec else "empty process"

    def __enter__(self) -> Worker:
        value = self.spec.to_json() if self.spec else {"path": ""}
        # One thread for what numpy's own libraries would start: the runtime is told its threads by itself.
        environment = os.environ | {"EDGEKD_PARENT": str(os.getpid()), "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgekd.measure.worker", json.dumps(value)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        try:
            self.told = self._read(START_SECONDS)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, do: str, seconds: float = 0.0) -> dict[str, Any]:
        """One command's answer.

        Raises:
            WorkerFailed: the process crashed, or did not answer in time and was killed.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, "seconds": seconds}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # told below, with what it said last
        return self._read(ANSWER_SECONDS + 2 * seconds)

    def stop(self) -> None:
        """Stand still: runtimes' worker threads spin after a run and would disturb the other side."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Run again."""
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End the process, stopped or not."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _read(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                self._process.kill()
                raise WorkerFailed(f"{self.label} gave no answer for {seconds:.0f} s and was killed", where="measuring")
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            said = self._process.stderr.read().decode(errors="replace").strip() if self._process.stderr else ""
            last = said.splitlines()[-1] if said else "it said nothing"
            raise WorkerFailed(f"{self.label} ended with code {code}: {last}", where="measuring")
        return json.loads(line)
