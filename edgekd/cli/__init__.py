"""The command line: one file a verb; parsing and printing only, no work.

Verbs import what they need inside their functions, so that ``edgekd --help`` stays fast and never imports torch.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from edgekd.cli import bench, build, cache, doctor, history, init, report, targets, verify
from edgekd.cli.console import guard
from edgekd.errors import ExitCode

app = typer.Typer(
    name="edgekd",
    help="From a trained PyTorch teacher to a small, fast, proven model for an edge device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain help: rich's costs a third of a second.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(version("edgekd"))
        raise typer.Exit


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that stand before the verb."""


app.command("build")(build.build)
app.command("verify")(verify.verify)
app.command("bench")(bench.bench)
app.command("report")(report.report)
app.command("history")(history.history)
app.command("targets")(targets.targets)
app.command("doctor")(doctor.doctor)
app.command("init")(init.init)
app.add_typer(cache.app, name="cache")


def main() -> None:
    """The console script: runs a verb and turns every expected failure into one message and its exit code."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    with guard(debug=debug):
        # Not typer's own endings: they would take Ctrl-C and a closed pipe from the guard.
        code = app(args=arguments, prog_name="edgekd", standalone_mode=False)
        if code == ExitCode.INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(code or 0)
