"""The parent's handle on a measuring process: start, command under a time limit, stop and resume, close."""

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
from dataclasses import replace
from pathlib import Path
from typing import Any

from .scenario import check_cores, threads_here
from .sessions import RuntimeMissing
from .spec import ModelSpec

# Seconds: to import numpy and say ready; to load a model and run it once; on top of a block's own time.
START_LIMIT, LOAD_LIMIT, BLOCK_LIMIT = 120.0, 600.0, 60.0
# Kinds of WorkerFailed by which a model does not hold; of all others the process crashed or hung.
REFUSED = ("WrongOutputs", "SessionError")
# This folder by its path, under the name that it has on devices: whatever else is importable there or here. The
# current folder, which `-c` puts first, is left out.
_START = """\
import sys
if sys.path[0] == "":
    del sys.path[0]
from importlib import util
spec = util.spec_from_file_location("edgekd_runtime", sys.argv[1])
package = sys.modules["edgekd_runtime"] = util.module_from_spec(spec)
spec.loader.exec_module(package)
from edgekd_runtime.worker import serve
serve(int(sys.argv[2]))
"""


class WorkerFailed(RuntimeError):
    """A measuring process crashed, hung, or says why it cannot go on; ``kind`` is the class of its own error.

    ``label`` names the model, ``where`` is its file; ``rounds`` are what was measured of the pair that it was in (see
    `compare.measure_pairs`).
    """

    def __init__(self, what: str, *, label: str, where: str, kind: str = "") -> None:
        self.what, self.label, self.where, self.kind = what, label, where, kind
        self.rounds: list[list[tuple[float, float]]] = [[]]
        super().__init__(f"{where}: {label}: {what}")


def worker_command(parent: int) -> list[str]:
    """What starts a measuring process that ends with the process ``parent``."""
    isolated = ["-I"] if sys.flags.isolated else []
    package = Path(__file__).absolute().with_name("__init__.py")
    # -B: a bundle stays as it is.
    return [sys.executable, "-B", *isolated, "-c", _START, str(package), str(parent)]


class WorkerProcess:
    """One fresh process, executed and never forked from a warm one; use it as a context manager.

    It must be closed by the thread that started it: the kernel ends it together with that thread. ``padding`` bytes
    more of environment move its stack, since the layout of memory changes speed by a few percent.
    Every failure kills the process and raises WorkerFailed.
    """

    def __init__(self, label: str, *, padding: int = 0, where: str = "") -> None:
        self.label, self.where = label, where
        # Of each block so far; see `witness`.
        self.counted: list[dict[str, Any]] = []
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close)
        self._buffer = b""
        self._stopped = False
        # Numpy's own threads only cost memory here.
        environment = {"OPENBLAS_NUM_THREADS": "1", **os.environ, "EDGEKD_PADDING": "x" * padding}
        self._process = subprocess.Popen(
            worker_command(os.getpid()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            # Ctrl-C at a terminal reaches the parent only, which closes its workers.
            start_new_session=True,
        )
        try:
            self._read(START_LIMIT, "start")
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def load(self, spec: ModelSpec) -> dict[str, Any]:
        """Open the model, with no more threads than this machine lets it have, and check its golden outputs.

        Raises:
            RuntimeMissing: the runtime is not here.
            SessionError: the spec's cores are not.
            WorkerFailed: it does not load, crashes, hangs or gives wrong outputs.
        """
        check_cores(spec.cores)
        threads = threads_here(spec.threads, spec.cores)
        return self.command("load", LOAD_LIMIT, spec=replace(spec, threads=threads).to_json())

    def lanes(self, spec: ModelSpec, lanes: int, streams: int) -> None:
        """Open the loaded model ``lanes`` times in all; from now on a run is a query of ``streams`` samples on them."""
        self.command("lanes", lanes * LOAD_LIMIT, spec=spec.to_json(), lanes=lanes, streams=streams)

    def warm(self, cap_s: float, *, run_s: float = 0.0) -> dict[str, Any]:
        """Warm up until steady, at most about ``cap_s`` seconds; ``run_s`` is what one run is known to take."""
        return self.command("warm", BLOCK_LIMIT + 10 * (cap_s + 3 * run_s), cap_s=cap_s)

    def block(
        self, ms: float, *, min_runs: int = 1, max_runs: int = 100_000, lead_ms: float = 2.0, run_s: float = 0.0
    ) -> list[int]:
        """Nanoseconds of each run of one timed block of ``ms`` milliseconds."""
        limit = BLOCK_LIMIT + 10 * ((ms + lead_ms) / 1e3 + (min_runs + 1) * run_s)
        answer = self.command("block", limit, ms=ms, min_runs=min_runs, max_runs=max_runs, lead_ms=lead_ms)
        self.counted.append(answer["counted"])
        return list(answer["ns"])

    def idle(self, seconds: float, runs: int, *, run_s: float = 0.0) -> list[int]:
        """Nanoseconds of each of the first ``runs`` after the process slept for ``seconds``."""
        limit = BLOCK_LIMIT + seconds + 10 * runs * run_s
        return list(self.command("idle", limit, seconds=seconds, runs=runs)["ns"])

    def overhead_ns(self) -> float:
        """Nanoseconds that the timing loop itself adds to a run."""
        return float(self.command("overhead", BLOCK_LIMIT)["ns"])

    def bare(self, spec: ModelSpec) -> None:
        """Read the spec's feeds and no model: what memory is compared with."""
        self.command("bare", BLOCK_LIMIT, spec=spec.to_json())

    def peak_memory(self) -> int | None:
        """Peak resident bytes of the process; None where the kernel does not tell."""
        peak: int | None = self.command("memory", BLOCK_LIMIT)["peak"]
        return peak

    def command(self, do: str, time_limit: float, **arguments: Any) -> dict[str, Any]:
        """Resume, send one command and wait for its answer, at most ``time_limit`` seconds."""
        self.resume()
        line = json.dumps({"do": do, **arguments}) + "\n"
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except (OSError, ValueError):
            raise self._gone(do) from None
        message = self._read(time_limit, do)
        if "error" in message:
            error = message["error"]
            self.close()
            if error["kind"] == "RuntimeMissing":
                raise RuntimeMissing(error["what"], error["install"], label=self.label)
            # Only what does not open or answers wrongly is refused; what fails later has failed.
            raise self._failure(error["what"], error["kind"] if do in ("load", "lanes") else "")
        answer: dict[str, Any] = message["ok"]
        return answer

    def stop(self) -> None:
        """SIGSTOP, and wait until every thread stands: runtimes' workers spin on after a run."""
        if self._stopped:
            return
        # Popen sends nothing to a process that has ended, whose id may be another's by now.
        self._process.send_signal(signal.SIGSTOP)
        if self._process.returncode is not None:
            raise self._gone("stop")
        self._stopped = True
        deadline = time.monotonic() + 10.0
        while time.monotonic() < deadline:
            # WNOWAIT leaves an exit status for Popen.
            found = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                time.sleep(20e-6)
            elif found.si_code == os.CLD_STOPPED:
                return
            else:
                raise self._gone("stop")
        self.close()
        raise self._failure("the measuring process does not stop")

    def resume(self) -> None:
        """SIGCONT."""
        if self._stopped:
            self._process.send_signal(signal.SIGCONT)
            self._stopped = False

    def close(self) -> None:
        """Kill the process, stopped or not, and wait for its end; closing twice is fine."""
        process = self._process
        if process.poll() is None:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._errors.close()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, time_limit: float, doing: str) -> dict[str, Any]:
        stream = self._process.stdout
        assert stream is not None
        poll = select.poll()
        poll.register(stream, select.POLLIN | select.POLLHUP)
        deadline = time.monotonic() + time_limit
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                self.close()
                raise self._failure(
                    f"the measuring process gave no answer to {doing!r} within {time_limit:g} s and was killed"
                )
            if not poll.poll(left * 1e3):
                continue
            data = os.read(stream.fileno(), 1 << 20)
            if not data:
                raise self._gone(doing)
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def _gone(self, doing: str) -> WorkerFailed:
        """The error for a process that is gone; its last words come from stderr."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        words = []
        if not self._errors.closed:
            self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - 2000))
            words = self._errors.read().decode(errors="replace").strip().splitlines()
        self.close()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return self._failure(f"the measuring process {how} during {doing!r}" + (f": {words[-1]}" if words else ""))

    def _failure(self, what: str, kind: str = "") -> WorkerFailed:
        return WorkerFailed(what, label=self.label, where=self.where, kind=kind)


def start(spec: ModelSpec, *, padding: int = 0) -> WorkerProcess:
    """A fresh process for a model that it has not loaded yet."""
    return WorkerProcess(spec.name, padding=padding, where=str(spec.path))
