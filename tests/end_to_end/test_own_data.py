"""A user's own data and models go through the whole job: odd spectrograms, image folders, no recipe file."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from fast_recipe import JOBS
from PIL import Image
from safetensors.torch import save_file

import edgekd
from edgekd.bundle import load_bundle
from edgekd.pipeline import build
from edgekd.stage import NoProgress

SPEECH = '''
import torch
from torch import nn
from torch.utils.data import TensorDataset


def make(samples=240, classes=3):
    """Spectrograms of one channel, 13 bands, 37 frames: each class has its own band of energy."""
    generator = torch.Generator().manual_seed(0)
    x = 0.3 * torch.randn(samples, 1, 13, 37, generator=generator)
    y = torch.arange(samples) % classes
    for index in range(samples):
        band = 1 + 4 * int(y[index])
        x[index, 0, band : band + 3] += 1.5
    cut = samples * 3 // 4
    return {
        "train": TensorDataset(x[:cut], y[:cut]),
        "test": TensorDataset(x[cut:], y[cut:]),
        "classes": ["low", "middle", "high"],
        "preprocess": {"layout": "none", "scale": 0.5},
    }


class Net(nn.Module):
    def __init__(self, classes, width):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, (3, 5), padding=(1, 2)), nn.BatchNorm2d(width), nn.ReLU6(),
            nn.AvgPool2d(2), nn.Conv2d(width, width, 3, stride=2), nn.BatchNorm2d(width), nn.Hardswish(),
        )
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.body(x).atan().mean((2, 3)))


def net(classes, width=16):
    return Net(classes, width)
'''
QUICK = {
    "distill": {"epochs": 5},
    "quantize": {"prefer": "size"},
    "measure": {"pairs": 4, "seconds": 0.1},
}


class Said(NoProgress):
    """Keeps the build's lines."""

    def __init__(self):
        self.lines = []

    def log(self, text):
        self.lines.append(text)


@pytest.fixture
def speech(tmp_path, monkeypatch):
    (tmp_path / "speech_of_mine.py").write_text(SPEECH)
    monkeypatch.delitem(sys.modules, "speech_of_mine", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    # What is found in a store is not told again.
    monkeypatch.setenv("EDGEKD_HOME", str(tmp_path / "home"))
    return tmp_path


# That the backends agree on such networks is told by their own tests (lower/test_behind_float.py).
@pytest.mark.parametrize(
    "names",
    [
        ["onnxruntime-cpu", "cuda"],
        pytest.param(["onnxruntime-cpu", "openvino-cpu", "cuda"], marks=pytest.mark.slow),
    ],
)
def test_spectrograms_with_own_data_teacher_and_student(speech, targets, names):
    from edgekd.recipe import Recipe

    recipe = Recipe.model_validate(
        {
            "name": "speech",
            "data": {"factory": "speech_of_mine:make", "args": {"samples": 320}, "batch_size": 16},
            "teacher": {"model": "speech_of_mine:net", "args": {"width": 32}, "epochs": 4},
            "student": {"model": "speech_of_mine:net"},
            **QUICK,
        }
    )
    said = Said()
    named = [targets[name] for name in names]
    result = build(recipe, named, out=speech / "dist", progress=said, jobs=JOBS)
    for row in result.bundles[:-1]:
        assert row["accuracy"]["compiled"] > 0.9
    bundle = load_bundle(result.bundles[0]["path"])
    # The network's arc tangent is no operator of the rules: it stays float, and that is told.
    assert bundle.manifest["quantization"]["without_rule"] == {"atan": 1}
    assert any("stay float: atan (1)" in line for line in said.lines)
    assert "atan (1)" in (bundle.path / "report.html").read_text()
    assert bundle.manifest["inputs"][0]["shape"] == [None, 1, 13, 37]
    assert bundle.manifest["labels"] == ["low", "middle", "high"]
    sample = np.zeros((1, 13, 37), np.float32)
    sample[0, 9:12] = 1.5
    assert edgekd.load(bundle.path).predict([sample])[0].label == "high"


def test_changed_code_of_the_users_is_another_key(speech):
    from edgekd.pipeline.context import code_digest

    before = code_digest("speech_of_mine:net")
    (speech / "speech_of_mine.py").write_text(SPEECH + "\n# changed\n")
    assert code_digest("speech_of_mine:net") != before


def test_an_image_folder_without_a_recipe_file(tmp_path, run_cli):
    """Three colours as classes; the teacher comes with weights, as users have it."""
    import torch

    from edgekd.models import build_model

    random = np.random.default_rng(0)
    for index, name in enumerate(("red", "green", "blue")):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for number in range(20):
            pixels = random.integers(0, 90, (40, 48, 3), dtype=np.uint8)
            pixels[..., index] += 120
            Image.fromarray(pixels).save(folder / f"{number}.png")
    torch.manual_seed(0)
    teacher = build_model("torchvision:resnet18", classes=3, input_shape=(3, 32, 32), args={})
    save_file(teacher.state_dict(), tmp_path / "teacher.safetensors")
    quick = ["distill.epochs=2", "quantize.prefer=size", "data.batch_size=16"]
    quick += ["data.preprocess={resize: {size: 36}, crop: [32, 32]}"]
    code, _, err = run_cli(
        *("build", "--teacher", "torchvision:resnet18", "--weights", tmp_path / "teacher.safetensors"),
        *("--data", tmp_path / "images", "--target", "jetson", "--out", tmp_path / "dist", "--jobs", JOBS),
        *[word for one in quick for word in ("--set", one)],
    )
    assert code == 0, err
    bundle = load_bundle(tmp_path / "dist" / "resnet18-jetson-orin")
    assert bundle.manifest["labels"] == ["blue", "green", "red"]
    assert bundle.manifest["preprocess"]["crop"] == [32, 32]
    assert bundle.manifest["reproduce"].startswith("edgekd build --teacher torchvision:resnet18")
