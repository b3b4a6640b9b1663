"""What ends a verb from outside."""

from __future__ import annotations

import signal
import sys


def end_in_order() -> None:
    """Let SIGTERM end this process as Ctrl-C does: measuring processes and temporary files go first.

    Without it a CI job that is cancelled leaves its files. Its exit code is 143, as the shell would tell.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
