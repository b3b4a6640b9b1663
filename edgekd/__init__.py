"""From a trained PyTorch teacher to a small, fast, proven model for an edge device.

The public Python API: `build` (needs ``edgekd[build]``), `load`, `verify` and `bench` (need numpy and the runtime).
Importing this package imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekd.pipeline import BuildResult
    from edgekd.recipe import Recipe
    from edgekd.runtime.model import Model
    from edgekd.runtime.scenario import Scenario

__all__ = ["bench", "build", "load", "verify"]


def build(
    recipe: Recipe | str | Path | None = None,
    targets: Sequence[str] | None = None,
    *,
    out: str | Path = "dist",
    overrides: Sequence[str] = (),
    jobs: int | None = None,
) -> BuildResult:
    """One bundle for each target, from a recipe (a `Recipe`, a file, a built-in name; None: ``digits``).

    ``overrides``: ``key.path=value`` as ``--set`` takes them; ``jobs``: threads of training.

    Raises:
        EdgekdError: whatever is wrong (`edgekd.errors`); a missed budget is told in the result, not raised.
    """
    from edgekd.installation import require_build

    require_build()
    from edgekd.pipeline import build as run
    from edgekd.recipe import Recipe, load_recipe

    if not isinstance(recipe, Recipe):
        recipe = load_recipe(None if recipe is None else str(recipe), overrides)
    elif overrides:
        raise TypeError("overrides change a recipe file or a built-in recipe; a Recipe value is final")
    return run(recipe, targets, out=Path(out), jobs=jobs)


def load(bundle: str | Path) -> Model:
    """The model of a bundle, ready to run: ``load(path).predict([raw])[0].label``.

    Raises:
        BadBundle, Missing: the bundle does not hold, or its runtime is not here.
    """
    from edgekd.bundle import load_model

    return load_model(Path(bundle))


def verify(bundle: str | Path) -> list[dict[str, Any]]:
    """Every check of a bundle on this machine: ``name``, ``ok`` (None: could not run here) and ``detail``.

    Raises:
        BadBundle: it cannot be read at all.
    """
    from edgekd.bundle import verify_bundle

    return [check.to_json() for check in verify_bundle(Path(bundle))]


def bench(
    bundle: str | Path,
    *,
    scenario: Scenario = "single-stream",
    seconds: float = 5.0,
    batch_sizes: Sequence[int] = (),
    streams: int | None = None,
    threads: int | None = None,
    cores: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Latency and memory, or throughput, of a verified bundle, measured in fresh processes on this machine.

    The arguments are those of `edgekd.runtime.scenario.Settings`, the result that of `edgekd.runtime.bench.bench`.

    Raises:
        BadInput: a setting does not fit the model or the machine, or what is here is not what the bundle needs.
        BadBundle, Missing, WorkerFailed: the bundle does not hold, its runtime is not here, or it fails.
    """
    from edgekd.pipeline.bench import bench_bundle
    from edgekd.runtime.scenario import Settings

    pinned = None if cores is None else tuple(cores)
    return bench_bundle(Path(bundle), Settings(scenario, seconds, tuple(batch_sizes), streams, threads, pinned))
