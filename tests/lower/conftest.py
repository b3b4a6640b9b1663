import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# strict_nets, which the tests of quantize/ and lower/ share.
sys.path.insert(0, str(Path(__file__).parents[1] / "quantize"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
