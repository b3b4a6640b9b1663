"""``edgekd doctor``: what this machine can do for edgekd, and what to install for the rest."""

from __future__ import annotations

import typer

from edgekd.cli.console import JsonOption, print_json


def doctor(json: JsonOption = False) -> None:
    """Describe the machine, the runtimes, and what building needs."""
    from edgekd.backends import list_backends
    from edgekd.installation import build_packages
    from edgekd.measure import describe_machine
    from edgekd.store import Store

    machine = describe_machine()
    runtimes = []
    for backend in list_backends():
        found = backend.probe()
        runtimes.append(
            {
                "name": backend.name,
                "ok": found.ok,
                "version": found.version,
                "reason": found.reason,
                "install": found.install,
            }
        )
    packages = build_packages()
    can_build = all(packages.values())
    store = Store()
    if json:
        print_json(
            {
                "machine": machine,
                "runtimes": runtimes,
                "build": packages,
                "can_build": can_build,
                "store": str(store.root),
            }
        )
        return
    rows: dict[str, object] = {key: value for key, value in machine.items() if value is not None}
    for row in runtimes:
        rows[str(row["name"])] = row["version"] if row["ok"] else f"{row['reason']}; {row['install']}"
    missing = ", ".join(name for name, found in packages.items() if not found)
    rows["build"] = f'missing {missing}; pip install "edgekd[build]"' if missing else "ready"
    rows["store"] = store.root
    for key, value in rows.items():
        typer.echo(f"{key:>16}  {' '.join(map(str, value)) if isinstance(value, list | tuple) else value}")
