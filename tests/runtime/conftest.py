from __future__ import annotations

import pytest
from chain_fixtures import _nothing_is_left_running, chains  # noqa: F401 (fixtures)
from conv_chains import feeds

from edgekd.runtime.spec import ModelSpec, save_arrays


@pytest.fixture
def spec(chains) -> ModelSpec:  # noqa: F811
    """The short chain on ONNX Runtime, one thread."""
    return ModelSpec(chains / "one.onnx", "onnxruntime", save_arrays(feeds(), chains))
