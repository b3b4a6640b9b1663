"""The command that a bundle names: what was asked for, and no folder of the machine that built it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from edgekd.cli.build import reproducing
from edgekd.pipeline.bundle import BundleStage
from edgekd.pipeline.context import Context
from edgekd.recipe import Recipe
from edgekd.target import load_target

CONTEXT = Context(Recipe.model_validate({"data": {"name": "digits"}}))


@pytest.mark.parametrize(
    ("recipe", "flags", "overrides", "command"),
    [
        (None, {}, [], "edgekd build"),
        ("digits", {}, ["distill.epochs=5"], "edgekd build digits --set distill.epochs=5"),
        ("/home/me/work/mine.yaml", {}, [], "edgekd build mine.yaml"),
        ("work/mine.yaml", {}, [], "edgekd build mine.yaml"),
        (
            None,
            {"--teacher": "torchvision:resnet18", "--weights": "/home/me/w.pt", "--data": "/home/me/my images/"},
            [],
            "edgekd build --teacher torchvision:resnet18 --weights w.pt --data 'my images'",
        ),
        (
            None,
            {"--data": "mine.data:make", "--student": "edgekd:resnet-xs"},
            [],
            "edgekd build --data mine.data:make --student edgekd:resnet-xs",
        ),
        (
            "digits",
            {},
            ["teacher.weights=/home/me/t.safetensors", "data.path=~/idx", "data.folder=sub/images", "name=a/b"],
            "edgekd build digits --set teacher.weights=t.safetensors --set data.path=idx --set data.folder=images "
            "--set name=a/b",
        ),
        (
            "digits",
            {},
            ["quantize={calibration: /home/me/c.yaml}"],
            "edgekd build digits --set 'quantize={calibration: c.yaml}'",
        ),
    ],
)
def test_no_folders(recipe: str | None, flags: dict[str, str], overrides: list[str], command: str) -> None:
    assert reproducing(recipe, flags, overrides) == command


def test_targets_as_they_were_named(tmp_path: Path) -> None:
    path = tmp_path / "my board.yaml"
    path.write_text("name: board\nbackend: onnxruntime\n")
    for name, wanted in ((str(path), "my board.yaml"), ("rpi5", "raspberry-pi-5"), ("cuda", "cuda")):
        stage = BundleStage(CONTEXT, load_target(name), "edgekd build digits")
        assert shlex.split(stage.command) == ["edgekd", "build", "digits", "--target", wanted]
    # Building in another precision changes the target, not what it is called.
    other = load_target(str(path)).model_copy(update={"precision": "fp32"})
    assert shlex.split(BundleStage(CONTEXT, other, "").command)[-2:] == ["--target", "my board.yaml"]


def test_targets_that_must_be_built_beside_it() -> None:
    stage = BundleStage(CONTEXT, load_target("openvino-cpu"), "edgekd build digits", (load_target("jetson"),))
    assert stage.command == "edgekd build digits --target openvino-cpu --target jetson-orin"


def test_the_command_is_part_of_the_key(tmp_path: Path) -> None:
    keys = set()
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).write_text("name: board\nbackend: onnxruntime\n")
        keys.add(BundleStage(CONTEXT, load_target(str(tmp_path / name)), "edgekd build").key({}))
    assert len(keys) == 2
