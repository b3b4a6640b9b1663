"""What is told before the first stage, and before the first training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from edgekd.backends import Availability
from edgekd.backends.tensorrt import TensorRtBackend
from edgekd.errors import BadInput, BadModel, BadTarget, EdgekdError, Missing
from edgekd.pipeline.context import Context
from edgekd.pipeline.preflight import check_request, check_training
from edgekd.recipe import Recipe
from edgekd.target import Target, load_target

NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.body, self.answer = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), answer

    def forward(self, x):
        y = self.body(x)
        if self.answer == "tuple":
            return y, y
        if self.answer == "dict":
            return {"logits": y}
        if self.answer == "sequence":
            return y[:, None]
        if self.answer == "integers":
            return y.long()
        if self.answer == "tuple in training" and self.training:
            return y, y
        if self.answer == "fails in training" and self.training:
            raise RuntimeError("no labels were given")
        if self.answer == "untraceable" and float(y.sum()) > 1e9:
            return -y
        return y


def net(answer="logits"):
    return Net(answer)
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "nets_of_mine", raising=False)
    (tmp_path / "nets_of_mine.py").write_text(NETS)
    return tmp_path


def recipe(**parts: Any) -> Recipe:
    return Recipe.model_validate({"data": {"name": "digits"}} | parts)


def model(answer: str) -> dict[str, Any]:
    return {"model": "nets_of_mine:net", "args": {"answer": answer}}


@pytest.mark.parametrize("part", ["teacher", "student"])
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("tuple", "returns tuple"),
        ("dict", "returns dict"),
        ("sequence", "(2, 1, 10)"),
        ("integers", "int64"),
        ("tuple in training", "in training it returns tuple"),
        ("fails in training", "no labels were given"),
    ],
)
def test_a_model_that_gives_no_logits(nets: Path, part: str, answer: str, told: str) -> None:
    with pytest.raises(BadModel) as caught:
        check_training(Context(recipe(**{part: model(answer)}), jobs=1))
    assert told in caught.value.what
    assert caught.value.where == "nets_of_mine:net"
    assert caught.value.remedy


def test_a_model_that_is_not_trained_may_be_odd_in_training(nets: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"body.1.weight": torch.ones(10, 64), "body.1.bias": torch.zeros(10)}, nets / "w.safetensors")
    teacher = model("tuple in training") | {"weights": str(nets / "w.safetensors")}
    check_training(Context(recipe(teacher=teacher, student=model("logits")), jobs=1))
    with pytest.raises(BadModel, match="in training"):
        check_training(
            Context(recipe(teacher=teacher, student=model("logits"), distill={"train_teacher": True}), jobs=1)
        )


def test_a_student_that_cannot_be_exported_is_told_before_training(nets: Path) -> None:
    with pytest.raises(BadModel, match=r"torch\.export cannot trace it"):
        check_training(Context(recipe(student=model("untraceable")), jobs=1))
    # The teacher is never exported.
    check_training(Context(recipe(teacher=model("untraceable"), student=model("logits")), jobs=1))


def test_a_student_of_which_no_master_can_be_written_is_told_before_training(
    nets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any) -> None:
        raise KeyError("a fault of the conversion")

    monkeypatch.setattr("edgekd.quantize.master.rename_values", broken)
    with pytest.raises(KeyError, match="a fault of the conversion"):
        check_training(Context(recipe(student=model("logits")), jobs=1))
    # A build without integers writes none.
    check_training(Context(recipe(student=model("logits")), jobs=1, integer=False))


def target(**parts: Any) -> Target:
    return Target.model_validate({"name": "t", "backend": "onnxruntime"} | parts)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"backend": "tensorrt", "arch": "aarch64", "runtime": {"dla": True}}, "target t: runtime.dla"),
        ({"runtime": {"inference_precision": "f16"}}, "target t: runtime.inference_precision"),
        ({"backend": "openvino", "runtime": {"inference_precision": "f16"}}, "target t: runtime.inference_precision"),
        (
            {"backend": "tensorrt", "arch": "aarch64", "runtime": {"inference_precision": "bf16"}},
            "target t: runtime.inference_precision",
        ),
    ],
)
def test_what_a_target_asks_for_and_nobody_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: dict[str, Any], told: str
) -> None:
    monkeypatch.setattr("edgekd.backends.openvino.cpu_capabilities", lambda: ["FP32", "BF16", "INT8"])
    monkeypatch.setattr("edgekd.pipeline.preflight.machine_of", lambda target: "x86_64")
    with pytest.raises(BadTarget) as caught:
        check_request(recipe(), [target(**given)], tmp_path)
    assert caught.value.where == told
    assert caught.value.remedy


def test_bf16_where_the_cpu_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wanted = target(backend="openvino", runtime={"inference_precision": "bf16"})
    monkeypatch.setattr("edgekd.backends.openvino.cpu_capabilities", lambda: ["FP32", "BF16"])
    check_request(recipe(), [wanted], tmp_path)
    monkeypatch.setattr("edgekd.backends.openvino.cpu_capabilities", lambda: ["FP32"])
    with pytest.raises(BadTarget, match="bf16"):
        check_request(recipe(), [wanted], tmp_path)


@pytest.mark.parametrize(("name", "library"), [("cuda", "tensorrt"), ("rtx", "tensorrt-rtx")])
def test_a_target_that_is_here_needs_its_own_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, library: str
) -> None:
    """TensorRT is no use to a target of TensorRT-RTX, nor the other way round."""
    rows = [
        (one, one != library, "10.3", f"{one} is not installed", f"get {one}") for one in ("tensorrt", "tensorrt-rtx")
    ]
    monkeypatch.setattr("edgekd.backends.tensorrt.tensorrt_infos", lambda: rows)
    assert TensorRtBackend().probe().ok
    wanted = load_target(name)
    assert TensorRtBackend().probe(wanted) == Availability(False, "", f"{library} is not installed", f"get {library}")
    monkeypatch.setattr(Target, "is_here", lambda self: True)
    with pytest.raises(Missing, match=f"install it with: get {library}"):
        check_request(recipe(), [wanted], tmp_path)
    monkeypatch.setattr(Target, "is_here", lambda self: False)
    check_request(recipe(), [wanted], tmp_path)


def test_an_out_that_cannot_be(tmp_path: Path) -> None:
    here = [load_target("onnxruntime-cpu")]
    (tmp_path / "file").write_text("")
    mine = tmp_path / "dist" / "model-onnxruntime-cpu"
    mine.mkdir(parents=True)
    (mine / "thesis.txt").write_text("mine")
    for out, told in (
        (tmp_path / "file", "file"),
        (tmp_path / "file" / "deep", "file"),
        (tmp_path / "dist", str(mine)),
    ):
        with pytest.raises(EdgekdError) as caught:
            check_request(recipe(), here, out)
        assert told in caught.value.where
        assert "--out" in caught.value.remedy
    with pytest.raises(BadInput, match="is in the way"):
        check_request(recipe(), here, tmp_path / "dist")
    check_request(recipe(), here, tmp_path / "new" / "deep")
    assert not (tmp_path / "new").exists(), "looking makes nothing"
