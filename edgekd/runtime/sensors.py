"""Counters of energy, readings of power and temperatures, as the Linux kernel tells them; the standard library only.

Sources: Documentation/power/powercap/powercap.rst (RAPL: energy counters of Intel's and AMD's processors),
Documentation/hwmon/ina3221.rst and sysfs-interface.rst (the INA3221 of a Jetson: mV and mA of three rails each), and
Documentation/driver-api/thermal/sysfs-api.rst. All paths lie under a root, so that another machine's can be read.
What a machine does not tell, or tells only root, is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Counter(NamedTuple):
    """Microjoules so far, and the largest that the counter shows before it begins at zero again."""

    microjoules: int
    largest: int

    def since(self, before: Counter) -> int:
        """Microjoules between two readings, which lie less than a whole turn of the counter apart."""
        grown = self.microjoules - before.microjoules
        return grown if grown >= 0 else grown + self.largest


def rapl_counters(root: Path = Path("/")) -> dict[str, Counter]:
    """RAPL's zones by name: ``package-0``, and parts of it such as ``package-0/dram``; empty where unreadable.

    The same package seen through the memory-mapped interface (``intel-rapl-mmio``) is not counted twice.
    """
    found: dict[str, Counter] = {}
    names: dict[str, str] = {}
    for zone in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
        name, energy, largest = (_read(zone / file) for file in ("name", "energy_uj", "max_energy_range_uj"))
        if name is None:
            continue
        # intel-rapl:0 is a package, intel-rapl:0:1 a part of it.
        parent = names.get(zone.name.rpartition(":")[0])
        names[zone.name] = f"{parent}/{name}" if parent else name
        if energy and largest:
            found[names[zone.name]] = Counter(int(energy), int(largest))
    return found


def ina_rails(root: Path = Path("/")) -> dict[str, float]:
    """Power of each labelled rail of the INA3221 sensors, now, in mW; rails that are switched off are left out."""
    rails = {}
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if _read(chip / "name") != "ina3221":
            continue
        for channel in (1, 2, 3):
            label = _read(chip / f"in{channel}_label")
            volts, amperes = (_number(chip / f"{kind}{channel}_input") for kind in ("in", "curr"))
            if label and label != "NC" and volts is not None and amperes is not None:
                rails[label] = volts * amperes / 1e3
    return rails


def thermal_zones(root: Path = Path("/")) -> dict[str, float]:
    """Temperatures by zone type, now, in degrees Celsius; the hottest where several zones have one type."""
    zones: dict[str, float] = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        name, value = _read(zone / "type"), _number(zone / "temp")
        # A zone without power says -256 °C or an error.
        if name and value is not None and value > -200_000:
            zones[name] = max(value / 1e3, zones.get(name, -273.15))
    return zones


def _number(path: Path) -> int | None:
    try:
        return int(_read(path) or "")
    except ValueError:
        return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
