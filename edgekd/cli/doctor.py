"""``edgekd doctor``: what this machine can do for edgekd, and what to install for the rest."""

from __future__ import annotations

from importlib import metadata

from edgekd.cli.console import JsonOption, print_json

# Package -> what it is for; the install line of each comes from the extra.
BUILD_PACKAGES = ("torch", "torchvision", "torchao", "lightning-fabric", "onnx", "onnxscript")


def doctor(json: JsonOption = False) -> None:
    """Describe the machine, the runtimes, and what building needs."""
    from edgekd.backends import list_backends
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
    packages = {name: _version(name) for name in BUILD_PACKAGES}
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
    from rich.console import Console

    console = Console(highlight=False)
    for key, value in machine.items():
        console.print(f"{key:>16}  {value}")
    for row in runtimes:
        state = row["version"] if row["ok"] else f"{row['reason']}; {row['install']}"
        console.print(f"{row['name']:>16}  {state}", markup=False)
    missing = [name for name, found in packages.items() if not found]
    told = "ready" if can_build else f'missing {", ".join(missing)}; pip install "edgekd[build]"'
    console.print(f"{'build':>16}  {told}", markup=False)
    console.print(f"{'store':>16}  {store.root}", markup=False)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
