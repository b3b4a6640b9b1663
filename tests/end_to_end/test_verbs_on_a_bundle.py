"""The verbs that read a bundle: verify, report, bench."""

from __future__ import annotations

import json
import shutil

import pytest


@pytest.fixture
def bundle(built, tmp_path):
    """A copy that a test may harm."""
    return shutil.copytree(built[1] / "digits-onnxruntime-cpu", tmp_path / "bundle")


def test_verify_tells_every_check(bundle, run_cli):
    code, out, err = run_cli("verify", bundle)
    assert code == 0
    assert err == ""
    assert out.rstrip().endswith("verified")
    code, out, _ = run_cli("verify", bundle, "--json")
    value = json.loads(out)
    assert value["ok"] is True
    assert {check["name"] for check in value["checks"]} >= {"manifest", "hashes", "unlisted files", "preprocessing"}


def test_verify_of_a_changed_file_is_exit_code_2(bundle, run_cli):
    path = next((bundle / "model").rglob("model.onnx"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    code, out, _ = run_cli("verify", bundle)
    assert code == 2
    assert path.relative_to(bundle).as_posix() in out
    assert "NOT verified" in out


def test_verify_of_no_bundle(tmp_path, run_cli):
    code, _, err = run_cli("verify", tmp_path)
    assert code == 2
    assert "manifest.json" in err


def test_verify_says_what_could_not_run_here(built, run_cli):
    code, out, _ = run_cli("verify", built[1] / "digits-jetson-orin", "--json")
    value = json.loads(out)
    checks = {check["name"]: check["ok"] for check in value["checks"]}
    assert checks["hashes"] is True
    # Without the device there is no engine, whatever is installed here.
    assert checks["outputs"] is None
    assert value["ok"] is None
    assert code == 5


@pytest.mark.parametrize("form", ["terminal", "markdown", "html"])
def test_report(bundle, run_cli, tmp_path, form):
    code, out, _ = run_cli("report", bundle, "--format", form)
    assert code == 0
    assert "onnxruntime" in out
    if form != "terminal":
        assert "digits" in out
        code, nothing, _ = run_cli("report", bundle, "--format", form, "--out", tmp_path / "report")
        assert (code, nothing) == (0, "")
        assert (tmp_path / "report").read_text().strip() == out.strip()


def test_report_json_is_the_bundles_two_files(bundle, run_cli):
    _, out, _ = run_cli("report", bundle, "--json")
    assert json.loads(out) == {
        "manifest": json.loads((bundle / "manifest.json").read_text()),
        "measurements": json.loads((bundle / "measurements.json").read_text()),
    }


def test_bench_measures_the_verified_file(bundle, run_cli):
    code, out, _ = run_cli("bench", bundle, "--seconds", 0.5, "--json")
    assert code == 0
    value = json.loads(out)
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert value["model"]["sha256"] == manifest["files"][value["model"]["path"]]["sha256"]
    assert value["latency_ms"]["p50"] > 0
    assert len(value["latency_ms"]["samples_ns"]) == value["latency_ms"]["runs"]
    assert value["peak_memory_mb"] > 0


def test_bench_refuses_a_changed_bundle(bundle, run_cli):
    (bundle / "golden" / "input.npy").write_bytes(b"")
    code, _, err = run_cli("bench", bundle, "--seconds", 0.5)
    assert code == 2
    assert "edgekd verify" in err


def test_bench_without_the_device_is_exit_code_5(built, run_cli):
    from edgekd.runtime.tensorrt_api import has_gpu

    if has_gpu():
        pytest.skip("there is a GPU: the bundle only needs its finalize step")
    code, _, err = run_cli("bench", built[1] / "digits-jetson-orin")
    assert code == 5
    assert "tensorrt" in err
