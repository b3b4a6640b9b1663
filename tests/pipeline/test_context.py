"""What stages share: samples that stand for a whole split, the user's code, models that answer with logits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.pipeline.context import Context
from edgekd.recipe import Recipe

OWN = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

calls = []


def make(samples=120, classes=4):
    "Sorted by class, as image folders are."
    calls.append(samples)
    y = torch.arange(samples) * classes // samples
    x = torch.randn(samples, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return {"train": TensorDataset(x, y), "test": TensorDataset(x, y), "classes": [str(n) for n in range(classes)]}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with code of the user's, from which the build is started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "code_of_mine", raising=False)
    (tmp_path / "code_of_mine.py").write_text(OWN)
    return tmp_path


def context(**parts: Any) -> Context:
    return Context(Recipe.model_validate({"data": {"factory": "code_of_mine:make"}} | parts), jobs=1)


@pytest.mark.parametrize("count", [4, 7, 30, 119])
def test_few_samples_of_sorted_data_are_of_every_class(own: Path, count: int) -> None:
    build = context()
    picked = build.picked("test", count)
    assert len(picked) == len(set(picked)) == count
    assert picked == sorted(picked)
    assert picked == context().picked("test", count)
    assert set(build.source.labels("test")[picked]) == {0, 1, 2, 3}


def test_few_samples_of_classes_in_turn_are_not_of_one_class(own: Path) -> None:
    (own / "code_of_mine.py").write_text(OWN.replace("* classes // samples", "% classes"))
    build = context()
    assert len(set(build.source.labels("test")[build.picked("test", 30)])) == 4


def test_no_more_samples_are_picked_than_there_are(own: Path) -> None:
    assert context().picked("test", 500) == list(range(120))


@pytest.mark.parametrize("held", [True, False])
def test_limited_batches_are_the_picked_samples(own: Path, monkeypatch: pytest.MonkeyPatch, held: bool) -> None:
    if not held:
        monkeypatch.setattr("edgekd.data.source.IN_MEMORY", 0)
    build = context()
    parts = list(build.batches("test", limit=50, size=16))
    assert [len(labels) for _, labels in parts] == [16, 16, 16, 2]
    x, y = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    rows = [build.source.sample("test", index) for index in build.picked("test", 50)]
    np.testing.assert_array_equal(x, np.stack([row[0].numpy() for row in rows]))
    assert (x.dtype, y.dtype) == (np.float32, np.int64)
    assert y.tolist() == [row[1] for row in rows]
    assert sum(len(labels) for _, labels in build.batches("test", size=50)) == 120


def test_a_users_factory_is_called_once(own: Path) -> None:
    build = context()
    assert len(build.fingerprint) == 64
    assert len(build.source.test) == 120  # type: ignore[arg-type]
    assert build.data_part()["fingerprint"] == context().fingerprint
    import code_of_mine  # type: ignore[import-not-found]

    assert code_of_mine.calls == [120, 120], "once for each of two builds"
