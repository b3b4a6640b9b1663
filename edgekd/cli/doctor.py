"""``edgekd doctor``: what this machine can do for edgekd, and what to install for the rest."""

from __future__ import annotations

from dataclasses import asdict

import typer

from edgekd.cli.console import JsonOption, print_json


def doctor(json: JsonOption = False) -> None:
    """Describe the machine, the runtimes, and what building needs."""
    from edgekd.backends import list_backends
    from edgekd.installation import build_packages
    from edgekd.measure import describe_machine
    from edgekd.runtime.sessions import list_runtimes
    from edgekd.store import Store

    machine = describe_machine()
    # By library, as `edgekd targets` names them: one backend runs both of TensorRT's.
    runtimes = [info._asdict() for info in list_runtimes()]
    known = {row["name"] for row in runtimes}
    for backend in list_backends():
        if backend.name not in known:  # another package's
            found = backend.probe()
            runtimes.append({"name": backend.name} | asdict(found))
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
        told = (row["version"], row["reason"]) if row["ok"] else (row["reason"], row["install"])
        rows[str(row["name"])] = "; ".join(part for part in told if part)
    missing = ", ".join(name for name, found in packages.items() if not found)
    rows["build"] = f'missing {missing}; pip install "edgekd[build]"' if missing else "ready"
    rows["store"] = store.root
    for key, value in rows.items():
        typer.echo(f"{key:>16}  {' '.join(map(str, value)) if isinstance(value, list | tuple) else value}")
