"""The networks of strict_nets in the forms of real targets, checked and compiled by real runtimes."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from strict_nets import master, samples

from edgekd.backends import get_backend
from edgekd.forms import CompiledModel, QuantForm
from edgekd.lower import check_lowering, lower
from edgekd.measure.proof import onnx_run
from edgekd.target import Target, load_target

TARGETS = {"onnxruntime": "onnxruntime-cpu", "openvino": "openvino-cpu", "tensorrt": "jetson-orin"}
X = 16


def target_of(backend: str) -> Target:
    """The shipped target, one thread."""
    target = load_target(TARGETS[backend])
    return target.model_copy(update={"runtime": target.runtime.model_copy(update={"threads": 1})})


@cache
def forms_of(backend: str) -> dict[str, QuantForm]:
    """What the backend offers on this machine, by name."""
    return {form.name: form for form in get_backend(backend).candidates(target_of(backend))}


@cache
def lowered(net: str, backend: str, form: str) -> Path:
    """The checked file; made once."""
    model = lower(master(net), forms_of(backend)[form], vnni=target_of(backend).has_vnni())
    check_lowering(master(net), model, forms_of(backend)[form], vnni=target_of(backend).has_vnni())
    folder = tempfile.TemporaryDirectory(prefix="edgekd-lowered-")
    _kept.append(folder)
    onnx.save(model, Path(folder.name) / "model.onnx")
    return Path(folder.name) / "model.onnx"


@cache
def compiled(net: str, backend: str, form: str) -> CompiledModel:
    """What the real runtime makes of it."""
    path = lowered(net, backend, form)
    return get_backend(backend).compile(path, target_of(backend), path.parent, form=forms_of(backend)[form])


def outputs(net: str, backend: str, form: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the master, the lowered file unoptimized, and the compiled model in its runtime."""
    x = samples(net, X, seed=7).numpy()
    session = get_backend(backend).load(compiled(net, backend, form), target_of(backend))
    return onnx_run(master(net).path)(x), onnx_run(lowered(net, backend, form))(x), session.run({"input": x})["logits"]


_kept: list[tempfile.TemporaryDirectory] = []
