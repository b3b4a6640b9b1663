"""``edgekd verify``: does a bundle hold what it promises, on this machine?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.console import JsonOption, print_json


def verify(bundle: Annotated[Path, typer.Argument(help="A bundle's folder.")], json: JsonOption = False) -> None:
    """Check every hash and the golden outputs of a bundle; needs numpy and the runtime, no torch.

    Exit code 0: all holds; 2: the bundle does not hold; 5: its runtime, or the GPU or CPU for it, is not here.
    """
    from edgekd.bundle import verify_bundle
    from edgekd.runtime.verify import exit_code, outcome, tell

    checks = verify_bundle(bundle)
    if json:
        print_json({"bundle": str(bundle), "ok": outcome(checks), "checks": [check.to_json() for check in checks]})
    else:
        typer.echo("\n".join(tell(checks)))
    code = exit_code(checks)
    if code:
        raise typer.Exit(code)
