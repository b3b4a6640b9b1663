from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
from conv_chains import feeds, save_chain

from edgekd.measure import ModelSpec
from edgekd.measure.spec import save_arrays

WORKER = "edgekd.measure.worker"


def workers_of(pid: int) -> list[psutil.Process]:
    """Measuring processes below a process that still run; a zombie that nobody reaped is dead."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if child.status() != psutil.STATUS_ZOMBIE and WORKER in child.cmdline():
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture(autouse=True)
def _nothing_is_left_running(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKD_HOME", str(tmp_path / "home"))
    yield
    assert not workers_of(os.getpid())


@pytest.fixture(scope="session")
def chains(tmp_path_factory) -> Path:
    """Folder with one.onnx (1 layer) and ten.onnx (10 layers) and one sample for both."""
    folder = tmp_path_factory.mktemp("chains")
    save_chain(folder / "one.onnx", 1)
    save_chain(folder / "ten.onnx", 10)
    return folder


@pytest.fixture
def spec(chains) -> ModelSpec:
    """The short chain on ONNX Runtime, one thread."""
    return ModelSpec(chains / "one.onnx", "onnxruntime", save_arrays(feeds(), chains))
