"""Networks that make much of small differences: lowering's finer codes move them far, and nearer to float."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from test_make_candidates import made, write
from torch import nn

from edgekd.backends import get_backend
from edgekd.errors import ProofFailed
from edgekd.measure.proof import RELAXING, onnx_run
from edgekd.pipeline import candidates
from edgekd.stage import NoProgress
from edgekd.target import load_target


def differences(level: float) -> nn.Module:
    """A head that weighs the differences of channels around ``level``, whose codes are as coarse as it is high."""
    torch.manual_seed(0)
    conv, head = nn.Conv2d(1, 16, 3), nn.Linear(16 * 36, 5)
    with torch.no_grad():
        conv.weight.mul_(3)
        conv.bias.add_(level)
        head.weight.sub_(head.weight.mean(1, keepdim=True))
    return nn.Sequential(conv, nn.ReLU(), nn.Flatten(), head).eval()


def deep() -> nn.Module:
    """40 layers that each make much of small differences: a step in the first is other noise in the last."""
    torch.manual_seed(0)
    body: list[nn.Module] = []
    for index in range(40):
        conv = nn.Conv2d(16 if index else 1, 16, 3, padding=1)
        with torch.no_grad():
            conv.weight.mul_(2.4)
            if index:
                conv.weight.sub_(conv.weight.mean((1, 2, 3), keepdim=True))
            conv.bias.fill_(2)
        body += [conv, nn.ReLU()]
    head = nn.Linear(16 * 64, 5)
    with torch.no_grad():
        head.weight.sub_(head.weight.mean(1, keepdim=True))
    return nn.Sequential(*body, nn.Flatten(), head).eval()


def compute_wrong(monkeypatch: pytest.MonkeyPatch, layer: str, factor: float) -> None:
    """ONNX Runtime takes the scales of a layer's weights for others than its file holds."""
    backend = type(get_backend("onnxruntime"))
    real = backend.load

    def load(self, compiled, target):
        model = onnx.load(compiled.path)
        for tensor in model.graph.initializer:
            if tensor.name == f"{layer}.weight_scale":
                value = numpy_helper.to_array(tensor)
                tensor.CopyFrom(numpy_helper.from_array(value * value.dtype.type(factor), tensor.name))
        wrong = compiled.path.with_name("wrong.onnx")
        onnx.save(model, wrong)
        return real(self, replace(compiled, path=wrong), target)

    monkeypatch.setattr(backend, "load", load)


def plant(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """All scales of the convolution's weights are wrong in what is lowered."""
    real = candidates.lowered

    def wrong(*args, **kwargs):
        model = real(*args, **kwargs)
        for tensor in model.graph.initializer:
            if tensor.name == "0.weight_scale":
                value = numpy_helper.to_array(tensor)
                tensor.CopyFrom(numpy_helper.from_array(value * value.dtype.type(factor), tensor.name))
        return model

    monkeypatch.setattr(candidates, "lowered", wrong)


@pytest.mark.parametrize("name", ["onnxruntime-cpu", "openvino-cpu", "jetson"])
def test_a_form_that_is_nearer_to_float_than_its_master_holds(tmp_path: Path, one_thread, name: str) -> None:
    write(tmp_path, differences(300))
    one = made(name, tmp_path, tmp_path / "out")[0]["int8"]
    stored = np.load(tmp_path / "proof_samples.npz")
    samples, floating = stored["samples"], stored["outputs"]
    master, lowered = (onnx_run(path)(samples) for path in (tmp_path / "master.onnx", one.compiled.onnx))
    assert np.abs(lowered - floating).mean() < np.abs(master - floating).mean()
    hop = one.row["proof"][1]
    assert hop["kind"] == "relaxing"
    assert hop["rms_rel"] > RELAXING
    assert hop["tolerance"].startswith("as near to float as the form before it (mean difference at most ")


@pytest.mark.parametrize(("level", "factor"), [(0, 1.4), (20, 1.4), (300, 3)])
@pytest.mark.parametrize("name", ["onnxruntime-cpu", "openvino-cpu", "jetson"])
def test_a_wrong_scale_is_refused_whatever_the_master(
    tmp_path: Path, one_thread, monkeypatch, name: str, level: float, factor: float
) -> None:
    write(tmp_path, differences(level))
    plant(monkeypatch, factor)
    with pytest.raises(ProofFailed, match="lowered differs from master") as error:
        made(name, tmp_path, tmp_path / "out")
    assert "allowed: mean difference at most 25 %, or as near to float as the form before it" in error.value.remedy


@pytest.mark.slow
def test_a_compiled_form_that_is_as_near_to_float_as_its_file_holds(tmp_path: Path, one_thread, monkeypatch) -> None:
    """And a runtime that computes one layer of the same network wrongly is refused."""
    write(tmp_path, deep())
    target = load_target("onnxruntime-cpu")
    backend = get_backend(target.backend)

    def first(out: str) -> candidates.Made | None:
        maker = candidates.CandidateMaker(backend, target, tmp_path, tmp_path / out, NoProgress())
        return maker.add(backend.candidates(target)[0], needed=True)

    one = first("out")
    assert one is not None
    hop = one.row["proof"][2]
    assert (hop["kind"], hop["ok"]) == ("rounding", True)
    # On a CPU whose kernels round like the reference it is nearer.
    assert (hop["rms_rel"] > RELAXING) == hop["tolerance"].startswith("as near to float as the form before it (mean ")
    compute_wrong(monkeypatch, "38", 1.4)
    with pytest.raises(ProofFailed, match="compiled differs from lowered") as error:
        first("wrong")
    assert ", or as near to float as the form before it" in error.value.remedy


@pytest.mark.parametrize("level", [0, 20, 300])
def test_a_runtime_that_computes_wrong_numbers_is_refused(
    tmp_path: Path, one_thread, monkeypatch, level: float
) -> None:
    write(tmp_path, differences(level))
    compute_wrong(monkeypatch, "0", 1.4)
    with pytest.raises(ProofFailed, match="compiled differs from lowered"):
        made("onnxruntime-cpu", tmp_path, tmp_path / "out")
