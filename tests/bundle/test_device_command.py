"""The device's command line, run as a device runs it: a Python that has numpy and the runtime, and nothing else."""

import importlib.util
import json
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from make_bundle import edit_manifest, raw_samples, relist, tree

PACKAGES = {"onnxruntime": ["numpy", "onnxruntime"], "openvino": ["numpy", "openvino"], "numpy": ["numpy"], "bare": []}

NOT_VERIFIED = "NOT verified: copy the bundle again, and keep files of your own outside of it"


@pytest.fixture(scope="session")
def device(tmp_path_factory):
    """An interpreter with only these packages' own files importable."""
    made = {}

    def get(kind) -> Path:
        if kind not in made:
            home = tmp_path_factory.mktemp(kind) / "venv"
            venv.create(home, symlinks=True, with_pip=False)
            (site,) = home.glob("lib/python*/site-packages")
            for package in PACKAGES[kind]:
                source = Path(importlib.util.find_spec(package).origin).parent.parent
                tops = {Path(str(file)).parts[0] for file in metadata.files(package)} - {"..", "__pycache__"}
                for name in tops:
                    if not (site / name).exists():
                        (site / name).symlink_to(source / name)
            made[kind] = home / "bin" / "python"
        return made[kind]

    return get


def command(python, root, *arguments, env=None):
    """One command from the root folder, isolated: no user site, no environment, no current folder."""
    done = subprocess.run(
        [str(python), "-I", str(root / "runtime" / "python"), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd="/",
        env=env,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_every_command_works_with_numpy_and_the_runtime_only(bundle, device, tmp_path, backend):
    root, python = bundle(backend), device(backend)
    before = tree(root)
    listed = subprocess.run([python, "-Ic", "import torch"], capture_output=True)
    assert listed.returncode == 1  # the environment is what it says it is

    done = command(python, root, "verify", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["ok"] is True
    assert {check["ok"] for check in answer["checks"]} == {True}
    assert command(python, root, "verify").stdout.endswith("verified\n")

    golden = np.load(root / "golden" / "logits.npy")
    files = []
    for number, raw in enumerate(raw_samples()):
        files.append(tmp_path / f"{number}.npy")
        np.save(files[-1], raw)
    rows = json.loads(command(python, root, "run", *files, "--json").stdout)
    assert [row["index"] for row in rows] == golden.argmax(1).tolist()
    assert f"class {golden[0].argmax()} (" in command(python, root, "run", files[0]).stdout

    timed = json.loads(command(python, root, "bench", "--seconds", "0.3", "--json").stdout)
    latency = timed["latency_ms"]
    assert len(latency["samples_ns"]) == latency["runs"] >= 64
    assert latency["p50"] == pytest.approx(np.median(latency["samples_ns"]) / 1e6)
    assert latency["p50"] <= latency["p90"] <= max(latency["samples_ns"]) / 1e6
    assert latency["runtime"].startswith(backend)
    assert timed["peak_memory_mb"] > 1
    told = command(python, root, "bench", "--scenario", "offline", "--batch-size", "2", "--seconds", "0.1")
    assert "batch 2: " in told.stdout
    told = command(python, root, "bench", "--scenario", "multi-stream", "--streams", "3", "--seconds", "0.1")
    assert "queries of 3 samples" in told.stdout
    assert tree(root) == before  # nothing is written, Python's caches included


def test_bench_records_when_it_is_asked_to(bundle, device):
    root = bundle()
    done = command(device("onnxruntime"), root, "bench", "--seconds", "0.1", "--record")
    assert done.returncode == 0, done.stderr
    assert "p50: " in done.stdout
    (entry,) = json.loads((root / "measurements.json").read_text())["entries"]
    assert entry["source"] == "bench"
    assert entry["latency_ms"]["samples_ns"]
    assert (
        entry["model"]["sha256"]
        == json.loads((root / "manifest.json").read_text())["files"]["model/int8/model.onnx"]["sha256"]
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cores", "4095"], "there is no core 4095 to run on"),
        (["--cores", "x"], "'x' is no list of cores"),
        (["--scenario", "server"], "invalid choice: 'server'"),
        (["--batch-size", "2"], "batch sizes belong to the scenario offline"),
        (["--scenario", "offline", "--record"], "--record keeps the figures of the scenario single-stream only"),
    ],
)
def test_options_of_bench_that_do_not_fit_exit_2(bundle, device, options, words):
    done = command(device("onnxruntime"), bundle(), "bench", *options)
    assert done.returncode == 2
    assert done.stdout == ""
    assert words in done.stderr


def test_without_its_runtime_a_bundle_is_told_to_be_unproven(bundle, device):
    root, python = bundle(), device("numpy")
    done = command(python, root, "verify")
    assert done.returncode == 5
    assert "not run  runtime: onnxruntime>=1.20 is needed" in done.stdout
    assert "NOT verified in full: 2 checks could not run here" in done.stdout
    np.save(root.parent / "x.npy", raw_samples()[0])
    for arguments in (["bench"], ["finalize"], ["run", root.parent / "x.npy"]):
        done = command(python, root, *arguments)
        assert done.returncode == 5, arguments
        assert "install" in done.stderr
        assert done.stdout == ""
    done = command(device("bare"), root, "verify")
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr == "edgekd: numpy is not installed\n  install it with: pip install numpy\n"


def test_a_bundle_that_does_not_hold_exits_2(bundle, device):
    root, python = bundle(), device("onnxruntime")
    (root / "extra").write_text("x")
    done = command(python, root, "verify")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (2, NOT_VERIFIED)
    assert command(python, root, "finalize").returncode == 2
    (root / "extra").unlink()
    # A golden that is wrong: nothing is timed that does not give its golden outputs.
    golden = np.load(root / "golden" / "logits.npy")
    np.save(root / "golden" / "logits.npy", golden + 1)
    relist(root, "golden/logits.npy")
    done = command(python, root, "bench")
    assert done.returncode == 2
    assert "output logits differs by at most" in done.stderr
    (root / "manifest.json").write_text("{")
    for name in ("verify", "bench", "finalize"):
        assert command(python, root, name).returncode == 2
    (root / "manifest.json").unlink()
    assert command(python, root, "verify").returncode == 2


@pytest.mark.parametrize("what", ["missing", "text", "pickle", "shape", "archive"])
def test_samples_that_cannot_be_read_are_told_in_one_message(bundle, device, tmp_path, what):
    path = tmp_path / "sample.npy"
    if what == "text":
        path.write_text("not an array")
    elif what == "pickle":
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    elif what == "shape":
        np.save(path, np.zeros((2, 3, 4, 5)))
    elif what == "archive":
        np.savez(path.with_suffix(""), x=np.zeros(3))
        path.with_suffix(".npz").rename(path)
    done = command(device("onnxruntime"), bundle(), "run", path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("edgekd: ")


def test_a_version_that_does_not_fit_exits_5(bundle, device):
    root = bundle()
    edit_manifest(root, lambda manifest: manifest.update(runtime_requirement="onnxruntime>=99"))
    done = command(device("onnxruntime"), root, "verify")
    assert done.returncode == 5
    assert "the bundle needs onnxruntime>=99" in done.stdout
    done = command(device("onnxruntime"), root, "finalize")
    assert done.returncode == 5
    assert "the bundle needs onnxruntime>=99" in done.stderr


@pytest.mark.parametrize(("flavour", "requirement"), [("rtx", "tensorrt-rtx>=1.0"), ("default", "tensorrt>=10.3")])
def test_tensorrt_without_a_gpu_says_so(bundle, flavour, requirement):
    root = bundle("tensorrt")

    def change(manifest):
        manifest["target"]["runtime"]["flavour"] = flavour
        manifest["runtime_requirement"] = requirement

    edit_manifest(root, change)
    before = tree(root)
    env = {"CUDA_VISIBLE_DEVICES": "-1"}
    done = command(sys.executable, root, "verify", "--json", env=env)
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 5
    assert json.loads(done.stdout)["ok"] is None
    assert checks["outputs"]["ok"] is None
    assert checks["outputs"]["detail"].startswith("not run: ")
    if importlib.util.find_spec("tensorrt_rtx_bindings") and flavour == "rtx":
        assert checks["runtime"]["ok"] is True
        assert "no NVIDIA GPU" in checks["outputs"]["detail"]
    for name in ("finalize", "bench"):
        done = command(sys.executable, root, name, env=env)
        assert (done.returncode, done.stdout) == (5, "")
        assert "no NVIDIA GPU" in done.stderr or "not installed" in done.stderr
    assert tree(root) == before


@pytest.mark.slow
def test_in_an_environment_that_pip_made(bundle, tmp_path):
    """The real thing: packages from the registry, resolved by uv."""
    home = tmp_path / "venv"
    subprocess.run(["uv", "venv", "-q", "--python", sys.executable, str(home)], check=True)
    python = home / "bin" / "python"
    subprocess.run(["uv", "pip", "install", "-q", "--python", str(python), "numpy", "onnxruntime"], check=True)
    root = bundle()
    assert command(python, root, "verify").stdout.endswith("verified\n")
    assert command(python, root, "finalize", "--pairs", "2", "--seconds", "0.1").returncode == 0
