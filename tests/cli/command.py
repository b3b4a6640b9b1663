"""The installed ``edgekd``, run as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(sys.executable).with_name("edgekd")


def edgekd(*arguments: str, home: Path, cwd: Path | None = None, **options) -> subprocess.CompletedProcess[str]:
    """Run ``edgekd ARGUMENTS`` with its store in ``home``."""
    environment = os.environ | {"EDGEKD_HOME": str(home)}
    return subprocess.run(
        [str(SCRIPT), *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, **options
    )
