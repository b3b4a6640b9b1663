"""``edgekd history``: how latency went over many comparisons, from their documents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.console import JsonOption, print_json
from edgekd.errors import BadInput


def history(
    files: Annotated[list[Path], typer.Argument(help="Each a gate.json of edgekd bench --against.")],
    out: Annotated[Path | None, typer.Option(help="Write the page to this file (.html).")] = None,
    json: JsonOption = False,
) -> None:
    """Show the trend of latencies and ratios over many comparisons, and where they changed."""
    from edgekd.report.history import collect, render_history
    from edgekd.report.history.html import change_words
    from edgekd.store import write_text_atomic

    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise BadInput("the history is a page", where=str(out), remedy="name it .html")
    found = collect(files)
    if out is not None:
        write_text_atomic(out, render_history(found))
        typer.echo(f"wrote {out}", err=True)
    if json:
        print_json({"series": [one.to_json() for one in found.series], "left_out": found.left_out})
        return
    for series in found.series:
        typer.echo(f"{series.subject}; {series.machine}; {series.runtime}: {len(series.runs)} runs")
        for one in series.changes:
            typer.echo(f"  {one.of} {change_words(one, series)}")
        if not series.changes:
            typer.echo("  no change found")
    for reason, count in sorted(found.left_out.items()):
        typer.echo(f"left out: {count} {reason}")
