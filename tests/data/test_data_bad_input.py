"""Whatever can be wrong with data is told: what, where, what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import user_data
from user_data import image_folder, split

from edgekd.data import source as source_module
from edgekd.data.calibration import FEWEST, calibration_samples
from edgekd.data.load import load_data
from edgekd.data.source import DataSource
from edgekd.data.splits import Arrays
from edgekd.errors import BadData
from edgekd.recipe import DataConfig
from edgekd.target import CalibrationPolicy

POLICY = CalibrationPolicy(name="test", samples=20)


def factory(name: str, **args) -> DataSource:
    return load_data(DataConfig(factory=f"user_data:{name}", args=args), seed=0)


def told(error: pytest.ExceptionInfo[BadData]) -> str:
    assert error.value.remedy
    assert error.value.exit_code == 2
    assert "Traceback" not in str(error.value)
    return str(error.value)


SPOILT = {
    "nan": r"train\[17\]: the sample holds NaN or infinity",
    "infinity": r"train\[17\]: the sample holds NaN or infinity",
    "label": r"train\[17\]: label 3 is out of range: there are 3 classes, 0 to 2",
    "negative": r"train\[17\]: label -1 is out of range",
    "fraction": r"train\[0\]: the sample cannot be read: .*no whole number",
    "no pairs": r"train\[0\]: the sample cannot be read: ValueError: not enough values",
    "shape": r"train\[17\]: the sample has the shape \(1, 13, 39\), others have \(1, 13, 40\)",
    "text": r"train\[0\]: a sample is an array of numbers",
    "fails": r"train\[17\]: the sample cannot be read: RuntimeError: the microphone was off",
}


@pytest.mark.parametrize("held", [True, False], ids=["in memory", "through workers"])
@pytest.mark.parametrize("kind", SPOILT)
def test_samples(kind: str, held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not held:
        monkeypatch.setattr(source_module, "IN_MEMORY", 0)
    source = factory("spoilt", kind=kind)
    with pytest.raises(BadData, match=SPOILT[kind]) as error:
        list(source.loader("train", 8, shuffle=False))
    assert "user_data:spoilt" in told(error)


@pytest.mark.parametrize("kind", ["fraction", "no pairs", "fails"])
def test_samples_while_splitting(kind: str) -> None:
    """Without a validation split the labels are read at once."""
    whole = user_data.spoilt(kind)["train"]
    with pytest.raises(BadData, match=SPOILT[kind]) as error:
        factory("spectrograms", train=whole)
    told(error)


def test_one_label_alone() -> None:
    with pytest.raises(BadData, match="training samples have the label 1") as error:
        factory("spoilt", kind="one label").tensors("train")
    told(error)
    with pytest.raises(BadData, match="all 5 training samples have the label 2"):
        DataSource(
            train=Arrays(np.zeros((5, 3)), np.full(5, 2)),
            val=split(3),
            test=split(3),
            classes=["a", "b", "c"],
            preprocess={},
            name="same",
        )


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("not_a_mapping", "returned list, not a mapping"),
        ("lacking", "its mapping lacks test, classes"),
        ("raising", "RuntimeError: no network drive"),
        ("NOT_CALLABLE", "has no callable 'NOT_CALLABLE'"),
        ("nothing", "has no callable 'nothing'"),
    ],
)
def test_factories(name: str, match: str) -> None:
    with pytest.raises(BadData, match=match) as error:
        factory(name)
    assert f"user_data:{name}" in told(error)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"train": []}, "the train split is empty"),
        ({"test": []}, "the test split is empty"),
        ({"val": []}, "the val split is empty"),
        ({"classes": ["only"]}, r"the data has 1 class \(only\)"),
        ({"classes": []}, "the data has 0 class"),
        ({"classes": "abc"}, "classes is no list of names"),
        ({"train": iter([1])}, "train is a list_iterator, which cannot be indexed"),
        ({"preproces": {}}, "unknown key 'preproces'\n.*did you mean 'preprocess'"),
    ],
)
def test_mappings(changed: dict, match: str) -> None:
    with pytest.raises(BadData, match=match) as error:
        factory("spectrograms", **changed)
    told(error)


def test_no_such_module() -> None:
    with pytest.raises(BadData, match="there is no module 'no_such_module'"):
        load_data(DataConfig(factory="no_such_module:make"), seed=0)


def folder(path: Path) -> DataSource:
    return load_data(DataConfig(folder=str(path)), seed=0)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="there is no such folder") as error:
        folder(tmp_path / "nowhere")
    assert "nowhere" in told(error)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="has no class folders") as error:
        folder(tmp_path)
    told(error)


def test_images_without_classes(tmp_path: Path) -> None:
    image_folder(tmp_path, {".": 3})
    with pytest.raises(BadData, match="has no class folders"):
        folder(tmp_path)


def test_class_without_images(tmp_path: Path) -> None:
    image_folder(tmp_path, {"cat": 4})
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "notes.txt").write_text("none yet")
    with pytest.raises(BadData, match="has no images") as error:
        folder(tmp_path)
    assert "dog" in told(error)


def test_one_class(tmp_path: Path) -> None:
    image_folder(tmp_path, {"cat": 10})
    with pytest.raises(BadData, match=r"the data has 1 class \(cat\)") as error:
        folder(tmp_path)
    told(error)


def test_test_class_that_training_lacks(tmp_path: Path) -> None:
    image_folder(tmp_path, {"train/cat": 5, "train/dog": 5, "test/cat": 2, "test/cow": 2})
    with pytest.raises(BadData, match="the class 'cow' is not in the training folder") as error:
        folder(tmp_path)
    told(error)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n rest is missing"])
@pytest.mark.parametrize("held", [True, False], ids=["in memory", "through workers"])
def test_images_that_do_not_decode(tmp_path: Path, content: bytes, held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not held:
        monkeypatch.setattr(source_module, "IN_MEMORY", 0)
    image_folder(tmp_path, {"train/cat": 3, "train/dog": 3, "test/cat": 1, "val/dog": 1})
    (tmp_path / "train" / "dog" / "1.png").write_bytes(content)
    spec = {"layout": "hwc", "scale": 1 / 255, "mean": [0.5], "std": [0.5]}
    config = DataConfig(folder=str(tmp_path), preprocess=spec)
    with pytest.raises(BadData, match=r"1\.png: does not decode as an image") as error:
        list(load_data(config, seed=0).loader("train", 2, shuffle=False))
    assert str(tmp_path / "train" / "dog" / "1.png") in told(error)


def test_truncated_image(tmp_path: Path) -> None:
    image_folder(tmp_path, {"train/cat": 3, "train/dog": 3, "test/cat": 1})
    path = tmp_path / "train" / "cat" / "0.png"
    path.write_bytes(path.read_bytes()[:-150])
    source = folder(tmp_path)
    with pytest.raises(BadData, match="does not decode"):
        source.tensors("train"), source.tensors("val")


def test_images_of_several_sizes_without_a_resize(tmp_path: Path) -> None:
    from user_data import image

    image_folder(tmp_path, {"train/cat": 3, "train/dog": 3, "test/cat": 1, "val/dog": 1})
    image(tmp_path / "train" / "dog" / "1.png", (9, 9))
    config = DataConfig(folder=str(tmp_path), preprocess={"layout": "hwc", "mean": [0.5], "std": [0.5]})
    with pytest.raises(BadData, match=r"the sample has the shape \(3, 9, 9\), others have \(3, 10, 12\)") as error:
        load_data(config, seed=0).tensors("train")
    assert "resize" in told(error)


def test_too_few_calibration_samples() -> None:
    source = DataSource(
        train=split(FEWEST - 1), val=split(6), test=split(6), classes=["a", "b", "c"], preprocess={}, name="few"
    )
    with pytest.raises(BadData, match=f"has {FEWEST - 1} samples; calibration needs at least {FEWEST}") as error:
        calibration_samples(source, POLICY)
    told(error)
    enough = DataSource(
        train=split(FEWEST), val=split(6), test=split(6), classes=["a", "b", "c"], preprocess={}, name="enough"
    )
    assert len(calibration_samples(enough, POLICY)) == FEWEST


def test_nan_among_calibration_samples() -> None:
    with pytest.raises(BadData, match=r"train\[17\]: the sample holds NaN"):
        list(calibration_samples(factory("spoilt", kind="nan"), CalibrationPolicy(name="test", samples=40)))


def test_class_without_samples_to_validate_on(tmp_path: Path) -> None:
    image_folder(tmp_path, {"train/cat": 1, "train/dog": 1, "test/cat": 1})
    with pytest.raises(BadData, match="the val split is empty"):
        folder(tmp_path)
