"""Fixtures of what is measured: real networks of known work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conv_chains import save_chain
from left_workers import workers_of


@pytest.fixture(autouse=True)
def _nothing_is_left_running():
    yield
    assert not workers_of(os.getpid())


@pytest.fixture(scope="session")
def chains(tmp_path_factory) -> Path:
    """Folder with one.onnx (1 layer) and ten.onnx (10 layers) and one sample for both."""
    folder = tmp_path_factory.mktemp("chains")
    save_chain(folder / "one.onnx", 1)
    save_chain(folder / "ten.onnx", 10)
    return folder
