"""The master: the quantized network as ONNX with every site and float weights, and the table of its sites."""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnxscript.optimizer import fold_constants
from torch import Tensor, nn

from edgekd.errors import BadModel
from edgekd.forms import Master, Site
from edgekd.quantize.branches import merge_branches
from edgekd.quantize.functional import out_of_place
from edgekd.quantize.names import BATCH, INPUT, OUTPUT, original_names, rename_values
from edgekd.quantize.normalize import normalize, turned_weights
from edgekd.quantize.prepared import Prepared
from edgekd.quantize.rewrite import drop_idle
from edgekd.quantize.signs import floors, nonnegative_values, signed_by_concatenation
from edgekd.quantize.tracing import export, no_onnx_form
from edgekd.quantize.weighted import layers

# The newest opset that TensorRT 10.3 (JetPack 6) takes.
OPSET = 20


def write_master(prepared: Prepared, example: Tensor, out: Path) -> Master:
    """Write ``master.onnx`` and ``sites.json`` into ``out``: input (batch, ...), output logits (batch, classes)."""
    converted = prepared.converted()
    program = _to_onnx(export(converted, example))
    model = program.model_proto
    rename_values(model, original_names(program.exported_program.graph, converted.graph))
    model = normalize(model)
    nonnegative = nonnegative_values(model)
    least = floors(model)
    nonnegative -= signed_by_concatenation(model, nonnegative)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    sites = []
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants:
            sign = "nonnegative" if node.input[0] in nonnegative else "signed"
            scale = float(numpy_helper.to_array(constants[node.input[1]]))
            floor = least.get(node.input[0]) if sign == "signed" else None
            sites.append(Site(node.input[0], sign, scale, floor=floor))  # type: ignore[arg-type]
    _write(model, out / "master.onnx", role="master")
    master = Master(out / "master.onnx", tuple(sites))
    master.save_table(out / "sites.json")
    return master


def rehearse_master(prepared: Prepared, example: Tensor) -> tuple[Site, ...]:
    """Write a master of ``prepared``, which is not calibrated, and throw it away: what fails there fails now.

    Weights get their own ranges; those of what flows between layers do not matter here. Returned are its sites, whose
    scales mean nothing.
    """
    for layer in layers(prepared.module):
        if layer.quantizer is not None:
            layer.quantizer(layer.weight)
    with tempfile.TemporaryDirectory() as folder:
        return write_master(prepared, example, Path(folder)).sites


def write_float_weights(master: Path, prepared: Prepared, floating: Prepared, path: Path) -> None:
    """Write as ``.npz`` what the float network has for each constant of ``master`` that differs, by name.

    Laid out as in ``master``, which was written of ``prepared``; ``floating`` is the same graph before rounding changed
    weights and biases. A bias that correction gave to a layer of its own is there the one that the layer
    shared with others, or 0.
    """
    before = {name: value.detach().numpy() for name, value in floating.module.named_parameters()}
    biases = {layer.node.name: layer.bias for layer in layers(floating.module)}
    for layer in layers(prepared.module):
        bias = biases[layer.node.name]
        if layer.bias_name is not None and bias is not None:
            before[layer.bias_name] = bias.numpy()
    after = {name for name, _ in prepared.module.named_parameters()}
    found = {}
    graph = onnx.load(master).graph
    turned = turned_weights(graph)
    for tensor in graph.initializer:
        if tensor.name in after:
            value = numpy_helper.to_array(tensor)
            wanted = before.get(tensor.name, np.zeros_like(value))
            if tensor.name in turned:
                wanted = np.ascontiguousarray(wanted.T)
            assert wanted.shape == value.shape, tensor.name
            # Holding weights within their codes moves some by a float32 rounding.
            if not np.allclose(wanted, value, rtol=1e-6, atol=0):
                found[tensor.name] = wanted
    np.savez(path, **found)


def export_float(student: nn.Module, example: Tensor, path: Path, *, merge: bool = True) -> None:
    """Write the float network with the same input and output names; ``merge``: linear branches become one kernel."""
    student.eval()
    program = _to_onnx(_one_kernel_exported(student, example) if merge else export(student, example))
    # What is computed from weights alone, however large they are: backends want constants.
    fold_constants(program.model, input_size_limit=sys.maxsize, output_size_limit=sys.maxsize)
    _write(normalize(program.model_proto), path, role="float")


def _one_kernel_exported(student: nn.Module, example: Tensor) -> Any:
    exported = export(student, example)
    graph = exported.module()
    try:
        out_of_place(graph)
    except BadModel:  # integers refuse what writes into shared memory; floats need not
        return exported
    drop_idle(graph)
    return export(graph, example) if merge_branches(graph, rounded=False) else exported


def _to_onnx(exported: Any) -> Any:
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), torch.no_grad():
            return torch.onnx.export(
                exported,
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim(BATCH)},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise no_onnx_form(error, exported) from error


def _write(model: onnx.ModelProto, path: Path, *, role: str) -> None:
    for key, value in {"edgekd.role": role, "edgekd.input": INPUT, "edgekd.output": OUTPUT}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    model.producer_name = "edgekd"
    onnx.checker.check_model(model, full_check=True)
    # Infinite numbers are masks.
    assert not any(np.isnan(numpy_helper.to_array(t)).any() for t in model.graph.initializer if t.data_type == 1)
    onnx.save(model, path)
