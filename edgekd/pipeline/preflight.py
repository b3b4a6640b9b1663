"""What can be told before the first long stage: a build must not fail after an hour for what was wrong at its start."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.backends import get_backend, openvino
from edgekd.backends.base import machine_of
from edgekd.bundle import check_destination
from edgekd.errors import BadModel, BadTarget, Missing
from edgekd.pipeline.context import Context
from edgekd.recipe import Recipe
from edgekd.target import Target, load_calibration

if TYPE_CHECKING:
    from torch import Tensor, nn


def check_request(recipe: Recipe, targets: Sequence[Target], out: Path) -> None:
    """Cheap checks of every build: files that are named are there, each target can be built, bundles have a place.

    Raises:
        BadModel, BadTarget, BadRecipe, BadInput, Missing: what is wrong, and what to do.
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
        _check_target(target)
        check_destination(out / f"{recipe.name}-{target.name}")


def _check_target(target: Target) -> None:
    backend = get_backend(target.backend)
    found = backend.probe(target)
    # A TensorRT engine is built on its device: without the library here only its proof is missing.
    if not found.ok and (target.backend != "tensorrt" or target.is_here()):
        raise Missing(
            f"{target.name} needs {target.backend}, which is not usable here: {found.reason}",
            where=f"target {target.name}",
            remedy=f"install it with: {found.install}",
        )
    if target.runtime.dla:
        raise BadTarget(
            "the DLA takes implicitly quantized networks only, which edgekd does not write",
            where=f"target {target.name}: runtime.dla",
            remedy="use dla: false",
        )
    wanted, offered = target.runtime.inference_precision, _inference_precisions(target)
    if wanted not in offered:
        raise BadTarget(
            f"{target.backend} does not compute in {wanted} on this target's machine",
            where=f"target {target.name}: runtime.inference_precision",
            remedy=f"use {' or '.join(offered)}",
        )


def _inference_precisions(target: Target) -> list[str]:
    """What float layers can be told to compute in; a TensorRT engine's types are those of its file (``precision``)."""
    arm = machine_of(target) in ("aarch64", "arm64")
    if target.backend == "openvino":
        if not target.is_here():
            return ["f32", "f16"] if arm else ["f32", "bf16"]
        able = openvino.cpu_capabilities()
        return ["f32", *(name for name, flag in (("bf16", "BF16"), ("f16", "FP16")) if flag in able)]
    return ["f32", "bf16"] if target.backend == "onnxruntime" and arm else ["f32"]


def check_training(context: Context) -> None:
    """Checks that need torch and the data, made once, before the first training of a build.

    Both models fit the data and answer with logits, also in training where they are trained; the student can be
    exported, and a master written of it where a target wants one; the data can calibrate.

    Raises:
        BadModel, BadData, Missing: what is wrong, and what to do.
    """
    import torch

    from edgekd.data.calibration import check_enough

    if context.checked:
        return
    recipe = context.recipe
    check_enough(context.source)
    teacher_trains = not recipe.teacher.weights or recipe.distill.train_teacher
    student_trains = bool(recipe.distill.epochs or recipe.finetune.epochs)
    for config, trains in ((recipe.teacher, teacher_trains), (recipe.student, student_trains)):
        module = context.model(config, Path(config.weights) if config.weights else None)
        if config is recipe.student:
            _check_exportable(module, torch.zeros(2, *context.source.input_shape), integer=context.integer)
        if trains:
            context.logits(module.train(), config.model)
    context.checked = True


def _check_exportable(student: nn.Module, example: Tensor, *, integer: bool) -> None:
    """All that is done with the student after its training, but for the numbers. Raises BadModel."""
    from edgekd.quantize import export_float, prepare, rehearse_master

    with tempfile.TemporaryDirectory() as folder:
        export_float(student, example, Path(folder) / "float.onnx")
    if integer:
        rehearse_master(prepare(copy.deepcopy(student), example), example)
