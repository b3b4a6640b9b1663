"""Losses, schedules and the objective against formulas written out by hand."""

import math
from itertools import pairwise

import pytest
import torch

from edgekd.distill import get_loss, list_losses
from edgekd.distill.objective import Objective
from edgekd.distill.optimizer import FIRST, LAST, OptimizerConfig, make_optimizer, rate_share, set_rate
from edgekd.distill.temperature import temperature_at
from edgekd.errors import BadRecipe
from edgekd.recipe import Temperature
from edgekd.tasks import get_task

STUDENT = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]])
TEACHER = torch.tensor([[2.0, -1.0, 0.0], [1.0, 1.0, 4.0]])
Y = torch.tensor([0, 2])


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_is_the_soft_divergence_times_the_temperature_squared(temperature: float) -> None:
    expected = 0.0
    for student, teacher in zip(STUDENT.tolist(), TEACHER.tolist(), strict=True):
        p, q = softmax(teacher, temperature), softmax(student, temperature)
        expected += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 2
    value = get_loss("kd")(STUDENT, TEACHER, Y, temperature=temperature)
    assert value.item() == pytest.approx(expected * temperature**2, rel=1e-5)


def test_kd_tends_to_logit_matching_at_high_temperatures() -> None:
    """Hinton et al., equation 4: for zero-mean logits the gradient is that of half the squared distance, over K."""
    student = (STUDENT - STUDENT.mean(1, keepdim=True)).requires_grad_()
    teacher = TEACHER - TEACHER.mean(1, keepdim=True)
    get_loss("kd")(student, teacher, Y, temperature=1000.0).backward()
    expected = (student.detach() - teacher) / 3 / 2
    assert student.grad is not None
    assert torch.allclose(student.grad, expected, atol=2e-2)


def test_l2_is_half_the_mean_squared_distance() -> None:
    flat = zip(STUDENT.flatten().tolist(), TEACHER.flatten().tolist(), strict=True)
    expected = sum((a - b) ** 2 for a, b in flat) / 6 / 2
    assert get_loss("l2")(STUDENT, TEACHER, Y, temperature=7.0).item() == pytest.approx(expected)


def test_losses_are_the_files_of_their_folder() -> None:
    assert list_losses() == ["kd", "l2"]
    with pytest.raises(BadRecipe, match=r"unknown distillation loss 'dkd'[\s\S]*kd, l2"):
        get_loss("dkd")


def test_recipe_and_folder_know_the_same_losses() -> None:
    from typing import get_args

    from edgekd.recipe import DistillConfig

    annotation = DistillConfig.model_fields["loss"].annotation
    assert get_args(annotation) in ((), tuple(list_losses()))


@pytest.mark.parametrize(("alpha", "epoch"), [(0.0, 0), (1.0, 0), (0.7, 2)])
def test_objective_mixes_soft_and_hard(alpha: float, epoch: int) -> None:
    task = get_task("classification")
    objective = Objective(task, "kd", Temperature(start=8, end=2, schedule="linear"), alpha, epochs=4)
    soft = get_loss("kd")(STUDENT, TEACHER, Y, temperature=8 - 2 * epoch)
    expected = alpha * soft + (1 - alpha) * torch.nn.functional.cross_entropy(STUDENT, Y)
    assert objective(STUDENT, TEACHER, Y, epoch).item() == pytest.approx(expected.item(), rel=1e-6)


def test_objective_imitates_what_the_task_names() -> None:
    """A task whose outputs are not logits: only its ``distill_outputs`` reaches the soft loss."""

    class Halves:
        def loss(self, outputs, targets, label_smoothing=0.0):
            return outputs["a"].sum() * 0

        def distill_outputs(self, outputs):
            return outputs["b"] * 2

    objective = Objective(Halves(), "l2", 1.0, 1.0, epochs=1)  # type: ignore[arg-type]
    value = objective({"a": STUDENT, "b": STUDENT}, STUDENT * 2, Y, 0)  # type: ignore[arg-type]
    assert value.item() == 0


def test_temperatures() -> None:
    def at(schedule: str) -> list[float]:
        config = Temperature(start=8, end=2, schedule=schedule)  # type: ignore[arg-type]
        return [round(temperature_at(config, epoch, 5), 6) for epoch in range(5)]

    assert at("constant") == [8] * 5
    assert at("linear") == [8, 6.5, 5, 3.5, 2]
    assert at("cosine") == pytest.approx([8, 5 + 3 * math.sqrt(0.5), 5, 5 - 3 * math.sqrt(0.5), 2])
    assert temperature_at(4.0, 3, 5) == 4.0
    assert temperature_at(Temperature(start=8, end=2), 0, 1) == 8


def test_rate_warms_up_then_falls() -> None:
    shares = [rate_share(step, 100, 10) for step in range(100)]
    assert shares[0] == FIRST
    assert shares[10] == 1
    assert shares[-1] == pytest.approx(LAST)
    assert all(a < b for a, b in pairwise(shares[:11]))
    assert all(a > b for a, b in pairwise(shares[10:]))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_norms_and_biases_do_not_decay(name: str) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    model[0].bias.requires_grad_(False)
    config = OptimizerConfig(0.1, weight_decay=0.5, warmup_epochs=1, name=name)  # type: ignore[arg-type]
    optimizer = make_optimizer(model, config)
    decays = [(group["weight_decay"], [tuple(p.shape) for p in group["params"]]) for group in optimizer.param_groups]
    assert decays == [(0.5, [(2, 3)]), (0.0, [(2,), (2,)])]
    assert set_rate(optimizer, config, step=5, steps=10, epochs=2) == 0.1
    assert all(group["lr"] == 0.1 for group in optimizer.param_groups)
