"""``edgekd build``: from a recipe to a bundle for each target."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.console import JsonOption, print_json, progress_for_terminal
from edgekd.errors import BadInput, ExitCode

# Keys of a recipe that hold a file or a folder.
PATHS = ("data.folder", "data.path", "teacher.weights", "student.weights", "quantize.calibration")


def build(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A recipe file, or a built-in recipe: digits (the default) or fashion-mnist."),
    ] = None,
    target: Annotated[list[str] | None, typer.Option(help="A target's name or file; repeat it for several.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the bundles.")] = Path("dist"),
    teacher: Annotated[
        str | None,
        typer.Option(help="Without a recipe: torchvision:NAME, timm:NAME, edgekd:NAME or pkg.module:factory."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Without a recipe: the teacher's weights (safetensors or a plain checkpoint).")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Without a recipe: an image folder, a built-in data set, or pkg.module:factory.")
    ] = None,
    student: Annotated[str | None, typer.Option(help="Without a recipe: the student's model.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Threads of training (default: all that this process may use).")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Distill, quantize, compile, measure and pack: one bundle for each target."""
    from edgekd.installation import require_build

    require_build()
    from edgekd.pipeline import build as run
    from edgekd.recipe import Recipe, load_recipe

    overrides = set_ or []
    flags = {"--teacher": teacher, "--weights": weights, "--data": data, "--student": student}
    given = {name: str(value) for name, value in flags.items() if value is not None}
    if given and recipe is not None:
        raise BadInput(
            "these options stand for a recipe, and a recipe is named",
            where=", ".join(given),
            remedy="give one or the other; --set changes a value of a recipe",
        )
    if given:
        chosen = Recipe.from_flags(
            teacher=teacher,
            weights=str(weights) if weights else None,
            data=data,
            student=student,
            overrides=overrides,
        )
    else:
        chosen = load_recipe(recipe, overrides)
    with progress_for_terminal() as progress:
        result = run(
            chosen,
            target or None,
            out=out,
            progress=progress,
            jobs=jobs,
            reproduce=reproducing(recipe, given, overrides),
        )
    if json:
        print_json(result.to_json())
    else:
        from rich.console import Console

        from edgekd.report import terminal_table

        Console().print(terminal_table(result.bundles))
        for row in result.bundles:
            typer.echo(f"{row['target']}: {row['path']}")
    if result.missed:
        for line in result.missed:
            typer.echo(f"edgekd: budget missed: {line}", err=True)
        raise typer.Exit(int(ExitCode.BUDGET_MISSED))


def reproducing(recipe: str | None, flags: dict[str, str], overrides: list[str]) -> str:
    """The command of this build without its targets; of files and folders only the names, as in a bundle's recipe."""
    words = [_name(recipe)] if recipe else []
    for flag, value in flags.items():
        words += [flag, _name(value)]
    for override in overrides:
        key, equals, value = override.partition("=")
        # A path inside a longer value of YAML is the word that begins with a slash.
        shown = _name(value) if key.strip() in PATHS else re.sub(r"(?<![^\s\"'\[{,])[~/][^\s\"'\]},]*", _found, value)
        words += ["--set", f"{key}{equals}{shown}"]
    return shlex.join(["edgekd", "build", *words])


def _name(value: str) -> str:
    return Path(value).name or value


def _found(found: re.Match[str]) -> str:
    return _name(found[0])
