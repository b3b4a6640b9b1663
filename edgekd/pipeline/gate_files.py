"""A gate's document and the reports made of it, as files."""

from __future__ import annotations

import errno
import os
import tempfile
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


def check_writable(folder: Path) -> None:
    """Make ``folder``, and see that `write_gate` can write there, before a minute of measuring is spent.

    A disk may still be full by then.

    Raises:
        OSError: it cannot, with the name of what is in the way.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (folder / name).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / name))
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        error.filename = str(folder)  # and not that of the file that was tried
        raise


def write_after_verdict(result: GateResult, folder: Path) -> OSError | None:
    """`write_gate`, after the verdict was told: one that fails is not hidden by what could not be written.

    Returns:
        What kept a report from being written beside such a verdict.

    Raises:
        OSError: the same beside a verdict that passes.
    """
    try:
        write_gate(result, folder)
    except OSError as error:
        if not result.exit_code:
            raise
        return error
    return None


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
