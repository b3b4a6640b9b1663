"""The gate of edgekd's own bundles: where the reference comes from, and the exit code it ends with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import gate_self
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "bundle"))
from make_bundle import contents

from edgekd.bundle import pack


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gate-self")
    return pack(folder / "tiny", contents(folder / "parts")).path


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """A repository whose only commit has no project that uv could run."""
    root = tmp_path / "repository"
    root.mkdir()
    (root / "notes").write_text("nothing to build")
    author = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(root), *command], check=True)
    monkeypatch.setattr(gate_self, "ROOT", root)
    return root


@pytest.mark.parametrize("form", ["zip", "gztar"])
def test_an_archive_of_a_bundle_is_gated_and_its_exit_code_is_the_gates(bundle, tmp_path, form):
    archive = shutil.make_archive(str(tmp_path / "released"), form, bundle.parent, bundle.name)
    work, out = tmp_path / "work", tmp_path / "out"
    # One pair within the budget decides nothing.
    common = ["--reference", archive, "--bundle", str(bundle), "--work", str(work), "--budget-seconds", "1"]
    if form == "gztar":
        common += ["--on-inconclusive", "pass"]
    code = gate_self.main([*common, "--gate", "latency", "--out", str(out)])
    result = json.loads((out / "gate.json").read_text())
    assert result["verdict"] == "inconclusive"
    assert code == result["exit_code"] == (6 if form == "zip" else 0)
    assert result["new"]["identity"] == result["old"]["identity"]
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [("absent", "there is no such bundle"), ("text", "is neither a folder nor"), ("empty.tar", "has no manifest.json")],
)
def test_what_is_no_reference_exits_2(bundle, tmp_path, capfd, name, words):
    (tmp_path / "text").write_text("no archive")
    with tarfile.open(tmp_path / "empty.tar", "w") as archive:
        archive.add(tmp_path / "text", "text")
    options = ["--bundle", str(bundle), "--work", str(tmp_path / "work")]
    assert gate_self.main(["--reference", str(tmp_path / name), *options]) == 2
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err.startswith("gate_self: ")
    assert words in told.err


def test_an_archive_does_not_write_outside_of_its_folder(bundle, tmp_path, capfd):
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.add(bundle / "manifest.json", "../manifest.json")
    options = ["--bundle", str(bundle), "--work", str(tmp_path / "work")]
    assert gate_self.main(["--reference", str(tmp_path / "evil.tar"), *options]) == 2
    assert "cannot be unpacked" in capfd.readouterr().err
    assert not list((tmp_path / "work").rglob("manifest.json"))


@pytest.mark.parametrize("ref", ["no-such-branch", "--all", "HEAD:notes"])
def test_what_is_no_commit_exits_2(repository, bundle, tmp_path, capfd, ref):
    options = ["--bundle", str(bundle), "--work", str(tmp_path / "work")]
    assert gate_self.main([f"--ref={ref}", *options]) == 2
    assert f"{ref!r} is no commit" in capfd.readouterr().err


def test_a_commit_that_cannot_build_leaves_no_worktree(repository, bundle, tmp_path, capfd):
    options = ["--bundle", str(bundle), "--work", str(tmp_path / "work")]
    assert gate_self.main(["--ref", "HEAD", *options]) == 5
    assert "the commit's packages cannot be installed from its lock file" in capfd.readouterr().err
    listed = subprocess.run(["git", "-C", str(repository), "worktree", "list"], capture_output=True, text=True)
    assert len(listed.stdout.splitlines()) == 1


def test_a_run_that_is_ended_leaves_no_worktree(repository, tmp_path):
    """As CI cancels a job, while packages are installed."""
    script = repository / "benchmarks" / "gate_self.py"
    script.parent.mkdir()
    shutil.copy(gate_self.__file__, script)
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text("#!/bin/sh\nexec sleep 60\n")
    uv.chmod(0o755)
    environment = os.environ | {"PATH": f"{uv.parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, str(script), "--ref", "HEAD", "--work", str(tmp_path / "work")]
    running = subprocess.Popen(command, env=environment)

    def worktrees() -> list[str]:
        listed = ["git", "-C", str(repository), "worktree", "list"]
        return subprocess.run(listed, capture_output=True, text=True).stdout.splitlines()

    deadline = time.monotonic() + 60
    while len(worktrees()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(worktrees()) == 2
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=60) == 128 + signal.SIGTERM
    assert len(worktrees()) == 1
    assert list((tmp_path / "work").iterdir()) == []


def test_the_bundle_of_a_commit_is_built_once(repository, tmp_path):
    told = subprocess.run(["git", "-C", str(repository), "rev-parse", "HEAD"], capture_output=True, text=True)
    kept = tmp_path / f"reference-{told.stdout[:16]}" / f"digits-{gate_self.TARGET}"
    kept.mkdir(parents=True)
    (kept / "manifest.json").write_text("{}")
    assert gate_self.build_reference("HEAD", gate_self.TARGET, tmp_path) == kept
