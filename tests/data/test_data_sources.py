"""Data sets by name, folder and factory; splits, fingerprints, augmentation, calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from user_data import idx, idx_folder, image, image_folder

from edgekd.data import source as source_module
from edgekd.data.augment import augment
from edgekd.data.calibration import calibration_samples
from edgekd.data.fingerprint import fingerprint
from edgekd.data.idx import DEBIAN, read_idx
from edgekd.data.load import load_data
from edgekd.data.source import DataSource
from edgekd.data.splits import Arrays, split_validation, stratified
from edgekd.errors import BadData
from edgekd.recipe import DataConfig
from edgekd.target import CalibrationPolicy


def sizes(source) -> tuple[int, ...]:
    return tuple(len(getattr(source, split)) for split in ("train", "val", "test"))


def factory(name: str):
    return load_data(DataConfig(factory=f"user_data:{name}"), seed=0)


def test_spectrograms_go_through_as_they_are() -> None:
    source = factory("spectrograms")
    assert source.input_shape == (1, 13, 40)
    assert sizes(source) == (37, 3, 12)
    assert source.classes == ["yes", "no", "stop"]
    x, y = source.tensors("test")
    assert x.shape == (12, 1, 13, 40)
    assert torch.equal(x[5], source.test[5][0])
    assert y.tolist() == [i % 3 for i in range(12)]
    assert np.array_equal(source.raw("test", [5])[0], source.test[5][0].numpy())


def test_factory_with_validation_and_preprocessing() -> None:
    assert sizes(factory("with_validation")) == (40, 10, 12)
    source = factory("waves")
    raw = source.raw("test", [2])[0]
    assert source.input_shape == (2, 50)
    assert np.allclose(source.tensors("test")[0][2].numpy(), (raw * 2 - 1) / 4, atol=1e-6)


def test_the_recipes_preprocessing_wins() -> None:
    spec = {"layout": "none", "scale": 3.0, "mean": [0.0], "std": [1.0]}
    source = load_data(DataConfig(factory="user_data:waves", preprocess=spec), seed=0)
    assert np.allclose(source.tensors("test")[0][2].numpy(), 3 * source.raw("test", [2])[0])
    digits = load_data(DataConfig(name="digits", preprocess=spec), seed=0)
    assert digits.sample("test", 0)[0].max() == 48


@pytest.mark.parametrize("held", [True, False])
def test_loader(held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    source = factory("spectrograms")
    if not held:
        monkeypatch.setattr(source_module, "IN_MEMORY", 0)
        assert source.tensors("train") is None
    batches = list(source.loader("train", 8, shuffle=False))
    assert [len(y) for _, y in batches] == [8, 8, 8, 8, 5]
    assert torch.cat([y for _, y in batches]).tolist() == source.labels("train").tolist()
    shuffled = [
        torch.cat(
            [y for _, y in source.loader("train", 8, shuffle=True, generator=torch.Generator().manual_seed(seed))]
        )
        for seed in (0, 0, 1)
    ]
    assert torch.equal(shuffled[0], shuffled[1])
    assert not torch.equal(shuffled[0], shuffled[2])
    assert sorted(shuffled[0].tolist()) == sorted(source.labels("train").tolist())


def test_digits() -> None:
    source = load_data(DataConfig(name="digits"), seed=0)
    assert sum(sizes(source)) == 1797
    assert sizes(source)[2] == pytest.approx(359, abs=5)
    assert source.input_shape == (1, 8, 8)
    x, y = source.tensors("train")
    assert abs(float(x.mean())) < 0.05
    assert float(x.std()) == pytest.approx(1, abs=0.05)
    assert np.bincount(y).min() > 100
    # The test set is the same for every seed, the validation split is not.
    other = load_data(DataConfig(name="digits"), seed=1)
    assert other.test.indices == source.test.indices
    assert other.val.indices != source.val.indices


@pytest.mark.parametrize("counts", [{"cat": 20, "dog": 30}, {"train/cat": 20, "train/dog": 30}])
def test_folder_without_a_test_set(tmp_path: Path, counts: dict) -> None:
    source = load_data(DataConfig(folder=str(image_folder(tmp_path, counts))), seed=0)
    assert source.classes == ["cat", "dog"]
    assert sizes(source) == (36, 4, 10)
    assert np.bincount(source.labels("test")).tolist() == [4, 6]
    assert source.input_shape == (3, 224, 224)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"test/cat": 3, "test/dog": 2}, (45, 5, 5)),
        ({"test/cat": 3, "val/dog": 2}, (50, 2, 3)),
        ({"val/cat": 3, "val/dog": 2}, (40, 5, 10)),
    ],
)
def test_folder_with_splits(tmp_path: Path, more: dict, expected: tuple) -> None:
    image_folder(tmp_path, {"train/cat": 20, "train/dog": 30} | more)
    (tmp_path / "train" / ".cache").mkdir()
    source = load_data(DataConfig(folder=str(tmp_path)), seed=0)
    assert sizes(source) == expected
    assert source.classes == ["cat", "dog"]
    paths = [{str(rows[0]) for rows in _rows(getattr(source, split))} for split in ("train", "val", "test")]
    assert not paths[0] & paths[1]
    assert not paths[0] & paths[2]
    assert not paths[1] & paths[2]
    assert sum(map(len, paths)) == sum(expected)


def _rows(dataset) -> list:
    if hasattr(dataset, "rows"):
        return dataset.rows
    rows = _rows(dataset.dataset)
    return [rows[i] for i in dataset.indices]


def test_grey_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 8, "b": 8})
    image(tmp_path / "a" / "0.png", mode="L")
    image(tmp_path / "b" / "0.png", mode="RGBA")
    source = load_data(DataConfig(folder=str(tmp_path)), seed=0)
    shapes = {source.raw(split, [i])[0].shape for split in ("train", "val", "test") for i in range(sizes(source)[1])}
    assert shapes == {(10, 12, 3)}


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_fashion_mnist_from_a_folder(tmp_path: Path, suffix: str) -> None:
    source = load_data(DataConfig(name="fashion-mnist", path=str(idx_folder(tmp_path, suffix=suffix))), seed=0)
    assert sizes(source) == (50, 10, 20)
    assert source.input_shape == (1, 28, 28)
    assert source.classes[0] == "T-shirt/top"
    raw = source.raw("test", [3])[0]
    assert (raw.dtype, raw.shape) == (np.uint8, (1, 28, 28))
    assert np.allclose(source.sample("test", 3)[0], (raw / 255 - 0.286) / 0.353, atol=1e-6)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed")
def test_fashion_mnist_from_debian() -> None:
    source = load_data(DataConfig(name="fashion-mnist"), seed=0)
    assert sizes(source) == (55_000, 5_000, 10_000)
    assert np.bincount(source.labels("test")).tolist() == [1000] * 10
    assert np.bincount(source.labels("val")).tolist() == [500] * 10
    images = np.stack(source.raw("train", range(2000))) / 255
    assert images.mean() == pytest.approx(0.286, abs=0.01)


def test_damaged_idx(tmp_path: Path) -> None:
    idx_folder(tmp_path)
    config = DataConfig(name="fashion-mnist", path=str(tmp_path))
    path = tmp_path / "t10k-images-idx3-ubyte"
    whole = path.read_bytes()
    for content in (b"", whole[:-5], b"\0\0\x0d\1" + whole[4:], b"PK" + whole):
        path.write_bytes(content)
        with pytest.raises(BadData, match=r"t10k-images.*cannot be read as IDX"):
            load_data(config, seed=0)
    path.unlink()
    with pytest.raises(BadData, match="there is no t10k-images-idx3-ubyte"):
        load_data(config, seed=0)
    idx(path, np.zeros((19, 28, 28)))
    with pytest.raises(BadData, match="these do not belong together"):
        load_data(config, seed=0)
    idx(path, np.zeros(20))
    with pytest.raises(BadData, match="these do not belong together"):
        load_data(config, seed=0)


def test_damaged_gzip(tmp_path: Path) -> None:
    idx_folder(tmp_path, suffix=".gz")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BadData, match="cannot be read as IDX"):
        read_idx(path)


@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=80).map(np.array),
    share=st.floats(0.01, 0.9),
    seed=st.integers(0, 9),
)
def test_stratified_splits_are_disjoint_and_whole(labels: np.ndarray, share: float, seed: int) -> None:
    rest, taken = stratified(labels, share, seed)
    assert sorted([*rest, *taken]) == list(range(len(labels)))
    for label in np.unique(labels):
        count, mine = int((labels == label).sum()), int((labels[taken] == label).sum())
        assert mine == (max(1, round(share * count)) if count > 1 else 0)
    again = stratified(labels, share, seed)
    assert np.array_equal(again[0], rest)


@given(labels=st.lists(st.integers(0, 3), min_size=2, max_size=60).map(np.array), seed=st.integers(0, 5))
def test_validation_is_never_trained_on(labels: np.ndarray, seed: int) -> None:
    dataset = Arrays(np.arange(len(labels))[:, None], labels)
    train, val = split_validation(dataset, labels, seed)
    seen = [{int(part[i][0][0]) for i in range(len(part))} for part in (train, val)]
    assert not seen[0] & seen[1]
    assert seen[0] | seen[1] == set(range(len(labels)))
    assert all(part[i][1] == part.labels[i] for part in (train, val) for i in range(len(part)))


def test_large_validation_splits_are_capped() -> None:
    labels = np.arange(200_000) % 10
    train, val = split_validation(Arrays(labels[:, None], labels), labels, 0)
    assert (len(train), len(val)) == (195_000, 5_000)


def test_fingerprint_of_a_folder(tmp_path: Path) -> None:
    config = DataConfig(folder=str(image_folder(tmp_path, {"cat": 3, "dog": 3})))
    first = fingerprint(config, seed=0)
    assert fingerprint(config, seed=0) == first
    path = tmp_path / "cat" / "1.png"
    kept = path.read_bytes()
    image(path, seed=77)
    changed = fingerprint(config, seed=0)
    path.write_bytes(kept)
    assert fingerprint(config, seed=0) == first
    path.rename(tmp_path / "dog" / "9.png")
    moved = fingerprint(config, seed=0)
    assert len({first, changed, moved}) == 3


def test_fingerprint_is_of_the_files_that_are_read(tmp_path: Path) -> None:
    """A class may be a link to where the images are; what lies beside the images is not data."""
    elsewhere = image_folder(tmp_path / "elsewhere", {"dog": 3}) / "dog"
    folder = image_folder(tmp_path / "images", {"cat": 3})
    (folder / "dog").symlink_to(elsewhere)
    config = DataConfig(folder=str(folder))
    first = fingerprint(config, seed=0)
    for stray in ("notes.txt", "cat/Thumbs.db", ".cache/x.png"):
        (folder / stray).parent.mkdir(exist_ok=True)
        (folder / stray).write_text("not data")
    assert fingerprint(config, seed=0) == first
    image(elsewhere / "1.png", seed=77)
    assert fingerprint(config, seed=0) != first


def test_fingerprint_leaves_out_what_is_beside_the_splits(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    image_folder(folder / "train", {"cat": 3, "dog": 3})
    config = DataConfig(folder=str(folder))
    first = fingerprint(config, seed=0)
    image_folder(folder / "originals", {"cat": 1})
    assert fingerprint(config, seed=0) == first
    image_folder(folder / "test", {"cat": 1, "dog": 1})
    assert fingerprint(config, seed=0) != first


def test_fingerprint_tells_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    folder = image_folder(tmp_path, {"cat": 3, "dog": 3})
    (folder / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(BadData, match=r"gone\.png: cannot be read: No such file"):
        fingerprint(DataConfig(folder=str(folder)), seed=0)


def test_fingerprint_of_a_factory() -> None:
    def of(**args) -> str:
        return fingerprint(DataConfig(factory="user_data:spectrograms", args=args), seed=0)

    assert of() == of()
    different = [
        of(),
        of(classes=["yes", "no", "go"]),
        of(preprocess={"layout": "none", "scale": 2.0}),
        fingerprint(DataConfig(factory="user_data:with_validation"), seed=0),
        fingerprint(DataConfig(factory="user_data:waves"), seed=0),
    ]
    assert len(set(different)) == len(different)


def test_fingerprint_of_named_sets(tmp_path: Path) -> None:
    digits = fingerprint(DataConfig(name="digits"), seed=0)
    assert digits == fingerprint(DataConfig(name="digits"), seed=3)
    config = DataConfig(name="fashion-mnist", path=str(idx_folder(tmp_path)))
    first = fingerprint(config, seed=0)
    idx(tmp_path / "train-labels-idx1-ubyte", np.arange(60)[::-1] % 10)
    assert fingerprint(config, seed=0) != first != digits
    with pytest.raises(BadData, match="no such folder"):
        fingerprint(DataConfig(folder=str(tmp_path / "nowhere")), seed=0)


NAMES = st.lists(st.sampled_from(["flip", "shift", "cutout"]), unique=True)


@settings(deadline=None)
@given(names=NAMES, seed=st.integers(0, 99), height=st.integers(1, 9), width=st.integers(1, 9))
def test_augmentation_depends_on_its_generator_alone(names: list[str], seed: int, height: int, width: int) -> None:
    x = torch.arange(4.0 * 2 * height * width).reshape(4, 2, height, width) + 1
    before = x.clone()
    results = [augment(x, names, torch.Generator().manual_seed(seed)) for _ in range(2)]
    assert torch.equal(*results)
    assert torch.equal(x, before)
    assert results[0].shape == x.shape
    for one, old in zip(results[0], x, strict=True):
        # Pixels move whole, channels together; cutout writes zeros.
        pixels = {tuple(pixel) for pixel in old.flatten(1).T.tolist()} | {(0.0, 0.0)}
        assert {tuple(pixel) for pixel in one.flatten(1).T.tolist()} <= pixels
        if "cutout" not in names:
            assert (one > 0).all()


def test_augmentations_do_what_they_say() -> None:
    x = torch.rand(400, 3, 20, 20) + 0.1
    flipped = augment(x, ["flip"], torch.Generator().manual_seed(0))
    mirrored = torch.tensor([torch.equal(a, b.flip(2)) for a, b in zip(flipped, x, strict=True)])
    same = torch.tensor([torch.equal(a, b) for a, b in zip(flipped, x, strict=True)])
    assert (mirrored | same).all()
    assert 150 < int(mirrored.sum()) < 250
    cut = augment(x, ["cutout"], torch.Generator().manual_seed(0)) == 0
    assert cut.flatten(1).sum(1).max() == 3 * 5 * 5
    assert (cut.any(1).flatten(1).sum(1) > 0).all()
    shifted = augment(x, ["shift"], torch.Generator().manual_seed(0))
    assert not torch.equal(shifted, x)
    assert torch.equal(augment(x[:, 0], ["flip", "shift", "cutout"], torch.Generator()), x[:, 0]), "no images"


def drawn(source: DataSource, policy: CalibrationPolicy) -> torch.Tensor:
    return torch.cat(list(calibration_samples(source, policy)))


def test_calibration_takes_the_classes_in_turn() -> None:
    source = load_data(DataConfig(name="digits"), seed=0)
    policy = CalibrationPolicy(name="test", samples=50)
    x = drawn(source, policy)
    assert x.shape == (50, 1, 8, 8)
    held, labels = source.tensors("train")
    found = [int(labels[(held == one).flatten(1).all(1).nonzero()[0, 0]]) for one in x]
    assert np.bincount(found).tolist() == [5] * 10
    assert torch.equal(drawn(source, policy), x)
    other = drawn(source, policy.model_copy(update={"seed": 1}))
    assert not torch.equal(other, x)
    loose = drawn(source, policy.model_copy(update={"class_balanced": False, "samples": 10_000}))
    assert len(loose) == len(held)
