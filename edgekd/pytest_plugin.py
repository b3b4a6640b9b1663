"""A pytest plugin: tests that fail where a bundle became slower than its baseline.

    def test_latency(edgekd_latency):
        edgekd_latency("dist/digits-onnxruntime-cpu").assert_not_slower_than("released/digits-onnxruntime-cpu")

pytest loads this module in every run where edgekd is installed, so that it imports nothing of edgekd by itself.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from edgekd.gate_result import GateResult

_OUT = "--edgekd-out"
_POLICIES = {"fail": "fail", "skip": "warn", "pass": "pass"}
# Characters of a folder that is named after a test: file systems take 255 bytes, and a number follows.
_LONGEST = 120


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--edgekd-out``."""
    parser.getgroup("edgekd").addoption(
        _OUT,
        metavar="FOLDER",
        default=None,
        help="write gate.json and its reports of each latency comparison into a folder of its own in FOLDER",
    )


@pytest.fixture
def edgekd_latency(request: pytest.FixtureRequest) -> Callable[[str | Path], Subject]:
    """``edgekd_latency(bundle).assert_not_slower_than(baseline)``: see `Subject.assert_not_slower_than`."""
    out = request.config.getoption(_OUT)
    name = _folder_name(request.node.nodeid)
    made: list[Subject] = []

    def subject(bundle: str | Path) -> Subject:
        made.append(Subject(Path(bundle), Path(out) / f"{name}-{len(made) + 1}" if out else None))
        return made[-1]

    return subject


class Subject:
    """A bundle under test; its reports go to the folder ``out``."""

    def __init__(self, bundle: Path, out: Path | None) -> None:
        self._bundle, self._out = bundle, out

    def assert_not_slower_than(
        self,
        baseline: str | Path,
        max_slowdown: float = 1.05,
        *,
        budget_seconds: float = 60.0,
        on_inconclusive: Literal["fail", "skip", "pass"] = "fail",
    ) -> GateResult:
        """Measure both here, in pairs of fresh processes, until it is sure whether the latency ratio is allowed.

        Only latency decides; the other checks of ``edgekd bench --against`` are in the result and in the failure's
        text. ``budget_seconds`` bounds the measuring, ``on_inconclusive`` is what a run without a verdict does.

        Raises:
            pytest.fail.Exception: it is slower than allowed, or inconclusive and that fails.
            pytest.skip.Exception: it is inconclusive and that skips.
            EdgekdError: the bundles cannot be compared here.
            OSError: the folder of the reports cannot be written; told before anything is measured, where it shows.
            ValueError: a setting that makes no sense.
        """
        __tracebackhide__ = True
        from edgekd.pipeline.gate import DEFAULTS, gate_bundles
        from edgekd.pipeline.gate_files import check_writable, write_after_verdict

        if on_inconclusive not in _POLICIES:
            raise ValueError(f"on_inconclusive is {on_inconclusive!r}; it is one of {', '.join(_POLICIES)}")
        settings = DEFAULTS.model_copy(
            update={
                "tolerance": round(max_slowdown - 1, 9),
                "budget_seconds": float(budget_seconds),
                "on_inconclusive": _POLICIES[on_inconclusive],
                "gates": ["latency"],
            }
        )
        if self._out is not None:
            check_writable(self._out)
        result = gate_bundles(self._bundle, Path(baseline), settings)
        error = write_after_verdict(result, self._out) if self._out is not None else None
        if result.exit_code:
            unwritten = f"\nnot all reports are written: {error}" if error is not None else ""
            pytest.fail(_text(result) + unwritten, pytrace=False)
        if result.verdict == "inconclusive" and on_inconclusive == "skip":
            pytest.skip(result.summary)
        return result


def _folder_name(nodeid: str) -> str:
    """A test as a folder of its own; where its name is cut, a digest of all of it keeps it apart from others."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", nodeid).strip("-.")
    if len(name) <= _LONGEST:
        return name
    return f"{name[:_LONGEST]}-{hashlib.sha256(nodeid.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _text(result: GateResult) -> str:
    from rich.console import Console

    from edgekd.report.gate import gate_table

    console = Console(file=io.StringIO(), width=110, color_system=None)
    with console.capture() as capture:
        console.print(gate_table(result))
    return "\n".join(line.rstrip() for line in capture.get().strip().splitlines())
