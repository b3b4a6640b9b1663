"""Golden points of a bundle: raw samples, the model's input and its outputs, with honest tolerances."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgekd.errors import BadInput
from edgekd.runtime import preprocess
from edgekd.runtime.sessions import Session

Run = Callable[[np.ndarray], Mapping[str, np.ndarray]]
INPUT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Tolerance:
    """How an output is compared, see `edgekd.runtime.golden.compare`; ``value`` bounds "max_abs" and "relative"."""

    kind: Literal["exact", "max_abs", "relative", "top1"]
    value: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return {"kind": self.kind, "value": self.value}


@dataclass(frozen=True)
class GoldenOutput:
    """One output for all golden samples, (N, ...), and how it is compared."""

    values: np.ndarray
    tolerance: Tolerance


@dataclass(frozen=True)
class Golden:
    """Three points: ``raw`` samples (shapes may differ), ``input`` (N, ...) float32, ``outputs`` by name."""

    raw: tuple[np.ndarray, ...]
    input: np.ndarray
    outputs: Mapping[str, GoldenOutput]
    input_tolerance: float = INPUT_TOLERANCE


def make_golden(
    raw: Sequence[np.ndarray],
    spec: Mapping[str, Any],
    run: Session | Run,
    tolerances: Mapping[str, Tolerance],
) -> Golden:
    """Golden points of raw samples, through the preprocessing ``spec`` and a model, one sample at a time.

    ``run`` is a session, or a function from a batch to outputs by name; ``tolerances`` names the outputs that are
    kept.

    Raises:
        BadInput: no samples, a sample that does not fit, or outputs that are not finite or not there.
    """
    if not len(raw):
        raise BadInput("a bundle needs at least one golden sample")
    try:
        made = [preprocess.apply(dict(spec), np.asarray(sample)) for sample in raw]
    except preprocess.PreprocessError as error:
        raise BadInput(f"a golden sample does not fit the preprocessing: {error}") from error
    if len({x.shape for x in made}) > 1:
        raise BadInput("golden samples become inputs of different shapes", remedy="add a resize or a crop")
    batch = np.stack(made)
    return Golden(tuple(np.asarray(sample) for sample in raw), batch, golden_outputs(run, batch, tolerances))


def golden_outputs(
    run: Session | Run, batch: np.ndarray, tolerances: Mapping[str, Tolerance]
) -> dict[str, GoldenOutput]:
    """Outputs of one more candidate for golden inputs (N, ...), run one sample at a time as devices do.

    Raises:
        BadInput: an output is not finite or not there.
    """
    parts = [_outputs(run, batch[i : i + 1]) for i in range(len(batch))]
    found = {}
    for name, tolerance in tolerances.items():
        if name not in parts[0]:
            raise BadInput(f"the model has no output {name!r}; it has {', '.join(parts[0])}")
        values = np.concatenate([part[name] for part in parts])
        if not np.isfinite(values).all():
            raise BadInput(f"output {name!r} of a golden sample is NaN or infinite")
        found[name] = GoldenOutput(values, tolerance)
    return found


def _outputs(run: Session | Run, batch: np.ndarray) -> Mapping[str, np.ndarray]:
    if callable(run):
        return run(batch)
    return run.run({run.inputs[0].name: batch})
