from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from copy import copy
from functools import cache

import pytest

# Dozens of processes are started that import torch: where bytecode is not to be written, each compiles it anew, which
# takes it longer than what it is started for. What a test starts with -B or by -I is left as it is.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    sys.dont_write_bytecode = False


@pytest.fixture(scope="session", autouse=True)
def _own_temporary_folder(tmp_path_factory) -> Iterator[None]:
    """Each process of the suite has its own, and with it its own measuring lock.

    What tests measure leads to the same verdict however busy the machine is; waiting for one another gains nothing.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tmp")))
        patch.setattr(tempfile, "tempdir", None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _torchlib_is_read_once() -> Iterator[None]:
    """torch.onnx reads the source of its thousand functions again for every export, which is half of a small one."""
    if "torch" not in sys.modules:
        yield
        return
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    read = cache(ONNXRegistry.from_torchlib)

    def from_torchlib(**opset: int) -> ONNXRegistry:
        registry = copy(read(**opset))
        # An export may register functions of its own.
        registry.functions = {target: list(found) for target, found in registry.functions.items()}
        return registry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(from_torchlib))
        yield


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch) -> None:
    """No test writes into the store of whoever runs it."""
    monkeypatch.setenv("EDGEKD_HOME", str(tmp_path / "home"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny networks gain nothing from a second thread, and lose much where other work runs beside them."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
