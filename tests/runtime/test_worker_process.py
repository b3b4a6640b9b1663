"""Measuring processes with real runtimes: what they check, and that every way to fail names itself and ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from conv_chains import feeds, save_nan

from edgekd.runtime.machine import usable_cpus
from edgekd.runtime.process import WorkerFailed, WorkerProcess, start, worker_command
from edgekd.runtime.sessions import RuntimeMissing, open_session
from edgekd.runtime.spec import ModelSpec, save_arrays

CPU = ["onnxruntime", "openvino"]


def states(pid: int) -> set[str]:
    """The states of every thread: R, S, T, ..."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return {stat.rpartition(")")[2].split()[0] for stat in stats}


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("runtime", CPU)
def test_a_worker_tells_what_it_opened_and_times_every_run(spec, runtime):
    spec = replace(spec, runtime=runtime)
    with start(spec) as worker:
        opened = worker.load(spec)
        assert opened["runtime"] == runtime
        assert opened["inference_precision"] == "f32"
        assert opened["version"]
        assert opened["batch"] == 1
        assert not opened["checked"]
        assert opened["load_ns"] > 0
        assert opened["first_run_ns"] > 0
        warm = worker.warm(0.5)
        assert warm["runs"] >= 3
        assert warm["run_ns"] > 0
        block = worker.block(20)
        assert len(block) > 1
        assert all(ns > 0 for ns in block)
        assert sum(block[:-1]) < 20e6
        assert len(worker.block(1, min_runs=2000)) == 2000
        assert len(worker.block(1000, max_runs=7)) == 7
        pid = worker.pid
    assert gone(pid)


def test_threads_are_never_more_than_the_machine_lets_it_have(spec):
    spec = replace(spec, threads=usable_cpus() + 7)
    with start(spec) as worker:
        assert worker.load(spec)["threads"] == usable_cpus()


def test_a_pinned_worker_runs_on_its_cores_only(spec):
    core = min(os.sched_getaffinity(0))
    spec = replace(spec, cores=(core,), threads=2)
    with start(spec) as worker:
        assert worker.load(spec)["threads"] == 1
        assert os.sched_getaffinity(worker.pid) == {core}
    assert len(os.sched_getaffinity(0)) >= 1


def test_golden_outputs_are_checked_before_anything_is_timed(spec, tmp_path):
    outputs = open_session(spec.path, "onnxruntime", threads=1).run(feeds())
    right = spec.with_golden(outputs, tmp_path, "exact")
    with start(right) as worker:
        assert worker.load(right)["checked"]

    other = outputs["logits"] + np.float32(0.01)
    relative = 0.011 / float(np.abs(other).max())
    for tolerance in (0.011, {"kind": "relative", "value": relative}):
        near = spec.with_golden({"logits": other}, tmp_path, tolerance)
        with start(near) as worker:
            assert worker.load(near)["checked"]

    swapped = np.roll(outputs["logits"], 1, axis=-1)
    for golden, tolerance, words in [
        ({"logits": other}, "exact", "output logits differs by at most 0.01, allowed 0$"),
        ({"logits": other}, {"kind": "relative", "value": 0.8 * relative}, "differs by at most 0.01, allowed 0.0088"),
        ({"logits": other}, 0.009, "differs by at most 0.01, allowed 0.009$"),
        ({"logits": outputs["logits"][:, :3]}, "exact", r"has shape \(1, 16\), the golden one \(1, 3\)"),
        ({"boxes": other}, "exact", "output boxes is not there; the model has logits"),
        ({"logits": swapped}, "top1", "largest class differs in 1 of 1 samples"),
    ]:
        wrong = spec.with_golden(golden, tmp_path, tolerance)
        with start(wrong) as worker, pytest.raises(WorkerFailed, match=words) as error:
            worker.load(wrong)
        assert str(spec.path) in str(error.value)
        assert gone(worker.pid)


@pytest.mark.parametrize("tolerance", ["exact", "top1", 1e9])
def test_nan_never_passes_also_where_the_golden_output_is_nan(tmp_path, tolerance):
    path = save_nan(tmp_path / "nan.onnx")
    x = feeds(channels=4, side=1)
    nan = open_session(path, "onnxruntime", threads=1).run(x)
    assert np.isnan(nan["logits"]).all()
    spec = ModelSpec(path, "onnxruntime", save_arrays(x, tmp_path)).with_golden(nan, tmp_path, tolerance)
    with start(spec) as worker, pytest.raises(WorkerFailed, match=r"nan\.onnx: output logits has NaN"):
        worker.load(spec)


@pytest.mark.parametrize("runtime", CPU)
def test_a_model_that_does_not_load_is_named(tmp_path, spec, runtime):
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    broken = replace(spec, path=tmp_path / "broken.onnx", runtime=runtime, label="new model")
    with start(broken) as worker, pytest.raises(WorkerFailed, match=r"broken.onnx: new model: .*cannot load"):
        worker.load(broken)


def test_inputs_that_do_not_fit_are_named(tmp_path, spec):
    spec = replace(spec, feeds=save_arrays(feeds(channels=3), tmp_path))
    with start(spec) as worker, pytest.raises(WorkerFailed, match="input 'input' has shape"):
        worker.load(spec)


def test_a_missing_runtime_is_told_with_the_install_line(tmp_path, monkeypatch, spec):
    (tmp_path / "openvino.py").write_text("raise ImportError('no module here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    spec = replace(spec, runtime="openvino")
    with start(spec) as worker, pytest.raises(RuntimeMissing, match=r"OpenVINO is not installed") as error:
        worker.load(spec)
    assert 'pip install "edgekd[openvino]"' in error.value.install
    assert str(error.value).count("install it with") == 1


def test_a_crash_in_the_middle_of_a_block_is_named(spec):
    with start(replace(spec, label="new")) as worker:
        worker.load(spec)
        timer = threading.Timer(0.3, os.kill, (worker.pid, signal.SIGSEGV))
        timer.start()
        with pytest.raises(WorkerFailed, match=r"new: the measuring process was killed by SIGSEGV during 'block'"):
            worker.block(20_000)
        timer.join()
        assert gone(worker.pid)


@pytest.mark.parametrize("doing", ["block", "stop"])
def test_a_process_that_is_gone_is_noticed_by_the_next_command(spec, doing):
    with start(spec) as worker:
        worker.load(spec)
        if doing == "block":
            worker.stop()
        os.kill(worker.pid, signal.SIGKILL)
        time.sleep(0.1)
        with pytest.raises(WorkerFailed, match="was killed by SIGKILL"):
            worker.resume() or worker.block(10) if doing == "block" else worker.stop()
        worker.resume()  # of a closed process: sends nothing to whoever has its id now
        worker.close()


def test_a_hang_ends_at_its_time_limit(spec):
    with start(spec) as worker:
        worker.load(spec)
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(WorkerFailed, match=r"no answer to 'block' within 0.5 s and was killed"):
            worker.command("block", 0.5, ms=1)
        assert gone(worker.pid)


def test_the_last_words_of_a_process_that_ends_are_told(tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('numpy is broken here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(WorkerFailed, match=r"during 'start': numpy is broken here"):
        WorkerProcess("new")


def test_what_lies_in_the_current_folder_is_not_imported(tmp_path, monkeypatch, spec):
    (tmp_path / "numpy.py").write_text("raise SystemExit('not this one')")
    (tmp_path / "edgekd_runtime.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    with start(spec) as worker:
        assert worker.load(spec)["runtime"] == "onnxruntime"


@pytest.mark.parametrize("runtime", CPU)
def test_every_thread_of_a_stopped_worker_stands(spec, runtime):
    spec = replace(spec, runtime=runtime, threads=2)
    with start(spec) as worker:
        worker.load(spec)
        for _ in range(5):
            worker.block(5)
            worker.stop()
            worker.stop()
            assert states(worker.pid) == {"T"}
            worker.resume()
            worker.resume()
        worker.block(5)


def test_padding_moves_the_environment(spec):
    sizes = []
    for padding in (0, 1000):
        with start(spec, padding=padding) as worker:
            sizes.append(len(Path(f"/proc/{worker.pid}/environ").read_bytes()))
    assert sizes[1] - sizes[0] == 1000


def test_a_stopped_worker_dies_when_its_parent_is_killed(spec):
    script = f"""
import time
from pathlib import Path
from edgekd.runtime.spec import ModelSpec
from edgekd.runtime.process import start
spec = ModelSpec.from_json({spec.to_json()!r})
worker = start(spec)
worker.load(spec)
worker.block(5)
worker.stop()
print(worker.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        assert states(pid) == {"T"}
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 10
    while not gone(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert gone(pid)


def test_a_worker_ends_with_its_input_and_without_its_parent():
    ended = subprocess.run(worker_command(os.getpid()), input="", capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0
    assert ended.stdout.startswith('{"ready": ')
    # Its parent is this process and not the one it was started for: that one died before it could be watched.
    orphan = subprocess.run(worker_command(0), input="", capture_output=True, text=True, timeout=60)
    assert orphan.returncode == 1
    assert orphan.stdout == ""


def test_a_worker_imports_no_training_package(spec):
    names = "torch", "scipy", "pydantic", "onnx", "rich"
    code = f"import sys, edgekd.runtime.worker, edgekd.measure; print([n for n in {names!r} if n in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
