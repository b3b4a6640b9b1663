import os
import shutil
import signal
import subprocess
import sys

import pytest
from make_bundle import contents, edit_manifest, tree

from edgekd.bundle import append_measurement, load_bundle, pack, publish, verify_bundle
from edgekd.errors import BadBundle, BadInput, StoreFailed


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two bundles that differ, in sources that are not changed."""
    folder = tmp_path_factory.mktemp("two")
    return [
        pack(folder / f"{n}", contents(folder / f"parts{n}", channels=n), entry={"source": "build"}).path
        for n in (8, 16)
    ]


def holds(root) -> bool:
    return all(check.ok for check in verify_bundle(root))


def test_publishing_copies_replaces_and_leaves_nothing_else(two, tmp_path):
    place = tmp_path / "dist" / "tiny"
    first = publish(two[0], place)
    assert tree(place) == tree(two[0])
    assert first.path == place
    second = publish(two[1], place)
    assert second.identity != first.identity
    assert tree(place) == tree(two[1])
    assert holds(place)
    assert os.listdir(place.parent) == ["tiny"]


def test_the_same_bundle_keeps_what_was_measured_of_it(two, tmp_path):
    place = tmp_path / "tiny"
    publish(two[0], place)
    append_measurement(place, {"source": "bench"})
    (place / "device").mkdir()
    before = tree(place)
    assert [entry["source"] for entry in publish(two[0], place).measurements["entries"]] == ["build", "bench"]
    assert tree(place) == before
    assert (place / "device").is_dir()
    # Damaged, it is whole again afterwards, and its evidence is not lost.
    (place / "model/int8/model.onnx").write_bytes(b"")
    (place / "golden/input.npy").unlink()
    publish(two[0], place)
    assert tree(place) == before
    assert holds(place)


def test_what_is_no_bundle_is_not_replaced(two, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "manifest.json").write_text('{"name": "a web page", "manifest_version": 3}')
    with pytest.raises(BadInput, match="not a bundle"):
        publish(two[0], mine)
    assert os.listdir(mine) == ["manifest.json"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadInput, match="no bundle"):
        publish(two[0], tmp_path / "file")
    (tmp_path / "link").symlink_to(mine)
    with pytest.raises(BadInput, match="no bundle"):
        publish(two[0], tmp_path / "link")
    (tmp_path / "empty").mkdir()
    assert holds(publish(two[0], tmp_path / "empty").path)
    (tmp_path / "empty" / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"notes\.txt"):
        publish(two[1], tmp_path / "empty")
    assert (tmp_path / "empty" / "notes.txt").read_text() == "mine"


def test_a_source_that_does_not_hold_is_not_published(two, tmp_path):
    source = shutil.copytree(two[0], tmp_path / "source")
    (source / "golden/input.npy").write_bytes(b"x")
    with pytest.raises(BadBundle, match=r"input\.npy"):
        publish(source, tmp_path / "dist" / "tiny")
    edit_manifest(source, lambda manifest: manifest.pop("files"))
    with pytest.raises(BadBundle, match="files"):
        publish(source, tmp_path / "dist" / "tiny")
    assert os.listdir(tmp_path / "dist") == []


# Kills itself at the n-th system call that Python reports, so at every step that could leave something behind.
KILLED = """
import os, signal, sys
from pathlib import Path
from edgekd.bundle import publish
source, place, when = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
steps = 0
def hook(event, arguments):
    global steps
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.copyfile", "tempfile.mkdtemp",
                 "ctypes.dlsym", "os.chmod"):
        steps += 1
        if steps == when:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
publish(source, place)
print(steps)
"""


def run(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


def test_a_killed_publishing_leaves_the_old_bundle_or_the_new_one(two, tmp_path):
    place = tmp_path / "dist" / "tiny"
    identities = {load_bundle(root).identity for root in two}
    publish(two[0], place)
    steps = int(run(KILLED, two[1], place, 0).stdout)
    assert steps > 100
    seen, killed = set(), 0
    # The steps around the swap one by one, the copying of files in strides.
    for when in [*range(1, steps - 60, 40), *range(steps - 60, steps, 5)]:
        publish(two[0], place)
        killed += run(KILLED, two[1], place, when).returncode == -signal.SIGKILL
        found = load_bundle(place)
        seen.add(found.identity)
        assert tree(place) in (tree(two[0]), tree(two[1]))
    assert killed > 10
    assert seen == identities
    publish(two[1], place)
    assert os.listdir(place.parent) == ["tiny"]


FULL = """
import resource, signal, sys
from pathlib import Path
from edgekd.bundle import publish
from edgekd.errors import StoreFailed
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    publish(Path(sys.argv[1]), Path(sys.argv[2]))
except StoreFailed as error:
    print(error)
    sys.exit(int(error.exit_code))
"""


def test_no_room_leaves_the_old_bundle(two, tmp_path):
    place = tmp_path / "dist" / "tiny"
    done = run(FULL, two[0], place, 5000)
    assert done.returncode == StoreFailed.exit_code, done.stderr
    assert "cannot be read or written" in done.stdout
    assert os.listdir(place.parent) == []
    publish(two[0], place)
    assert run(FULL, two[1], place, 5000).returncode == StoreFailed.exit_code
    assert tree(place) == tree(two[0])
    assert os.listdir(place.parent) == ["tiny"]


def test_a_full_disk_at_the_last_sync_leaves_the_old_bundle(two, tmp_path):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    place = tmp_path / "dist" / "tiny"
    publish(two[0], place)
    code = FULL.replace("resource.setrlimit", "# ")
    for when in ("1", "20"):
        failing = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject=fsync:error=ENOSPC:when={when}"]
        command = [*failing, sys.executable, "-c", code, str(two[1]), str(place), "0"]
        done = subprocess.run(command, capture_output=True, text=True)
        if "ptrace" in done.stderr:
            pytest.skip("strace may not trace here")
        assert done.returncode == StoreFailed.exit_code, done.stderr
        assert "No space left" in done.stdout
        assert tree(place) == tree(two[0])
        assert os.listdir(place.parent) == ["tiny"]
