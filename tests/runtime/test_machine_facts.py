"""What a machine is, from the kernel's own files and from fake trees of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edgekd.runtime import machine as module
from edgekd.runtime.machine import (
    best_isa,
    cpu_quota,
    describe_machine,
    machine_key,
    machine_name,
    saturates,
    usable_cpus,
)
from edgekd.target import Target, load_target


def tree(folder: Path, cgroup: str, files: dict[str, str]) -> dict[str, Path]:
    (folder / "cgroup").write_text(cgroup)
    for name, text in files.items():
        path = folder / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return {"proc": folder / "cgroup", "root": folder / "fs"}


V1 = "12:memory:/docker/abc\n5:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n"


def v1(folder: str, quota: int, period: int = 100_000) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": str(quota), f"{folder}/cpu.cfs_period_us": str(period)}


@pytest.mark.parametrize(
    ("cgroup", "files", "quota"),
    [
        ("0::/\n", {}, None),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/user/job\n", {"user/job/cpu.max": "200000 100000"}, 2.0),
        # The smallest of the parents holds.
        ("0::/user/job\n", {"user/job/cpu.max": "max 100000", "user/cpu.max": "50000 100000"}, 0.5),
        ("0::/user/job\n", {"user/job/cpu.max": "100000 50000", "user/cpu.max": "400000 100000"}, 2.0),
        # Another group's limit is none of ours.
        ("0::/user/job\n", {"user/other/cpu.max": "50000 100000"}, None),
        # Inside a container the path may be the host's, and only the root is there.
        ("0::/host/path\n", {"cpu.max": "300000 100000"}, 3.0),
        ("0::/../..\n", {"cpu.max": "300000 100000"}, 3.0),
        (V1, v1("cpu,cpuacct/docker/abc", -1), None),
        (V1, v1("cpu,cpuacct/docker/abc", 80_000, 40_000), 2.0),
        (V1, v1("cpu", 250_000), 2.5),
        (V1, v1("memory", 250_000), None),
        # A hybrid: limits in version 1, a tree of version 2 beside it.
        (V1 + "0::/docker/abc\n", v1("cpu/docker/abc", 100_000) | {"unified/docker/abc/cgroup.procs": ""}, 1.0),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("0::/\n", {"cpu.max": "100000 0"}, None),
        ("", {"cpu.max": "100000 100000"}, None),
    ],
)
def test_the_quota_of_both_cgroup_versions(tmp_path, cgroup, files, quota):
    assert cpu_quota(**tree(tmp_path, cgroup, files)) == quota


def test_no_cgroups_no_quota(tmp_path):
    assert cpu_quota(proc=tmp_path / "none", root=tmp_path) is None


@pytest.mark.parametrize(
    ("quota", "affinity", "usable"), [(None, 8, 8), (1.5, 8, 1), (0.2, 8, 1), (3.0, 2, 2), (16.0, 4, 4)]
)
def test_usable_cpus_are_affinity_and_quota(monkeypatch, quota, affinity, usable):
    monkeypatch.setattr(module, "cpu_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)))
    assert usable_cpus() == usable


@pytest.mark.parametrize(
    ("text", "flags", "name"),
    [
        (
            "model name\t: Fast @ 3GHz\nflags\t\t: fpu avx2 avx512_vnni\nflags\t: other\n",
            {"avx2", "avx512_vnni"},
            "Fast @ 3GHz",
        ),
        ("processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd0b\n", {"asimd", "asimddp"}, "0xd0b"),
        ("processor\t: 0\n", set(), None),
        ("no colon at all\n\n", set(), None),
        ("", set(), None),
        (None, set(), None),
    ],
)
def test_fields_that_cpuinfo_lacks(tmp_path, text, flags, name):
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    found, told = module._cpu(path)
    assert flags <= found
    assert "other" not in found
    assert told == name if name else told  # Python's own name for it, never empty


def test_a_machine_without_any_of_the_files_is_still_described(monkeypatch):
    keys = set(describe_machine())
    monkeypatch.setattr(module, "_read", lambda _: None)
    machine = describe_machine.__wrapped__()  # past the cache
    assert machine["cpu"]
    assert machine["isa"] == []
    assert machine["cores"] >= 1
    assert [key for key, value in machine.items() if value is None] == [
        "cpu_quota", "memory_mb", "governor", "board", "gpu", "gpu_driver",
    ]  # fmt: skip
    assert set(machine) == keys


def test_this_machine():
    machine = describe_machine()
    assert json.loads(json.dumps(machine)) == machine
    assert 1 <= machine["usable_cores"] <= machine["cores"]
    assert machine["memory_mb"] > 100
    assert f"{machine['usable_cores']} cores" in machine_name()
    assert (machine["board"] or machine["cpu"]) in machine_name()


def test_the_key_is_the_machines_and_not_the_days(monkeypatch):
    key = machine_key()
    assert key == machine_key()
    machine = describe_machine()
    for changed, same in [({"kernel": "next"}, True), ({"isa": ["avx2"]}, False), ({"usable_cores": 77}, False)]:
        monkeypatch.setattr(module, "describe_machine", lambda changed=changed: machine | changed)
        assert (machine_key() == key) is same


def test_no_vnni_is_told(monkeypatch):
    machine = describe_machine() | {"arch": "x86_64", "isa": ["avx2"], "gpu": "A GPU", "board": None, "cpu": "Old CPU"}
    monkeypatch.setattr(module, "describe_machine", lambda: machine | {"usable_cores": 4})
    assert machine_name() == "Old CPU, 4 cores, no VNNI, A GPU"


@pytest.mark.parametrize("isa", module.VNNI)
def test_what_has_vnni_is_one_list(monkeypatch, isa):
    """Of a target, of what may run here, and of a machine's name."""
    machine = describe_machine() | {"arch": "x86_64", "isa": ["avx2", module._ISA_FLAGS[isa]], "gpu": None}
    monkeypatch.setattr(module, "describe_machine", lambda: machine)
    assert Target(name="t", backend="openvino", arch="x86_64", isa=isa).has_vnni()
    assert best_isa() == isa
    assert not saturates()
    assert machine_name().endswith(f", {module._ISA_FLAGS[isa]}")


@pytest.mark.parametrize(
    ("arch", "flags", "isa"),
    [
        ("x86_64", ["avx2", "avx512bw", "avx512_vnni", "amx_int8"], "amx"),
        ("x86_64", ["avx2", "avx512bw", "avx512_vnni"], "avx512-vnni"),
        ("x86_64", ["avx2", "avx_vnni"], "avx-vnni"),
        ("x86_64", ["avx2", "avx512f", "avx512bw"], "avx512"),
        ("x86_64", ["avx2", "fma"], "avx2"),
        ("aarch64", ["asimddp", "i8mm"], "neon-dot"),
        ("aarch64", [], "neon"),
    ],
)
def test_the_best_instruction_set_has_the_name_that_targets_use(monkeypatch, arch, flags, isa):
    monkeypatch.setattr(module, "describe_machine", lambda: {"arch": arch, "isa": flags})
    assert best_isa() == isa


def test_targets_and_machine_agree_on_this_one():
    assert best_isa() == load_target("onnxruntime-cpu").resolved_isa()
