"""The wheel, installed into empty environments: the light size alone, and with the extra that builds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = shutil.which("uv")
pytestmark = pytest.mark.skipif(UV is None, reason="needs uv (pip install uv)")

UNREACHABLE = ("Failed to fetch", "error sending request", "dns error", "Network connectivity is disabled")


def uv(*arguments: str) -> None:
    done = subprocess.run([str(UV), *arguments], cwd=ROOT, capture_output=True, text=True, timeout=250)
    if done.returncode and any(sign in done.stderr for sign in UNREACHABLE):
        pytest.skip("no package registry is reachable, and uv's cache does not hold what is needed")
    assert done.returncode == 0, done.stderr


class Installed:
    """An empty environment with the wheel in it."""

    def __init__(self, folder: Path, wheel: Path, extra: str = "") -> None:
        self.folder, self.python = folder, folder / "venv" / "bin" / "python"
        uv("venv", "--quiet", "--python", sys.executable, str(folder / "venv"))
        uv("pip", "install", "--quiet", "--python", str(self.python), f"{wheel}{extra}")

    def run(self, *arguments: str, timeout: int = 60) -> subprocess.CompletedProcess[str]:
        """``edgekd ARGUMENTS`` outside of the checkout, without anything of this process's environment."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "EDGEKD_HOME": str(self.folder / "home")}
        command = [str(self.python.with_name("edgekd")), *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=timeout
        )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--quiet", "--wheel", "--out-dir", str(folder))
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Installed:
    return Installed(tmp_path_factory.mktemp("light"), wheel)


def test_the_wheel_holds_what_the_code_reads(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("targets", "calibration"):
        shipped = {f"edgekd/{folder}/{path.name}" for path in (ROOT / folder).glob("*.yaml")}
        assert shipped
        assert shipped <= names
    # All that lies in the package in the checkout: code, recipes, templates, weights.
    tracked = subprocess.run(["git", "ls-files", "edgekd"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode == 0 and tracked.stdout:
        assert {name for name in tracked.stdout.split() if (ROOT / name).exists()} <= names
    assert {"edgekd/recipes/digits.yaml", "edgekd/recipes/fashion-mnist.yaml", "edgekd/recipes/template.txt"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests/", "docs/", "benchmarks/")) for name in names)
    assert zipfile.ZipFile(wheel).testzip() is None


def test_the_light_size_is_light(light: Installed) -> None:
    code = (
        "from importlib import metadata; print(*sorted(d.metadata['Name'].lower() for d in metadata.distributions()))"
    )
    done = subprocess.run([str(light.python), "-c", code], capture_output=True, text=True, timeout=60)
    names = set(done.stdout.split())
    assert {"edgekd", "numpy", "pydantic"} <= names
    assert not names & {"torch", "torchvision", "onnx", "onnxruntime", "openvino", "scikit-learn", "pandas"}


def test_help_and_version(light: Installed) -> None:
    for arguments in (["--help"], ["build", "--help"], ["--version"]):
        done = light.run(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout


def test_targets_and_recipes_come_with_the_wheel(light: Installed) -> None:
    done = light.run("targets", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["targets"]}
    assert set(rows) == {path.stem for path in (ROOT / "targets").glob("*.yaml")}
    assert not any(row["runtime_installed"] for row in rows.values())
    code = "from edgekd.recipe import list_recipes, load_recipe; from edgekd.target import load_calibration\n"
    code += "print([load_recipe(name).name for name in list_recipes()], load_calibration('default').name)"
    done = subprocess.run([str(light.python), "-c", code], cwd=light.folder, capture_output=True, text=True, timeout=60)
    assert done.stdout == "['digits', 'fashion-mnist'] default\n", done.stderr


def test_doctor_tells_what_to_install(light: Installed) -> None:
    done = light.run("doctor", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["can_build"] is False
    assert found["build"]["torch"] is None
    for row in found["runtimes"]:
        assert row["ok"] is False
        assert "install" in row["install"]
    shown = light.run("doctor")
    assert shown.returncode == 0
    assert 'pip install "edgekd[build]"' in shown.stdout


def test_a_verb_whose_part_is_missing_exits_5_with_the_install_line(light: Installed) -> None:
    for arguments in (["build"], ["build", "digits", "--target", "jetson", "--json"], ["build", "--data", "digits"]):
        done = light.run(*arguments)
        assert done.returncode == 5
        assert done.stdout == ""
        assert "torch" in done.stderr
        assert 'install it with: pip install "edgekd[build]"' in done.stderr
        assert "Traceback" not in done.stderr


def test_the_other_verbs_do_their_work_without_torch(light: Installed) -> None:
    assert light.run("init", "r.yaml").returncode == 0
    assert json.loads(light.run("cache", "ls", "--json").stdout)["artifacts"] == []
    assert light.run("cache", "prune").returncode == 0
    for verb in ("verify", "bench", "report"):
        done = light.run(verb, "no-bundle")
        assert done.returncode == 2, done.stderr
        assert "no-bundle" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_building_size_builds(tmp_path: Path, wheel: Path) -> None:
    building = Installed(tmp_path, wheel, "[build]")
    assert json.loads(building.run("doctor", "--json").stdout)["can_build"] is True
    short = [f"--set={key}={value}" for key, value in (("teacher.epochs", 1), ("distill.epochs", 1), ("budget", "{}"))]
    done = building.run("build", "--json", "--target", "onnxruntime-cpu", *short, timeout=280)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["bundles"]
    assert building.run("verify", row["path"]).returncode == 0
