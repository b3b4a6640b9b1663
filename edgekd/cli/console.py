"""What the verbs share: JSON on stdout, everything else on stderr, errors as one message, progress."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekd.errors import BadInput, EdgekdError, ExitCode, Missing

if TYPE_CHECKING:
    from rich.console import Console

# Characters of a line in a log: nothing says how wide its reader's window is.
LOG_WIDTH = 120

JsonOption = Annotated[bool, typer.Option("--json", help="Machine output on stdout; everything else goes to stderr.")]


# A wrong command line: click's class, or that of the click which newer typers carry inside.
ClickException = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


# What is wrong with a path that somebody gave; a full disk for example is not.
_OF_A_PATH = (
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EROFS,
)
# torch has no class of its own for a CPU that is out of memory.
_NO_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory|cannot allocate memory", re.IGNORECASE)


@contextmanager
def guard(*, debug: bool) -> Iterator[None]:
    """Turn exceptions into exit codes: no traceback for the user's errors, ``--debug`` shows it."""
    try:
        try:
            yield
        finally:
            _flush()
    except EdgekdError as error:
        _tell(error.render(), debug)
        sys.exit(int(error.exit_code))
    except (KeyboardInterrupt, typer.Abort):
        _tell("interrupted; the same command resumes a build where it stopped, and begins anything else anew", debug)
        sys.exit(int(ExitCode.INTERRUPTED))
    except BrokenPipeError:
        # The reader of our output has gone: `edgekd … | head`.
        sys.exit(int(ExitCode.INTERNAL))
    except Exception as error:
        if isinstance(error, ClickException):
            error.show()  # type: ignore[attr-defined]
            sys.exit(int(ExitCode.BAD_INPUT))
        known = _of_the_machine(error)
        if known is not None:
            _tell(known.render(), debug)
            sys.exit(int(known.exit_code))
        _tell(f"internal error: {type(error).__name__}: {error}\n  run again with --debug to see where", debug)
        sys.exit(int(ExitCode.INTERNAL))


def _of_the_machine(error: Exception) -> EdgekdError | None:
    """What the system refuses, as an expected failure: a file, or memory; None for anything else."""
    if isinstance(error, OSError) and error.filename is not None and error.errno is not None:
        kind: type[EdgekdError]
        kind, remedy = (BadInput, "check the path and its permissions") if error.errno in _OF_A_PATH else (Missing, "")
        where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
        return kind(error.strerror or str(error), where=where, remedy=remedy)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))):
        first = next(iter(str(error).splitlines()), "")
        return Missing(f"out of memory{f': {first}' if first else ''}", remedy="lower data.batch_size, or free memory")
    return None


def _flush() -> None:
    """Write what stdout still holds while a failure can be told: at the interpreter's end it could not."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _tell(message: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"edgekd: {message}", file=sys.stderr)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=2, allow_nan=False))


def table_console() -> Console:
    """Where tables are printed: as wide as the terminal, or wide enough for a log that is none."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)


class PlainProgress:
    """Progress as plain lines on stderr, for logs and pipes: a line a stage and at most one every ten seconds."""

    def __init__(self) -> None:
        self._label, self._total, self._done, self._last = "", 0, 0.0, 0.0

    def stage(self, name: str) -> None:
        """Announce the stage that begins."""
        self.log(f"[{name}]")

    def task(self, label: str, total: int) -> None:
        """Begin counting ``total`` steps under ``label``."""
        self._label, self._total, self._done, self._last = label, total, 0.0, time.monotonic()

    def advance(self, n: int = 1) -> None:
        """Count ``n`` steps."""
        self._done += n
        now = time.monotonic()
        if now - self._last > 10:
            self._last = now
            self.log(f"  {self._label}: {self._done:.0f}/{self._total}")

    def log(self, text: str) -> None:
        """One line."""
        print(text, file=sys.stderr, flush=True)


class BarProgress(PlainProgress):
    """Progress as a bar (rich) on a terminal."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task: Any = None

    def __enter__(self) -> BarProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def task(self, label: str, total: int) -> None:
        """Begin a bar of ``total`` steps under ``label``; it replaces the one before."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(label, total=total)

    def advance(self, n: int = 1) -> None:
        """Move the bar by ``n`` steps."""
        if self._task is not None:
            self._bar.advance(self._task, n)

    def log(self, text: str) -> None:
        """One line above the bar."""
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress_for_terminal() -> Iterator[PlainProgress]:
    """A bar where stderr is a terminal, plain lines elsewhere."""
    if sys.stderr.isatty():
        with BarProgress() as bar:
            yield bar
    else:
        yield PlainProgress()
