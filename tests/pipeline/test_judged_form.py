"""In which numbers the ladder judges: the coarsest that a target of the recipe runs in integers."""

from __future__ import annotations

import pytest

from edgekd.pipeline.judged import judged_beside, judged_form, recipes_targets
from edgekd.recipe import Recipe
from edgekd.stage import NoProgress
from edgekd.target import Target, load_target

VNNI = [Target(name="t", backend=one, arch="x86_64", isa="avx512-vnni") for one in ("onnxruntime", "openvino")]
ARM = Target(name="t", backend="onnxruntime", arch="aarch64", isa="neon-dot")


def test_forms_with_all_codes_are_of_one_key() -> None:
    forms = [judged_form([one]) for one in (*VNNI, ARM)]
    assert forms == [judged_form([*VNNI, ARM])] * 3
    assert forms[0] is not None
    assert (forms[0].nonnegative, forms[0].floors) == ("u8/255", "u8")


@pytest.mark.parametrize(
    "other",
    [
        load_target("jetson"),
        Target(name="t", backend="openvino", arch="aarch64", isa="neon-dot"),
        Target(name="t", backend="onnxruntime", arch="x86_64", isa="avx2"),
    ],
    ids=["TensorRT", "OpenVINO on ARM", "without VNNI"],
)
def test_one_target_of_coarser_numbers_keeps_the_masters(other: Target) -> None:
    assert judged_form([other]) is judged_form([*VNNI, other]) is None


def test_a_target_of_floats_does_not_count() -> None:
    floats = load_target("jetson").model_copy(update={"precision": "fp16"})
    assert judged_form([floats]) is None
    assert judged_form([*VNNI, floats]) == judged_form(VNNI)


def test_what_a_command_must_name_besides_its_target() -> None:
    """Only what the recipe does not, and what decides."""
    cpu, jetson = VNNI[0], load_target("jetson")
    assert judged_beside(cpu, [], [*VNNI, jetson]) == (jetson,)
    assert judged_beside(cpu, [jetson], [*VNNI, jetson]) == ()
    assert judged_beside(jetson, VNNI, [*VNNI, jetson]) == ()
    assert judged_beside(cpu, VNNI, VNNI) == ()


class Said(NoProgress):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        self.lines.append(text)


def test_targets_that_a_recipe_names_count_and_its_default_does_not() -> None:
    recipe = {"data": {"name": "digits"}, "teacher": {"model": "edgekd:resnet-s"}}
    said = Said()
    assert recipes_targets(Recipe.model_validate(recipe), said) == []
    named = Recipe.model_validate(recipe | {"targets": ["jetson", "openvino-cpu"]})
    assert [one.backend for one in recipes_targets(named, said)] == ["tensorrt", "openvino"]
    assert said.lines == []


def test_a_target_of_the_recipe_that_is_not_here_ends_no_build_of_another() -> None:
    recipe = {"data": {"name": "digits"}, "teacher": {"model": "edgekd:resnet-s"}}
    said = Said()
    named = Recipe.model_validate(recipe | {"targets": ["jetson", "gone/board.yaml"]})
    assert [one.backend for one in recipes_targets(named, said)] == ["tensorrt"]
    assert len(said.lines) == 1
    assert said.lines[0].startswith("quantization is judged without the recipe's target gone/board.yaml: ")
