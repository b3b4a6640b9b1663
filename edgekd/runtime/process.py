"""The handle on a measuring process, started from the very folder that this code lies in."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LOAD_LIMIT_S, BLOCK_LIMIT_S = 600.0, 300.0
_START = "import sys, importlib; sys.path.insert(0, sys.argv[1]); importlib.import_module(sys.argv[2]).main()"


class WorkerFailed(RuntimeError):
    """A measuring process crashed, hung, or says why it cannot go on; ``kind`` is the class of its own error."""

    def __init__(self, what: str, kind: str = "") -> None:
        self.kind = kind
        super().__init__(what)


class WorkerProcess:
    """One fresh process, executed and never forked from a warm one; use it as a context manager."""

    def __init__(self) -> None:
        package = __name__.rpartition(".")[0]
        home = Path(__file__).resolve().parents[package.count(".") + 1]
        isolated = ["-I"] if sys.flags.isolated else []
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close)
        self._stopped = False
        self._buffer = b""
        self._process = subprocess.Popen(
            [sys.executable, "-B", *isolated, "-c", _START, str(home), f"{package}.worker", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=home,  # `-c` looks for modules in the current folder first
            env={"OPENBLAS_NUM_THREADS": "1", **os.environ},
            start_new_session=True,  # Ctrl-C reaches the parent only, which closes its workers
        )

    def ask(self, do: str, *, limit_s: float, **arguments: Any) -> Any:
        """Send one command and wait for its answer. Raises WorkerFailed."""
        self.resume()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write((json.dumps({"do": do, **arguments}) + "\n").encode())
            self._process.stdin.flush()
        except OSError:
            raise self._gone(do) from None
        answer = self._answer(do, limit_s)
        if "error" in answer:
            raise WorkerFailed(answer["error"]["what"], answer["error"]["kind"])
        return answer["ok"]

    def stop(self) -> None:
        """SIGSTOP, and wait until it stands: runtimes' worker threads spin on after a run."""
        self._process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + 10.0
        while time.monotonic() < deadline:
            found = os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                time.sleep(20e-6)
            elif found.si_code == os.CLD_STOPPED:
                self._stopped = True
                return
            else:
                break
        raise self._gone("stop")

    def resume(self) -> None:
        """SIGCONT."""
        if self._stopped:
            self._process.send_signal(signal.SIGCONT)
            self._stopped = False

    def close(self) -> None:
        """Kill the process, stopped or not, and wait for its end; closing twice is fine."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, doing: str, limit_s: float) -> dict[str, Any]:
        stream = self._process.stdout
        assert stream is not None
        deadline = time.monotonic() + limit_s
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self.close()
                raise WorkerFailed(f"no answer to {doing!r} within {limit_s:g} s")
            data = os.read(stream.fileno(), 1 << 20)
            if not data:
                raise self._gone(doing)
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return dict(json.loads(line))

    def _gone(self, doing: str) -> WorkerFailed:
        """The error for a process that is gone; its last words come from stderr."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        if self._process.poll() is None:
            self._process.kill()
        code = self._process.wait()
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - 2000))
        words = self._errors.read().decode(errors="replace").strip().splitlines()
        self.close()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return WorkerFailed(f"the measuring process {how} during {doing!r}" + (f": {words[-1]}" if words else ""))
