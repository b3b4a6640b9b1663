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
_WHAT = "a bundle's folder, or the gate.json of a comparison (or the folder of bench --out)"


def report(
    path: Annotated[Path, typer.Argument(help="A bundle's folder, or a comparison's gate.json or --out folder.")],
    format_: Annotated[
        Format, typer.Option("--format", help="Terminal table, Markdown, HTML, or JUnit XML of a comparison.")
    ] = Format.TERMINAL,
    out: Annotated[Path | None, typer.Option(help="Write to this file in place of stdout (.html, .md, .xml).")] = None,
    json: JsonOption = False,
) -> None:
    """Show what a bundle is and what was measured of it, or what a comparison of two bundles found."""
    if json and out is None and format_ is not Format.TERMINAL:
        remedy = "leave one out, or name a file for the other with --out"
        raise BadInput("--json and --format both write to stdout", remedy=remedy)
    shown = _show(path)
    if out is not None:
        _write(shown, path, out, format_)
    if json:
        print_json(shown.document)
    elif out is None and format_ is Format.TERMINAL:
        table_console().print(shown.table())
    elif out is None:
        typer.echo(_rendered(shown, path, format_))


@dataclass(frozen=True)
class _Shown:
    """What there is to show of a file or folder."""

    document: dict[str, Any]
    table: Callable[[], Any]
    renders: dict[Format, Callable[[], str]]


def _show(path: Path) -> _Shown:
    """A document, the folder that ``bench --out`` wrote one into, or a bundle."""
    if not path.exists():
        raise BadInput("No such file or folder", where=str(path), remedy=f"give {_WHAT}")
    if path.is_file():
        return _gate(path)
    inside = path / "gate.json"
    return _gate(inside) if inside.is_file() and not (path / "manifest.json").exists() else _bundle(path)


def _write(shown: _Shown, path: Path, out: Path, format_: Format) -> None:
    from edgekd.store import write_text_atomic

    write_text_atomic(out, _rendered(shown, path, _format_of(out) if format_ is Format.TERMINAL else format_))
    typer.echo(f"wrote {out}", err=True)


def _rendered(shown: _Shown, path: Path, format_: Format) -> str:
    if format_ not in shown.renders:
        raise BadInput(
            f"cannot be written as {format_.value}", where=str(path), remedy=f"choose of: {', '.join(shown.renders)}"
        )
    return shown.renders[format_]()


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
