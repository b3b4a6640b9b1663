"""``edgekd targets``: where a model can be built for."""

from __future__ import annotations

from edgekd.cli.console import JsonOption, print_json


def targets(json: JsonOption = False) -> None:
    """List the targets, and whether each one's runtime is at hand."""
    from edgekd.backends import get_backend
    from edgekd.target import list_targets

    rows = []
    for target in list_targets():
        availability = get_backend(target.backend).probe()
        rows.append(
            target.model_dump(mode="json")
            | {"here": target.is_here(), "runtime_installed": availability.ok, "runtime_version": availability.version}
        )
    if json:
        print_json({"targets": rows})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("target", "backend", "precision", "arch", "runtime", "here", "about", box=None)
    for row in rows:
        runtime = row["runtime_version"] if row["runtime_installed"] else "not installed"
        name = ", ".join([row["name"], *row["aliases"]])
        table.add_row(
            name, row["backend"], row["precision"], row["arch"], runtime, "yes" if row["here"] else "no", row["about"]
        )
    Console().print(table)
