"""From float to quantized by one path: calibrate (PTQ), then train on when asked or needed (QAT)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from edgekd.quantize.prepared import Prepared, prepare
from edgekd.recipe import QuantizeConfig
from edgekd.stage import Progress
from edgekd.target import CalibrationPolicy

# The share of the epochs in which ranges still move; afterwards the weights settle on fixed grids (Krishnamoorthi,
# "Quantizing deep convolutional networks for efficient inference", 2018).
MOVING_SHARE = 2 / 3


class Fit(Protocol):
    """Training as the pipeline hands it in: leaves the best weights in ``module``."""

    def __call__(
        self, module: nn.Module, *, evaluate: Callable[[nn.Module], float], on_epoch_start: Callable[[int], None]
    ) -> Any: ...


@dataclass(frozen=True)
class Outcome:
    """The quantized network, and how far up the ladder it went and why (JSON-ready)."""

    prepared: Prepared
    report: dict[str, Any]


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
    on_prepared: Callable[[Prepared], None] = lambda prepared: None,
) -> Outcome:
    """Quantize ``student`` (left as it is); ``evaluate`` gives a metric in [0, 1] on the validation split.

    ``batches`` of calibration samples, (B, ...) float32 each, can be gone through more than once.
    ``on_prepared`` is called before any weight is trained: there the network must still equal the student.

    ``method: auto`` trains on only when PTQ costs more than ``allowed_drop`` points, and keeps the better of the two.
    """
    # Two samples, since torch.export takes a batch of one for a constant.
    first = next(iter(batches))
    prepared = prepare(copy.deepcopy(student), torch.cat([first[:1], first[-1:]]), policy=policy)
    on_prepared(prepared)
    prepared.calibrate(batches)

    def evaluate_frozen(module: nn.Module) -> float:
        with prepared.frozen():
            return evaluate(module)

    float_metric = evaluate(student)
    ptq_metric = evaluate_frozen(prepared.module)
    drop = 100 * (float_metric - ptq_metric)
    report: dict[str, Any] = {
        "method": "ptq",
        "val_float": float_metric,
        "val_ptq": ptq_metric,
        "val_qat": None,
        "allowed_drop": allowed_drop,
    }
    progress.log(f"  PTQ: validation {100 * ptq_metric:.2f} %, float {100 * float_metric:.2f} %")
    if config.method == "ptq" or config.epochs == 0:
        return Outcome(prepared, report | {"why": "the recipe asks for PTQ"})
    if config.method == "auto" and drop <= allowed_drop:
        return Outcome(prepared, report | {"why": f"PTQ costs {drop:.2f} points, {allowed_drop:.2f} are allowed"})

    calibrated = copy.deepcopy(prepared.module.state_dict())
    moving = math.ceil(MOVING_SHARE * config.epochs)
    fit(prepared.module, evaluate=evaluate_frozen, on_epoch_start=lambda epoch: prepared.observe(epoch < moving))
    prepared.observe(False)
    qat_metric = evaluate_frozen(prepared.module)
    report["val_qat"] = qat_metric
    trained = prepared.module.state_dict()
    if qat_metric < ptq_metric or all(torch.equal(value, trained[name]) for name, value in calibrated.items()):
        prepared.module.load_state_dict(calibrated)
        return Outcome(prepared, report | {"why": "QAT was tried and is no better than PTQ on the validation split"})
    why = "the recipe asks for QAT" if config.method == "qat" else f"PTQ costs {drop:.2f} points"
    return Outcome(prepared, report | {"method": "qat", "why": why})
