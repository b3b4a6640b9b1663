"""``edgekd verify``: does a bundle hold what it promises, on this machine?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.console import JsonOption, print_json
from edgekd.errors import ExitCode


def verify(bundle: Annotated[Path, typer.Argument(help="A bundle's folder.")], json: JsonOption = False) -> None:
    """Check every hash and the golden outputs of a bundle; needs numpy and the runtime, no torch.

    Where the runtime or its GPU is not here, the checks that need it are told as not run, and the rest decides.
    """
    from edgekd.bundle import verify_bundle

    checks = verify_bundle(bundle)
    ok = all(check.ok is not False for check in checks)
    if json:
        print_json({"bundle": str(bundle), "ok": ok, "checks": [check.to_json() for check in checks]})
    else:
        for check in checks:
            word = {True: "ok", False: "FAILED", None: "not run"}[check.ok]
            typer.echo(f"{word:8} {check.name}: {check.detail}")
        skipped = sum(check.ok is None for check in checks)
        words = f"verified, except {skipped} checks that could not run here" if skipped else "verified"
        typer.echo(words if ok else "NOT verified")
    if not ok:
        raise typer.Exit(int(ExitCode.BAD_INPUT))
