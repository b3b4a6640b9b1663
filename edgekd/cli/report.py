"""``edgekd report``: a bundle's report as a terminal table, Markdown, HTML or JSON."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.console import JsonOption, print_json
from edgekd.errors import BadInput


class Format(StrEnum):
    """How a report is written."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    HTML = "html"


def report(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.")],
    format_: Annotated[Format, typer.Option("--format", help="Terminal table, Markdown or HTML.")] = Format.TERMINAL,
    out: Annotated[Path | None, typer.Option(help="Write to this file in place of stdout (.html or .md).")] = None,
    json: JsonOption = False,
) -> None:
    """Show what a bundle is and what was measured of it."""
    from edgekd.bundle import load_bundle
    from edgekd.report import render_html, render_markdown, terminal_table
    from edgekd.store import write_text_atomic

    loaded = load_bundle(bundle)
    if json:
        print_json({"manifest": loaded.manifest, "measurements": loaded.measurements})
        return
    if format_ is Format.TERMINAL and out is None:
        from rich.console import Console

        Console().print(terminal_table([loaded.summary()]))
        return
    if out is not None and format_ is Format.TERMINAL:
        format_ = _format_of(out)
    render = render_html if format_ is Format.HTML else render_markdown
    text = render(loaded.manifest, loaded.measurements, identity=loaded.identity)
    if out is None:
        typer.echo(text)
    else:
        write_text_atomic(out, text)
        typer.echo(f"wrote {out}", err=True)


def _format_of(path: Path) -> Format:
    known = {".html": Format.HTML, ".htm": Format.HTML, ".md": Format.MARKDOWN}
    if path.suffix.lower() not in known:
        raise BadInput(
            "its ending does not tell the format", where=str(path), remedy="name it .html or .md, or give --format"
        )
    return known[path.suffix.lower()]
