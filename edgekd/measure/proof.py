"""The proof: neighbouring forms of one network on the same inputs, and the layer where they part when they do.

Hops of several kinds. *Equal*: the same real numbers, computed in another order (conversion with quantizers off): a
relative difference of a few float32 roundings. *Kernels*: the same float network in another engine, whose kernels may
compute otherwise (Winograd, fused operators). *Rounding*: the same quantized network in another engine: where a value
falls between two codes the engines may choose differently (a flip), which moves an output by a step and grows through
the layers, so it is judged by the mean. *Relaxing*: fewer or finer quantizers than before, an error no larger than
quantization's own. Both may be larger, or change more decisions, where they leave the form as near to float as the one
before it, in the mean, at the largest and in the decisions: so in a network that makes much of small differences, or
whose decisions are often close. *Changing*: the numbers are meant to change (quantizing): shown, and bounded by
accuracy elsewhere.

The layer is found from the values inside by their names: per channel, the mean difference in units of the channel's
spread. Flips have both signs and average out; a wrong scale, weight or bias moves a whole channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgekd.errors import ProofFailed
from edgekd.measure.inside import Inside, open_inside
from edgekd.runtime.machine import usable_cpus

Run = Callable[[np.ndarray], np.ndarray]
Kind = Literal["equal", "kernels", "rounding", "relaxing", "changing"]

# Largest difference over the largest output: float32 roundings of a deep network.
EQUAL = 1e-5
# The same between engines of other kernels.
KERNELS = 1e-3
# Root mean square difference over the root mean square output, and the share of samples whose decision may change;
# more where quantizing itself moved the network further.
ROUNDING, DISAGREEING = 0.05, 0.02
# The same for relaxing: a network quantized at 12 dB, below which nothing useful is left.
RELAXING = 0.25
# What a form may be farther from float than the one before it, as a part of that one's distance, in the mean and at the
# largest; in decisions it is `DISAGREEING`. In such a network both are draws of nearly the same noise: right forms came
# out farther by up to 0.15 and 0.23 (random networks of 49 convolutions). No fault hides in a good network: what moved
# by `RELAXING` is nearly as far from float, unless the form before it was 0.12 away itself (0.44 if the two differences
# are unrelated).
FARTHER_MEAN, FARTHER_LARGEST = 0.15, 0.25
# A channel's mean difference, in units of the layer's spread, beyond which the layer is at fault.
CHANNEL = 0.05
# The same where the outputs agree: rounding alone moved a channel by at most 0.034 in every network tried, the faults
# that were planted by 0.38 and more.
HIDDEN = 0.1
SAMPLES_INSIDE = 16
REPORT = "This is a fault of the conversion, not of the recipe: please report it"
BATCH = 64


@dataclass(frozen=True)
class Hop:
    """One form: ``run`` maps (N, ...) to (N, K); ``kind`` is how it relates to the hop before it."""

    name: str
    run: Run
    kind: Kind = "rounding"
    inside: Inside | None = None


@dataclass(frozen=True)
class HopResult:
    """How a hop differs from the one before: absolute, and relative to the largest output there."""

    hop: str
    kind: str
    max_abs: float | None
    max_rel: float | None
    rms_rel: float | None
    agreement: float | None
    accuracy: float
    tolerance: str
    ok: bool

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return dict(self.__dict__)


def prove(
    hops: list[Hop], samples: np.ndarray, labels: np.ndarray, *, floating: np.ndarray | None = None
) -> list[HopResult]:
    """Every hop against the one before it, on ``samples`` (N, ...) with ``labels`` (N,).

    ``floating`` (N, K) are the float network's outputs: rounding may move a form by as much as it is from them, since
    a flip is a step where quantizing was half a step at most; rounding and relaxing by more than their share where the
    form comes out as near to them as the one before it. The tolerance of the result tells by which of the two it held.

    Raises:
        ProofFailed: a difference past its tolerance, or NaN; the hop and, where both sides show their inside, the
            layer where it starts are named.
    """
    results: list[HopResult] = []
    before: tuple[Hop, np.ndarray] | None = None
    for hop in hops:
        outputs = np.concatenate([hop.run(samples[i : i + BATCH]) for i in range(0, len(samples), BATCH)])
        if before and outputs.shape != before[1].shape:
            raise ProofFailed(
                f"{hop.name} has outputs of shape {outputs.shape}, {before[0].name} of {before[1].shape}",
                where=f"hop {before[0].name} -> {hop.name}",
                remedy=REPORT,
            )
        result = _compare(hop, outputs, before[1] if before else None, labels, floating)
        results.append(result)
        if not result.ok:
            # Samples that give NaN come first, the others as they are: picked by difference they would hide a mean.
            order = np.argsort(np.isfinite(outputs).all(1), kind="stable")[:SAMPLES_INSIDE]
            raise _failed(before[0] if before else None, hop, result, samples[order])
        if before and hop.kind == "rounding" and before[0].inside and hop.inside:
            # A fault in the middle need not show in the outputs of a network that hardly uses it.
            few = samples[:SAMPLES_INSIDE]
            place = first_difference(before[0].inside(few), hop.inside(few), limit=HIDDEN)
            if place:
                raise ProofFailed(
                    f"{hop.name} differs from {before[0].name}; it starts at {place}, and the outputs hardly show it",
                    where=f"hop {before[0].name} -> {hop.name}",
                    remedy=REPORT,
                )
        before = (hop, outputs)
    return results


def first_difference(
    before: dict[str, np.ndarray], after: dict[str, np.ndarray], kind: Kind = "rounding", *, limit: float | None = None
) -> str | None:
    """The first value, in the order of ``before``, that is not as it was; None when there is none.

    Not as it was: NaN or infinite where it was not; of an equal hop, a difference beyond `EQUAL` of the largest
    value; else, a channel (axis 1) whose mean moved by more than ``limit`` (None: `CHANNEL`) of the spread. Values that
    are not on both sides in one shape are passed over.
    """
    for name, one in before.items():
        other = after.get(name)
        if other is None or other.shape != one.shape or not one.size:
            continue
        if not np.isfinite(other).all():
            if np.isfinite(one).all():
                return name
            continue
        difference = other.astype(np.float64) - one
        if kind == "equal":
            if float(np.abs(difference).max()) > EQUAL * max(float(np.abs(one).max()), 1e-12):
                return name
        elif one.ndim >= 2:
            axes = tuple(i for i in range(one.ndim) if i != 1)
            spread = float(one.std(dtype=np.float64)) or 1.0
            if float(np.abs(difference.mean(axes)).max()) / spread > (CHANNEL if limit is None else limit):
                return name
    return None


def onnx_run(model: Path) -> Run:
    """An ONNX file of one input and output run by ONNX Runtime, optimizations off: the reference that fuses nothing.

    Raises:
        Missing: ONNX Runtime is not installed.
        ProofFailed: it refuses the file.
    """
    from edgekd.backends.base import runtime_errors
    from edgekd.runtime.sessions import open_session

    with runtime_errors(str(model), proving=True):
        session = open_session(model, "onnxruntime", threads=usable_cpus(), optimize=False)
    name, output = session.inputs[0].name, session.outputs[0].name
    return lambda x: session.run({name: x})[output]


def onnx_inside(model: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """What `open_inside` shows of an ONNX file for ``x``."""
    import onnx

    return open_inside(onnx.load(model))(x)


def _compare(
    hop: Hop, outputs: np.ndarray, before: np.ndarray | None, labels: np.ndarray, floating: np.ndarray | None
) -> HopResult:
    accuracy = float((outputs.argmax(1) == labels).mean())
    finite = bool(np.isfinite(outputs).all())
    if before is None:
        return HopResult(hop.name, "start", None, None, None, None, accuracy, "", finite)
    largest = float(np.abs(outputs.astype(np.float64) - before).max())
    relative = largest / max(float(np.abs(before).max()), 1e-12)
    rms, _, changed = _distance(outputs, before)
    if hop.kind == "equal":
        ok, tolerance = relative <= EQUAL, f"largest difference at most {EQUAL:g} of the largest output"
    elif hop.kind == "kernels":
        ok, tolerance = relative <= KERNELS, f"largest difference at most {KERNELS:g} of the largest output"
    elif hop.kind == "relaxing":
        share = f"mean difference at most {100 * RELAXING:g} %"
        ok, tolerance = _or_as_near(rms <= RELAXING, share, outputs, before, floating)
    elif hop.kind == "rounding":
        own, _, own_changed = (0.0, 0.0, 0.0) if floating is None else _distance(before, floating)
        most = min(max(ROUNDING, own), RELAXING)
        allowed = max(_few(labels), own_changed)
        ok = rms <= most and changed <= allowed
        tolerance = f"mean difference at most {100 * most:.3g} %, decisions equal on {100 * (1 - allowed):.1f} %"
        ok, tolerance = _or_as_near(ok, tolerance, outputs, before, floating)
    else:
        ok, tolerance = True, "shown only: the numbers are meant to change"
    return HopResult(hop.name, hop.kind, largest, relative, rms, 1 - changed, accuracy, tolerance, ok and finite)


def _or_as_near(
    ok: bool, share: str, outputs: np.ndarray, before: np.ndarray, floating: np.ndarray | None
) -> tuple[bool, str]:
    """Whether a form holds by its ``share``, or else by its distance to float; with the tolerance by which it does.

    Both where it holds by neither.
    """
    if ok or floating is None:
        return ok, share
    mean, largest, changed = _distance(outputs, floating)
    own, own_largest, own_changed = _distance(before, floating)
    most, most_largest = (1 + FARTHER_MEAN) * own, (1 + FARTHER_LARGEST) * own_largest
    allowed = own_changed + _few(outputs)
    ok = mean <= most and largest <= most_largest and changed <= allowed
    near = (
        f"as near to float as the form before it (mean difference at most {100 * most:.3g} %: {100 * mean:.3g} %; "
        f"largest at most {100 * most_largest:.3g} % of the outputs: {100 * largest:.3g} %; "
        f"decisions equal on {100 * (1 - allowed):.1f} %: {100 * (1 - changed):.1f} %)"
    )
    return ok, near if ok else f"{share}, or {near}"


def _few(samples: np.ndarray) -> float:
    """The share of decisions that rounding may change; in a small sample one is already more than `DISAGREEING`."""
    return max(DISAGREEING, 1.5 / len(samples))


def _distance(outputs: np.ndarray, reference: np.ndarray) -> tuple[float, float, float]:
    """Root mean square difference over the reference's, largest over the largest, and the share of other decisions."""
    difference = outputs.astype(np.float64) - reference
    rms = float(np.sqrt(np.square(difference).mean()) / max(np.sqrt(np.square(reference).mean()), 1e-12))
    largest = float(np.abs(difference).max()) / max(float(np.abs(reference).max()), 1e-12)
    return rms, largest, float((outputs.argmax(1) != reference.argmax(1)).mean())


def _failed(before: Hop | None, hop: Hop, result: HopResult, samples: np.ndarray) -> ProofFailed:
    if before is None:
        return ProofFailed(
            f"{hop.name} gives NaN or infinite outputs",
            where=f"hop {hop.name}",
            remedy="the weights or the samples are not finite, or too large: train it anew",
        )
    fault = (
        f"differs from {before.name}: largest {result.max_rel:.2%} of the outputs, mean {result.rms_rel:.2%}, "
        f"decisions equal on {result.agreement:.1%}"
    )
    if not math.isfinite(result.rms_rel or 0.0):
        fault = f"gives NaN or infinite outputs where {before.name} does not"
    layer = "its values inside are not known by name"
    if before.inside is not None and hop.inside is not None:
        place = first_difference(before.inside(samples), hop.inside(samples), hop.kind)
        layer = f"it starts at {place}" if place else "no single value inside is at fault"
    return ProofFailed(
        f"{hop.name} {fault}; {layer}",
        where=f"hop {before.name} -> {hop.name}",
        remedy=f"allowed: {result.tolerance}. {REPORT}",
    )
