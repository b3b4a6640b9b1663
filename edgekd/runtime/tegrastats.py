"""The lines of NVIDIA's ``tegrastats``, for Jetsons whose sensors in sysfs are not readable.

Source: NVIDIA Jetson Linux Developer Guide, "tegrastats Utility": rails as ``NAME current/average`` in mW (with the
unit since JetPack 5), temperatures as ``zone@degreesC``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
from typing import IO, NamedTuple

# "VDD_IN 4542mW/4000mW", "POM_5V_IN 1997/2089", "CPU 311/311"; newer ones add a maximum. RAM and IRAM have MB and kB.
_RAIL = re.compile(r"(?<!\S)([A-Z][A-Z0-9_]*) (\d+)(?:mW)?(?:/\d+(?:mW)?){1,2}(?!\S)")
_ZONE = re.compile(r"(?<!\S)([A-Za-z]\w*)@(-?\d+(?:\.\d+)?)C(?:/-?[\d.]+C)*(?!\S)")


class Line(NamedTuple):
    """What one line tells: power of each rail now in mW, temperatures in degrees Celsius."""

    rails: dict[str, float]
    celsius: dict[str, float]


def parse_line(line: str) -> Line:
    """Rails and temperatures of a line; rails that are not connected and zones without power are left out."""
    rails = {name: float(now) for name, now in _RAIL.findall(line) if name != "NC"}
    zones = {name: float(value) for name, value in _ZONE.findall(line)}
    return Line(rails, {name: value for name, value in zones.items() if value > -200})


class Tegrastats:
    """The newest line of a running ``tegrastats``; `close` ends it."""

    def __init__(self, program: str, interval_ms: int) -> None:
        self._process = subprocess.Popen(
            [program, "--interval", str(interval_ms)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.last = Line({}, {})
        assert self._process.stdout is not None
        self._thread = threading.Thread(target=self._follow, args=(self._process.stdout,), daemon=True)
        self._thread.start()

    @classmethod
    def start(cls, interval_ms: int = 100) -> Tegrastats | None:
        """Start it; None where there is none."""
        program = shutil.which("tegrastats")
        try:
            return cls(program, interval_ms) if program else None
        except OSError:
            return None

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._thread.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _follow(self, lines: IO[str]) -> None:
        for line in lines:
            self.last = parse_line(line)
