"""Two processes on one store: a stage runs once, and a killed builder gives way to the one that waits."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekd.store import Store

# Builds "k"; says on stderr that it waits; notes each run in RUNS. With a gate, it stays inside until that file exists.
CHILD = """
import json, sys, time
from pathlib import Path
from edgekd.store import Store

root, runs, gate = map(Path, sys.argv[1:4])

def make(out, scratch):
    with runs.open("a") as stream:
        stream.write("run\\n")
    (out / "half").write_text("half")
    (scratch / "checkpoint").touch()
    end = time.monotonic() + 30
    while not gate.exists() and time.monotonic() < end:
        time.sleep(0.01)
    (out / "half").write_text("whole")
    return {"ran": True}

store = Store(root)
with store.session():
    artifact = store.build("k", "kind", make, lambda text: print(text, file=sys.stderr, flush=True))
print(json.dumps({"text": (artifact.path / "half").read_text(), "meta": artifact.meta}))
"""


class Two:
    """A builder that is inside its stage, and one that waits for it."""

    def __init__(self, folder: Path) -> None:
        self.root, self.runs, self.gate = folder / "store", folder / "runs", folder / "gate"
        self.first = self.start()
        wait_for(lambda: (self.root / "scratch" / "k" / "checkpoint").exists())
        self.second = self.start()
        assert self.second.stderr is not None
        assert "waiting" in self.second.stderr.readline()

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", CHILD, str(self.root), str(self.runs), str(self.gate)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def close(self) -> None:
        for child in (self.first, self.second):
            child.kill()
            child.communicate()


@pytest.fixture
def two(tmp_path: Path):
    pair = Two(tmp_path)
    yield pair
    pair.close()


def wait_for(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def result(child: subprocess.Popen[str]) -> dict:
    out, err = child.communicate(timeout=30)
    assert child.returncode == 0, err
    return json.loads(out)


def test_two_builds_at_once_run_the_stage_once(two: Two) -> None:
    assert two.second.poll() is None
    two.gate.touch()
    assert result(two.first) == result(two.second) == {"text": "whole", "meta": {"ran": True}}
    assert two.runs.read_text() == "run\n"


def test_the_one_that_waits_takes_over_when_the_builder_is_killed(two: Two) -> None:
    two.first.kill()
    two.first.wait()
    two.gate.touch()
    assert result(two.second) == {"text": "whole", "meta": {"ran": True}}
    assert two.runs.read_text() == "run\nrun\n"
    assert not (two.root / "quarantine").exists()


def test_prune_leaves_what_is_being_built(two: Two) -> None:
    # The lists are empty of artifacts; scratch and the half-written folder belong to the builder.
    assert Store(two.root).prune(older_than_seconds=-1, max_bytes=0) == []
    two.gate.touch()
    assert result(two.first)["text"] == "whole"
    assert result(two.second)["text"] == "whole"
    # Both sessions are over.
    assert [entry.key for entry in Store(two.root).prune(older_than_seconds=-1)] == ["k"]


def test_another_process_holds_what_it_used(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.build("k", "kind", lambda out, scratch: {})
    code = "import sys; from edgekd.store import Store\ns = Store(__import__('pathlib').Path(sys.argv[1]))\n"
    code += "with s.session():\n    s.get('k'); print('held', flush=True); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(store.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        assert store.prune(older_than_seconds=-1, max_bytes=0) == []
    finally:
        child.kill()
        child.communicate()
    assert [entry.key for entry in store.prune(older_than_seconds=-1)] == ["k"]
