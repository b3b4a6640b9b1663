"""A gate's document and the reports made of it, as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgekd.gate_result import GateResult
from edgekd.report.gate import render_gate_html, render_gate_markdown, render_junit
from edgekd.store import write_text_atomic


def _document(result: GateResult) -> str:
    return result.model_dump_json(indent=1) + "\n"


FILES: dict[str, Callable[[GateResult], str]] = {
    "gate.json": _document,
    "gate.md": render_gate_markdown,
    "gate.xml": render_junit,
    "gate.html": render_gate_html,
}


def write_gate(result: GateResult, folder: Path) -> list[Path]:
    """Write every one of `FILES` into ``folder``, each whole or not at all; the folder is made if need be.

    Raises:
        OSError: one cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, render in FILES.items():
        write_text_atomic(folder / name, render(result))
        written.append(folder / name)
    return written
