import sys
from pathlib import Path

import pytest

# strict_nets, which the tests of quantize/ and lower/ share.
sys.path.insert(0, str(Path(__file__).parents[1] / "quantize"))


@pytest.fixture(autouse=True)
def _always(one_thread: None) -> None:
    """Every test here."""
