"""Sensors read from folders laid out as the kernel lays them out, and lines of tegrastats from several Jetsons."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.runtime import energy
from edgekd.runtime.energy import Meter
from edgekd.runtime.sensors import Counter, ina_rails, rapl_counters, thermal_zones
from edgekd.runtime.tegrastats import Tegrastats, parse_line

ORIN_NANO = (
    "09-21-2025 15:38:17 RAM 3645/7620MB (lfb 63x4MB) SWAP 236/3810MB (cached 0MB) CPU [1%@729,1%@729,off,off] "
    "EMC_FREQ 0%@204 GR3D_FREQ 0%@[305] NVDEC off VIC off APE 200 cpu@44.125C soc2@43.375C gpu@44.531C tj@44.531C "
    "VDD_IN 2957mW/2951mW VDD_CPU_GPU_CV 486mW/480mW VDD_SOC 1012mW/1010mW"
)
AGX_ORIN = (
    "04-24-2023 00:01:24 RAM 1282/62795MB (lfb 15152x4MB) SWAP 0/31398MB (cached 0MB) CPU [0%@729,0%@729] EMC_FREQ "
    "0%@2133 GR3D_FREQ 0%@0 GR3D2_FREQ 0%@0 VIC_FREQ 729 APE 174 CV0@-256C CPU@42.593C Tboard@32C GPU@-256C tj@42.593C "
    "VDD_GPU_SOC 2399mW/2399mW VDD_CPU_CV 400mW/400mW VIN_SYS_5V0 4032mW/4032mW NC 0mW/0mW VDDQ_VDD2_1V8AO 301mW/301mW "
    "NC 0mW/0mW"
)
NANO = (
    "RAM 534/3964MB (lfb 98x4MB) SWAP 5/1982MB (cached 1MB) IRAM 0/252kB(lfb 252kB) CPU [16%@204,9%@204,0%@204,0%@204] "
    "EMC_FREQ 0%@204 GR3D_FREQ 0%@76 APE 25 PLL@34C CPU@36.5C PMIC@100C GPU@36C AO@39.5C thermal@36.25C "
    "POM_5V_IN 1022/1022 POM_5V_GPU 0/0 POM_5V_CPU 204/204"
)
XAVIER = (
    "RAM 721/31927MB (lfb 7291x4MB) SWAP 0/15963MB (cached 0MB) CPU [2%@1190,off] EMC_FREQ 0%@665 GR3D_FREQ 0%@318 "
    "APE 150 MTS fg 0% bg 0% AO@37.5C GPU@37.5C GPU 0/0 CPU 311/311 SOC 932/932"
)
THREE_VALUES = (
    "09-01-2026 09:25:18 RAM 5739/7546MB (lfb 1x2MB) GR3D_FREQ 33% cpu@50C/50C soc2@47.937C/47.937C "
    "VDD_IN 9761mW/9760mW/9999mW VDD_SOC 1825mW/1825mW/1825mW"
)


def write(root: Path, files: dict[str, object]) -> Path:
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return root


def change(root: Path, name: str, value: object) -> None:
    """Another value at once, as the kernel's files change: a reader sees the old one or the new one."""
    write(root, {"new": value})
    (root / "new").replace(root / name)


def rapl(root: Path, **zones: tuple[str, int, int]) -> Path:
    """Zones by folder (``_`` for ``:``): name, energy_uj, max_energy_range_uj."""
    for zone, (name, now, largest) in zones.items():
        folder = f"sys/class/powercap/intel-rapl:{zone.strip('z').replace('_', ':')}"
        values = {"name": name, "energy_uj": now, "max_energy_range_uj": largest}
        write(root, {f"{folder}/{key}": value for key, value in values.items()})
    return root


def rails(root: Path, **milliwatts: float) -> Path:
    """An INA3221 with up to three rails at 5 V."""
    write(root, {"sys/class/hwmon/hwmon0/name": "cpu_fan", "sys/class/hwmon/hwmon1/name": "ina3221"})
    for channel, (label, power) in enumerate(milliwatts.items(), 1):
        folder = "sys/class/hwmon/hwmon1"
        values = {"label": label, "input": 5000}
        write(root, {f"{folder}/in{channel}_{key}": value for key, value in values.items()})
        write(root, {f"{folder}/curr{channel}_input": round(power / 5)})
    return root


@given(st.integers(0, 999), st.integers(0, 999))
def test_a_counter_turns_over(before, grown):
    largest = 1000
    after = Counter((before + grown) % largest, largest)
    assert after.since(Counter(before, largest)) == grown


def test_zones_of_rapl_and_their_parts(tmp_path):
    root = rapl(
        tmp_path, z0=("package-0", 5, 100), z0_0=("core", 3, 100), z0_1=("dram", 1, 50), z1=("package-1", 7, 100),
        z2=("psys", 20, 100),
    )  # fmt: skip
    write(root, {"sys/class/powercap/intel-rapl-mmio:0/name": "package-0", "sys/class/powercap/intel-rapl/enabled": 1})
    assert rapl_counters(root) == {
        "package-0": (5, 100), "package-0/core": (3, 100), "package-0/dram": (1, 50), "package-1": (7, 100),
        "psys": (20, 100),
    }  # fmt: skip


def test_nothing_there_is_nothing_told(tmp_path):
    assert rapl_counters(tmp_path) == ina_rails(tmp_path) == thermal_zones(tmp_path) == {}
    with Meter(tmp_path) as meter:
        pass
    assert meter.energy(10) is None
    assert meter.celsius() is None


def test_what_only_root_may_read_is_null(tmp_path):
    """As since Linux 5.10; a folder in its place cannot be read by root either, who runs the tests in containers."""
    root = rapl(tmp_path, z0=("package-0", 5, 100))
    energy_uj = root / "sys/class/powercap/intel-rapl:0/energy_uj"
    energy_uj.unlink()
    energy_uj.mkdir()
    assert rapl_counters(root) == {}
    with Meter(root) as meter:
        pass
    assert meter.energy(1) is None


def test_rails_of_an_ina3221(tmp_path):
    root = rails(tmp_path, VDD_IN=5000, NC=0, VDD_SOC=1000)
    assert ina_rails(root) == {"VDD_IN": 5000.0, "VDD_SOC": 1000.0}
    (root / "sys/class/hwmon/hwmon1/curr3_input").unlink()
    assert ina_rails(root) == {"VDD_IN": 5000.0}


def test_temperatures_by_zone(tmp_path):
    zone = "sys/class/thermal/thermal_zone"
    values = {"0": ("cpu-thermal", 45_500), "1": ("gpu-thermal", -256_000), "2": ("cpu-thermal", 47_250)}
    for number, (kind, temp) in values.items():
        write(tmp_path, {f"{zone}{number}/type": kind, f"{zone}{number}/temp": temp})
    write(tmp_path, {f"{zone}3/type": "off"})
    assert thermal_zones(tmp_path) == {"cpu-thermal": 47.25}


def test_joules_are_what_the_counter_gained_over_its_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "INTERVAL_S", 0.01)
    root = rapl(tmp_path, z0=("package-0", 90_000_000, 100_000_000), z0_0=("dram", 0, 100_000_000))
    zone = "sys/class/thermal/thermal_zone0"
    write(root, {f"{zone}/type": "x86_pkg_temp", f"{zone}/temp": 40_000})
    with Meter(root) as meter:
        for counted in (98_000_000, 5_000_000, 13_000_000):  # 8 J, 7 J over the turn, 8 J
            time.sleep(0.05)
            change(root, "sys/class/powercap/intel-rapl:0/energy_uj", counted)
        change(root, "sys/class/powercap/intel-rapl:0:0/energy_uj", 2_000_000)
        change(root, f"{zone}/temp", 52_000)
        time.sleep(0.05)
    told = meter.energy(46)
    assert told is not None
    assert told["source"] == "rapl"
    assert told["joules"] == pytest.approx(23)
    assert told["joules_per_inference"] == pytest.approx(0.5)
    assert told["joules_by_rail"] == pytest.approx({"package-0": 23, "package-0/dram": 2})
    assert told["seconds"] >= 0.2
    assert meter.celsius() == {"x86_pkg_temp": {"start": 40.0, "end": 52.0, "highest": 52.0}}
    json.dumps(told, allow_nan=False)


@pytest.mark.parametrize(("first", "whole"), [("VDD_IN", True), ("VDD_GPU_SOC", False)])
def test_joules_of_rails_are_power_times_time(tmp_path, first, whole):
    root = rails(tmp_path, **{first: 5000, "VDD_SOC": 1000})
    with Meter(root) as meter:
        time.sleep(0.3)
    told = meter.energy(10)
    assert told is not None
    assert told["source"] == "ina3221"
    assert told["readings"] >= 2
    assert told["joules_by_rail"] == pytest.approx({first: 5 * told["seconds"], "VDD_SOC": told["seconds"]})
    # Where no rail feeds the whole module, its energy is not known.
    assert told["joules"] == (pytest.approx(5 * told["seconds"]) if whole else None)
    assert (told["joules_per_inference"] is None) is not whole


@pytest.mark.parametrize(
    ("line", "rails", "zones"),
    [
        (ORIN_NANO, {"VDD_IN": 2957, "VDD_CPU_GPU_CV": 486, "VDD_SOC": 1012}, {"cpu": 44.125, "tj": 44.531}),
        (
            AGX_ORIN,
            {"VDD_GPU_SOC": 2399, "VDD_CPU_CV": 400, "VIN_SYS_5V0": 4032, "VDDQ_VDD2_1V8AO": 301},
            {"CPU": 42.593, "Tboard": 32},
        ),
        (NANO, {"POM_5V_IN": 1022, "POM_5V_GPU": 0, "POM_5V_CPU": 204}, {"PLL": 34, "AO": 39.5, "thermal": 36.25}),
        (XAVIER, {"GPU": 0, "CPU": 311, "SOC": 932}, {"AO": 37.5, "GPU": 37.5}),
        (THREE_VALUES, {"VDD_IN": 9761, "VDD_SOC": 1825}, {"cpu": 50, "soc2": 47.937}),
        ("", {}, {}),
    ],
)
def test_lines_of_tegrastats(line, rails, zones):
    found = parse_line(line)
    assert found.rails == rails
    assert zones.items() <= found.celsius.items()
    assert all(value > -200 for value in found.celsius.values())


@given(st.text())
def test_any_text_is_a_line(text):
    assert all(value >= 0 for value in parse_line(text).rails.values())


def test_a_running_tegrastats_is_followed_and_ended(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "tegrastats"
    write(tmp_path, {"bin/tegrastats": f"#!/bin/sh\nwhile :; do echo '{ORIN_NANO}'; sleep 0.05; done"})
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    threads = threading.active_count()
    with Meter(tmp_path) as meter:
        time.sleep(0.5)
    told = meter.energy(4)
    assert told is not None
    assert told["source"] == "tegrastats"
    assert told["joules"] == pytest.approx(2.957 * told["seconds"])
    assert meter.celsius()["tj"]["highest"] == 44.531
    assert threading.active_count() == threads
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Tegrastats.start() is None
