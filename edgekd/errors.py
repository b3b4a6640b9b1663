"""Every way to fail: a class with its exit code and its remedy.

The command line prints one message (what is wrong, where, what to do) and exits with ``exit_code``;
nothing else in edgekd decides exit codes.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every verb (docs/design.md, "The command line")."""

    OK = 0
    INTERNAL = 1
    BAD_INPUT = 2
    REGRESSION = 3
    BUDGET_MISSED = 4
    MISSING = 5
    INCONCLUSIVE = 6
    INTERRUPTED = 130


class EdgekdError(Exception):
    """Base of all expected failures: ``what`` is wrong, ``where`` (file and key), and the ``remedy``."""

    exit_code: ExitCode = ExitCode.INTERNAL

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(self.render())

    def render(self) -> str:
        """The message as a person reads it: ``where: what``, then the remedy on a line of its own."""
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n  {self.remedy}" if self.remedy else head


class BadInput(EdgekdError):
    """Something the user gave is wrong; base of the classes below."""

    exit_code = ExitCode.BAD_INPUT


class BadRecipe(BadInput):
    """A recipe file or a ``--set`` that does not validate."""


class BadTarget(BadInput):
    """An unknown target or a target file that does not validate."""


class BadData(BadInput):
    """Data that cannot be trained or measured on: missing, empty, undecodable, NaN, labels out of range."""


class BadModel(BadInput):
    """An unknown model, or weights that do not fit or are not safe to load."""


class BadBundle(BadInput):
    """A bundle whose files, hashes or golden outputs do not hold."""


class TrainingDiverged(BadInput):
    """NaN or infinity in training; the last good checkpoint is kept."""


class ProofFailed(EdgekdError):
    """Two neighbouring hops of the proof differ by more than their tolerance."""

    exit_code = ExitCode.INTERNAL


class WorkerFailed(EdgekdError):
    """A measuring process crashed, hung or answered wrongly."""

    exit_code = ExitCode.INTERNAL


class Missing(EdgekdError):
    """Something needed is not installed or not reachable."""

    exit_code = ExitCode.MISSING


class StoreFailed(Missing):
    """The store cannot be written (full disk, no permission)."""


def missing_package(what: str, extra: str) -> Missing:
    """The `Missing` error for a part of edgekd that an extra brings."""
    return Missing(f"{what} is not installed", remedy=f'install it with: pip install "edgekd[{extra}]"')
