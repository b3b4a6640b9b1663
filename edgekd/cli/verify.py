"""``edgekd verify``: does a bundle hold what it promises, on this machine?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.console import JsonOption, print_json
from edgekd.errors import ExitCode


def verify(bundle: Annotated[Path, typer.Argument(help="A bundle's folder.")], json: JsonOption = False) -> None:
    """Check every hash and the golden outputs of a bundle; needs numpy and the runtime, no torch.

    Exit code 0: all holds; 2: the bundle does not hold; 5: its runtime, or the GPU for it, is not here.
    """
    from edgekd.bundle import verify_bundle
    from edgekd.runtime.verify import exit_code

    checks = verify_bundle(bundle)
    code = exit_code(checks)
    if json:
        # Null: what could be checked here holds, and that is not all.
        ok = None if code == ExitCode.MISSING else code == ExitCode.OK
        print_json({"bundle": str(bundle), "ok": ok, "checks": [check.to_json() for check in checks]})
    else:
        for check in checks:
            word = {True: "ok", False: "FAILED", None: "not run"}[check.ok]
            typer.echo(f"{word:8} {check.name}: {check.detail}")
        skipped = sum(check.ok is None for check in checks)
        if code == ExitCode.MISSING and skipped:
            typer.echo(f"NOT verified in full: {skipped} checks could not run here")
        else:
            typer.echo(
                "NOT verified: copy the bundle again, and keep files of your own outside of it" if code else "verified"
            )
    if code:
        raise typer.Exit(code)
