import pytest


@pytest.fixture(autouse=True)
def _always(one_thread: None) -> None:
    """Every test here."""
