"""``edgekd.bench`` of bundles as others may pack them, and verify's three answers on the command line."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import onnx
import pytest
from make_bundle import edit_manifest, relist

import edgekd
from edgekd import cli
from edgekd.errors import BadBundle, BadInput, Missing
from edgekd.pipeline.alone import measuring_alone
from edgekd.pipeline.bench import bench_bundle
from edgekd.runtime import verify
from edgekd.runtime.machine import allowed_cores, usable_cpus
from edgekd.runtime.scenario import Settings
from edgekd.runtime.sessions import RuntimeInfo
from edgekd.stage import NoProgress


def rename_input(root: Path, name: str) -> None:
    for path in root.glob("model/*/model.onnx"):
        model = onnx.load(path)
        old = model.graph.input[0].name
        model.graph.input[0].name = name
        for node in model.graph.node:
            for index, value in enumerate(node.input):
                if value == old:
                    node.input[index] = name
        onnx.save(model, path)
        relist(root, path.relative_to(root).as_posix())
    edit_manifest(root, lambda manifest: manifest["inputs"][0].update(name=name))


def test_bench_takes_names_from_the_manifest_and_needs_no_threads(bundle) -> None:
    root = bundle()
    rename_input(root, "image")
    edit_manifest(root, lambda manifest: manifest["target"].pop("runtime"))
    result = edgekd.bench(root, seconds=0.1)
    assert result["bundle"] == str(root)
    assert result["latency_ms"]["threads"] == 1
    assert result["latency_ms"]["p50"] > 0
    assert result["peak_memory_mb"] > 0
    assert result["model"]["candidate"] == "int8"
    assert result["scenario"] == "single-stream"
    assert result["cold_ms"]["p50"] > result["cold_ms"]["load_p50"]
    assert result["after_idle_ms"] == []  # no pause fits into a tenth of a second


def test_bench_waits_while_something_else_measures(bundle) -> None:
    waits = Event()

    class Told(NoProgress):
        def log(self, text: str) -> None:
            if "another build or bench is measuring; waiting for it" in text:
                waits.set()

    with ThreadPoolExecutor(1) as pool:
        with measuring_alone(NoProgress()):
            benched = pool.submit(bench_bundle, bundle(), Settings(seconds=0.1), progress=Told())
            assert waits.wait(60)
            assert not benched.done()
        assert benched.result(60)["latency_ms"]["p50"] > 0


def test_bench_of_the_other_scenarios(bundle) -> None:
    root = bundle()
    result = edgekd.bench(root, scenario="offline", seconds=0.2, batch_sizes=[2, 5], cores=allowed_cores()[:1])
    assert [row["batch"] for row in result["offline"]] == [2, 5]
    assert all(row["threads"] == 1 for row in result["offline"])
    assert result["wanted"] == {"threads": 1, "cores": allowed_cores()[:1]}
    result = edgekd.bench(root, scenario="multi-stream", seconds=0.2, streams=3, threads=2)
    assert result["multi_stream"]["samples"] == 3 * result["multi_stream"]["runs"]
    assert result["multi_stream"]["lanes"] == min(2, usable_cpus())


def test_a_target_may_pin_its_model(bundle) -> None:
    root = bundle()
    core = allowed_cores()[-1]
    edit_manifest(root, lambda manifest: manifest["target"]["runtime"].update(cores=[core], threads=2))
    result = edgekd.bench(root, seconds=0.1)
    assert result["wanted"] == {"threads": 2, "cores": [core]}
    assert result["latency_ms"]["threads"] == 1
    edit_manifest(root, lambda manifest: manifest["target"]["runtime"].update(cores=[4095]))
    with pytest.raises(BadInput, match="there is no core 4095 to run on; this process may use"):
        edgekd.bench(root, seconds=0.1)


def fix_batch(root: Path) -> None:
    """As a network that was exported without a dynamic batch."""
    for path in root.glob("model/*/model.onnx"):
        model = onnx.load(path)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1
        onnx.save(model, path)
        relist(root, path.relative_to(root).as_posix())
    edit_manifest(root, lambda manifest: manifest["inputs"][0]["shape"].__setitem__(0, 1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--batch-size", "4"], "batch sizes belong to the scenario offline"),
        (["--scenario", "offline", "--batch-size", "8"], "a batch of 8 cannot run: the model's batch is fixed at 1"),
        (["--scenario", "offline", "--streams", "2"], "streams belong to the scenario multi-stream"),
        (["--cores", "0,4095"], "there is no core 4095 to run on; this process may use"),
        (["--cores", "all"], "'all' is no list of cores"),
        (["--threads", "0"], "threads is 0, must be at least 1"),
    ],
)
def test_options_that_do_not_fit_exit_2(bundle, monkeypatch, capsys, options: list[str], words: str) -> None:
    root = bundle()
    fix_batch(root)
    monkeypatch.setattr(sys, "argv", ["edgekd", "bench", str(root), "--json", *options])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err


def test_a_fixed_batch_is_measured_as_it_is(bundle) -> None:
    root = bundle()
    fix_batch(root)
    result = edgekd.bench(root, scenario="offline", seconds=0.1)
    assert [row["batch"] for row in result["offline"]] == [1]


def test_bench_refuses_what_verify_refuses(bundle) -> None:
    root = bundle()
    (root / "notes.txt").write_text("")
    with pytest.raises(BadBundle, match="unlisted files"):
        edgekd.bench(root, seconds=0.1)
    (root / "notes.txt").unlink()
    edit_manifest(root, lambda manifest: manifest.update(runtime_requirement="onnxruntime>=99"))
    with pytest.raises(BadInput, match=r": runtime: onnxruntime .* the bundle needs onnxruntime>=99\n  bring what"):
        edgekd.bench(root, seconds=0.1)


def test_bench_without_the_runtime_says_what_to_do(bundle, monkeypatch) -> None:
    gone = RuntimeInfo("onnxruntime", False, "", "not installed", "pip install it")
    monkeypatch.setattr(verify, "list_runtimes", lambda **_: [gone])
    with pytest.raises(Missing, match=r"runtime could not be checked: .*pip install it\n  bring what is named"):
        edgekd.bench(bundle(), seconds=0.1)


@pytest.mark.parametrize(("kind", "code", "ok"), [("whole", 0, True), ("broken", 2, False), ("newer", 5, None)])
def test_verify_answers_as_the_device_does(bundle, monkeypatch, capsys, kind: str, code: int, ok: bool | None) -> None:
    root = bundle()
    if kind == "broken":
        (root / "golden" / "input.npy").write_bytes(b"")
    if kind == "newer":
        edit_manifest(root, lambda manifest: manifest.update(runtime_requirement="onnxruntime>=99"))
    for json_too in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["edgekd", "verify", str(root), *json_too])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == code
        out, err = capsys.readouterr()
        assert err == ""
        if json_too:
            assert json.loads(out)["ok"] is ok
        else:
            assert ("NOT verified" in out) == (code != 0)
