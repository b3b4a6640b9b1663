"""What can be told before the first long stage: a build must not fail after an hour for what was wrong at its start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekd.backends import get_backend
from edgekd.errors import BadModel, BadTarget, Missing
from edgekd.pipeline.context import Context
from edgekd.recipe import Recipe
from edgekd.target import Target, load_calibration


def check_request(recipe: Recipe, targets: Sequence[Target]) -> None:
    """Cheap checks of every build: files that are named are there, each target's runtime is installed.

    Raises:
        BadModel, BadTarget, BadRecipe, Missing: what is wrong, and what to do.
    """
    names = [target.name for target in targets]
    if not names:
        raise BadTarget("no target is named", where="targets", remedy="give --target NAME; list them: edgekd targets")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadTarget(f"{', '.join(twice)} is named twice", where="--target", remedy="name each target once")
    load_calibration(recipe.quantize.calibration)
    for key, config in (("teacher", recipe.teacher), ("student", recipe.student)):
        if config.weights and not Path(config.weights).is_file():
            raise BadModel(
                f"there is no weights file {config.weights}", where=f"{key}.weights", remedy="check the path"
            )
    for target in targets:
        found = get_backend(target.backend).probe()
        # A TensorRT engine is built on its device: without the library here only its proof is missing.
        if not found.ok and (target.backend != "tensorrt" or target.is_here()):
            raise Missing(
                f"{target.name} needs {target.backend}, which is not usable here: {found.reason}",
                where=f"target {target.name}",
                remedy=f"install it with: {found.install}",
            )


def check_training(context: Context) -> None:
    """Checks that need torch and the data, made before the first training: both models fit the data, it can calibrate.

    Raises:
        BadModel, BadData, Missing: what is wrong, and what to do.
    """
    from edgekd.data.calibration import check_enough

    recipe = context.recipe
    check_enough(context.source)
    for config in (recipe.teacher, recipe.student):
        context.model(config, Path(config.weights) if config.weights else None)
