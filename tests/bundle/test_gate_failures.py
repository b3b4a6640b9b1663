"""Bundles whose models crash, answer wrongly or are ended with the gate: edgekd's own process never runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from left_workers import workers_of
from make_bundle import edit_manifest

from edgekd.errors import BadBundle, BadInput, WorkerFailed
from edgekd.pipeline.alone import measuring_alone
from edgekd.pipeline.bench import bench_bundle
from edgekd.pipeline.gate import DEFAULTS, gate_bundles
from edgekd.runtime import verify
from edgekd.runtime.process import WorkerProcess
from edgekd.runtime.scenario import Settings
from edgekd.stage import NoProgress

QUICK = DEFAULTS.model_copy(update={"error": 0.19, "seconds_per_pair": 0.0})


@pytest.fixture
def not_run_here(monkeypatch):
    monkeypatch.setattr(verify, "open_selected", lambda *_, **__: pytest.fail("opened in edgekd's own process"))


@pytest.fixture
def crashing(monkeypatch, not_run_here):
    """Every measuring process dies while it loads its model."""
    load = WorkerProcess.load

    def dies(self, model):
        psutil.Process(self.pid).kill()
        return load(self, model)

    monkeypatch.setattr(WorkerProcess, "load", dies)


def test_a_model_that_crashes_when_it_is_loaded_is_the_verdict_error(bundle, crashing):
    root = bundle()
    result = gate_bundles(root, root, QUICK)
    assert (result.verdict, result.exit_code) == ("error", 1)
    assert result.latency.pairs == []
    assert "SIGKILL" in result.latency.failure.what


def test_a_model_that_crashes_when_it_is_measured_alone_is_one_message(bundle, crashing):
    with pytest.raises(WorkerFailed, match=r"SIGKILL.*\n  run it again, with more memory free; .* another version"):
        bench_bundle(bundle(), Settings(seconds=0.5))


def wrong_answers(root) -> None:
    """Golden outputs that the model does not give, under hashes that hold."""
    from edgekd.runtime.bundle_files import digest

    paths = [path for path in sorted((root / "golden").rglob("*.npy")) if "logits" in path.name]
    assert paths
    for path in paths:
        np.save(path, np.load(path) + 100)

    def change(manifest):
        for path in paths:
            row = manifest["files"][path.relative_to(root).as_posix()]
            row |= {"sha256": digest(path), "size": path.stat().st_size}

    edit_manifest(root, change)


@pytest.mark.parametrize("use", [lambda root: gate_bundles(root, root, QUICK), bench_bundle])
def test_wrong_answers_are_refused_by_a_measuring_process(bundle, not_run_here, use):
    root = bundle()
    wrong_answers(root)
    with pytest.raises(BadBundle, match=r"output .* differs[\s\S]*edgekd verify"):
        use(root)


def test_another_runtime_version_is_told_before_answers_that_it_may_change(bundle):
    root = bundle()
    wrong_answers(root)
    edit_manifest(root, lambda manifest: manifest.update(runtime_requirement="onnxruntime>=99"))
    with pytest.raises(BadInput, match=r"runtime: .*onnxruntime>=99"):
        gate_bundles(root, root, QUICK)


def test_a_gate_that_is_ended_leaves_no_process_and_no_file(bundle, tmp_path):
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    root = bundle()
    command = [sys.executable, "-m", "edgekd", "bench", str(root), "--against", str(root), "--max-slowdown", "1"]
    gate = subprocess.Popen(command, env=os.environ | {"TMPDIR": str(scratch)}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(workers_of(gate.pid)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers = workers_of(gate.pid)
    gate.send_signal(signal.SIGTERM)
    assert gate.wait(30) == 128 + signal.SIGTERM
    assert not psutil.wait_procs(workers, timeout=10)[1]
    # The measuring lock stays; runtimes may leave files of their own.
    left = [path.name for path in scratch.iterdir() if path.name.startswith(("edgekd", "tmp"))]
    assert [name for name in left if not name.endswith(".lock")] == []


def test_a_user_without_a_name_measures_too(monkeypatch):
    """As in a container that was given a number alone."""
    import pwd

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    with measuring_alone(NoProgress()):
        pass
