import shutil
import sys
from pathlib import Path

import pytest
from make_bundle import contents

from edgekd.bundle import pack
from edgekd.pipeline import gate
from edgekd.runtime.sequential import Plan

sys.path.insert(0, str(Path(__file__).parent.parent / "runtime"))
from chain_fixtures import _nothing_is_left_running  # noqa: F401 (a fixture)


@pytest.fixture(scope="session")
def packed(tmp_path_factory):
    """One packed bundle a CPU backend, read only: tests copy it."""
    made = {}

    def get(backend):
        if backend not in made:
            folder = tmp_path_factory.mktemp(backend)
            made[backend] = pack(folder / "bundle", contents(folder / "parts", backend)).path
        return made[backend]

    return get


@pytest.fixture
def bundle(packed, tmp_path):
    """A bundle of a backend that the test may change."""

    def copy(backend="onnxruntime"):
        return shutil.copytree(packed(backend), tmp_path / backend)

    return copy


@pytest.fixture
def quick(monkeypatch):
    """Looks after two and three pairs, for tests of what a verdict leads to."""
    monkeypatch.setattr(gate, "_plan", lambda settings, level, _: Plan(settings.tolerance, level, (2, 3)))


@pytest.fixture(scope="session")
def wide(tmp_path_factory):
    """A bundle for the same inputs whose model has many times the work; read only."""
    folder = tmp_path_factory.mktemp("wide")
    return pack(folder / "bundle", contents(folder / "parts", channels=160)).path
