"""A build that is killed or interrupted goes on where it stopped, and ends like one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from fast_recipe import FAST, JOBS

from edgekd.bundle import load_bundle
from edgekd.store import Store

COMMAND = [sys.executable, "-m", "edgekd", "build", "digits", "--target", "jetson", "--jobs", str(JOBS)]
SETS = [word for one in (*FAST, "student.model=small_student:net") for word in ("--set", one)]


def start(home, out) -> subprocess.Popen:
    environment = os.environ | {"EDGEKD_HOME": str(home), "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen(
        [*COMMAND, "--out", str(out), *SETS],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        # A shell's background job ignores Ctrl-C, and so would the build.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def finish(home, out) -> str:
    process = start(home, out)
    _, err = process.communicate(timeout=280)
    assert process.returncode == 0, err.decode()
    return err.decode()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """A folder with the ``home`` and the ``dist`` of a build that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(folder / "home", folder / "dist")
    return folder


def wait_for(process: subprocess.Popen, text: bytes) -> None:
    """Until the build has said ``text``."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"the build ended without saying {text!r}")


def test_ctrl_c_is_130_and_the_next_run_resumes(undisturbed, tmp_path):
    process = start(tmp_path / "home", tmp_path / "dist")
    wait_for(process, b"teacher: epoch 2")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"resumes" in err
    assert b"Traceback" not in err
    assert not (tmp_path / "dist").exists()
    told = finish(tmp_path / "home", tmp_path / "dist")
    assert "teacher: epoch 1 " not in told  # the checkpoint's epochs are not trained again
    assert weights(tmp_path / "home") == weights(undisturbed / "home")


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_kill_9_at_random_moments(undisturbed, tmp_path, seed):
    random_state = random.Random(seed)
    for _ in range(3):
        process = start(tmp_path / "home", tmp_path / "dist")
        assert process.stderr is not None
        # Of its lines and not of seconds alone: on a slow machine it would be killed while it imports.
        for _ in range(random_state.randint(1, 10)):
            process.stderr.readline()
        time.sleep(random_state.uniform(0, 1))
        process.kill()
        process.communicate()
    finish(tmp_path / "home", tmp_path / "dist")
    assert weights(tmp_path / "home") == weights(undisturbed / "home")
    files = [load_bundle(folder / "dist/digits-jetson-orin").manifest["files"] for folder in (tmp_path, undisturbed)]
    assert files[0] == files[1]
    store = Store(tmp_path / "home")
    assert not list((store.root / "building").iterdir())
    assert not list((store.root / "scratch").iterdir())


def test_two_builds_at_once_share_the_work(tmp_path):
    one, other = start(tmp_path / "home", tmp_path / "one"), start(tmp_path / "home", tmp_path / "other")
    told = [process.communicate(timeout=280)[1].decode() for process in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0), told
    trained = [text.count("teacher: epoch 4 of 4") for text in told]
    assert sorted(trained) == [0, 1]
    bundles = [load_bundle(tmp_path / name / "digits-jetson-orin").identity for name in ("one", "other")]
    assert bundles[0] == bundles[1]


def weights(home: Path) -> dict[str, bytes]:
    """The trained weights in the store at ``home``, by key."""
    store, found = Store(home), {}
    for entry in store.ls():
        if entry.kind in ("teacher", "distill"):
            artifact = store.get(entry.key)
            assert artifact is not None
            found[entry.key] = (artifact.path / "model.safetensors").read_bytes()
    assert len(found) == 2
    return found
