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
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    monkeypatch.setattr(gate_self, "ROOT", root)
    return root


def git(root: Path, *arguments: str) -> str:
    author = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
    done = subprocess.run(["git", "-C", str(root), *author, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def stand_in(tmp_path):
    """A command in edgekd's place: builds a bundle of a manifest alone and tells its path, benches by a document.

    ``before`` is shell that runs first. What is tested is the script around it.
    """

    def make(name: str = "digits-raspberry-pi-5", before: str = "") -> list[str]:
        tool = tmp_path / "tool" / "bin" / "edgekd"
        tool.parent.mkdir(parents=True, exist_ok=True)
        tool.write_text(
            f"""#!/bin/bash
{before}
echo "$*" >> {tmp_path}/calls
if [ "$1" = bench ]; then echo '{{"kind": "edgekd-gate"}}'; exit 3; fi
while [ "$1" != --out ]; do shift; done
mkdir -p "$2/{name}" && echo '{{}}' > "$2/{name}/manifest.json"
echo 'a table, a bar' >&2
echo '{{"bundles": [{{"path": "'"$2"'/{name}"}}]}}'
"""
        )
        tool.chmod(0o755)
        return [str(tool)]

    return make


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


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines()


def test_the_bundle_of_a_commit_is_built_once_for_each_target(repository, tmp_path, monkeypatch, stand_in):
    stand_in()
    monkeypatch.setattr(gate_self, "environment_of", lambda tree, uv: tmp_path / "tool")
    board, work = tmp_path / "board.yaml", tmp_path / "work"
    board.write_text("name: one")
    work.mkdir()
    found = [gate_self.build_reference("HEAD", target, work) for target in ("rpi5", str(board), "rpi5", str(board))]
    assert found[2:] == found[:2]
    assert found[0] != found[1]
    # The folder is named by the target, not by what it was asked for with.
    assert {one.name for one in found} == {"digits-raspberry-pi-5"}
    assert all((one / "manifest.json").is_file() for one in found)
    assert len(calls(tmp_path)) == 2
    board.write_text("name: another")
    assert gate_self.build_reference("HEAD", str(board), work) not in found
    assert sorted(work.iterdir()) == sorted(work.glob(f"reference-{git(repository, 'rev-parse', 'HEAD')[:16]}-*"))


def test_two_runs_at_once_share_the_first_reference(repository, tmp_path, monkeypatch, stand_in):
    work = tmp_path / "work"
    kept = work / f"reference-{git(repository, 'rev-parse', 'HEAD')[:16]}-{gate_self.digest_of('rpi5')}"
    first = kept / "digits-raspberry-pi-5"
    # The other run ends while this one builds.
    stand_in(before=f"mkdir -p {first} && echo first > {first}/manifest.json")
    monkeypatch.setattr(gate_self, "environment_of", lambda tree, uv: tmp_path / "tool")
    work.mkdir()
    assert gate_self.build_reference("HEAD", "rpi5", work) == first
    assert (first / "manifest.json").read_text() == "first\n"
    assert list(work.iterdir()) == [kept]


def test_what_is_in_the_way_of_a_reference_is_told(repository, tmp_path, monkeypatch, stand_in, capfd):
    work = tmp_path / "work"
    kept = work / f"reference-{git(repository, 'rev-parse', 'HEAD')[:16]}-{gate_self.digest_of('rpi5')}"
    kept.mkdir(parents=True)
    (kept / "notes").write_text("")
    stand_in()
    monkeypatch.setattr(gate_self, "environment_of", lambda tree, uv: tmp_path / "tool")
    assert gate_self.main(["--ref", "HEAD", "--target", "rpi5", "--work", str(work)]) == 2
    assert f"gate_self: {kept}: the reference cannot be kept here" in capfd.readouterr().err


def test_only_the_gate_writes_to_stdout(tmp_path, monkeypatch, stand_in, capfd):
    monkeypatch.setattr(gate_self, "EDGEKD", stand_in())
    reference, work = tmp_path / "reference", tmp_path / "work"
    reference.mkdir()
    options = ["--reference", str(reference), "--target", "rpi5", "--work", str(work), "--json"]
    assert gate_self.main(options) == 3
    told = capfd.readouterr()
    assert json.loads(told.out) == {"kind": "edgekd-gate"}
    assert "a table" in told.err
    new = work / "new" / "digits-raspberry-pi-5"
    assert calls(tmp_path)[-1] == f"bench {new} --against {reference} --json"


def test_a_build_that_names_no_bundle_is_told(tmp_path, monkeypatch, stand_in, capfd):
    monkeypatch.setattr(gate_self, "EDGEKD", stand_in(before="echo 'all well'; exit 0"))
    (tmp_path / "reference").mkdir()
    assert gate_self.main(["--reference", str(tmp_path / "reference"), "--work", str(tmp_path / "work")]) == 1
    assert "gate_self: the build named no bundle on stdout but 'all well" in capfd.readouterr().err


def test_the_reference_that_the_last_release_left_is_comparable_still(tmp_path):
    """By today's code on this machine; a bundle against itself regresses in nothing that is exact."""
    reference = gate_self.find_reference(gate_self.RELEASED, tmp_path / "same")
    out = tmp_path / "out"
    exact = ["--gate", "size", "--gate", "accuracy", "--gate", "coverage"]
    options = ["--bundle", str(reference), "--work", str(tmp_path / "work"), "--budget-seconds", "1"]
    assert gate_self.main([*options, *exact, "--out", str(out)]) == 0
    result = json.loads((out / "gate.json").read_text())
    assert result["verdict"] == "pass"
    assert result["new"]["identity"] == result["old"]["identity"]
    assert {check["name"]: check["verdict"] for check in result["checks"] if check["gates"]} == {
        "size": "pass", "accuracy": "pass", "coverage": "pass"
    }  # fmt: skip
    assert len(result["latency"]["pairs"]) >= 1


def test_the_last_release_left_a_bundle_for_one_target(tmp_path, capfd):
    assert gate_self.main(["--target", "rpi5", "--work", str(tmp_path / "work")]) == 2
    assert "for onnxruntime-cpu alone\n  name a commit instead: --ref origin/main" in capfd.readouterr().err


def test_a_kept_bundle_is_a_reference(bundle, tmp_path, capfd):
    archive, work = tmp_path / "kept" / "tiny.zip", ["--work", str(tmp_path / "work")]
    assert gate_self.main(["--bundle", str(bundle), "--keep", str(archive), *work]) == 0
    assert [path.name for path in archive.parent.iterdir()] == ["tiny.zip"]
    (tmp_path / "again").mkdir()
    found = gate_self.find_reference(archive, tmp_path / "again")
    assert (found / "manifest.json").read_bytes() == (bundle / "manifest.json").read_bytes()
    (tmp_path / "file").write_text("")
    assert gate_self.main(["--bundle", str(bundle), "--keep", str(tmp_path / "file" / "tiny.zip"), *work]) == 2
    assert "cannot be written" in capfd.readouterr().err
