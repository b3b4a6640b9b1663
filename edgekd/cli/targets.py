"""``edgekd targets``: where a model can be built for."""

from __future__ import annotations

import typer

from edgekd.cli.console import JsonOption, print_json


def targets(json: JsonOption = False) -> None:
    """List the targets, and whether each one's runtime is at hand."""
    from edgekd.backends import get_backend
    from edgekd.target import list_targets

    rows = []
    for target in list_targets():
        availability = get_backend(target.backend).probe(target)
        rows.append(
            target.model_dump(mode="json")
            | {
                "here": target.is_here(),
                "library": target.library,
                "runtime_installed": availability.ok,
                "runtime_version": availability.version,
            }
        )
    if json:
        print_json({"targets": rows})
        return
    for row in rows:
        name = ", ".join([row["name"], *row["aliases"]])
        runtime = f"{row['library']} {row['runtime_version'] if row['runtime_installed'] else 'not installed'}"
        here = "this machine" if row["here"] else "another machine"
        typer.echo(f"{name:24} {row['backend']:12} {row['precision']:5} {row['arch']:8} {here}; {runtime}")
        typer.echo(f"    {row['about']}")
