"""What a user can get wrong: one message that says what, where and what to do, the right exit code, nothing left."""

from __future__ import annotations

import os
import pickle
import sys

import numpy as np
import pytest
import yaml
from fast_recipe import JOBS
from PIL import Image

from edgekd.errors import Missing

NAN = """
import torch
from torch.utils.data import TensorDataset


def make(bad="nan", samples=80):
    x = torch.randn(samples, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(samples) % 2
    if bad == "nan":
        x[5] = float("nan")
    if bad == "label":
        y[5] = 7
    return {"train": TensorDataset(x, y), "test": TensorDataset(x[:20], y[:20]), "classes": ["a", "b"]}


def seven():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 7))


def fails():
    raise RuntimeError("the disk of my own is away")
"""

NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, kind, classes, values):
        super().__init__()
        self.kind, self.fc = kind, nn.Linear(values, classes)

    def forward(self, x):
        x = x.flatten(1)
        if self.kind == "branch" and x.sum() > 0:
            x = -x
        if self.kind == "view":
            y = x.clone()
            y[:, :8].relu_()
            x = y
        if self.kind == "singular values":
            x = x + torch.linalg.svdvals(x.reshape(-1, 8, 8)).sum(1, keepdim=True)
        if self.kind == "mixing":
            x = x - x.mean(0)
        if self.kind == "not a number":
            x = torch.log(-1 - x.abs())
        if self.kind == "root":
            x = torch.sqrt(x)
        if self.kind == "random":
            x = nn.functional.dropout(x, 0.5)
        y = self.fc(x)
        if self.kind == "transposed":
            return y.t()
        if self.kind == "scalar":
            return y.sum()
        if self.kind == "squeezed":
            return y[:, None].squeeze()
        return y


def net(classes, kind="", values=64):
    return Net(kind, classes, values)
"""


# A student that is checked in a moment, where not the student is wrong.
SMALL = {"model": "bad_nets_of_mine:net"}


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Writes a recipe file in an own folder: ``recipe(data={...}, ...)`` is its path."""
    (tmp_path / "bad_data_of_mine.py").write_text(NAN)
    (tmp_path / "bad_nets_of_mine.py").write_text(NETS)
    monkeypatch.delitem(sys.modules, "bad_data_of_mine", raising=False)
    monkeypatch.delitem(sys.modules, "bad_nets_of_mine", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(**parts):
        value = {"data": {"name": "digits"}, "teacher": {"epochs": 1}, "distill": {"epochs": 1}} | parts
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(value))
        return path

    return write


def images(folder, classes=("a", "b"), count=12):
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(folder / name / f"{number}.png")
    return folder


def refused(run_cli, tmp_path, *arguments, code=2):
    """Runs a build that must fail; its message."""
    got, out, err = run_cli("build", *arguments, "--jobs", JOBS, "--out", tmp_path / "dist")
    assert got == code, err
    assert not (tmp_path / "dist").exists()
    assert out == ""
    return err


def test_missing_data_folder(run_cli, tmp_path, recipe):
    err = refused(run_cli, tmp_path, recipe(data={"folder": "nowhere"}))
    assert "nowhere" in err
    assert "data.folder" in err


def test_empty_data_folder(run_cli, tmp_path, recipe):
    (tmp_path / "empty").mkdir()
    assert "no class folders" in refused(run_cli, tmp_path, recipe(data={"folder": "empty"}))


def test_one_class_only(run_cli, tmp_path, recipe):
    images(tmp_path / "one", classes=("a",))
    assert "at least two classes" in refused(run_cli, tmp_path, recipe(data={"folder": "one"}))


def test_an_image_that_does_not_decode(run_cli, tmp_path, recipe):
    images(tmp_path / "images")
    (tmp_path / "images" / "a" / "3.png").write_bytes(b"no image")
    preprocess = {"resize": {"size": 8}, "crop": [8, 8]}
    student = SMALL | {"args": {"values": 3 * 8 * 8}}
    err = refused(run_cli, tmp_path, recipe(data={"folder": "images", "preprocess": preprocess}, student=student))
    assert "3.png" in err
    assert "does not decode" in err


@pytest.mark.parametrize(("bad", "told"), [("nan", "NaN"), ("label", "label 7 is out of range")])
def test_bad_samples_are_named(run_cli, tmp_path, recipe, bad, told):
    data = {"factory": "bad_data_of_mine:make", "args": {"bad": bad}}
    err = refused(run_cli, tmp_path, recipe(data=data, student=SMALL))
    assert told in err
    assert "[" in err  # which sample


def test_too_few_calibration_samples_are_told_before_training(run_cli, tmp_path, recipe):
    data = {"factory": "bad_data_of_mine:make", "args": {"bad": "", "samples": 14}}
    err = refused(run_cli, tmp_path, recipe(data=data))
    assert "calibration needs at least 16" in err
    assert "epoch" not in err


def test_a_users_code_that_fails(run_cli, tmp_path, recipe):
    err = refused(run_cli, tmp_path, recipe(data={"factory": "bad_data_of_mine:fails"}))
    assert "the disk of my own is away" in err
    assert "bad_data_of_mine:fails" in err


def test_divergence_says_at_which_step_and_keeps_the_checkpoint(run_cli, tmp_path, recipe):
    path = recipe(teacher={"epochs": 3, "lr": 1e30, "warmup_epochs": 0}, student=SMALL)
    err = refused(run_cli, tmp_path, path)
    assert "epoch" in err
    assert "step" in err


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"teacher": {"model": "torchvision:resnet19"}}, "resnet18"),
        ({"student": {"model": "edgekd:mobilenet-sx"}}, "mobilenet-xs"),
        ({"student": {"model": "no_such_module:net"}}, "no module"),
        ({"teacher": {"weights": "missing.safetensors"}}, "teacher.weights"),
    ],
)
def test_models_that_are_not_there_are_told_before_training(run_cli, tmp_path, recipe, part, told):
    err = refused(run_cli, tmp_path, recipe(**part))
    assert told in err
    assert "epoch 1" not in err


def test_weights_that_do_not_fit_name_the_keys(run_cli, tmp_path, recipe):
    import torch
    from safetensors.torch import save_file

    save_file({"stem.0.weight": torch.zeros(3)}, tmp_path / "w.safetensors")
    err = refused(run_cli, tmp_path, recipe(teacher={"model": "edgekd:resnet-s", "weights": "w.safetensors"}))
    assert "stem.0.weight" in err
    assert "missing" in err


def test_a_pickle_is_refused_and_nothing_is_executed(run_cli, tmp_path, recipe):
    (tmp_path / "w.pt").write_bytes(pickle.dumps(Payload(str(tmp_path / "executed"))))
    err = refused(run_cli, tmp_path, recipe(teacher={"model": "edgekd:resnet-s", "weights": "w.pt"}))
    assert "refused" in err
    assert not (tmp_path / "executed").exists()


def test_a_student_of_other_classes(run_cli, tmp_path, recipe):
    err = refused(run_cli, tmp_path, recipe(student={"model": "bad_data_of_mine:seven"}))
    assert "7 outputs, the data has 10 classes" in err
    assert "epoch 1" not in err


def test_a_model_that_does_not_take_the_samples(run_cli, tmp_path, recipe):
    err = refused(run_cli, tmp_path, recipe(teacher={"model": "torchvision:mobilenet_v3_small"}))
    assert "(1, 8, 8)" in err
    assert "channels" in err


@pytest.mark.parametrize(
    ("kind", "told", "remedy"),
    [
        ("branch", ["cannot trace it", 'if self.kind == "branch" and x.sum() > 0'], "torch.where"),
        ("view", ["relu_ writes into memory that other values share"], "out of place"),
        ("singular values", ["ONNX has no form of aten._linalg_svd"], "other operators"),
        ("transposed", ["float32 of the shape (10, 2) for 2 samples", "bad_nets_of_mine:net"], "keep the batch first"),
        ("scalar", ["float32 of the shape () for 2 samples"], "(batch, classes)"),
        ("squeezed", ["for one sample alone it returns float32 of the shape (10,)"], "x.flatten(1)"),
        ("mixing", ["depends on the other samples of its batch"], "dimension 0"),
        ("not a number", ["its answers to the data's samples are NaN or infinite"], "in its weights"),
        ("random", ["two answers to the same samples"], "self.training"),
    ],
)
def test_a_student_that_no_device_could_run_is_told_before_training(run_cli, tmp_path, recipe, kind, told, remedy):
    student = {"model": "bad_nets_of_mine:net", "args": {"kind": kind}}
    err = refused(run_cli, tmp_path, recipe(student=student))
    assert all(one in err for one in told), err
    assert remedy in err
    assert "epoch 1" not in err
    if kind in ("branch", "view", "singular values"):
        assert 'bad_nets_of_mine.py", line' in err


def test_a_network_that_noise_makes_nan_and_the_data_does_not(recipe):
    """Digits are not negative, as long as no mean is taken off."""
    from edgekd.pipeline.context import Context
    from edgekd.recipe import load_recipe

    data = {"name": "digits", "preprocess": {"mean": [0.0], "std": [1.0]}}
    path = recipe(student={"model": "bad_nets_of_mine:net", "args": {"kind": "root"}}, data=data)
    context = Context(load_recipe(str(path)), jobs=1)
    outputs = context.logits(context.model(context.recipe.student, None), "student")
    assert outputs.isfinite().all()


def test_a_transposed_output_of_as_many_samples_as_classes(run_cli, tmp_path, recipe):
    """With two classes and two samples it would pass for what it is not."""
    data = {"factory": "bad_data_of_mine:make", "args": {"bad": ""}}
    student = {"model": "bad_nets_of_mine:net", "args": {"kind": "transposed"}}
    err = refused(run_cli, tmp_path, recipe(data=data, student=student))
    assert "float32 of the shape (2, 3) for 3 samples" in err


def test_unknown_target(run_cli, tmp_path):
    err = refused(run_cli, tmp_path, "digits", "--target", "jetsonn")
    assert "did you mean 'jetson'" in err


def test_a_target_named_twice(run_cli, tmp_path):
    assert "twice" in refused(run_cli, tmp_path, "digits", "--target", "jetson", "--target", "jetson-orin")


def test_a_missing_runtime_is_exit_code_5_with_the_install_line(run_cli, tmp_path, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "openvino" else find(name, *rest)
    )
    err = refused(run_cli, tmp_path, "digits", "--target", "openvino-cpu", code=int(Missing.exit_code))
    assert 'pip install "edgekd[openvino]"' in err
