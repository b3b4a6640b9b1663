"""targets, doctor, init, cache: exit codes, what goes to stdout and what to stderr."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest
from command import edgekd

from edgekd.recipe import load_recipe
from edgekd.store import Store


def one_document(text: str) -> dict:
    """The one JSON document that is all of stdout."""
    value, end = json.JSONDecoder().raw_decode(text)
    assert text[end:] == "\n"
    return value


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.mark.parametrize("verb", [["targets"], ["doctor"], ["cache", "ls"], ["cache", "prune"], ["init", "r.yaml"]])
def test_json_is_one_document_on_stdout(verb: list[str], home: Path, tmp_path: Path) -> None:
    done = edgekd(*verb, "--json", home=home, cwd=tmp_path)
    assert done.returncode == 0
    assert isinstance(one_document(done.stdout), dict)
    assert done.stderr == ""


def test_targets(home: Path) -> None:
    rows = {row["name"]: row for row in one_document(edgekd("targets", "--json", home=home).stdout)["targets"]}
    assert set(rows) >= {"onnxruntime-cpu", "openvino-cpu", "jetson-orin", "cuda", "rtx", "raspberry-pi-5"}
    row = rows["onnxruntime-cpu"]
    assert row["here"] is True
    assert row["runtime_installed"] is True
    assert row["runtime_version"] == metadata.version("onnxruntime")
    assert rows["jetson-orin"]["aliases"] == ["jetson"]
    shown = edgekd("targets", home=home)
    assert shown.returncode == 0
    assert all(name in shown.stdout for name in rows)
    # For grep and awk: no name is cut where stdout is no terminal.
    assert "raspberry-pi-5, rpi5" in shown.stdout
    assert f"this machine; onnxruntime {row['runtime_version']}" in shown.stdout
    assert (rows["cuda"]["library"], rows["rtx"]["library"]) == ("tensorrt", "tensorrt-rtx")
    assert "int8 for weights only" in rows["rtx"]["about"]


def test_doctor(home: Path) -> None:
    found = one_document(edgekd("doctor", "--json", home=home).stdout)
    assert found["build"]["torch"] == metadata.version("torch")
    assert found["can_build"] is True
    assert found["store"] == str(home)
    runtimes = {row["name"]: row for row in found["runtimes"]}
    assert runtimes["onnxruntime"]["ok"] is True
    # The same libraries by the same names and versions as in `edgekd targets`.
    targets = one_document(edgekd("targets", "--json", home=home).stdout)["targets"]
    for row in targets:
        known = runtimes[row["library"]]
        assert (known["ok"], known["version"]) == (row["runtime_installed"], row["runtime_version"])
    assert found["machine"]["arch"]
    shown = edgekd("doctor", home=home)
    assert shown.returncode == 0
    assert "build  ready" in shown.stdout
    assert not home.exists(), "looking must not make a store"


def test_init_writes_a_recipe_that_loads(home: Path, tmp_path: Path) -> None:
    done = edgekd("init", home=home, cwd=tmp_path)
    assert done.returncode == 0
    assert "edgekd build recipe.yaml" in done.stdout
    assert load_recipe(str(tmp_path / "recipe.yaml")).data.folder == str(tmp_path / "images")
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_init_replaces_nothing_unasked(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("precious")
    done = edgekd("init", str(path), "--json", home=home)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"edgekd: {path}: this file exists already\n  give another name, or --force\n"
    assert path.read_text() == "precious"
    assert edgekd("init", str(path), "--force", home=home).returncode == 0
    assert load_recipe(str(path)).name == "my-model"


def test_init_in_a_folder_that_is_not_there(home: Path, tmp_path: Path) -> None:
    done = edgekd("init", "no/where.yaml", home=home, cwd=tmp_path)
    assert done.returncode == 2
    assert "mkdir -p no" in done.stderr


def test_cache(home: Path) -> None:
    Store(home).build("k" * 64, "teacher", lambda out, scratch: (out / "x").write_bytes(bytes(1000)) and {})
    found = one_document(edgekd("cache", "ls", "--json", home=home).stdout)
    assert found["root"] == str(home)
    assert [(row["kind"], row["size_bytes"]) for row in found["artifacts"]] == [("teacher", 1000)]
    assert "teacher" in edgekd("cache", "ls", home=home).stdout
    kept = one_document(edgekd("cache", "prune", "--json", home=home).stdout)
    assert kept == {"removed": [], "freed_bytes": 0}
    pruned = one_document(edgekd("cache", "prune", "--older-than-days", "0", "--json", home=home).stdout)
    assert pruned["freed_bytes"] == 1000
    assert [row["key"] for row in pruned["removed"]] == ["k" * 64]
    assert edgekd("cache", "prune", home=home).stdout == "removed 0 artifacts, 0.0 MB\n"


def test_cache_on_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    done = edgekd("cache", "prune", home=tmp_path / "home" / "deeper")
    assert done.returncode == 0
    assert "removed 0" in done.stdout
