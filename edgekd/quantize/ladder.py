"""From float to quantized by one path, climbed only as far as asked or needed.

Calibration alone (PTQ), then with bias correction, equalization and AdaRound, then training on (QAT).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from edgekd.quantize.learned import learn_scales
from edgekd.quantize.post_training import PostTraining, Techniques, prepared_student
from edgekd.quantize.prepared import Prepared
from edgekd.quantize.written import Numbers, Written
from edgekd.recipe import QuantizeConfig
from edgekd.stage import Progress
from edgekd.target import CalibrationPolicy

# The share of the epochs in which ranges still move; afterwards the weights settle on fixed grids (Krishnamoorthi,
# "Quantizing deep convolutional networks for efficient inference", 2018).
MOVING_SHARE = 2 / 3
# From the cheapest on.
ORDER = ("bias_correction", "equalization", "adaround")
WORDS = {"bias_correction": "bias correction", "equalization": "equalization", "adaround": "AdaRound"}


class Fit(Protocol):
    """Training as the pipeline hands it in: leaves the best weights in ``module``."""

    def __call__(
        self, module: nn.Module, *, evaluate: Callable[[nn.Module], float], on_epoch_start: Callable[[int], None]
    ) -> Any: ...


@dataclass(frozen=True)
class Outcome:
    """The quantized network, and how far up the ladder it went and why (JSON-ready).

    ``seconds``: how long each of the report's rungs took, which no two builds share. ``floating``: the float network
    of the same graph, before biases were corrected or weights put on their grid; None after training, whose own weights
    are the float ones.
    """

    prepared: Prepared
    report: dict[str, Any]
    seconds: list[float]
    floating: Prepared | None


def quantize(
    student: nn.Module,
    batches: Iterable[Tensor],
    *,
    config: QuantizeConfig,
    policy: CalibrationPolicy,
    allowed_drop: float,
    fit: Fit,
    evaluate: Callable[[nn.Module], float],
    progress: Progress,
    numbers: Numbers | None = None,
    on_prepared: Callable[[Prepared], None] = lambda prepared: None,
) -> Outcome:
    """Quantize ``student`` (left as it is); ``evaluate`` gives a metric in [0, 1] on the validation split.

    ``batches`` of calibration samples, (B, ...) float32 each, can be gone through more than once. ``numbers`` gives the
    activations of what is evaluated (`edgekd.quantize.written`), and the grids for which calibration searches ranges;
    None: the master's own. Training sees the master's.
    ``on_prepared`` is called before anything is changed: there the network must still equal the student.

    ``method: auto`` tries the next rung only while the best one costs more than ``allowed_drop`` points, each upon the
    best so far, and keeps the best. ``ptq`` and ``qat`` do what is switched on without looking, and ``qat`` trains on
    from there, but never keeps what is worse than before.
    """
    untouched = prepared_student(student, batches, policy)
    on_prepared(untouched)
    wanted = [name for name in ORDER if getattr(config, name)]
    written = Written(untouched, batches, numbers) if numbers is not None else None
    post_training = PostTraining(untouched, batches, written.steps() if written else None)
    judged = written or _own_module
    climb = _Climb(evaluate(student), allowed_drop, lambda prepared: evaluate(judged(prepared)), progress)
    if config.method == "auto":
        climb.calibrated(post_training, Techniques())
        for name in wanted:
            if climb.drop > allowed_drop:
                climb.calibrated(post_training, replace(climb.best.techniques, **{name: True}))
    else:
        climb.calibrated(post_training, Techniques(**dict.fromkeys(wanted, True)))
    before = climb.best
    if config.method == "qat" or (config.method == "auto" and climb.drop > allowed_drop):
        climb.trained(fit, config)
    floating = None if climb.best.training else post_training.floating(climb.best.techniques)
    seconds = [round(one.seconds, 3) for one in climb.rungs]
    return Outcome(climb.prepared, climb.report(config, before), seconds, floating)


@dataclass(frozen=True)
class _Rung:
    techniques: Techniques
    training: str
    metric: float
    seconds: float

    @property
    def label(self) -> str:
        """Such as "PTQ with bias correction"."""
        what = [WORDS[name] for name in ORDER if getattr(self.techniques, name)]
        return self.training or (f"PTQ with {' and '.join(what)}" if what else "PTQ")


class _Climb:
    """The rungs tried, and the best of them."""

    def __init__(
        self,
        float_metric: float,
        allowed_drop: float,
        evaluate: Callable[[Prepared], float],
        progress: Progress,
    ) -> None:
        self.float_metric, self.allowed_drop = float_metric, allowed_drop
        self.evaluate, self.progress = evaluate, progress
        self.rungs: list[_Rung] = []
        self.best: _Rung
        self.prepared: Prepared

    @property
    def drop(self) -> float:
        """What the best rung costs, in points."""
        return 100 * (self.float_metric - self.best.metric)

    def calibrated(self, post_training: PostTraining, techniques: Techniques) -> None:
        """Try a rung without training; of equals the lower one is the best."""
        begin = time.perf_counter()
        prepared = post_training.build(techniques)
        metric = self._evaluate_frozen(prepared)
        rung = _Rung(techniques, "", metric, time.perf_counter() - begin)
        self._tried(rung, prepared, better=not self.rungs or metric > self.best.metric)

    def trained(self, fit: Fit, config: QuantizeConfig) -> None:
        """Train on from the best rung; of equals the trained one is the best, unless training changed nothing."""
        if config.epochs == 0:
            return
        begin = time.perf_counter()
        prepared = self.prepared.copy()
        if config.learned_scales:
            learn_scales(prepared)
        start = copy.deepcopy(prepared.module.state_dict())
        moving = math.ceil(MOVING_SHARE * config.epochs)
        fit(
            prepared.module,
            evaluate=lambda module: self._evaluate_frozen(prepared),
            on_epoch_start=lambda epoch: prepared.observe(epoch < moving),
        )
        prepared.observe(False)
        metric, trained = self._evaluate_frozen(prepared), prepared.module.state_dict()
        changed = any(not torch.equal(value, trained[name]) for name, value in start.items())
        training = "QAT with learned scales" if config.learned_scales else "QAT"
        rung = _Rung(self.best.techniques, training, metric, time.perf_counter() - begin)
        self._tried(rung, prepared, better=changed and metric >= self.best.metric)

    def report(self, config: QuantizeConfig, before: _Rung) -> dict[str, Any]:
        """JSON-ready; ``before`` is the best rung without training."""
        training = next((one for one in self.rungs if one.training), None)
        return {
            "method": "qat" if self.best.training else "ptq",
            "techniques": [WORDS[name] for name in ORDER if getattr(self.best.techniques, name)],
            "learned_scales": bool(self.best.training) and config.learned_scales,
            "why": self._why(config, before),
            "val_float": self.float_metric,
            "val_ptq": before.metric,
            "val_qat": training.metric if training else None,
            "allowed_drop": self.allowed_drop,
            "rungs": [{"name": one.label, "val": one.metric, "kept": one is self.best} for one in self.rungs],
        }

    def _why(self, config: QuantizeConfig, before: _Rung) -> str:
        cost = 100 * (self.float_metric - before.metric)
        if config.method == "ptq" or (config.method == "qat" and config.epochs == 0):
            return "the recipe asks for PTQ"
        if self.rungs[-1].training:
            if not self.best.training:
                return "QAT was tried and is no better than PTQ on the validation split"
            return "the recipe asks for QAT" if config.method == "qat" else f"{before.label} costs {cost:.2f} points"
        told = f"{before.label} costs {cost:.2f} points, {self.allowed_drop:.2f} are allowed"
        return told if cost <= self.allowed_drop else f"{told}, and the recipe allows nothing further"

    def _tried(self, rung: _Rung, prepared: Prepared, *, better: bool) -> None:
        self.rungs.append(rung)
        if better:
            self.best, self.prepared = rung, prepared
        told = f"validation {100 * rung.metric:.2f} %, float {100 * self.float_metric:.2f} %"
        self.progress.log(f"  {rung.label}: {told}, {rung.seconds:.1f} s{'' if better else ', not kept'}")

    def _evaluate_frozen(self, prepared: Prepared) -> float:
        with prepared.frozen():
            return self.evaluate(prepared)


def _own_module(prepared: Prepared) -> nn.Module:
    return prepared.module
