"""PTQ, then QAT when asked or needed: one path, by what the validation split says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from digits_net import DATA, TASK, trained
from torch import nn

from edgekd.distill import predict, quantization_aware
from edgekd.quantize import adaround, quantize
from edgekd.quantize.learned import LearnedScale
from edgekd.quantize.weighted import layers
from edgekd.recipe import DistillConfig, QuantizeConfig
from edgekd.stage import NoProgress
from edgekd.target import CalibrationPolicy

POLICY = CalibrationPolicy(name="test", samples=96, batch_size=32, averaging=0.05)


def accuracy(module: nn.Module) -> float:
    return float(TASK.metric(*predict(module, trained()[1], "val"))["top1"])


def run(
    method: str, fit: Callable[..., Any], *, allowed_drop: float = 1.0, epochs: int = 3, evaluate=accuracy, **techniques
):
    """Without techniques unless they are named."""
    net, source = trained()
    x = source.tensors("train")[0][:96]
    switched = {"bias_correction": False, "equalization": False} | techniques
    return quantize(
        net,
        x.split(POLICY.batch_size),
        config=QuantizeConfig(method=method, epochs=epochs, lr=3e-3, **switched),
        policy=POLICY,
        allowed_drop=allowed_drop,
        fit=fit,
        evaluate=evaluate,
        progress=NoProgress(),
    )


def never(*_: Any, **__: Any) -> None:
    raise AssertionError("no training was wanted")


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_ptq_and_the_student_stays_as_it_is() -> None:
    net, _ = trained()
    before = state(net)
    outcome = run("ptq", never)
    assert same(state(net), before)
    report = outcome.report
    assert (report["method"], report["val_qat"], report["allowed_drop"]) == ("ptq", None, 1.0)
    assert report["val_float"] == accuracy(net) > 0.8
    assert report["val_ptq"] == accuracy(outcome.prepared.module)
    assert report["val_ptq"] > report["val_float"] - 0.03


def test_auto_stops_within_the_allowed_drop() -> None:
    told = iter([0.95, 0.945])
    report = run("auto", never, allowed_drop=0.6, evaluate=lambda _: next(told)).report
    assert report["method"] == "ptq"
    assert report["why"] == "PTQ costs 0.50 points, 0.60 are allowed"


def test_auto_trains_on_beyond_it_and_freezes_ranges_late() -> None:
    told, observed = iter([0.95, 0.90, 0.91, 0.94]), []

    def fit(module: nn.Module, *, evaluate, on_epoch_start) -> None:
        quantizers = [one for one in module.modules() if hasattr(one, "observer_enabled")]
        for epoch in range(3):
            on_epoch_start(epoch)
            observed.append({bool(one.observer_enabled[0]) for one in quantizers})
            assert all(bool(one.fake_quant_enabled[0]) for one in quantizers)
        with torch.no_grad():
            next(module.parameters()).mul_(1.01)
        evaluate(module)

    outcome = run("auto", fit, evaluate=lambda _: next(told))
    assert observed == [{True}, {True}, {False}]
    assert not any(bool(one.observer_enabled[0]) for _, one in outcome.prepared.quantizers())
    assert outcome.report["method"] == "qat"
    assert outcome.report["why"] == "PTQ costs 5.00 points"
    assert (outcome.report["val_ptq"], outcome.report["val_qat"]) == (0.90, 0.94)


def test_a_training_that_does_not_help_leaves_the_calibrated_network() -> None:
    def fit(module: nn.Module, *, evaluate, on_epoch_start) -> None:
        on_epoch_start(0)
        module(trained()[1].tensors("train")[0][:32] * 9)  # ranges move
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(0.5)

    outcome = run("qat", fit)
    assert outcome.report["method"] == "ptq"
    assert "no better" in outcome.report["why"]
    assert outcome.report["val_qat"] < outcome.report["val_ptq"]
    assert same(state(outcome.prepared.module), state(run("ptq", never).prepared.module))


EVERYTHING = {"bias_correction": True, "equalization": True, "adaround": True}


def test_auto_climbs_rung_by_rung_and_keeps_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float, then each rung: bias correction helps, equalization does not, AdaRound is enough with the first alone."""
    monkeypatch.setattr(adaround, "STEPS", 5)
    told = iter([0.95, 0.90, 0.93, 0.92, 0.948])
    outcome = run("auto", never, allowed_drop=0.3, evaluate=lambda _: next(told), **EVERYTHING)
    report = outcome.report
    assert [(one["name"], one["val"], one["kept"]) for one in report["rungs"]] == [
        ("PTQ", 0.90, False),
        ("PTQ with bias correction", 0.93, False),
        ("PTQ with bias correction and equalization", 0.92, False),
        ("PTQ with bias correction and AdaRound", 0.948, True),
    ]
    assert report["techniques"] == ["bias correction", "AdaRound"]
    assert report["why"] == "PTQ with bias correction and AdaRound costs 0.20 points, 0.30 are allowed"
    assert (report["method"], report["val_ptq"], report["val_qat"]) == ("ptq", 0.948, None)
    assert len(outcome.seconds) == 4
    assert min(outcome.seconds) > 0
    codes = [layer.weight / layer.quantizer.scale.reshape(-1, 1, 1, 1) for layer in conv_layers(outcome.prepared)]
    assert max(float((code - code.round()).abs().max()) for code in codes) < 1e-4


def test_auto_stops_at_the_rung_that_is_enough() -> None:
    told = iter([0.95, 0.94, 0.949])
    report = run("auto", never, allowed_drop=0.3, evaluate=lambda _: next(told), **EVERYTHING).report
    assert [one["name"] for one in report["rungs"]] == ["PTQ", "PTQ with bias correction"]
    assert report["why"] == "PTQ with bias correction costs 0.10 points, 0.30 are allowed"


def test_auto_trains_from_the_best_rung() -> None:
    told = iter([0.95, 0.90, 0.91, 0.905, 0.94])
    seen = {}

    def fit(module: nn.Module, **_: Any) -> None:
        seen.update(state(module))
        with torch.no_grad():
            next(module.parameters()).mul_(1.01)

    outcome = run("auto", fit, evaluate=lambda _: next(told), bias_correction=True, equalization=True)
    assert [one["name"] for one in outcome.report["rungs"]][-1] == "QAT"
    assert outcome.report["why"] == "PTQ with bias correction costs 4.00 points"
    best = run("ptq", never, bias_correction=True).prepared
    assert same(seen, state(best.module))


def test_auto_without_epochs_says_that_nothing_is_left() -> None:
    told = iter([0.95, 0.90])
    report = run("auto", never, epochs=0, evaluate=lambda _: next(told)).report
    assert report["why"] == "PTQ costs 5.00 points, 1.00 are allowed, and the recipe allows nothing further"


def test_ptq_does_what_is_switched_on_without_looking() -> None:
    told = iter([0.95, 0.2])
    outcome = run("ptq", never, evaluate=lambda _: next(told), bias_correction=True, equalization=True)
    assert [one["name"] for one in outcome.report["rungs"]] == ["PTQ with bias correction and equalization"]
    plain = state(run("ptq", never).prepared.module)
    assert not same(state(outcome.prepared.module), plain)


def test_the_proof_sees_the_network_before_anything_is_changed() -> None:
    net, source = trained()
    x = source.tensors("train")[0][:96]
    seen = []

    def on_prepared(prepared) -> None:
        with torch.no_grad():
            seen.append(abs(prepared.run_float(x.numpy()) - net(x).numpy()).max())

    outcome = quantize(
        net,
        x.split(32),
        config=QuantizeConfig(method="ptq"),
        policy=POLICY,
        allowed_drop=1.0,
        fit=never,
        evaluate=accuracy,
        progress=NoProgress(),
        on_prepared=on_prepared,
    )
    assert seen[0] < 1e-4 < abs(outcome.prepared.run_float(x.numpy()) - net(x).detach().numpy()).max()


def conv_layers(prepared) -> list:
    return [layer for layer in layers(prepared.module) if layer.weight.dim() == 4]


def test_no_epochs_are_ptq() -> None:
    assert run("qat", never, epochs=0).report["method"] == "ptq"


def test_one_sample_a_batch() -> None:
    net, source = trained()
    x = source.tensors("train")[0][:16]
    outcome = quantize(
        net,
        x.split(1),
        config=QuantizeConfig(method="ptq"),
        policy=POLICY,
        allowed_drop=1.0,
        fit=never,
        evaluate=accuracy,
        progress=NoProgress(),
    )
    assert outcome.prepared.run_quantized(x.numpy()).shape == (16, 10)


@pytest.mark.parametrize("estimator", ["min-max", "moving-average", "percentile", "mse", "entropy"])
def test_training_goes_on_from_the_range_of_any_estimator(estimator: str) -> None:
    """With observers on, what was calibrated on moves no scale by much, and twice as much doubles it in the end."""
    net, source = trained()
    x = source.tensors("train")[0][:96]
    policy = CalibrationPolicy(estimator=estimator, averaging=0.05)  # type: ignore[arg-type]
    after: dict[str, float] = {}

    def fit(module: nn.Module, *, evaluate, on_epoch_start) -> None:
        on_epoch_start(0)
        first = module.get_submodule("activation_post_process_0")
        for name, inputs in {"before": [], "same": [x] * 40, "twice": [2 * x] * 100}.items():
            for one in inputs:
                module(one)
            after[name] = float(first.scale)
        with torch.no_grad():
            next(module.parameters()).mul_(1.01)

    told = iter([0.95, 0.90, 0.94])
    quantize(
        net,
        x.split(32),
        config=QuantizeConfig(method="qat", epochs=3),
        policy=policy,
        allowed_drop=1.0,
        fit=fit,
        evaluate=lambda _: next(told),
        progress=NoProgress(),
    )
    before, same_again, twice = (after[name] for name in ("before", "same", "twice"))
    assert same_again == pytest.approx(before, rel=0.1)
    assert twice == pytest.approx(2 * same_again, rel=0.02)


def closeness(module: nn.Module) -> float:
    """To the student's logits on the validation split; 1 where they are equal."""
    net, source = trained()
    return 1 / (1 + float(((predict(module, source, "val")[0] - predict(net, source, "val")[0]) ** 2).mean()))


@pytest.mark.parametrize("learned", [False, True])
def test_real_training(tmp_path: Path, learned: bool) -> None:
    """The loop of distill/ on the prepared graph imitates the student ever better, and the master follows."""
    from edgekd.measure.proof import onnx_run
    from edgekd.quantize import write_master

    net, source = trained()

    def fit(module: nn.Module, *, evaluate, on_epoch_start) -> Any:
        return quantization_aware(
            module,
            net,
            source,
            config=QuantizeConfig(method="qat", epochs=3, lr=1e-3, learned_scales=learned),
            distill=DistillConfig(loss="l2", alpha=1.0),
            data=DATA,
            task=TASK,
            seed=0,
            scratch=tmp_path / "scratch",
            progress=NoProgress(),
            evaluate=evaluate,
            on_epoch_start=on_epoch_start,
        )

    outcome = run("qat", fit, evaluate=closeness, learned_scales=learned)
    assert outcome.report["val_qat"] > outcome.report["val_ptq"]
    assert outcome.report["learned_scales"] is learned
    assert all(isinstance(one, LearnedScale) is learned for _, one in outcome.prepared.quantizers())
    assert closeness(outcome.prepared.module) == outcome.report["val_qat"]
    x = source.tensors("test")[0]
    master = write_master(outcome.prepared, x[:2], tmp_path)
    logits, want = onnx_run(master.path)(x.numpy()), outcome.prepared.run_quantized(x.numpy())
    assert (logits.argmax(1) == want.argmax(1)).mean() > 0.99


@pytest.mark.parametrize("learned", [False, True])
def test_a_stopped_training_goes_on_to_the_same_end(tmp_path: Path, learned: bool) -> None:
    """Ranges or learned scales come back with the checkpoint."""
    net, source = trained()

    said: list[str] = []

    class Telling(NoProgress):
        def log(self, text: str) -> None:
            said.append(text)

    def outcome(scratch: Path, stop: int | None) -> Any:
        def fit(module: nn.Module, *, evaluate, on_epoch_start) -> Any:
            def start(epoch: int) -> None:
                if epoch == stop:
                    raise KeyboardInterrupt
                on_epoch_start(epoch)

            return quantization_aware(
                module,
                net,
                source,
                config=QuantizeConfig(method="qat", epochs=3, lr=1e-3, learned_scales=learned),
                distill=DistillConfig(loss="l2", alpha=1.0),
                data=DATA,
                task=TASK,
                seed=0,
                scratch=scratch,
                progress=Telling(),
                evaluate=evaluate,
                on_epoch_start=start,
            )

        return run("qat", fit, evaluate=closeness, learned_scales=learned)

    whole = outcome(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        outcome(tmp_path / "stopped", 2)
    said.clear()
    resumed = outcome(tmp_path / "stopped", None)
    assert any("goes on after epoch 2 of 3" in text for text in said)
    assert not any("epoch 1 of 3, loss" in text for text in said)
    assert whole.report["method"] == resumed.report["method"] == "qat"
    assert same(state(whole.prepared.module), state(resumed.prepared.module))


def test_weights_that_diverge_are_told_by_the_training(tmp_path: Path) -> None:
    """The library's observers would stop with an assertion."""
    from edgekd.errors import TrainingDiverged

    net, source = trained()

    def fit(module: nn.Module, *, evaluate, on_epoch_start) -> Any:
        return quantization_aware(
            module,
            net,
            source,
            config=QuantizeConfig(method="qat", epochs=2, lr=1e38),
            distill=DistillConfig(),
            data=DATA,
            task=TASK,
            seed=0,
            scratch=tmp_path,
            progress=NoProgress(),
            evaluate=evaluate,
            on_epoch_start=on_epoch_start,
        )

    with pytest.raises(TrainingDiverged, match=r"quantization-aware training.* epoch 1, step \d+"):
        run("qat", fit)
