"""The trainings of a build, on a tiny source and on scikit-learn's digits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from stand_in import TASK, make_net, make_source, same

from edgekd.distill import distill, finetune, predict, quantization_aware, train_teacher
from edgekd.recipe import DataConfig, DistillConfig, FinetuneConfig, QuantizeConfig, TeacherConfig
from edgekd.stage import NoProgress


def common(scratch: Path) -> dict:
    data = DataConfig(factory="unused:unused", batch_size=32, augment=("flip",))
    return {"data": data, "task": TASK, "seed": 0, "scratch": scratch, "progress": NoProgress()}


def accuracy(module: torch.nn.Module, source, split: str = "test") -> float:
    return TASK.metric(*predict(module, source, split))["top1"]


def test_teacher_then_student_then_finetune(tmp_path: Path) -> None:
    source, teacher, student = make_source(), make_net(16), make_net(6)
    config = TeacherConfig(epochs=8, lr=0.02, label_smoothing=0.1)
    train_teacher(teacher, source, config=config, **common(tmp_path / "teacher"))
    fixed = {name: value.clone() for name, value in teacher.state_dict().items()}
    result = distill(student, teacher, source, config=DistillConfig(epochs=8, lr=0.02), **common(tmp_path / "student"))
    assert accuracy(student, source) > 0.8
    assert all(torch.equal(value, fixed[name]) for name, value in teacher.state_dict().items())
    tuned = finetune(student, source, config=FinetuneConfig(epochs=2), **common(tmp_path / "tuned"))
    assert tuned.best_metric >= result.best_metric
    assert accuracy(student, source, "val") == tuned.best_metric


@pytest.mark.parametrize("loss", ["kd", "l2"])
def test_teacher_trained_along(tmp_path: Path, loss: str) -> None:
    """Both start untrained, and both learn."""
    source, teacher, student = make_source(), make_net(16), make_net(6)
    config = DistillConfig(epochs=12, lr=0.02, train_teacher=True, loss=loss)  # type: ignore[arg-type]
    result = distill(student, teacher, source, config=config, **common(tmp_path))
    assert accuracy(teacher, source) > 0.8
    assert accuracy(student, source) > 0.8
    assert accuracy(student, source, "val") == result.best_metric


def test_a_teacher_along_learns_from_labels_alone(tmp_path: Path) -> None:
    """Whatever student is beside it, the teacher takes the same way (no dropout: it draws from one generator)."""
    source = make_source()
    ends = []
    for width in (4, 6):
        teacher, student = make_net(16), make_net(width)
        teacher.drop.p = student.drop.p = 0.0
        config = DistillConfig(epochs=1, lr=0.02, train_teacher=True)
        distill(student, teacher, source, config=config, **common(tmp_path / str(width)))
        ends.append(teacher)
    assert same(*ends)


def test_quantization_aware_never_ends_worse(tmp_path: Path) -> None:
    source, guide = make_source(), make_net(8)
    module, before = make_net(8), make_net(8)
    told, seen = iter([0.9, 0.5, 0.6]), []
    result = quantization_aware(
        module,
        guide,
        source,
        config=QuantizeConfig(epochs=2),
        distill=DistillConfig(),
        evaluate=lambda _: next(told),
        on_epoch_start=seen.append,
        **common(tmp_path),
    )
    assert (result.best_epoch, seen) == (0, [0, 1])
    assert same(module, before)


def test_digits_distilled(tmp_path: Path) -> None:
    """The real data in a few seconds: a narrow student learns from a small teacher."""
    from edgekd.data.load import load_data
    from edgekd.models import build_model

    data = DataConfig(name="digits", augment=("shift",))
    source = load_data(data, seed=0)
    torch.manual_seed(0)
    teacher, student = (
        build_model(f"edgekd:{name}", classes=10, input_shape=source.input_shape, args={"width": 0.25})
        for name in ("resnet-s", "resnet-xs")
    )
    rest = common(tmp_path) | {"data": data}
    train_teacher(teacher, source, config=TeacherConfig(epochs=6), **(rest | {"scratch": tmp_path / "teacher"}))
    distill(student, teacher, source, config=DistillConfig(epochs=8, lr=0.008), **rest)
    assert accuracy(teacher, source) > 0.9
    assert accuracy(student, source) > 0.85
