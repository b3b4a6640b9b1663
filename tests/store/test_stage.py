"""Stages: keys, look-ups, what a run tells."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_pipeline import Tiny

from edgekd.stage import NoProgress, Stage, make_key, run_stage, source_digest
from edgekd.store import Artifact, Store


class Recorder(NoProgress):
    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, name: str) -> None:
        self.stages.append(name)


def test_a_stage_runs_once_and_is_looked_up_then(tmp_path: Path) -> None:
    store, progress = Store(tmp_path), Recorder()
    first = run_stage(store, Tiny(1), {}, progress)
    second = run_stage(store, Tiny(1), {}, progress)
    assert (first.cached, second.cached) == (False, True)
    assert first.artifact == second.artifact
    assert first.artifact.kind == "tiny"
    assert progress.stages == ["tiny"]
    other = run_stage(store, Tiny(2), {"before": first.artifact}, progress)
    assert not other.cached
    assert (other.artifact.path / "text").read_text() == "1.2."


def test_the_key_hangs_on_all_that_shapes_the_output(tmp_path: Path) -> None:
    class Later(Tiny):
        version = 2

    class Named(Tiny):
        name = "other"

    class Coded(Tiny):
        code = ("store", "errors.py")

    artifact, twin = Artifact("kind", tmp_path, "a", {}), Artifact("kind", tmp_path / "elsewhere", "a", {"x": 1})
    key = make_key(Tiny(1), {"a": 1, "b": 2}, {"in": artifact}, {"torch": "2"})
    assert len(key) == 64
    same = make_key(Tiny(2), {"b": 2, "a": 1}, {"in": twin}, {"torch": "2"})
    assert key == same
    others = [
        make_key(Later(1), {"a": 1, "b": 2}, {"in": artifact}, {"torch": "2"}),
        make_key(Named(1), {"a": 1, "b": 2}, {"in": artifact}, {"torch": "2"}),
        make_key(Coded(1), {"a": 1, "b": 2}, {"in": artifact}, {"torch": "2"}),
        make_key(Tiny(1), {"a": 1, "b": 3}, {"in": artifact}, {"torch": "2"}),
        make_key(Tiny(1), {"a": 1, "b": 2}, {"other": artifact}, {"torch": "2"}),
        make_key(Tiny(1), {"a": 1, "b": 2}, {"in": Artifact("kind", tmp_path, "b", {})}, {"torch": "2"}),
        make_key(Tiny(1), {"a": 1, "b": 2}, {"in": artifact}, {"torch": "3"}),
    ]
    assert len({key, *others}) == 8


def test_a_part_that_is_no_json_is_refused() -> None:
    with pytest.raises(TypeError):
        make_key(Tiny(1), {"path": Path("x")}, {}, {})


def test_the_digest_of_code_is_of_every_source_below_a_name(tmp_path: Path) -> None:
    def digest() -> str:
        source_digest.cache_clear()
        return source_digest("part", root=tmp_path)

    (tmp_path / "part" / "deep").mkdir(parents=True)
    (tmp_path / "part" / "a.py").write_text("1")
    (tmp_path / "other.py").write_text("1")
    found = [digest()]
    (tmp_path / "part" / "a.py").write_text("2")
    found.append(digest())
    (tmp_path / "part" / "deep" / "b.css").write_text("1")
    found.append(digest())
    (tmp_path / "part" / "deep" / "b.css").rename(tmp_path / "part" / "deep" / "c.css")
    found.append(digest())
    assert len(set(found)) == 4
    (tmp_path / "other.py").write_text("2")
    (tmp_path / "part" / "__pycache__").mkdir()
    (tmp_path / "part" / "__pycache__" / "a.pyc").write_text("compiled")
    assert digest() == found[-1]
    with pytest.raises(FileNotFoundError, match="edgekd has no nowhere"):
        source_digest("nowhere", root=tmp_path)


def test_every_stage_of_a_build_names_code_that_is_there() -> None:
    import edgekd.pipeline  # noqa: F401 - defines the stages

    stages = [one for one in Stage.__subclasses__() if one.__module__.startswith("edgekd.")]
    assert {one.name for one in stages} == {
        "teacher",
        "distill",
        "finetune",
        "quantize",
        "compile",
        "measure",
        "bundle",
    }
    for stage in stages:
        own = f"pipeline/{stage.__module__.rpartition('.')[2]}.py"
        assert {own, "pipeline"} & set(stage.code)
        assert all(source_digest(name) for name in stage.code)
