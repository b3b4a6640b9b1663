"""The drift of one candidate: from the float network through the master and its own file to the compiled model."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.backends import Backend
from edgekd.errors import EdgekdError, ProofFailed
from edgekd.forms import CompiledModel, Master, QuantForm
from edgekd.measure.drift import Drift, Form, FormDrift, measure_drift, spread
from edgekd.measure.inside import Inside, open_inside, untapped, with_taps
from edgekd.measure.proof import Kind
from edgekd.measure.worst import WorstInputs
from edgekd.runtime.machine import usable_cpus
from edgekd.runtime.sessions import Session, open_session
from edgekd.runtime.spec import load_arrays
from edgekd.target import Target

TAPPED = "tapped"


def drift_of(
    backend: Backend, target: Target, folder: Path, form: QuantForm, compiled: CompiledModel, scratch: Path
) -> Drift:
    """How far each form is from the float one, on some proof samples of the quantize stage's ``folder``.

    The float network of an integer form is its master without quantizers (the same values by the same names), with the
    weights and biases from before rounding changed them, unless training did. A compiled model shows its outputs
    alone; where they part, it is compiled anew in ``scratch``, with taps, to find the layer.
    """
    import onnx

    stored = load_arrays(folder / "proof_samples.npz")
    chosen = spread(stored["samples"])
    samples, student = stored["samples"][chosen], stored["outputs"][chosen]
    network, lowered = _float_network(folder, form), onnx.load(compiled.onnx)
    forms = [Form("lowered", _lowering(form), open_inside(lowered))]
    if form.integer:
        forms.insert(0, Form("master", "changing", open_inside(onnx.load(folder / "master.onnx"))))
    if target.is_here():
        session = backend.load(compiled, target)
        forms.append(Form("compiled", compiling(form, compiled), _outputs(session)))
    drift = measure_drift(network, forms, samples, student=student)
    last = drift.forms[-1]
    if last.form.name != "compiled" or not last.parted or not form.integer:
        return drift
    with tempfile.TemporaryDirectory(dir=scratch) as place:
        try:
            found = _tapped(backend, target, network, form, compiled, lowered, Path(place), samples)
        except EdgekdError as error:
            told = replace(last, form=replace(last.form, note=f"its inside cannot be seen: {error.what}"))
            return replace(drift, forms=(*drift.forms[:-1], told))
    return replace(drift, forms=(*drift.forms, found))


def compiling(form: QuantForm, compiled: CompiledModel) -> Kind:
    """What compiling does to a file's numbers.

    A float32 file need not be computed in float32: ``runtime.inference_precision`` may ask for less.
    """
    exact = form.exact and compiled.meta["inference_precision"] == "f32"
    return "kernels" if exact else "rounding"


def with_layer(error: ProofFailed, drift: Drift) -> ProofFailed:
    """The failed proof, told with the layer where the forms part."""
    return ProofFailed(f"{error.what}; by layer: {drift.words()}", where=error.where, remedy=error.remedy)


def save_worst(worst: WorstInputs, indices: np.ndarray, form: str, out: Path) -> dict[str, Any]:
    """Write the worst inputs into the folder ``out``, which is made, and tell of them; no folder where there are none.

    ``indices`` (k,) are the samples' places in the test split. Written are index.npy (k,) int64, input.npy (k, ...),
    and the outputs float.npy and output.npy (k, K), the latter of ``form``.
    """
    arrays = {"index": indices.astype(np.int64), "input": worst.inputs, "float": worst.wanted, "output": worst.got}
    if len(indices):
        out.mkdir()
        for name, array in arrays.items():
            np.save(out / f"{name}.npy", array, allow_pickle=False)
    rows = [
        {
            "index": int(index),
            "difference": round(float(difference), 6) if np.isfinite(difference) else None,
            "float": int(wanted.argmax()),
            "output": int(got.argmax()),
        }
        for index, difference, wanted, got in zip(indices, worst.differences, worst.wanted, worst.got, strict=True)
    ]
    return {"form": form, "samples": rows}


def _lowering(form: QuantForm) -> Kind:
    """What lowering does to the float network's numbers, or to the master's."""
    if form.exact:
        return "equal"
    if form.integer:
        return "relaxing"
    return "changing" if form.weights == "int8" else "rounding"


def _float_network(folder: Path, form: QuantForm) -> Any:
    import onnx

    # Here, and not above: what measures a bundle imports this package without the part that builds.
    from edgekd.lower import lower

    if not form.integer:
        return onnx.load(folder / "float.onnx")
    floats = replace(form, float_groups=frozenset({"all"}), float_type="fp32", weights="float")
    network, changed = lower(Master.load(folder), floats), folder / "float_weights.npz"
    if changed.exists():
        with np.load(changed) as weights:
            for tensor in network.graph.initializer:
                if tensor.name in weights.files:
                    tensor.CopyFrom(onnx.numpy_helper.from_array(weights[tensor.name], tensor.name))
    return network


def _tapped(
    backend: Backend,
    target: Target,
    network: Any,
    form: QuantForm,
    compiled: CompiledModel,
    lowered: Any,
    place: Path,
    samples: np.ndarray,
) -> FormDrift:
    """The compiled model as it looks inside: its sites, against those of the same file without optimizations."""
    import onnx

    path = place / "model.onnx"
    onnx.save(with_taps(lowered), path)
    made = backend.compile(path, target, place, form=form)
    integers = [sum(layer.integer for layer in backend.coverage(one, target)) for one in (made, compiled)]
    note = (
        "the same file compiled with the values behind its quantizers as outputs, which may fuse less: "
        f"{integers[0]} layers run in integers, {integers[1]} in the model that ships"
    )
    plain = open_session(path, "onnxruntime", threads=usable_cpus(), optimize=False)
    shown = [
        Form("lowered", "relaxing", _outputs(plain)),
        Form(TAPPED, "rounding", _outputs(backend.load(made, target)), note),
    ]
    return measure_drift(network, shown, samples).forms[-1]


def _outputs(session: Session) -> Inside:
    """What a session shows; taps by the names of what they tap."""
    return lambda x: untapped(session.run({session.inputs[0].name: x}))
