"""Energy and temperature of the machine while a model runs; null where the machine does not tell."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from .sensors import Counter, ina_rails, rapl_counters, thermal_zones
from .tegrastats import Tegrastats

# Far below a turn of RAPL's counter (minutes), and as often as an INA3221 converts.
INTERVAL_S = 0.1
# The rail that feeds a whole Jetson module, where it has one.
WHOLE = ("VDD_IN", "POM_5V_IN")


class Meter:
    """Reads energy counters, power and temperatures in a thread of its own between ``with`` and its end.

    ``root`` is the folder that holds ``sys``.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._ended = threading.Event()
        self._microjoules: dict[str, int] = {}
        self._counters: dict[str, Counter] = {}
        self._power: list[tuple[float, dict[str, float]]] = []
        self._heat: dict[str, list[float]] = {}
        self._seconds = 0.0
        self._tegrastats: Tegrastats | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Meter:
        self._counters = rapl_counters(self._root)
        self._microjoules = dict.fromkeys(self._counters, 0)
        if not self._counters and not ina_rails(self._root):
            self._tegrastats = Tegrastats.start(int(1e3 * INTERVAL_S))
        self._begin = time.monotonic()
        self._read()
        if self._counters or self._power or self._heat or self._tegrastats:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._read()
        self._seconds = time.monotonic() - self._begin
        if self._tegrastats is not None:
            self._tegrastats.close()

    def energy(self, inferences: int) -> dict[str, Any] | None:
        """Joules of the whole machine's part that is metered, and for one of ``inferences``; None: not told.

        ``source``: "rapl" (counted), "ina3221" or "tegrastats" (power times time, from ``readings`` a tenth of a
        second apart); ``joules_by_rail``; ``joules`` of all packages, or of the rail that feeds the module (null
        where no rail feeds all of it); ``joules_per_inference`` of these. Idle power is part of it.
        """
        if self._microjoules:
            rails = {name: value / 1e6 for name, value in self._microjoules.items()}
            packages = [value for name, value in rails.items() if name.startswith("package") and "/" not in name]
            joules = sum(packages) if packages else None
            source = "rapl"
        else:
            rails = self._integrated()
            joules = next((rails[name] for name in WHOLE if name in rails), None)
            source = "tegrastats" if self._tegrastats else "ina3221"
        if not rails:
            return None
        return {
            "source": source,
            "seconds": self._seconds,
            "inferences": inferences,
            "joules": joules,
            "joules_per_inference": joules / inferences if joules is not None and inferences else None,
            "joules_by_rail": rails,
            "readings": len(self._power) or None,
        }

    def celsius(self) -> dict[str, dict[str, float]] | None:
        """Each thermal zone's temperature at the ``start``, at the ``end``, and the ``highest``; None: not told."""
        rows = {name: {"start": seen[0], "end": seen[-1], "highest": max(seen)} for name, seen in self._heat.items()}
        return rows or None

    def _watch(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            self._read()

    def _read(self) -> None:
        now = rapl_counters(self._root)
        if not self._microjoules.keys() <= now.keys():
            # A counter that has become unreadable would leave a part of the energy out.
            self._microjoules = {}
        for name in self._microjoules:
            self._microjoules[name] += now[name].since(self._counters[name])
        self._counters = now
        line = self._tegrastats.last if self._tegrastats else None
        rails = line.rails if line else ina_rails(self._root)
        if rails:
            self._power.append((time.monotonic(), rails))
        for name, value in (thermal_zones(self._root) or (line.celsius if line else {})).items():
            self._heat.setdefault(name, []).append(value)

    def _integrated(self) -> dict[str, float]:
        """Joules of each rail that every reading had: mean power by the trapezoidal rule, times the whole time."""
        if len(self._power) < 2:
            return {}
        names = set.intersection(*(set(rails) for _, rails in self._power))
        span = self._power[-1][0] - self._power[0][0]
        joules = {}
        for name in sorted(names):
            area = 0.0
            for (t0, before), (t1, after) in zip(self._power, self._power[1:]):  # noqa: B905 (3.10)
                area += (t1 - t0) * (before[name] + after[name]) / 2
            joules[name] = area / span * self._seconds / 1e3
        return joules
