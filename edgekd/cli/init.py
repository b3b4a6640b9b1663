"""``edgekd init``: a commented recipe to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.console import JsonOption, print_json
from edgekd.errors import BadInput


def init(
    path: Annotated[Path, typer.Argument(help="The recipe file to write.")] = Path("recipe.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a commented recipe for your own data and teacher."""
    from edgekd.recipe import recipe_template
    from edgekd.store import write_text_atomic

    if path.exists() and not force:
        raise BadInput("this file exists already", where=str(path), remedy="give another name, or --force")
    if not path.parent.is_dir():
        raise BadInput("its folder does not exist", where=str(path), remedy=f"make it first: mkdir -p {path.parent}")
    write_text_atomic(path, recipe_template())
    if json:
        print_json({"path": str(path)})
    else:
        typer.echo(f"wrote {path}; build it with: edgekd build {path}")
