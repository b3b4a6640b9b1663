"""The loop: best state, exact resume, divergence, views of the teacher."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from stand_in import TASK, hard, make_net, make_source, newest, run_fit, same
from torch import nn

from edgekd.distill import OptimizerConfig, predict
from edgekd.distill.checkpoint import NAME, load_state
from edgekd.errors import BadModel, StoreFailed, TrainingDiverged


class Killed(BaseException):
    """Not an Exception: nothing may catch it, as nothing catches a kill."""


def kill_at(epoch: int):
    def hook(now: int) -> None:
        if now == epoch:
            raise Killed

    return hook


def test_it_learns_and_leaves_the_best_state(tmp_path: Path) -> None:
    source, model = make_source(), make_net()
    result = run_fit(model, tmp_path, source=source, epochs=8)
    logits, labels = predict(model, source, "val")
    assert TASK.metric(logits, labels)["top1"] == result.best_metric == max(row["metric"] for row in result.history)
    assert result.best_metric > 0.8
    assert [row["epoch"] for row in result.history] == list(range(1, 9))
    assert not model.training
    assert model.conv.weight.is_contiguous()


@pytest.mark.parametrize(("metrics", "best"), [([0.1, 0.9, 0.5, 0.2], 2), ([0.5, 0.5, 0.1, 0.5], 4)])
def test_best_epoch_and_ties(tmp_path: Path, metrics: list[float], best: int) -> None:
    states, told = [], iter(metrics)

    def evaluate(module: nn.Module) -> float:
        states.append({name: value.clone() for name, value in module.state_dict().items()})
        return next(told)

    model = make_net()
    result = run_fit(model, tmp_path, evaluate=evaluate)
    assert (result.best_epoch, result.best_metric) == (best, metrics[best - 1])
    assert all(torch.equal(value, states[best - 1][name]) for name, value in model.state_dict().items())


def test_the_start_may_stay_the_best(tmp_path: Path) -> None:
    told = iter([0.9, 0.1, 0.2])
    model, before = make_net(), make_net()
    result = run_fit(model, tmp_path, evaluate=lambda module: next(told), epochs=2, keep_start=True)
    assert (result.best_epoch, result.best_metric) == (0, 0.9)
    assert same(model, before)


def test_no_epochs_change_nothing(tmp_path: Path) -> None:
    model = make_net()
    assert run_fit(model, tmp_path, epochs=0).best_epoch == 0
    assert same(model, make_net())


@pytest.mark.parametrize("killed", [1, 3])
@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_resumed_is_uninterrupted(tmp_path: Path, killed: int, in_memory: bool, name: str) -> None:
    source = make_source(65, in_memory=in_memory)
    settings = {
        "source": source,
        "evaluate": newest,
        "optimizer_config": OptimizerConfig(0.01, 0.01, 1, name=name),  # type: ignore[arg-type]
    }
    whole, halves = make_net(), make_net()
    run_fit(whole, tmp_path / "whole", **settings)
    with pytest.raises(Killed):
        run_fit(halves, tmp_path / "halves", on_epoch_start=kill_at(killed), **settings)
    other = make_net(seed=99)
    torch.rand(7), random.random(), np.random.rand()  # another process has other random states
    epochs: list[int] = []
    result = run_fit(other, tmp_path / "halves", on_epoch_start=epochs.append, **settings)
    assert same(other, whole)
    assert not same(whole, make_net())
    assert len(result.history) == 4
    assert epochs == [0, 1, 2, 3]


def test_the_best_of_before_the_kill_is_kept(tmp_path: Path) -> None:
    told = iter([0.9, 0.1])
    model = make_net()
    with pytest.raises(Killed):
        run_fit(model, tmp_path, evaluate=lambda module: next(told), on_epoch_start=kill_at(2))
    resumed = make_net()
    result = run_fit(resumed, tmp_path, evaluate=lambda module: 0.2)
    assert (result.best_epoch, result.best_metric) == (1, 0.9)
    once = make_net()
    with pytest.raises(Killed):
        run_fit(once, tmp_path / "once", evaluate=newest, on_epoch_start=kill_at(1))
    assert same(resumed, once)


def test_a_finished_training_is_not_run_again(tmp_path: Path) -> None:
    model, again = make_net(), make_net(seed=9)
    run_fit(model, tmp_path)

    def never(*_: object) -> torch.Tensor:
        raise AssertionError

    assert len(run_fit(again, tmp_path, loss=never).history) == 4
    assert same(again, model)


def test_other_settings_do_not_resume(tmp_path: Path) -> None:
    run_fit(make_net(), tmp_path, epochs=1)
    result = run_fit(make_net(), tmp_path, epochs=2)
    assert [row["epoch"] for row in result.history] == [1, 2]
    assert run_fit(make_net(width=4), tmp_path, epochs=2).history != result.history


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_broken_checkpoint_starts_anew(tmp_path: Path, content: bytes | None) -> None:
    model, reference = make_net(), make_net()
    run_fit(reference, tmp_path, epochs=2)
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    (tmp_path / f".{NAME}.left").write_bytes(b"half")
    run_fit(model, tmp_path, epochs=2)
    assert same(model, reference)
    assert not (tmp_path / f".{NAME}.left").exists()


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"identity": Evil()}, tmp_path / NAME)
    assert load_state(tmp_path, "x") is None
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number(tmp_path: Path, value: float) -> None:
    calls = 0

    def loss(outputs, teacher, y, epoch):
        nonlocal calls
        calls += 1
        return hard(outputs, teacher, y, epoch) * (value if calls == 10 else 1)

    with pytest.raises(
        TrainingDiverged, match=r"in epoch 3, step 2 of 4; the state after epoch 2 is kept in "
    ) as caught:
        run_fit(make_net(), tmp_path, loss=loss)
    assert str(tmp_path / NAME) in str(caught.value)
    assert torch.load(tmp_path / NAME, weights_only=True)["epoch"] == 2


def test_weights_that_are_no_numbers(tmp_path: Path) -> None:
    config = OptimizerConfig(1e38, name="sgd", momentum=0.5)
    with pytest.raises(TrainingDiverged, match=r"epoch 1, step \d of 4; no epoch was finished"):
        run_fit(make_net(), tmp_path, optimizer_config=config)
    assert not (tmp_path / NAME).exists()


def test_ctrl_c_keeps_the_last_finished_epoch(tmp_path: Path) -> None:
    def loss(outputs, teacher, y, epoch):
        if epoch == 2:
            raise KeyboardInterrupt
        return hard(outputs, teacher, y, epoch)

    with pytest.raises(KeyboardInterrupt):
        run_fit(make_net(), tmp_path, loss=loss)
    assert torch.load(tmp_path / NAME, weights_only=True)["epoch"] == 2


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgekd.distill.checkpoint.write_bytes_atomic", full)
    with pytest.raises(StoreFailed, match="No space left on device"):
        run_fit(make_net(), tmp_path)


@pytest.mark.parametrize("in_memory", [True, False])
def test_cached_answers_belong_to_the_students_inputs(tmp_path: Path, in_memory: bool) -> None:
    """Student and teacher are the same network: were their inputs not the same, the distance would not be 0."""

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls, self.weight = 0, nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += len(x)
            return x.flatten(1)[:, :9] * self.weight

    distances: list[float] = []

    def loss(outputs, teacher, y, epoch):
        distances.append((outputs - teacher).abs().max().item())
        return outputs.sum() * 0

    teacher, source = Plain(), make_source(96, in_memory=in_memory)
    settings = {"source": source, "loss": loss, "teacher": teacher, "teacher_views": 2, "evaluate": newest}
    run_fit(Plain(), tmp_path, epochs=5, channels_last=False, optimizer_config=OptimizerConfig(0.0), **settings)
    assert max(distances) == 0
    assert len(distances) == 15
    assert teacher.calls == 2 * 96


def test_without_augmentation_one_view_is_enough(tmp_path: Path) -> None:
    teacher = make_net(16)
    run_fit(make_net(), tmp_path, teacher=teacher, augment=(), teacher_views=4)
    assert len(list(tmp_path.glob("teacher-*/view-*.npy"))) == 1


def test_a_teacher_that_answers_nan(tmp_path: Path) -> None:
    teacher = make_net(16)
    teacher.head.weight.data[:] = float("nan")
    with pytest.raises(BadModel, match="NaN"):
        run_fit(make_net(), tmp_path, teacher=teacher)


def test_the_callers_random_states_are_given_back(tmp_path: Path) -> None:
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    expected = torch.rand(3), random.random(), np.random.rand()
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    run_fit(make_net(), tmp_path, epochs=1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), expected[0])
    assert (random.random(), np.random.rand()) == expected[1:]


def test_a_network_that_needs_contiguous_tensors(tmp_path: Path) -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(2, 4, 3), nn.Linear(64, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.conv(x).view(x.shape[0], -1))

    run_fit(Viewing(), tmp_path, epochs=1)


def test_bf16(tmp_path: Path) -> None:
    assert run_fit(make_net(), tmp_path, epochs=8, precision="bf16").best_metric > 0.8


def test_an_exported_graph_trains(tmp_path: Path) -> None:
    """Such a graph refuses ``train`` and ``eval``."""
    batch = torch.export.Dim("batch")
    net = make_net().eval()
    exported = torch.export.export(net, (torch.zeros(2, 2, 6, 6),), dynamic_shapes=({0: batch},)).module()
    with pytest.raises(NotImplementedError):
        exported.train()
    frozen = exported.get_parameter("norm.weight").requires_grad_(False)
    before = frozen.detach().clone()
    result = run_fit(exported, tmp_path, epochs=8)
    assert result.best_metric > 0.8
    assert torch.equal(exported.get_parameter("norm.weight"), before)
