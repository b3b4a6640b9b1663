"""Integers that were lowered for a CPU whose sums do not saturate, met by one whose sums do."""

from __future__ import annotations

import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from make_bundle import contents, edit_manifest, raw_samples

import edgekd
from edgekd import cli
from edgekd.bundle import pack, verify_bundle
from edgekd.errors import BadBundle, BadInput, Missing
from edgekd.pipeline.gate import DEFAULTS, gate_bundles
from edgekd.runtime import command, machine
from edgekd.runtime.finalize import finalize
from edgekd.runtime.model import Model
from edgekd.runtime.selection import NeedsVnni
from edgekd.runtime.verify import exit_code

REFERENCE = Path(__file__).parents[2] / "benchmarks/reference/digits-onnxruntime-cpu.zip"
NARROW, WIDE = ("x86_64", ["avx2", "fma"]), ("x86_64", ["avx2", "avx512bw", "avx512_vnni"])
TOLD = r"int8 was lowered for CPUs whose integer sums do not saturate"


@pytest.fixture
def root(tmp_path):
    """A bundle whose int8 candidate, the chosen one, has no cure."""
    parts = contents(tmp_path / "parts")
    candidates = [replace(one, needs_vnni=one.name == "int8") for one in parts.candidates]
    return pack(tmp_path / "bundle", replace(parts, candidates=candidates)).path


@pytest.fixture
def cpu(monkeypatch):
    """What the CPU tells of itself."""
    found = machine.describe_machine()

    def become(arch, flags):
        told = found | {"arch": arch, "isa": flags, "cpu": "A CPU", "board": None}
        monkeypatch.setattr(machine, "describe_machine", lambda: told)

    return become


@pytest.mark.parametrize(
    ("arch", "flags", "saturates"),
    [
        (*NARROW, True),
        ("x86_64", ["avx2", "avx512f", "avx512bw"], True),
        ("x86_64", [], True),
        (*WIDE, False),
        ("x86_64", ["avx2", "avx_vnni"], False),
        ("x86_64", ["avx2", "amx_int8"], False),
        ("aarch64", [], False),
    ],
)
def test_which_cpus_saturate(cpu, arch, flags, saturates):
    cpu(arch, flags)
    assert machine.saturates() is saturates


def test_a_cpu_that_would_saturate_does_not_load_it(root, cpu, capsys):
    cpu(*NARROW)
    with pytest.raises(NeedsVnni, match=TOLD + r".*A CPU.*no VNNI[\s\S]*`isa: avx2`.*finalize.*: float would do"):
        Model.load(root)
    with pytest.raises(Missing, match=TOLD):
        edgekd.load(root)
    np.save(root.parent / "sample.npy", raw_samples()[0])
    assert command.main(root, ["run", str(root.parent / "sample.npy")]) == 5
    assert "whose integer sums do not saturate" in capsys.readouterr().err
    # What has no integers is right everywhere.
    assert len(Model.load(root, candidate="float").predict(raw_samples())) == 3


def test_verify_bench_and_gate_tell_it(root, cpu, monkeypatch, capsys):
    cpu(*NARROW)
    checks = verify_bundle(root)
    assert [check.name for check in checks if check.ok is False] == ["cpu"]
    assert [check.name for check in checks if check.ok is None] == ["outputs"]
    assert exit_code(checks) == 5
    monkeypatch.setattr(sys, "argv", ["edgekd", "verify", str(root)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 5
    assert "FAILED   cpu: int8 was lowered for CPUs" in capsys.readouterr().out
    with pytest.raises(BadInput, match=TOLD):
        edgekd.bench(root, seconds=0.1)
    with pytest.raises(BadInput, match=TOLD):
        gate_bundles(root, root, DEFAULTS)


def test_a_cpu_with_vnni_runs_it(root, cpu):
    cpu(*WIDE)
    checks = {check.name: check.ok for check in verify_bundle(root)}
    assert checks["cpu"] is True
    assert all(checks.values())
    assert Model.load(root).describe()["candidate"] == "int8"


def test_finalize_takes_what_this_cpu_computes_rightly(root, cpu):
    cpu(*NARROW)
    entry = finalize(root, pairs=2, seconds=0.05, bench_seconds=0.1)
    assert entry["model"]["candidate"] == "float"
    assert "do not saturate" in entry["candidates"][0]["fault"]
    assert Model.load(root).describe() | {"by": "device", "candidate": "float"} == Model.load(root).describe()
    assert exit_code(verify_bundle(root)) == 0


def test_a_choice_that_was_made_on_another_cpu_is_checked_too(root, cpu):
    cpu(*WIDE)
    edit_manifest(root, lambda manifest: manifest["recipe"].update(quantize={"prefer": "size"}))
    assert finalize(root, pairs=2, seconds=0.05, bench_seconds=0.1)["model"]["candidate"] == "int8"
    cpu(*NARROW)
    with pytest.raises(NeedsVnni):
        Model.load(root)


@pytest.mark.parametrize("flags", [NARROW, WIDE])
def test_bundles_that_do_not_say_load_as_before(root, cpu, tmp_path, flags):
    cpu(*flags)
    edit_manifest(root, lambda manifest: [row.pop("needs_vnni") for row in manifest["candidates"]])
    assert Model.load(root).describe()["candidate"] == "int8"
    assert "cpu" not in [check.name for check in verify_bundle(root)]
    zipfile.ZipFile(REFERENCE).extractall(tmp_path / "reference")
    (old,) = [path.parent for path in (tmp_path / "reference").rglob("manifest.json")]
    assert Model.load(old).describe()["candidate"] == "int8"


def test_anything_else_is_no_answer(root):
    edit_manifest(root, lambda manifest: manifest["candidates"][0].update(needs_vnni="no"))
    with pytest.raises(BadBundle, match=r"candidates\[0\]: needs_vnni: must be true or false"):
        edgekd.load(root)
