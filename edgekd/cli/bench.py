"""``edgekd bench``: how fast a bundle's model is on this machine, and whether it may replace another's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekd.cli.console import JsonOption, print_json, progress_for_terminal, table_console
from edgekd.cli.ending import end_in_order
from edgekd.errors import BadInput

if TYPE_CHECKING:
    from edgekd.gate_result import GateResult

# The options that only one of the two ways of measuring has, by their parameters. With the other way they are refused
# and not passed over: a gate whose --against was forgotten would measure one bundle and exit with 0.
ALONE = ("seconds", "scenario", "batch_size", "streams", "threads", "cores")
COMPARED = (
    *("max_slowdown", "budget_seconds", "error", "on_inconclusive", "gate", "max_memory", "max_size"),
    *("max_accuracy_drop", "max_coverage_drop", "allow_unpaired", "seed", "out"),
)


class Policy(StrEnum):
    """What an inconclusive comparison is taken for."""

    fail, warn, passes = "fail", "warn", "pass"


class Scenario(StrEnum):
    """What one bundle alone is measured for, after MLPerf."""

    single_stream, offline, multi_stream = "single-stream", "offline", "multi-stream"


class Gate(StrEnum):
    """What may decide the verdict."""

    latency, memory, size, accuracy, coverage = "latency", "memory", "size", "accuracy", "coverage"


def bench(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.")],
    seconds: Annotated[float, typer.Option(min=0.5, max=600, help="How long to measure one bundle alone.")] = 5.0,
    scenario: Annotated[
        Scenario, typer.Option(help="Of one bundle alone: latency, throughput, or queries of several samples.")
    ] = Scenario.single_stream,
    batch_size: Annotated[list[int] | None, typer.Option(help="Of the scenario offline; repeat it.")] = None,
    streams: Annotated[int | None, typer.Option(help="Of the scenario multi-stream: samples of a query.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of one bundle alone. Default: the target's.")] = None,
    cores: Annotated[str | None, typer.Option(help="Run one bundle alone on these cores only: 0,1 or 0-3.")] = None,
    json: JsonOption = False,
    against: Annotated[Path | None, typer.Option(help="The bundle that it is to replace: compare the two.")] = None,
    max_slowdown: Annotated[
        float,
        typer.Option(min=0.01, max=100, help="Latency over the baseline's that is allowed."),
    ] = 1.05,
    budget_seconds: Annotated[
        float, typer.Option(min=1, max=86400, help="When to stop measuring without a verdict.")
    ] = 60.0,
    error: Annotated[float, typer.Option(min=1e-6, max=0.2, help="The chance of a wrong verdict.")] = 0.01,
    on_inconclusive: Annotated[
        Policy, typer.Option(help="Exit with 6, or with 0 and a warning, or with 0.")
    ] = Policy.fail,
    gate: Annotated[list[Gate] | None, typer.Option(help="What decides; repeat it. Default: all.")] = None,
    max_memory: Annotated[float, typer.Option(min=0, help="Peak memory over the baseline's.")] = 1.10,
    max_size: Annotated[float, typer.Option(min=0, help="File size over the baseline's.")] = 1.05,
    max_accuracy_drop: Annotated[
        float, typer.Option(min=0, max=100, help="Points of accuracy that may be lost.")
    ] = 0.0,
    max_coverage_drop: Annotated[
        float, typer.Option(min=0, max=100, help="Points of integer coverage that may be lost.")
    ] = 5.0,
    allow_unpaired: Annotated[
        bool,
        typer.Option(
            "--allow-unpaired", help="Where the two cannot run here, show the samples they carry; decides nothing."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**53 - 1, help="Of the order of blocks.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for gate.json, .md, .xml (JUnit), .html.")] = None,
) -> None:
    """Measure latency and memory of a verified bundle in fresh processes, or its throughput; needs no torch.

    With --against: compare it with another, in pairs of processes, until the verdict is sure. Exit code 0: passed, 3:
    regression, 6: inconclusive, 1: a model failed, 2: the bundles cannot be compared.
    """
    end_in_order()
    _refuse_endless(context)
    if against is None:
        _refuse(context, COMPARED, "a comparison", "name the baseline with --against, or leave it out")
        _alone(bundle, scenario, seconds, batch_size or [], streams, threads, cores, json)
        return
    _refuse(context, ALONE, "measuring one bundle alone", "leave it out with --against")
    from edgekd.pipeline.gate import DEFAULTS, gate_bundles
    from edgekd.pipeline.gate_files import check_writable

    settings = DEFAULTS.model_copy(
        update={
            "tolerance": round(max_slowdown - 1, 9),
            "budget_seconds": budget_seconds,
            "error": error,
            "on_inconclusive": on_inconclusive.value,
            "gates": list(dict.fromkeys(one.value for one in gate)) if gate else DEFAULTS.gates,
            "max_memory_growth": round(max_memory - 1, 9),
            "max_size_growth": round(max_size - 1, 9),
            "max_accuracy_drop": max_accuracy_drop,
            "max_coverage_drop": max_coverage_drop,
            "allow_unpaired": allow_unpaired,
            "seed": seed,
        }
    )
    if out is not None:  # not after a minute of measuring
        check_writable(out)
    with progress_for_terminal() as progress:
        result = gate_bundles(bundle, against, settings, progress=progress)
    # The verdict first, since a report may fail on a full disk; the reports even if nobody reads stdout any more.
    try:
        _tell(result, json)
    finally:
        if out is not None:
            _write(result, out)
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def _refuse(context: typer.Context, parameters: Sequence[str], what: str, remedy: str) -> None:
    for parameter in parameters:
        source = context.get_parameter_source(parameter)
        if source is not None and source.name == "COMMANDLINE":
            raise BadInput(f"--{parameter.replace('_', '-')} belongs to {what}", remedy=remedy)


def _refuse_endless(context: typer.Context) -> None:
    """Refuse what no bound of an option holds back: NaN is neither below nor above it, and some have no upper one."""
    for parameter, value in context.params.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise BadInput(f"--{parameter.replace('_', '-')} is {value}", remedy="give a number that is finite")


def _tell(result: GateResult, json: bool) -> None:
    if json:
        print_json(result.to_json())
    else:
        from edgekd.report.gate import gate_table

        table_console().print(gate_table(result))
    if result.verdict == "inconclusive" and result.settings.on_inconclusive == "warn":
        typer.echo(f"edgekd: warning: {result.summary}", err=True)


def _write(result: GateResult, folder: Path) -> None:
    from edgekd.pipeline.gate_files import write_after_verdict

    error = write_after_verdict(result, folder)
    if error is not None:
        typer.echo(f"edgekd: warning: {error.filename}: {error.strerror}; not all reports are written", err=True)


def _alone(
    bundle: Path,
    scenario: Scenario,
    seconds: float,
    batch_sizes: list[int],
    streams: int | None,
    threads: int | None,
    cores: str | None,
    json: bool,
) -> None:
    from edgekd.pipeline.bench import bench_bundle
    from edgekd.runtime.bench_text import tell_bench
    from edgekd.runtime.scenario import Settings, parse_cores
    from edgekd.runtime.sessions import SessionError

    try:
        pinned = None if cores is None else parse_cores(cores)
    except SessionError as error:
        raise BadInput(str(error), where="--cores") from error
    settings = Settings(scenario.value, seconds, tuple(batch_sizes), streams, threads, pinned)
    with progress_for_terminal() as progress:
        result: dict[str, Any] = bench_bundle(bundle, settings, progress=progress)
    if json:
        print_json(result)
    else:
        typer.echo("\n".join(tell_bench(result)))
