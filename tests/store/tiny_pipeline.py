"""Three tiny stages, each on the output of the one before: run under strace and killed, so it imports the store alone.

``python tiny_pipeline.py ROOT build|prune`` prints one JSON line: for each stage whether it was cached, and its key.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, ClassVar

from edgekd.errors import EdgekdError
from edgekd.stage import NoProgress, Progress, Stage, make_key, run_stage
from edgekd.store import Artifact, Store, write_text_atomic


class Tiny(Stage):
    """Writes its number and its input's text, through a checkpoint, into a file and a nested one."""

    name: ClassVar[str] = "tiny"
    version: ClassVar[int] = 1

    def __init__(self, number: int) -> None:
        self.number = number

    def key(self, inputs: dict[str, Artifact]) -> str:
        """Number and input."""
        return make_key(self, {"number": self.number}, inputs, {})

    def run(self, inputs: dict[str, Artifact], out: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
        """The text of the inputs and the number; the checkpoint holds half of it."""
        before = "".join((artifact.path / "text").read_text() for artifact in inputs.values())
        checkpoint = scratch / "half"
        if not checkpoint.exists():
            write_text_atomic(checkpoint, f"{before}{self.number}")
        (out / "text").write_text(f"{checkpoint.read_text()}.")
        (out / "inner").mkdir()
        (out / "inner" / "number").write_bytes(bytes([self.number]) * 100)
        return {"number": self.number, "inputs": sorted(inputs)}


def build(root: Path) -> list[tuple[bool, str]]:
    """Run the three stages; (cached, key) of each."""
    store, done, inputs = Store(root), [], {}
    with store.session():
        for number in (1, 2, 3):
            ran = run_stage(store, Tiny(number), inputs, NoProgress())
            inputs = {"before": ran.artifact}
            done.append((ran.cached, ran.artifact.key))
    return done


def prune(root: Path) -> list[tuple[bool, str]]:
    """Remove all."""
    return [(True, entry.key) for entry in Store(root).prune(older_than_seconds=0)]


if __name__ == "__main__":
    try:
        print(json.dumps({"build": build, "prune": prune}[sys.argv[2]](Path(sys.argv[1]))))
    except EdgekdError as error:
        print(error.render(), file=sys.stderr)
        sys.exit(int(error.exit_code))
