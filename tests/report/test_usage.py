"""What the report tells a person to run on the device runs, on a real bundle and nothing but its own runtime."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd.bundle import load_bundle, pack
from edgekd.report import render_html
from edgekd.report.evidence import Evidence
from edgekd.report.usage import EXAMPLE, commands

# The bundle that the tests beside these make; pytest puts the folder on the path only when it collects it.
sys.path.insert(0, str(Path(__file__).parent.parent / "bundle"))
from make_bundle import contents


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("usage")
    packed: Path = pack(folder / "bundle", contents(folder / "parts", "onnxruntime")).path
    with np.load(packed / "golden" / "raw.npz") as raw:
        np.save(folder / "SAMPLE.npy", raw["0"])
    return packed


def run(bundle: Path, *arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=bundle, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_example_runs_as_it_stands(bundle: Path) -> None:
    code = EXAMPLE.replace("SAMPLE.npy", str(bundle.parent / "SAMPLE.npy"))
    assert run(bundle, "-B", "-c", code).strip() in load_bundle(bundle).manifest["labels"]
    assert len(EXAMPLE.splitlines()) == 5


def test_commands_run_and_their_evidence_is_shown(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    short = ["--pairs", "2", "--seconds", "0.1", "--bench-seconds", "0.2"]
    quick = {"bench": ["--seconds", "0.2"], "finalize": short}
    for command, _ in commands(Evidence(loaded.manifest, loaded.measurements)):
        python, *arguments = shlex.split(command.replace("SAMPLE.npy", str(bundle.parent / "SAMPLE.npy")))
        assert python == "python"
        quick = {
            "bench": ["--seconds", "0.2"],
            "finalize": ["--pairs", "2", "--seconds", "0.1", "--bench-seconds", "0.2"],
        }
        assert run(bundle, *arguments, *quick.get(arguments[1], []))
    again = load_bundle(bundle)
    page = render_html(again.manifest, again.measurements, identity=again.identity)
    assert again.identity in page
    assert "All measurements" in page
    assert ">bench<" in page
    assert ">finalize<" in page
    assert f"Measured on {again.manifest['target']['name']}" in page
