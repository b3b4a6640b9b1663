"""``edgekd.bench`` of bundles as others may pack them, and verify's three answers on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx
import pytest
from make_bundle import edit_manifest, relist

import edgekd
from edgekd import cli
from edgekd.errors import BadBundle, Missing


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


def test_bench_refuses_what_verify_refuses(bundle) -> None:
    root = bundle()
    (root / "notes.txt").write_text("")
    with pytest.raises(BadBundle, match="unlisted files"):
        edgekd.bench(root, seconds=0.1)
    (root / "notes.txt").unlink()
    edit_manifest(root, lambda manifest: manifest.update(runtime_requirement="onnxruntime>=99"))
    with pytest.raises(Missing, match="onnxruntime>=99"):
        edgekd.bench(root, seconds=0.1)


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
