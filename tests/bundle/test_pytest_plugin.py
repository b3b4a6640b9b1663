"""The pytest plugin, in pytest runs of its own."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from edgekd.gate_result import GateResult
from edgekd.measure.gate_verdict import exit_code_of
from edgekd.pipeline import gate, gate_files
from edgekd.pipeline.gate import DEFAULTS

pytest_plugins = ["pytester"]

EXAMPLE = Path(__file__).parents[1] / "report" / "gate_example.json"


@pytest.fixture
def run(pytester, monkeypatch):
    """Runs a test that compares ``new`` with ``old``, beside one that asks for nothing of edgekd."""

    def inner(new: Path, old: Path, call: str = "", *options: str) -> pytest.RunResult:
        pytester.makepyfile(
            test_it=f"""
            def test_latency(edgekd_latency):
                result = edgekd_latency({str(new)!r}).assert_not_slower_than({str(old)!r}{call})
                assert result.latency.method == "paired"

            def test_other():
                pass
            """
        )
        return pytester.runpytest_inprocess("-p", "no:xdist", "-p", "no:cacheprovider", "-rs", *options)

    # In this process, so that a shortened comparison reaches it.
    monkeypatch.setattr(gate, "DEFAULTS", DEFAULTS.model_copy(update={"error": 0.19, "seconds_per_pair": 0.0}))
    return inner


@pytest.fixture
def stored(monkeypatch):
    """Comparisons that end with the document of a real run, with another verdict of latency."""
    told = GateResult.model_validate_json(EXAMPLE.read_text())
    asked = []

    def give(verdict: str):
        def gate_bundles(new, old, settings):
            asked.append((new, old, settings))
            latency = told.latency.model_copy(update={"verdict": verdict})
            code = int(exit_code_of(verdict, settings))
            return told.model_copy(
                update={"latency": latency, "verdict": verdict, "exit_code": code, "settings": settings}
            )

        monkeypatch.setattr(gate, "gate_bundles", gate_bundles)
        return asked

    return give


def test_live_a_faster_bundle_passes_and_a_slower_one_fails(run, bundle, wide, quick, pytester):
    narrow = bundle()
    run(narrow, wide, "", "--edgekd-out", "reports").assert_outcomes(passed=2)
    reports = pytester.path / "reports" / "test_it.py-test_latency-1"
    assert {path.name for path in reports.iterdir()} == {"gate.json", "gate.md", "gate.xml", "gate.html"}
    done = run(wide, narrow)
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["*latency * regression*", "*tiny on onnxruntime-cpu: regression of latency"])
    done.stdout.no_fnmatch_line("*Traceback*")
    done.stdout.no_fnmatch_line("*file size*regression")


def test_only_latency_decides_and_what_was_asked_reaches_the_gate(run, stored):
    asked = stored("pass")
    run(Path("a"), Path("b"), ", max_slowdown=1.02, budget_seconds=7").assert_outcomes(passed=2)
    ((new, old, settings),) = asked
    assert (new, old) == (Path("a"), Path("b"))
    assert settings.tolerance == 0.02
    assert settings.budget_seconds == 7
    assert settings.gates == ["latency"]


@pytest.mark.parametrize(
    ("call", "outcomes"),
    [
        ("", {"failed": 1, "passed": 1}),
        (", on_inconclusive='fail'", {"failed": 1, "passed": 1}),
        (", on_inconclusive='skip'", {"skipped": 1, "passed": 1}),
        (", on_inconclusive='pass'", {"passed": 2}),
        (", on_inconclusive='maybe'", {"failed": 1, "passed": 1}),
    ],
)
def test_without_a_verdict(run, stored, call, outcomes):
    stored("inconclusive")
    done = run(Path("a"), Path("b"), call)
    done.assert_outcomes(**outcomes)
    if "skip" in call:
        done.stdout.fnmatch_lines(["SKIPPED * latency +1.04*"])
    if "maybe" in call:
        done.stdout.fnmatch_lines(["*ValueError: on_inconclusive is 'maybe'; it is one of fail, skip, pass"])


def test_reports_of_long_names_have_folders_of_their_own(run, stored, pytester):
    stored("pass")
    pytester.makepyfile(
        test_long=f"""
        import pytest

        @pytest.mark.parametrize("case", ["a", "b"])
        def test_{"x" * 300}(edgekd_latency, case):
            for _ in range(2):
                edgekd_latency("new").assert_not_slower_than("old")
        """
    )
    run(Path("a"), Path("b"), "", "--edgekd-out", "reports", "test_long.py").assert_outcomes(passed=2)
    folders = sorted(path.name for path in (pytester.path / "reports").iterdir())
    assert len(folders) == 4
    assert all(len(name) < 200 and name.startswith("test_long.py-test_xxx") for name in folders)
    assert {name[-2:] for name in folders} == {"-1", "-2"}
    assert all((pytester.path / "reports" / name / "gate.json").is_file() for name in folders)


def test_reports_that_cannot_be_written_hide_no_verdict(run, stored, pytester, monkeypatch):
    def full(result, folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    monkeypatch.setattr(gate_files, "write_gate", full)
    stored("inconclusive")
    done = run(Path("a"), Path("b"), "", "--edgekd-out", "reports")
    done.assert_outcomes(failed=1, passed=1)
    told = ["*digits on onnxruntime-cpu: inconclusive", "*not all reports are written: *No space left*"]
    done.stdout.fnmatch_lines(told)
    stored("pass")
    done = run(Path("a"), Path("b"), "", "--edgekd-out", "reports")
    done.assert_outcomes(failed=1, passed=1)
    done.stdout.fnmatch_lines(["*OSError: *No space left*"])


def test_a_place_for_reports_that_takes_none_is_told_before_measuring(run, stored, pytester):
    asked = stored("pass")
    (pytester.path / "reports").write_text("a file")
    run(Path("a"), Path("b"), "", "--edgekd-out", "reports").assert_outcomes(failed=1, passed=1)
    assert asked == []


def test_what_is_no_bundle_is_told(run, tmp_path):
    done = run(tmp_path, tmp_path)
    done.assert_outcomes(failed=1, passed=1)
    done.stdout.fnmatch_lines(["*BadBundle: *"])


def test_every_pytest_finds_it_and_it_imports_nothing():
    (found,) = (one for one in entry_points(group="pytest11") if one.name == "edgekd")
    assert found.value == "edgekd.pytest_plugin"
    code = (
        "import pytest, sys; before = set(sys.modules); import edgekd.pytest_plugin\n"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before}"
        " - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "['edgekd']"
