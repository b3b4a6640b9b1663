from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Two test processes run at once, and each starts builds of its own: more threads would only wait for each other. Before
# torch is imported, and for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")


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
