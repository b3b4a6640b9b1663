from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import yaml
from fast_recipe import CPUS, FAST, JOBS, TARGETS

import edgekd
from edgekd import cli
from edgekd.pipeline import BuildResult
from edgekd.target import load_target


@pytest.fixture(scope="session")
def store_root(tmp_path_factory) -> Path:
    """One store for all end-to-end tests, whatever process runs them: what one has trained the next ones find."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "end-to-end-store"


@pytest.fixture(autouse=True)
def _own_store(store_root, monkeypatch):
    monkeypatch.setenv("EDGEKD_HOME", str(store_root))


@pytest.fixture(scope="session")
def targets(tmp_path_factory) -> dict[str, str]:
    """The shipped targets as a build is told them: those of this machine's CPU as files, with one thread."""
    folder = tmp_path_factory.mktemp("targets")
    told = {name: name for name in ("jetson", "cuda", "rtx")}
    for name in CPUS:
        value = load_target(name).model_dump(mode="json", exclude_none=True)
        value["runtime"]["threads"] = 1
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(value))
        told[name] = str(folder / f"{name}.yaml")
    return told


@pytest.fixture(scope="session")
def built(store_root, targets, tmp_path_factory) -> tuple[BuildResult, Path]:
    """The fast digits build for three targets, and its folder of bundles."""
    out = tmp_path_factory.mktemp("dist")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKD_HOME", str(store_root))
        return edgekd.build("digits", [targets[name] for name in TARGETS], out=out, overrides=FAST, jobs=JOBS), out


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
