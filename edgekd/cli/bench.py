"""``edgekd bench``: how fast a bundle's model is on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.console import JsonOption, print_json


def bench(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.")],
    seconds: Annotated[float, typer.Option(min=0.5, max=600, help="How long to measure.")] = 5.0,
    json: JsonOption = False,
) -> None:
    """Measure latency and memory of a verified bundle in fresh processes; needs no torch."""
    from edgekd.pipeline.bench import bench_bundle

    result = bench_bundle(bundle, seconds=seconds)
    if json:
        print_json(result)
        return
    latency = result["latency_ms"]
    for name in ("p50", "p90", "p99"):
        value = latency[name]
        typer.echo(f"{name}: {value:.3f} ms" if value is not None else f"{name}: not enough runs")
    where = f"{latency['machine']}, {latency['runtime']}, float layers in {latency['inference_precision']}"
    typer.echo(f"memory: {result['peak_memory_mb']} MB on {where}")
