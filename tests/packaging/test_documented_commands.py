"""The commands that README, docs and CI recipes tell to run are ones that edgekd has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from test_ci_recipes import scripts
from typer.main import get_command

from edgekd.cli import app
from edgekd.runtime.command import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
# Where a command begins: a line, or what shell and uv put before one.
BEGIN = r"(?:^\s*|[;&|]\s*|\b(?:then|do|else|run)\s+)"


def shells() -> list[str]:
    """Every block of shell: of the pages, and of the recipes in them."""
    blocks = [block for page in PAGES for block in re.findall(r"```sh\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]
    return [re.sub(r"\\\n\s*|\s#.*", " ", block) for block in blocks + scripts()]


def commands(program: str) -> list[str]:
    """What ``program`` is called with, up to the command's end."""
    found = [line for block in shells() for line in re.findall(f"{BEGIN}{program} (.*)", block, re.MULTILINE)]
    return [re.split(r"[;&|]", line)[0] for line in found]


def options(line: str) -> set[str]:
    return set(re.findall(r"(?<!\S)--[a-z-]+", line))


def options_of(line: str) -> set[str]:
    """Those of the verb that ``line`` begins with, which must be there."""
    verb: Any = get_command(app)
    for word in line.split():
        if not hasattr(verb, "commands"):
            break
        assert word in verb.commands, f"edgekd {line}: there is no {word}"
        verb = verb.commands[word]
    return {name for one in verb.params for name in one.opts}


def test_every_command_of_edgekd_is_one_that_it_has() -> None:
    found = commands("edgekd")
    assert {line.split()[0] for line in found} >= {"build", "bench", "cache", "history", "init"}
    for line in found:
        assert options(line) <= options_of(line), line


def test_scripts_of_benchmarks_are_there_and_take_their_options() -> None:
    named = {name for page in PAGES for name in re.findall(r"benchmarks/\w+\.py", page.read_text("utf-8"))}
    assert "benchmarks/gate_self.py" in named
    for name in named:
        assert (ROOT / name).is_file(), name
    found = commands(r"python benchmarks/gate_self\.py")
    assert len(found) >= 4
    own = set(re.findall(r'add_argument\("(--[a-z-]+)"', (ROOT / "benchmarks" / "gate_self.py").read_text("utf-8")))
    for line in found:
        assert options(line) <= own | options_of("bench"), line


def test_every_command_on_the_device_is_one_that_it_has(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = commands(r"python \S+/runtime/python")
    assert {line.split()[0] for line in found} >= {"verify", "bench", "finalize"}
    for line in found:
        with pytest.raises(SystemExit) as ended:
            main(tmp_path, [line.split()[0], "--help"])
        assert ended.value.code == 0
        assert options(line) <= options(re.sub(r"[^\w-]", " ", capsys.readouterr().out)), line
