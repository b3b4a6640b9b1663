"""kill -9 and a failing disk at each system call of the store's protocol in turn (strace's fault injection)."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tiny_pipeline import build
from under_strace import assert_clean, assert_nothing_half_written, calls_on, contents, run, run_injected, strace_works

from edgekd.errors import ExitCode
from edgekd.store import Store

pytestmark = pytest.mark.skipif(not strace_works(), reason="needs strace, allowed to trace (apt-get install strace)")

NAMED = ("rename", "renameat", "renameat2", "fsync", "fdatasync", "write")
Point = tuple[str, int]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Point], dict[str, bytes]]:
    root = tmp_path_factory.mktemp("undisturbed")
    calls = calls_on(root / "store", "build", root / "log")
    return calls, contents(root / "store")


def kill_and_rebuild(root: Path, point: Point, expected: dict[str, bytes]) -> None:
    """Kill a build at ``point``, then build again: the end is as if nothing had happened."""
    killed = run_injected(root, "build", point, "signal=SIGKILL")
    assert killed.returncode == -9, f"not killed at {point}: {killed.stdout}{killed.stderr}"
    assert_nothing_half_written(root)
    ready = {path.name for path in (root / "artifacts").glob("*")}
    done = build(root)
    # What was complete is not built again.
    assert {key for cached, key in done if cached} == ready
    assert contents(root) == expected
    assert_clean(root)
    assert [cached for cached, _ in build(root)] == [True, True, True]


def at_each(points: list[Point], tmp_path: Path, check) -> None:
    with ThreadPoolExecutor(2) as pool:
        jobs = {point: pool.submit(check, tmp_path / f"{point[0]}-{point[1]}", point) for point in points}
    for job in jobs.values():
        job.result()


def test_kill_at_every_rename_fsync_and_write(tmp_path: Path, undisturbed) -> None:
    calls, expected = undisturbed
    points = [point for point in calls if point[0] in NAMED]
    # Three stages: each renames its checkpoint, its list and its folder.
    assert sum(call.startswith("rename") for call, _ in points) == 9
    assert {"fsync", "write"} <= {call for call, _ in points}
    at_each(points, tmp_path, lambda root, point: kill_and_rebuild(root, point, expected))


@pytest.mark.slow
def test_kill_at_every_other_change(tmp_path: Path, undisturbed) -> None:
    calls, expected = undisturbed
    points = [point for point in calls if point[0] not in NAMED]
    assert {"mkdir", "openat", "flock"} <= {call for call, _ in points}
    at_each(points, tmp_path, lambda root, point: kill_and_rebuild(root, point, expected))


def fail_and_rebuild(root: Path, point: Point, expected: dict[str, bytes], error: str, must_tell: bool) -> None:
    """A call fails at ``point``: the build says so with exit code 5 and leaves nothing; then it builds."""
    failed = run_injected(root, "build", point, f"error={error}")
    told = {int(ExitCode.MISSING)} if must_tell else {0, int(ExitCode.MISSING)}
    assert failed.returncode in told, f"{point}: {failed.stderr}"
    if failed.returncode:
        assert "the store cannot be" in failed.stderr
        assert "EDGEKD_HOME" in failed.stderr
        assert "Traceback" not in failed.stderr
    assert_nothing_half_written(root)
    assert list((root / "building").glob("*")) == []
    build(root)
    assert contents(root) == expected
    assert_clean(root)


def test_a_full_disk_at_every_rename_fsync_and_write(tmp_path: Path, undisturbed) -> None:
    calls, expected = undisturbed
    points = [point for point in calls if point[0] in NAMED]
    at_each(points, tmp_path, lambda root, point: fail_and_rebuild(root, point, expected, "ENOSPC", must_tell=True))


@pytest.mark.slow
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_a_failing_disk_at_every_change(tmp_path: Path, undisturbed, error: str) -> None:
    calls, expected = undisturbed
    # A lock that cannot be taken or given back is no matter of the disk; and only of a full disk is it sure, when a
    # stage's own write fails, that it is the store's.
    left_out = {"flock"} if error == "ENOSPC" else {"flock", "write"}
    points = [point for point in calls if point[0] not in left_out]
    at_each(points, tmp_path, lambda root, point: fail_and_rebuild(root, point, expected, error, must_tell=False))


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_kill_at_every_change_of_a_prune(tmp_path: Path, every: int) -> None:
    build(tmp_path / "counted")
    points = [point for point in calls_on(tmp_path / "counted", "prune", tmp_path / "log") if point[0] != "openat"]
    renames = [point for point in points if point[0].startswith("rename")]
    assert len(renames) == 3

    def check(root: Path, point: Point) -> None:
        built = {key for _, key in build(root)}
        assert run_injected(root, "prune", point, "signal=SIGKILL").returncode == -9
        assert_nothing_half_written(root)
        left = {entry.key for entry in Store(root).ls()}
        again = run(root, "prune")
        assert {key for _, key in json.loads(again.stdout)} == left <= built
        assert list((root / "artifacts").iterdir()) == []
        assert_clean(root)

    at_each([*renames, *(point for point in points[::every] if point not in renames)], tmp_path, check)
