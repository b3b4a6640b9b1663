"""``edgekd report``: a bundle's report, or that of a comparison, as a terminal table, Markdown, HTML, JUnit or JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from edgekd.cli.console import JsonOption, print_json, table_console
from edgekd.errors import BadInput


class Format(StrEnum):
    """How a report is written."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    HTML = "html"
    JUNIT = "junit"


_ENDINGS = {".html": Format.HTML, ".htm": Format.HTML, ".md": Format.MARKDOWN, ".xml": Format.JUNIT}


def report(
    path: Annotated[Path, typer.Argument(help="A bundle's folder, or the gate.json of a comparison.")],
    format_: Annotated[
        Format, typer.Option("--format", help="Terminal table, Markdown, HTML, or JUnit XML of a comparison.")
    ] = Format.TERMINAL,
    out: Annotated[Path | None, typer.Option(help="Write to this file in place of stdout (.html, .md, .xml).")] = None,
    json: JsonOption = False,
) -> None:
    """Show what a bundle is and what was measured of it, or what a comparison of two bundles found."""
    shown = _gate(path) if path.is_file() else _bundle(path)
    if json:
        print_json(shown.document)
        return
    if format_ is Format.TERMINAL and out is None:
        table_console().print(shown.table())
        return
    if out is not None and format_ is Format.TERMINAL:
        format_ = _format_of(out)
    if format_ not in shown.renders:
        raise BadInput(
            f"cannot be written as {format_.value}", where=str(path), remedy=f"choose of: {', '.join(shown.renders)}"
        )
    text = shown.renders[format_]()
    if out is None:
        typer.echo(text)
    else:
        from edgekd.store import write_text_atomic

        write_text_atomic(out, text)
        typer.echo(f"wrote {out}", err=True)


@dataclass(frozen=True)
class _Shown:
    """What there is to show of a file or folder."""

    document: dict[str, Any]
    table: Callable[[], Any]
    renders: dict[Format, Callable[[], str]]


def _bundle(path: Path) -> _Shown:
    from edgekd.bundle import load_bundle
    from edgekd.report import render_html, render_markdown, terminal_table

    loaded = load_bundle(path)
    parts = (loaded.manifest, loaded.measurements)
    return _Shown(
        {"manifest": loaded.manifest, "measurements": loaded.measurements},
        lambda: terminal_table([loaded.summary()]),
        {
            Format.MARKDOWN: lambda: render_markdown(*parts, identity=loaded.identity),
            Format.HTML: lambda: render_html(*parts, identity=loaded.identity),
        },
    )


def _gate(path: Path) -> _Shown:
    from edgekd.report.gate import gate_table, read_gate, render_gate_html, render_gate_markdown, render_junit

    result = read_gate(path)
    return _Shown(
        result.to_json(),
        lambda: gate_table(result),
        {
            Format.MARKDOWN: lambda: render_gate_markdown(result),
            Format.HTML: lambda: render_gate_html(result),
            Format.JUNIT: lambda: render_junit(result),
        },
    )


def _format_of(path: Path) -> Format:
    if path.suffix.lower() not in _ENDINGS:
        raise BadInput(
            "its ending does not tell the format",
            where=str(path),
            remedy="name it .html, .md, .xml, or give --format",
        )
    return _ENDINGS[path.suffix.lower()]
