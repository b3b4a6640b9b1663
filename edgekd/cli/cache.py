"""``edgekd cache``: what the store holds, and making room in it."""

from __future__ import annotations

from typing import Annotated

import typer

from edgekd.cli.console import JsonOption, print_json

app = typer.Typer(help="Look into the store of built stages, and make room in it.", no_args_is_help=True)


@app.command("ls")
def ls(json: JsonOption = False) -> None:
    """List the artifacts: kind, key, size, when each was last used."""
    from edgekd.store import Store

    store = Store()
    rows = [entry.to_json() for entry in store.ls()]
    if json:
        print_json({"root": str(store.root), "artifacts": rows})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("kind", "key", "MB", "last used", box=None)
    for row in rows:
        table.add_row(row["kind"], row["key"][:12], f"{row['size_bytes'] / 1e6:.2f}", row["last_used"])
    Console().print(table)
    typer.echo(f"{len(rows)} artifacts in {store.root}")


@app.command("prune")
def prune(
    older_than_days: Annotated[float, typer.Option(min=0, help="Remove what was not used for so long.")] = 30.0,
    max_gb: Annotated[float | None, typer.Option(min=0, help="Then remove the oldest until this size is met.")] = None,
    json: JsonOption = False,
) -> None:
    """Remove artifacts that no running build holds."""
    from edgekd.store import Store

    max_bytes = int(max_gb * 1e9) if max_gb is not None else None
    removed = Store().prune(older_than_seconds=older_than_days * 86400, max_bytes=max_bytes)
    freed = sum(entry.size_bytes for entry in removed)
    if json:
        print_json({"removed": [entry.to_json() for entry in removed], "freed_bytes": freed})
    else:
        typer.echo(f"removed {len(removed)} artifacts, {freed / 1e6:.1f} MB")
