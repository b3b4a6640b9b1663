from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgekd.measure import ModelSpec
from edgekd.measure.spec import save_arrays

sys.path.insert(0, str(Path(__file__).parent.parent / "runtime"))
from chain_fixtures import _nothing_is_left_running, chains  # noqa: F401 (fixtures)
from conv_chains import feeds


@pytest.fixture
def spec(chains) -> ModelSpec:  # noqa: F811
    """The short chain on ONNX Runtime, one thread."""
    return ModelSpec(chains / "one.onnx", "onnxruntime", save_arrays(feeds(), chains))
