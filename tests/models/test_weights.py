"""Weights are data: nothing in a file is ever run, and what does not fit is named."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from user_models import Tied

from edgekd.errors import BadModel
from edgekd.models import build_model, load_weights, save_weights


def make(classes: int = 10, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model("edgekd:resnet-xs", classes=classes, input_shape=(1, 8, 8), args={"width": 0.25})


def same(one: nn.Module, other: nn.Module) -> bool:
    state = other.state_dict()
    return all(torch.equal(value, state[name]) for name, value in one.state_dict().items())


def refused(path: Path, match: str, module: nn.Module | None = None) -> None:
    module = module or make(seed=1)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(BadModel, match=match) as error:
        load_weights(module, path)
    assert error.value.where == str(path)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items()), "half loaded"


def test_there_and_back(tmp_path: Path) -> None:
    save_weights(make(), tmp_path / "w.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]
    module = make(seed=1)
    assert not same(module, make())
    load_weights(module, tmp_path / "w.safetensors")
    assert same(module, make())


def test_shared_weights_are_saved(tmp_path: Path) -> None:
    save_weights(Tied(), tmp_path / "w.safetensors")
    load_weights(Tied(), tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"model_state_dict": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
        lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
        lambda state: {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")},
        lambda state: {key: value.half() if value.is_floating_point() else value for key, value in state.items()},
    ],
)
@pytest.mark.parametrize("old", [False, True], ids=["zip", "old pickle"])
def test_checkpoints(tmp_path: Path, wrap, old: bool) -> None:
    torch.save(wrap(make().state_dict()), tmp_path / "w.pt", _use_new_zipfile_serialization=not old)
    module = make(seed=1)
    load_weights(module, tmp_path / "w.pt")
    assert all(
        torch.allclose(value, make().state_dict()[name], atol=1e-3) for name, value in module.state_dict().items()
    )
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


class Payload:
    """What an attacker writes: unpickled, it would create the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("suffix", ["pt", "pth", "pkl", "bin", "safetensors"])
@pytest.mark.parametrize("form", ["torch", "old torch", "pickle", "inside a state dict"])
def test_a_pickle_is_refused_and_nothing_is_run(tmp_path: Path, suffix: str, form: str) -> None:
    owned, path = tmp_path / "owned", tmp_path / f"w.{suffix}"
    value = {"state_dict": make().state_dict() | {"x": Payload(owned)}} if form.startswith("inside") else Payload(owned)
    if form == "pickle":
        path.write_bytes(pickle.dumps(value))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=form != "old torch")
    refused(path, "refused: it holds more than weights|is not a safetensors file")
    assert not owned.exists()


def test_the_payload_is_real(tmp_path: Path) -> None:
    """Elsewhere it does run: the test above can fail."""
    torch.save(Payload(tmp_path / "owned"), tmp_path / "w.pt")
    code = f"import torch; torch.load({str(tmp_path / 'w.pt')!r}, weights_only=False)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert (tmp_path / "owned").exists()


def test_whole_modules_are_refused(tmp_path: Path) -> None:
    torch.save(make(), tmp_path / "w.pt")
    refused(tmp_path / "w.pt", r"refused[\s\S]*safetensors\.torch\.save_file")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\3\4 broken zip", b"\x80\x05broken pickle"])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_damaged_files(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"w.{suffix}").write_bytes(content)
    refused(tmp_path / f"w.{suffix}", "is damaged|is not a safetensors file")


def test_truncated_files(tmp_path: Path) -> None:
    save_weights(make(), tmp_path / "w.safetensors")
    torch.save(make().state_dict(), tmp_path / "w.pt")
    for name in ("w.safetensors", "w.pt"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-500])
        refused(tmp_path / name, "is damaged|is not a safetensors file")


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere.pt", "there is no such weights file")


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, torch.zeros(3), {0: torch.zeros(3)}])
def test_no_mapping_of_names_to_tensors(tmp_path: Path, value) -> None:
    torch.save(value, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "holds no mapping of names to tensors")


def test_keys_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = make().state_dict()
    state["extra.weight"] = torch.zeros(2)
    del state["stem.0.weight"]
    state["head.linear.bias"] = torch.zeros(3)
    save_file(state, tmp_path / "w.safetensors")
    refused(
        tmp_path / "w.safetensors",
        r"missing: stem\.0\.weight; not in the model: extra\.weight; "
        r"other shapes: head\.linear\.bias is \(3,\), the model wants \(10,\)",
    )


def test_weights_of_other_classes(tmp_path: Path) -> None:
    save_weights(make(classes=7), tmp_path / "w.safetensors")
    refused(
        tmp_path / "w.safetensors", r"head\.linear\.weight is \(7, 16\), the model wants \(10, 16\)[\s\S]*same args and"
    )


def test_weights_of_another_network(tmp_path: Path) -> None:
    other = build_model("edgekd:dscnn-s", classes=10, input_shape=(1, 8, 8), args={})
    save_weights(other, tmp_path / "w.safetensors")
    refused(
        tmp_path / "w.safetensors",
        r"missing: stem\.0\.weight, .* and \d+ more; not in the model: 0\.0\.weight, 0\.1\.bias",
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    module = make()
    module.blocks[0].first[0].weight.data[1, 0, 0, 0] = value
    save_weights(module, tmp_path / "w.safetensors")
    refused(tmp_path / "w.safetensors", r"hold NaN or infinity: blocks\.0\.first\.0\.weight")
