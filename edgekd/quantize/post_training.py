"""Quantization without training: calibration, and what may come before and after it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from edgekd.quantize.adaround import learn_rounding
from edgekd.quantize.bias import correct_biases
from edgekd.quantize.clipping import Steps
from edgekd.quantize.equalize import equalize
from edgekd.quantize.prepared import Prepared, prepare
from edgekd.target import CalibrationPolicy


def calibrated(
    student: nn.Module,
    batches: Iterable[Tensor],
    policy: CalibrationPolicy,
    *,
    bias_correction: bool = False,
    equalization: bool = False,
    adaround: bool = False,
) -> Prepared:
    """``student`` (left as it is) with quantizers calibrated on samples without labels.

    ``batches``, (B, ...) float32 each, are gone through once or a few times.

    Raises:
        BadModel, BadData: as `prepare` and `Prepared.calibrate`.
        ProofFailed: as `equalize`.
    """
    made = PostTraining(prepared_student(student, batches, policy), batches)
    return made.build(Techniques(equalization, adaround, bias_correction))


def prepared_student(student: nn.Module, batches: Iterable[Tensor], policy: CalibrationPolicy) -> Prepared:
    """A prepared copy of ``student``, not calibrated."""
    # Two samples, since torch.export takes a batch of one for a constant.
    first = next(iter(batches))
    return prepare(copy.deepcopy(student), torch.cat([first[:1], first[-1:]]), policy=policy)


@dataclass(frozen=True)
class Techniques:
    """What is done besides calibration."""

    equalization: bool = False
    adaround: bool = False
    bias_correction: bool = False


@dataclass
class PostTraining:
    """Makes calibrated networks of one ``untouched`` one, which stays as it is; what they share is computed once.

    ``steps`` as `Prepared.calibrate` takes them.
    """

    untouched: Prepared
    batches: Iterable[Tensor]
    steps: Mapping[str, Steps] | None = None
    _grounds: dict[bool, tuple[Prepared, Prepared]] = field(default_factory=dict)

    def build(self, techniques: Techniques) -> Prepared:
        """A network of its own."""
        reference, ground = self._ground(techniques.equalization)
        prepared = ground.copy()
        if techniques.adaround:
            learn_rounding(prepared, reference, self.batches)
        if techniques.bias_correction:
            correct_biases(prepared, reference, self.batches)
        return prepared

    def floating(self, techniques: Techniques) -> Prepared:
        """The float network that `build` starts from, of the same graph and names; leave it as it is."""
        return self._ground(techniques.equalization)[0]

    def _ground(self, equalization: bool) -> tuple[Prepared, Prepared]:
        """The float network, and the same calibrated."""
        if equalization not in self._grounds:
            reference = self.untouched
            if equalization:
                reference = self.untouched.copy()
                equalize(reference, self.batches)
            ground = reference.copy()
            ground.calibrate(self.batches, self.steps)
            self._grounds[equalization] = reference, ground
        return self._grounds[equalization]
