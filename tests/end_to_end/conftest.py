from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from fast_recipe import FAST, JOBS, TARGETS

import edgekd
from edgekd import cli
from edgekd.pipeline import BuildResult


@pytest.fixture(scope="session")
def store_root(tmp_path_factory) -> Path:
    """One store for all end-to-end tests, whatever process runs them: what one has trained the next ones find."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "end-to-end-store"


@pytest.fixture(autouse=True)
def _own_store(store_root, monkeypatch):
    monkeypatch.setenv("EDGEKD_HOME", str(store_root))


@pytest.fixture(scope="session")
def built(store_root, tmp_path_factory) -> tuple[BuildResult, Path]:
    """The fast digits build for three targets, and its folder of bundles."""
    out = tmp_path_factory.mktemp("dist")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKD_HOME", str(store_root))
        return edgekd.build("digits", TARGETS, out=out, overrides=FAST, jobs=JOBS), out


@pytest.fixture
def run_cli(monkeypatch, capsys):
    """Runs ``edgekd ARGUMENTS`` in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edgekd", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return code, told.out, told.err

    return run
