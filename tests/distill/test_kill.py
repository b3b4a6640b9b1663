"""A training killed with SIGKILL at several moments ends with the weights of one that was not."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path

import stand_in
import torch

from edgekd.stage import NoProgress

# Fresh processes without a fresh import of torch each: one server imports, then forks.
PROCESSES = multiprocessing.get_context("forkserver")


class Speaking(NoProgress):
    """Progress that sends its lines to the parent."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def log(self, text: str) -> None:
        self.pipe.send(text)


def train(pipe: Connection, scratch: Path, out: Path) -> None:
    """Train with a teacher; write the weights at the end."""
    torch.set_num_threads(1)
    model = stand_in.make_net()
    stand_in.run_fit(
        model,
        scratch,
        epochs=30,
        evaluate=stand_in.newest,
        teacher=stand_in.make_net(16, seed=2),
        loss=lambda outputs, teacher, y, epoch: (outputs - teacher).square().mean(),
        progress=Speaking(pipe),
    )
    torch.save(model.state_dict(), out)
    pipe.send("done")


def start(scratch: Path, out: Path) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    ours, theirs = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=train, args=(theirs, scratch, out))
    process.start()
    theirs.close()
    return process, ours


def lines_until_done(pipe: Connection) -> list[str]:
    lines = []
    while not lines or lines[-1] != "done":
        assert pipe.poll(100)
        lines.append(pipe.recv())
    return lines


def test_killed_and_continued(tmp_path: Path) -> None:
    # Python 3.11's server has no sys.path of ours: installed modules only.
    PROCESSES.set_forkserver_preload(["edgekd.distill", "edgekd.data.source", "edgekd.tasks.classification"])
    process, pipe = start(tmp_path / "whole", tmp_path / "whole.pt")
    lines_until_done(pipe)
    process.join()
    # After some lines of progress, and a moment later: in an epoch, an evaluation or a write.
    for lines, delay in ((1, 0.0), (3, 0.003), (4, 0.006), (5, 0.009), (4, 0.012), (3, 0.02)):
        process, pipe = start(tmp_path / "killed", tmp_path / "killed.pt")
        for _ in range(lines):
            pipe.recv()
        time.sleep(delay)
        process.kill()
        process.join()
        assert not (tmp_path / "killed.pt").exists()
    process, pipe = start(tmp_path / "killed", tmp_path / "killed.pt")
    assert "goes on after epoch" in lines_until_done(pipe)[0]
    process.join()
    expected = torch.load(tmp_path / "whole.pt", weights_only=True)
    state = torch.load(tmp_path / "killed.pt", weights_only=True)
    assert all(torch.equal(state[name], value) for name, value in expected.items())
