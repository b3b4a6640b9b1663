"""``edgekd bench --against --out``: the verdict is told whatever becomes of the reports."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

import pytest

from edgekd import cli
from edgekd.cli import bench
from edgekd.gate_result import GateResult
from edgekd.pipeline import gate, gate_files

EXAMPLE = Path(__file__).parents[1] / "report" / "gate_example.json"


@pytest.fixture
def ended(monkeypatch, capsys):
    """Runs ``edgekd bench`` whose comparison ends with a document of a real run; exit code, stdout, stderr."""

    def run(out: Path, *arguments: str, code: int = 3, measures: bool = True) -> tuple[int, str, str]:
        verdict = {0: "pass", 3: "regression"}[code]
        told = GateResult.model_validate_json(EXAMPLE.read_text())
        told = told.model_copy(update={"verdict": verdict, "exit_code": code, "summary": f"told: {verdict}"})
        monkeypatch.setattr(gate, "gate_bundles", lambda *_, **__: told if measures else pytest.fail("measured"))
        command = ["edgekd", "bench", "new", "--against", "old", "--out", str(out), *arguments]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def full(monkeypatch) -> None:
    """A disk that is full once there is something to write."""

    def write(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(gate_files, "write_text_atomic", write)


@pytest.mark.parametrize("code", [0, 3])
def test_reports_and_verdict(ended, tmp_path, code) -> None:
    assert ended(tmp_path / "a" / "b", code=code)[0] == code
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == set(gate_files.FILES)


@pytest.mark.parametrize("name", list(gate_files.FILES))
def test_a_folder_in_a_reports_place_is_refused_before_anything_is_measured(ended, tmp_path, name) -> None:
    (tmp_path / name).mkdir()
    code, out, err = ended(tmp_path, measures=False)
    assert (code, out) == (2, "")
    assert err.startswith(f"edgekd: {tmp_path / name}: Is a directory\n")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that not even root can write to")
def test_a_folder_that_takes_no_files_is_refused_before_anything_is_measured(ended) -> None:
    code, out, err = ended(Path("/proc/self"), measures=False)
    assert (code, out) == (2, "")
    assert err.startswith("edgekd: /proc/self: ")


def test_a_regression_on_a_full_disk_is_still_a_regression(ended, full, tmp_path) -> None:
    code, out, err = ended(tmp_path)
    assert code == 3
    assert "Told: regression." in out
    place = tmp_path / "gate.json"
    assert err == f"edgekd: warning: {place}: No space left on device; not all reports are written\n"


def test_a_pass_on_a_full_disk_is_told_and_fails(ended, full, tmp_path) -> None:
    code, out, err = ended(tmp_path, "--json", code=0)
    assert code == 5
    assert json.loads(out)["verdict"] == "pass"
    assert err.startswith(f"edgekd: {tmp_path / 'gate.json'}: No space left on device")


def test_a_reader_that_has_gone_does_not_cost_the_reports(ended, monkeypatch, tmp_path) -> None:
    def gone(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(bench, "print_json", gone)
    assert ended(tmp_path, "--json")[0] == 1
    assert {path.name for path in tmp_path.iterdir()} == set(gate_files.FILES)
