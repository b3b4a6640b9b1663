"""The store's promises, one process: look-ups, corruption, failures, pruning."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import ExitCode, StoreFailed
from edgekd.store import Store, write_bytes_atomic
from edgekd.store.listing import LIST


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def make_two(out: Path, scratch: Path) -> dict:
    (out / "a.bin").write_bytes(b"alpha" * 20)
    (out / "deep" / "er").mkdir(parents=True)
    (out / "deep" / "er" / "b.txt").write_text("beta")
    return {"pair": (1, 2), "text": "é"}


def never(out: Path, scratch: Path) -> dict:
    raise AssertionError("built although it was there")


def test_built_once_then_looked_up(store: Store) -> None:
    assert store.get("k") is None
    built = store.build("k", "kind", make_two)
    assert built == store.get("k") == store.build("k", "kind", never)
    # The meta is what JSON keeps, the first time as later.
    assert built.meta == {"pair": [1, 2], "text": "é"}
    assert (built.path / "deep/er/b.txt").read_text() == "beta"
    assert [(entry.kind, entry.key) for entry in store.ls()] == [("kind", "k")]
    assert store.ls()[0].size_bytes == 104


def test_the_root_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKD_HOME", str(tmp_path / "here"))
    assert Store().root == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EDGEKD_HOME", "~/there")
    assert Store().root == tmp_path / "there"
    monkeypatch.delenv("EDGEKD_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert Store().root == tmp_path / "cache" / "edgekd"


@pytest.fixture(scope="module")
def whole() -> Iterator[Path]:
    """An intact store to copy from."""
    with tempfile.TemporaryDirectory() as folder:
        Store(Path(folder)).build("k", "kind", make_two)
        yield Path(folder)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_is_noticed_set_aside_and_mended(whole: Path, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        shutil.copytree(whole, store.root)
        artifact = store.root / "artifacts" / "k"
        path = data.draw(st.sampled_from(sorted(p for p in artifact.rglob("*") if p.is_file())))
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        assert_mended(store)


@pytest.mark.parametrize("name", ["a.bin", "deep/er/b.txt", LIST])
@pytest.mark.parametrize("damage", ["removed", "cut", "longer", "a folder"])
def test_a_damaged_file_is_noticed(store: Store, name: str, damage: str) -> None:
    path = store.build("k", "kind", make_two).path / name
    data = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[:-1])
    elif damage == "longer":
        path.write_bytes(data + b"\n")
    elif damage == "a folder":
        path.mkdir()
    assert_mended(store)


def test_a_file_in_place_of_the_artifact_is_noticed(store: Store) -> None:
    shutil.rmtree(store.build("k", "kind", make_two).path)
    (store.root / "artifacts" / "k").write_text("no folder")
    assert_mended(store)


def assert_mended(store: Store) -> None:
    """Found corrupt, set aside, reported, built again, and good again."""
    told: list[str] = []
    assert store.get("k", told.append) is None
    aside = list((store.root / "quarantine").iterdir())
    assert len(aside) == 1
    assert len(told) == 1
    assert "corrupt" in told[0]
    assert str(aside[0]) in told[0]
    again = store.build("k", "kind", make_two, told.append)
    assert store.get("k", told.append) == again
    assert len(told) == 1


def test_damage_is_noticed_by_a_build_too(store: Store) -> None:
    (store.build("k", "kind", make_two).path / "a.bin").write_bytes(b"?")
    told: list[str] = []
    assert (store.build("k", "kind", make_two, told.append).path / "a.bin").read_bytes() == b"alpha" * 20
    assert len(told) == 1


def test_a_failing_stage_leaves_nothing_but_its_scratch(store: Store) -> None:
    def fail(out: Path, scratch: Path) -> dict:
        (out / "half").write_text("half")
        (scratch / "checkpoint").write_text("epoch 3")
        raise RuntimeError("boom")

    def resume(out: Path, scratch: Path) -> dict:
        assert list(out.iterdir()) == []
        return {"from": (scratch / "checkpoint").read_text()}

    with pytest.raises(RuntimeError, match="boom"):
        store.build("k", "kind", fail)
    assert store.get("k") is None
    assert list((store.root / "building").iterdir()) == []
    assert store.build("k", "kind", resume).meta == {"from": "epoch 3"}
    assert not (store.root / "scratch" / "k").exists()


def test_lock_files_hold_no_state(store: Store) -> None:
    with store.session():
        store.build("k", "kind", make_two)
        for path in store.root.rglob("*.lock"):
            assert path.stat().st_size == 0
    assert list((store.root / "sessions").iterdir()) == []
    # Left behind by a machine that lost power, or removed by someone who tidies: all the same.
    (store.root / "sessions" / f"{time.time_ns()}-dead.lock").touch()
    shutil.rmtree(store.root / "locks")
    assert store.get("k") is not None
    assert [entry.key for entry in store.prune(older_than_seconds=-1)] == ["k"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_by_bytes(out: Path, scratch: Path) -> dict:
    (out / "big").write_bytes(bytes(400_000))
    return {}


def fill_by_numpy(out: Path, scratch: Path) -> dict:
    np.save(out / "big.npy", np.zeros(400_000, np.uint8))
    return {}


def fill_by_safetensors(out: Path, scratch: Path) -> dict:
    pytest.importorskip("safetensors.numpy").save_file({"w": np.zeros(400_000, np.uint8)}, out / "big.safetensors")
    return {}


def fill_by_checkpoint(out: Path, scratch: Path) -> dict:
    write_bytes_atomic(scratch / "checkpoint", bytes(400_000))
    return {}


@pytest.mark.parametrize("fill", [fill_by_bytes, fill_by_numpy, fill_by_safetensors, fill_by_checkpoint])
def test_a_full_disk_is_told_and_left_clean(small_disk: Path, fill) -> None:
    store = Store(small_disk / "store")
    kept = store.build("k", "kind", make_two)
    with pytest.raises(StoreFailed, match="No space left") as caught:
        store.build("big", "kind", fill)
    assert caught.value.exit_code == ExitCode.MISSING
    assert "edgekd cache prune" in caught.value.remedy
    assert list((store.root / "building").iterdir()) == []
    assert store.get("big") is None
    assert store.get("k") == kept


def test_prune_makes_room_on_a_full_disk(small_disk: Path) -> None:
    store = Store(small_disk / "store")
    store.build("k", "kind", lambda out, scratch: (out / "x").write_bytes(bytes(100_000)) and {})
    with pytest.raises(OSError, match="space"):
        (small_disk / "rest").write_bytes(bytes(400_000))
    assert [entry.key for entry in store.prune(older_than_seconds=-1)] == ["k"]
    store.build("k", "kind", make_two)


def test_a_read_only_store_is_told(small_disk: Path) -> None:
    store = Store(small_disk / "store")
    store.build("k", "kind", make_two)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for act in (
        lambda: store.get("k"),
        lambda: store.build("new", "kind", make_two),
        lambda: store.prune(older_than_seconds=-1),
        lambda: store.session().__enter__(),
    ):
        with pytest.raises(StoreFailed, match="Read-only file system") as caught:
            act()
        assert caught.value.exit_code == ExitCode.MISSING
        assert "EDGEKD_HOME" in caught.value.remedy
        assert "prune" not in caught.value.remedy
    assert [entry.key for entry in store.ls()] == ["k"]


def test_a_home_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(StoreFailed, match="EDGEKD_HOME"):
        Store(tmp_path / "home").build("k", "kind", make_two)


def test_the_users_unreadable_file_is_not_the_stores_failure(store: Store, tmp_path: Path) -> None:
    def fail(out: Path, scratch: Path) -> dict:
        raise PermissionError(13, "Permission denied", str(tmp_path / "mine.png"))

    with pytest.raises(PermissionError):
        store.build("k", "kind", fail)


def use_at(store: Store, key: str, seconds_ago: float) -> None:
    when = time.time() - seconds_ago
    os.utime(store.root / "artifacts" / key / LIST, (when, when))


def test_prune_by_age_and_by_size(store: Store) -> None:
    for key, ago in (("old", 300), ("middle", 200), ("new", 100)):
        store.build(key, "kind", make_two)
        use_at(store, key, ago)
    assert [entry.key for entry in store.ls()] == ["old", "middle", "new"]
    assert [entry.key for entry in store.prune(older_than_seconds=250)] == ["old"]
    assert [entry.key for entry in store.prune(older_than_seconds=1e9, max_bytes=104)] == ["middle"]
    assert store.prune(older_than_seconds=1e9, max_bytes=104) == []
    assert [entry.key for entry in store.prune(older_than_seconds=1e9, max_bytes=0)] == ["new"]


def test_a_look_up_counts_as_use(store: Store) -> None:
    for key in ("a", "b"):
        store.build(key, "kind", make_two)
        use_at(store, key, 300)
    store.get("a")
    assert [entry.key for entry in store.prune(older_than_seconds=250)] == ["b"]


def test_prune_takes_nothing_that_a_session_used(store: Store) -> None:
    for key in ("held", "free"):
        store.build(key, "kind", make_two)
        use_at(store, key, 300)
    with store.session():
        store.get("held")
        store.build("fresh", "kind", make_two)
        assert [entry.key for entry in store.prune(older_than_seconds=-1, max_bytes=0)] == ["free"]
        # Looking for sessions must not make a running one younger.
        assert store.prune(older_than_seconds=-1, max_bytes=0) == []
    assert {entry.key for entry in store.prune(older_than_seconds=-1)} == {"held", "fresh"}


def test_prune_leaves_what_was_used_since_it_looked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that begins, and looks the artifact up, after prune made its list."""
    from edgekd.store import prune

    store.build("k", "kind", make_two)
    use_at(store, "k", 300)
    look = prune._oldest_session

    def look_then_use(root: Path) -> float:
        oldest = look(root)
        assert store.get("k") is not None
        return oldest

    monkeypatch.setattr(prune, "_oldest_session", look_then_use)
    assert store.prune(older_than_seconds=250) == []
    assert store.get("k") is not None


def test_prune_takes_what_killed_builds_left(store: Store) -> None:
    def stop(out: Path, scratch: Path) -> dict:
        (scratch / "checkpoint").write_bytes(bytes(1000))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.build("k", "kind", stop)
    (store.root / "building" / "of a killed build").mkdir()
    (store.root / "building" / "removed-half").mkdir()
    assert [(entry.kind, entry.key, entry.size_bytes) for entry in store.ls()] == [("unfinished", "k", 1000)]
    assert store.prune(older_than_seconds=60) == []
    assert list((store.root / "building").iterdir()) == []
    with store.session():
        # The running build may go on from it.
        assert store.prune(older_than_seconds=-1) == []
    assert [entry.key for entry in store.prune(older_than_seconds=-1)] == ["k"]
    assert list((store.root / "scratch").iterdir()) == []


def test_prune_empties_the_quarantine(store: Store) -> None:
    (store.build("k", "kind", make_two).path / "a.bin").write_bytes(b"?")
    store.get("k")
    store.prune(older_than_seconds=1e9)
    assert list((store.root / "quarantine").iterdir()) == []


def test_an_empty_store_has_nothing_and_prunes_nothing(store: Store) -> None:
    assert store.ls() == []
    assert store.prune(older_than_seconds=0) == []
    assert not store.root.exists()
